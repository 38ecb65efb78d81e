import json

import pytest
import tiny_run

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
