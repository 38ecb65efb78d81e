import json
import shutil

import numpy as np
import pytest
import tiny_run

from fmseg.errors import NotReady
from fmseg.imaging.decode import targets_from_labels
from fmseg.imaging.measure import read_facts
from fmseg.imaging.prepare import prepare_label
from fmseg.imaging.readers import read_label
from fmseg.inference.cost import gflop_of
from fmseg.inference.out_of_fold import restored_labels, save_scores, score_cases
from fmseg.inference.probabilities import load_probabilities, save_probabilities
from fmseg.records.dataset import Dataset
from fmseg.records.plans import Fold
from fmseg.records.run import RunConfig, RunFolder
from fmseg.records.scores import Scores
from fmseg.records.seen import Seen
from fmseg.records.selection import Selection
from fmseg.stages.find_best import find_best
from fmseg.stages.fingerprint import fingerprint
from fmseg.workspace import Workspace

NAME = "Dataset501_Discs"
NAMES = [f"p{i}" for i in range(12)]
FOLDS = [Fold(train=tuple(NAMES[6:]), val=tuple(NAMES[:6])), Fold(train=tuple(NAMES[:6]), val=tuple(NAMES[6:]))]


@pytest.fixture
def workspace(tmp_path):
    place = Workspace(tmp_path / "raw", tmp_path / "prepared", tmp_path / "results")
    tiny_run.write_dataset(place.raw_dataset(NAME), NAMES)
    place.prepared(NAME).mkdir(parents=True)
    splits = [fold.model_dump(mode="json") for fold in FOLDS]
    (place.prepared(NAME) / "splits_final.json").write_text(json.dumps(splits))
    return place


def write_recipe(workspace, recipe, *, noise, seed, speck=False, **plan_changes):
    """Write two finished folds whose predictions are the truth plus noise, and a false speck if asked."""
    rng = np.random.default_rng(seed)
    cases = {case.name: case for case in Dataset.load(workspace.raw_dataset(NAME)).training_cases()}
    for number, fold in enumerate(FOLDS):
        folder = workspace.results_of(NAME) / f"{recipe}__plans" / f"fold_{number}"
        run = tiny_run.config(fold=number, cases=fold)
        run = run.evolve(plans=tiny_run.plans(**plan_changes).model_dump(mode="json"))
        run.save(folder / "run.json")
        for name in fold.val:
            labels = prepare_label(*read_label(cases[name].label), tiny_run.PREPROCESSING)
            if speck:
                labels[0, 2, 2] = 1
            truth = targets_from_labels(labels, tiny_run.SCHEME).astype(float)
            foreground = np.clip(0.25 + 0.5 * truth[1] + rng.normal(0, noise, truth[1].shape), 0, 1)
            save_probabilities(folder / "validation" / f"{name}.prob", np.stack([1 - foreground, foreground]))
        scores = score_cases(
            [cases[name] for name in fold.val],
            lambda case, shape, at=folder, run=run: restored_labels(
                load_probabilities(at / "validation" / f"{case.name}.prob"), shape, run
            ),
            tiny_run.SCHEME,
            patients={},
        )
        files = {name: (cases[name].label, folder / "validation" / f"{name}.prob") for name in fold.val}
        save_scores(scores, folder / "validation", tiny_run.SCHEME, files)
        RunFolder(folder).finish({})


def test_one_clean_recipe_is_taken_as_it_is(workspace):
    write_recipe(workspace, "upernet", noise=0.05, seed=0)
    selection = find_best(workspace, NAME)
    assert [(m.runs, m.folds, m.weight) for m in selection.members] == [("upernet__plans", (0, 1), 1)]
    assert selection.clean_up == ()
    assert selection.seen == Seen(num_cases=12, training=0, pretraining=0, unknown=0)
    assert Selection.load(workspace.results_of(NAME) / "selection.json") == selection
    pooled = Scores.load(workspace.results_of(NAME) / "out_of_fold" / "scores.json")
    assert len(pooled.cases) == 12 and pooled.foreground_dice == selection.score


def test_pixel_sizes_that_only_a_table_knows_are_no_hindrance(workspace):
    rows = "".join(f"{name},0.2\n" for name in NAMES)
    (workspace.raw_dataset(NAME) / "spacings.csv").write_text(f"case,spacing_mm\n{rows}")
    by_spacing = tiny_run.PREPROCESSING.evolve(size_mode="spacing", spacing_mm=(0.3, 0.3)).model_dump(mode="json")
    write_recipe(workspace, "upernet", noise=0.05, seed=0, preprocessing=by_spacing)
    find_best(workspace, NAME)
    assert Scores.load(workspace.results_of(NAME) / "out_of_fold" / "scores.json").distance_unit == "mm"


def test_folds_of_different_settings_are_not_one_recipe(workspace):
    write_recipe(workspace, "upernet", noise=0.05, seed=0)
    write_recipe(workspace, "linear", noise=0.4, seed=0)
    path = workspace.results_of(NAME) / "upernet__plans" / "fold_1" / "run.json"
    quick = RunConfig.load(path)
    quick.evolve(recipe=quick.recipe.evolve(iterations=7).model_dump(mode="json")).save(path)
    assert [member.runs for member in find_best(workspace, NAME).members] == ["linear__plans"]
    shutil.rmtree(workspace.results_of(NAME) / "linear__plans")
    with pytest.raises(NotReady, match=r"fold_1: trained with other settings than fold_0 \(iterations 1, now 7\)"):
        find_best(workspace, NAME)


def test_the_better_recipe_wins_and_both_are_listed_best_first(workspace):
    write_recipe(workspace, "linear", noise=1.0, seed=0)
    write_recipe(workspace, "upernet", noise=0.02, seed=1)
    selection = find_best(workspace, NAME)
    assert [member.runs for member in selection.members] == ["upernet__plans"]
    dice = [candidate.score.mean for candidate in selection.candidates]
    assert dice == sorted(dice, reverse=True) and selection.candidates[0].name == "upernet__plans"
    assert all(
        candidate.score.low <= candidate.score.mean <= candidate.score.high for candidate in selection.candidates
    )


def test_independent_errors_are_averaged_away(workspace):
    for seed, recipe in enumerate(("linear", "unet", "upernet")):
        write_recipe(workspace, recipe, noise=0.4, seed=seed)
    selection = find_best(workspace, NAME)
    assert len(selection.members) > 1
    single = max(c.score.mean for c in selection.candidates if " + " not in c.name)
    assert selection.score.mean > single + 0.02
    assert "kept" in selection.because
    assert len(find_best(workspace, NAME, max_models=1).members) == 1


def test_recipes_of_other_plans_compete_but_are_not_averaged(workspace):
    write_recipe(workspace, "linear", noise=0.4, seed=0)
    write_recipe(workspace, "upernet", noise=0.4, seed=1, mirror_axes=[])
    selection = find_best(workspace, NAME)
    assert len(selection.members) == 1 and len(selection.candidates) == 2


def test_a_false_speck_is_cleaned_up_and_the_figure_says_so(workspace):
    write_recipe(workspace, "upernet", noise=0.02, seed=0, speck=True)
    selection = find_best(workspace, NAME)
    assert [rule.output for rule in selection.clean_up] == ["disc"]
    assert selection.clean_up[0].rule in ("largest_component", "remove_small")
    assert selection.score.mean > selection.candidates[0].score.mean


def test_choosing_twice_gives_the_same_bytes(workspace):
    write_recipe(workspace, "linear", noise=0.4, seed=0)
    write_recipe(workspace, "upernet", noise=0.4, seed=1)
    find_best(workspace, NAME)
    path = workspace.results_of(NAME) / "selection.json"
    first = path.read_bytes()
    find_best(workspace, NAME)
    assert path.read_bytes() == first


def test_weights_that_were_chosen_by_the_scored_cases_are_told(workspace, caplog):
    write_recipe(workspace, "early", noise=0.05, seed=0)
    for path in workspace.results_of(NAME).glob("early__plans/fold_*/run.json"):
        config = tiny_run.RunConfig.load(path)
        config.evolve(recipe=config.recipe.evolve(patience=2).model_dump(mode="json")).save(path)
    said = find_best(workspace, NAME).because
    assert "early__plans" in caplog.text and "too high" in caplog.text and "too high" in said
    for path in workspace.results_of(NAME).glob("early__plans/fold_*/run.json"):
        config = tiny_run.RunConfig.load(path)
        config.evolve(watched=config.cases.train[:1]).save(path)
    assert "too high" not in find_best(workspace, NAME).because


def test_a_missing_fold_names_its_command(workspace):
    with pytest.raises(NotReady, match="fmseg train 501"):
        find_best(workspace, NAME)
    write_recipe(workspace, "upernet", noise=0.1, seed=0)
    (workspace.results_of(NAME) / "upernet__plans" / "fold_1" / "finished.json").unlink()
    with pytest.raises(NotReady, match="fmseg train 501 fold1 -r upernet"):
        find_best(workspace, NAME)
    write_recipe(workspace, "linear", noise=0.5, seed=0)
    assert [member.runs for member in find_best(workspace, NAME).members] == ["linear__plans"]


def test_runs_of_other_folds_are_left_out(workspace):
    write_recipe(workspace, "upernet", noise=0.1, seed=0)
    turned = [fold.model_dump(mode="json") for fold in reversed(FOLDS)]
    (workspace.prepared(NAME) / "splits_final.json").write_text(json.dumps(turned))
    with pytest.raises(NotReady, match="--fresh"):
        find_best(workspace, NAME)


def test_a_missing_raw_dataset_is_named(workspace):
    write_recipe(workspace, "upernet", noise=0.1, seed=0)
    shutil.rmtree(workspace.raw_dataset(NAME))
    with pytest.raises(NotReady, match=NAME):
        find_best(workspace, NAME)


def test_cases_that_were_pretrained_on_are_counted(workspace, caplog):
    write_recipe(workspace, "upernet", noise=0.05, seed=0)
    fingerprint(workspace, NAME, num_processes=0)
    facts = list(read_facts(workspace.prepared(NAME) / "cases.jsonl"))
    place = workspace.foundation("ultrasound", "one")
    init = tiny_run.write_foundation(place, "one", [fact.content_hash for fact in facts[:5]])
    for number, fold in enumerate(FOLDS):
        run = tiny_run.config(fold=number, cases=fold).evolve(init=init)
        run.save(workspace.results_of(NAME) / "upernet__plans" / f"fold_{number}" / "run.json")
    with caplog.at_level("INFO", logger="fmseg"):
        assert find_best(workspace, NAME).seen == Seen(num_cases=12, training=0, pretraining=5, unknown=0)
    assert "of 12 cases: 5 in pretraining, without their labels" in caplog.text
    shutil.rmtree(place)
    assert find_best(workspace, NAME).seen == Seen(num_cases=12, training=0, pretraining=0, unknown=12)
    # a choice of before says nothing of it
    path = workspace.results_of(NAME) / "selection.json"
    before = json.loads(path.read_text())
    del before["seen"]
    path.write_text(json.dumps(before))
    assert Selection.load(path).seen is None


def test_the_choice_says_what_it_costs(workspace):
    write_recipe(workspace, "linear", noise=1.0, seed=0)
    write_recipe(workspace, "upernet", noise=0.02, seed=1)
    selection = find_best(workspace, NAME)
    single = gflop_of(tiny_run.config())
    assert selection.cost == selection.candidates[0].cost
    assert selection.cost.num_networks == 2  # folds
    assert selection.cost.gflop == pytest.approx(2 * single, rel=1e-3)
    assert selection.cost.seconds == pytest.approx(2 * single / tiny_run.HARDWARE.gflops, rel=1e-2)
    assert "it takes 2 networks" in selection.because


def test_operations_are_counted_as_by_hand_and_mirroring_doubles_them():
    """The patch convolution, the block's four products, attention, and the linear decoder's four taps; 16 patches."""
    width, patches, tokens, hidden = 16, 16, 17, 32
    block = 2 * tokens * (3 * width**2 + width**2 + 2 * width * hidden) + 2 * 2 * tokens**2 * width
    convolution, decoder = 2 * patches * 64 * width, 4 * 2 * patches * width * 2
    plain = tiny_run.config()
    plain = plain.evolve(plans=plain.plans.evolve(mirror_axes=()).model_dump(mode="json"))
    assert gflop_of(plain) * 1e9 == pytest.approx(convolution + block + decoder, rel=1e-9)
    assert gflop_of(tiny_run.config()) == pytest.approx(2 * gflop_of(plain))


def test_how_far_folds_are_apart_is_told(workspace):
    write_recipe(workspace, "upernet", noise=0.3, seed=0)
    for number, dice in enumerate((0.8, 0.9)):
        RunFolder(workspace.results_of(NAME) / "upernet__plans" / f"fold_{number}").finish({"dice": dice})
    selection = find_best(workspace, NAME)
    assert selection.candidates[0].folds == (0.8, 0.9)
    assert "folds 0.800 to 0.900, standard deviation 0.071" in selection.because


def test_a_lead_within_the_noise_is_called_so(workspace):
    write_recipe(workspace, "one", noise=0.5, seed=0)
    write_recipe(workspace, "two", noise=0.5, seed=0)
    assert "is within the noise: 0% of the resamplings" in find_best(workspace, NAME).because
