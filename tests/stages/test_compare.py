import numpy as np
import pytest
import tiny_run

from fmseg.cli.frame import type_command
from fmseg.cli.scoring_commands import short_names
from fmseg.errors import BadData, NotReady
from fmseg.inference.class_scoring import score_classes
from fmseg.inference.out_of_fold_classes import save_class_scores
from fmseg.records.plans import Fold
from fmseg.records.run import RunFolder
from fmseg.stages.compare import compare_runs
from fmseg.workspace import Workspace

NAME = "Dataset501_Discs"


def write(folder, fold, decided):
    """Scores of twenty cases of one fold, the even ones of which are of the second class."""
    labels = np.arange(20) % 2
    probabilities = np.eye(2)[decided] * 0.8 + 0.1
    cases = [f"case_{fold}_{index}" for index in range(20)]
    scores = score_classes(cases, probabilities, np.eye(2)[labels], tiny_run.CLASSES, patients={})
    save_class_scores(scores, folder)


@pytest.fixture
def workspace(tmp_path):
    place = Workspace(tmp_path / "raw", tmp_path / "prepared", tmp_path / "results")
    rng = np.random.default_rng(0)
    for recipe, faults in (("good", 1), ("bad", 9), ("alike", 1)):
        for fold in range(2):
            labels = np.arange(20) % 2
            wrong = rng.choice(20, faults, replace=False)
            labels[wrong] = 1 - labels[wrong]
            run = RunFolder(place.results_of(NAME) / f"{recipe}__plans" / f"fold_{fold}")
            write(run.validation, fold, labels)
            run.finish({})
    return place


def test_recipes_are_compared_over_all_of_their_folds(workspace):
    found = compare_runs(workspace, NAME, "bad", "good")
    assert found.num_cases == 40 and found.verdict("bad", "good").startswith("good is better")
    assert compare_runs(workspace, NAME, "good", "alike__plans").is_noise


def test_folders_that_were_evaluated_can_be_compared(workspace):
    folders = [workspace.results_of(NAME) / f"{name}__plans" / "fold_0" / "validation" for name in ("good", "bad")]
    assert compare_runs(workspace, NAME, *map(str, folders)).num_cases == 20


def test_scores_on_labels_that_were_mended_between_are_not_compared(workspace):
    for recipe, labels in (("good", "a"), ("bad", "b"), ("alike", "a")):
        for fold in range(2):
            cases = Fold(train=(f"x{fold}",), val=(f"y{fold}",))
            run = workspace.results_of(NAME) / f"{recipe}__plans" / f"fold_{fold}"
            tiny_run.class_config(cases=cases.model_dump(mode="json"), labels=labels).save(run / "run.json")
    assert compare_runs(workspace, NAME, "good", "alike").is_noise
    with pytest.raises(BadData, match=r"good and bad: .* other labels"):
        compare_runs(workspace, NAME, "good", "bad")


def test_what_is_not_trained_is_answered_with_the_nearest(workspace):
    with pytest.raises(NotReady, match="Did you mean 'good'"):
        compare_runs(workspace, NAME, "goood", "bad")


def test_the_command_says_it_in_words(workspace, capfd, monkeypatch):
    monkeypatch.setenv("fmseg_raw", str(workspace.raw))
    monkeypatch.setenv("fmseg_results", str(workspace.results))
    workspace.raw_dataset(NAME).mkdir(parents=True)
    assert type_command("compare", "501", "good", "alike") == 0
    assert "within the noise" in " ".join(capfd.readouterr().out.split())


@pytest.mark.parametrize(
    ("first", "second", "shown"),
    [
        ("/runs/n20/upernet/fold_0/validation", "/runs/n20/unet/fold_0/validation", ("upernet", "unet")),
        ("/runs/upernet/fold_0/validation", "/runs/unet/fold_1/validation", ("upernet/fold_0", "unet/fold_1")),
        ("/runs/upernet", "/runs/upernet/again", ("/runs/upernet", "/runs/upernet/again")),
        ("upernet", "/runs/unet/fold_0", ("upernet", "/runs/unet/fold_0")),
        ("upernet", "upernet", ("upernet", "upernet")),
    ],
)
def test_folders_are_shown_by_what_sets_them_apart(first, second, shown):
    assert short_names(first, second) == shown
