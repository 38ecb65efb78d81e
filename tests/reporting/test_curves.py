import json
import math
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from fmseg.reporting.curves import PANELS, draw_progress, read_curves, smoothed


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


FINETUNING = [{"step": s, "loss": 1 / s, "ce": 0.5 / s, "dice": 1 - 1 / s, "learning_rate": 1e-3} for s in range(1, 60)]
PRETRAINING = [{"step": s, "loss": 9.0, "ibot": 2.0, "teacher_entropy": 3.0, "feature_std": 0.1} for s in (5, 10)]


@pytest.mark.parametrize("lines", [FINETUNING, PRETRAINING, [{"step": 1, "loss": 2.0}]])
def test_progress_is_a_picture_and_the_same_each_time(tmp_path, lines):
    metrics = write(tmp_path / "metrics.jsonl", [*lines, {"step": 60, "val_dice": 0.5}])
    draw_progress(metrics, tmp_path / "one.png")
    draw_progress(metrics, tmp_path / "two.png")
    data = (tmp_path / "one.png").read_bytes()
    picture = np.asarray(Image.open(BytesIO(data)).convert("RGB"))
    assert min(picture.shape[:2]) > 300 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 10
    assert data == (tmp_path / "two.png").read_bytes()


def test_nothing_is_drawn_before_the_first_line(tmp_path):
    draw_progress(tmp_path / "metrics.jsonl", tmp_path / "progress.png")
    assert not (tmp_path / "progress.png").exists()


def test_read_curves_leaves_out_what_is_not_finite(tmp_path):
    lines = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": math.nan, "val_dice": 0.5}, {"step": 3, "note": "x"}]
    curves = read_curves(write(tmp_path / "metrics.jsonl", lines))
    assert {name: [list(a) for a in curve] for name, curve in curves.items()} == {
        "loss": [[1], [2.0]],
        "val_dice": [[2], [0.5]],
    }


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("loss", "loss"),
        ("ibot", "loss"),
        ("dice_loss", "loss"),
        ("dice", "score"),
        ("val_dice", "score"),
        ("learning_rate", "learning rate"),
        ("teacher_entropy", "features"),
        ("rankme_cls", "effective dimensions"),
        ("probe_d501_dice", "probes"),
        ("images_per_s", "images a second"),
        ("grad_norm", "features"),
    ],
)
def test_each_quantity_has_one_panel(name, title):
    found = [panel for panel, belongs in PANELS if belongs(name)]
    assert len(found) == 1 and found[0].startswith(title)


def test_smoothing_keeps_constants_and_length():
    for length in (1, 3, 40, 1000):
        np.testing.assert_allclose(smoothed(np.full(length, 2.5)), np.full(length, 2.5))
    assert smoothed(np.random.default_rng(0).normal(size=1000)).std() < 0.3
