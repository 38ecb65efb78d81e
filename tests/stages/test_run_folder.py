import json

import pytest
import tiny_run

from fmseg.errors import UsageError
from fmseg.records.run import Provenance, RunConfig, RunFolder


def run_with(deterministic):
    return tiny_run.config().evolve(provenance=Provenance.here(deterministic=deterministic))


@pytest.mark.parametrize(("now", "is_told"), [(True, False), (False, True)])
def test_a_run_goes_on_with_other_algorithms_and_says_so(tmp_path, caplog, now, is_told):
    run = RunFolder(tmp_path)
    run.claim(run_with(True))
    run.claim(run_with(now))
    assert ("began with deterministic algorithms, and goes on with fast ones" in caplog.text) == is_told
    assert RunConfig.load(tmp_path / "run.json").provenance.deterministic is True


def test_a_run_that_never_noted_its_algorithms_is_the_same_run(tmp_path, caplog):
    run = RunFolder(tmp_path)
    run.claim(run_with(True))
    path = tmp_path / "run.json"
    before = json.loads(path.read_text())
    del before["provenance"]["deterministic"]
    path.write_text(json.dumps(before))
    old = RunConfig.load(path)
    assert old.provenance.deterministic is None
    assert old.determining() == run_with(True).determining() == run_with(False).determining()
    run.claim(run_with(False))
    assert caplog.text == ""


def test_a_setting_that_one_run_leaves_at_its_default_is_named_too(tmp_path):
    run, other = tiny_run.config(), tiny_run.RECIPE.evolve(mixup=0.2, label_smoothing=0.1)
    for first, second in ((run.recipe, other), (other, run.recipe)):
        folder = RunFolder(tmp_path / f"{first.mixup}")
        folder.path.mkdir()
        folder.claim(run.evolve(recipe=first))
        with pytest.raises(UsageError, match=r"other settings \(recipe\.label_smoothing .*, recipe\.mixup .*\)"):
            folder.claim(run.evolve(recipe=second))
