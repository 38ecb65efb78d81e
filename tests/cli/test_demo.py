"""The demo in small: what it types fits together, and what it points to is there."""

import json
from functools import partial

import pytest

from fmseg.cli import demo
from fmseg.imaging import phantoms
from fmseg.imaging.phantoms import Group


@pytest.mark.slow
def test_the_demo_ends_with_scores_pictures_and_where_to_look(tmp_path, monkeypatch, capsys):
    small = partial(phantoms.write_phantoms, training=Group("P", 6, 1), test=Group("T", 2, 1), corpus=Group("U", 4, 2))
    monkeypatch.setattr(phantoms, "write_phantoms", small)
    monkeypatch.setattr(demo, "QUICK", ("iterations=4", "batch_size=2", "decoder_channels=8", "validation_interval=2"))
    monkeypatch.setattr(demo, "PRETRAINING", "5s")
    story = demo.demo(tmp_path)
    assert {len(folds) for folds in story.dice.values()} == {demo.NUM_FOLDS}
    assert len(story.dice) == 2
    assert len(story.test.cases) == 2
    json.dumps(story.as_dict())
    for path, _ in story.places:
        assert path.stat().st_size > 0, path
    story.show()
    assert "Out-of-fold Dice" in capsys.readouterr().out
