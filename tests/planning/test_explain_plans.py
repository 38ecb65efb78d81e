import json
from pathlib import Path

import pytest

from fmseg.errors import UnknownName
from fmseg.planning.explain import compare_plans, explain_plans, planned_numbers
from fmseg.planning.overview import ONE_GPU, TWO_CORES, ladder_table, overview_table
from fmseg.planning.planner import Planner, plan, planners
from fmseg.records.plans import Plans
from fmseg.records.settings import apply_settings

PLANNING = Path(__file__).parents[2] / "docs" / "explanation" / "planning.md"
TASKS = ["segmentation", "classification", "unlabelled"]


@pytest.mark.parametrize("task", TASKS)
def test_every_number_has_one_reason_and_every_reason_a_number(make_plans, machine, task):
    plans = make_plans(machine, task=task)
    keys = [reason.key for reason in plans.because]
    assert len(keys) == len(set(keys))
    assert set(keys) == set(planned_numbers(plans))
    assert all(reason.because for reason in plans.because)


def test_every_number_is_told_with_its_value_and_a_way_to_change_it(make_plans):
    rows = {row.number: row for row in explain_plans(make_plans())}
    assert rows["pretraining.batch_size"].value == "64"
    assert rows["preprocessing.image_size"].value == "192, 272"
    assert "540x800" in rows["preprocessing.image_size"].because
    assert rows["pretraining.batch_size"].override == "fmseg pretrain --set batch_size=..."
    assert rows["finetuning.iterations"].override == "fmseg train 501 --set iterations=..."
    assert rows["predicted.pretraining_time"].value == "30 min"
    assert {"predicted.fold_time.upernet", "predicted.fold_time.unet"} <= set(rows)
    assert all(row.because and row.override for row in rows.values())


def test_a_fold_is_foretold_with_the_steps_that_its_network_gets(make_plans):
    rows = {row.number: row.value for row in explain_plans(make_plans(TWO_CORES, task="classification"))}
    assert rows["predicted.fold_time.finetune"] == rows["predicted.fold_time.resnet18"] == "10 min"
    rows = {row.number: row.value for row in explain_plans(make_plans(ONE_GPU, task="classification"))}
    assert "predicted.fold_time.resnet50" in rows


def test_settings_that_are_offered_are_settings(make_plans):
    plans = make_plans()
    parts = {"fmseg train 501 --set ": plans.finetuning, "fmseg pretrain --set ": plans.pretraining}
    numbers = planned_numbers(plans)
    for row in explain_plans(plans):
        for start, part in parts.items():
            if row.override.startswith(start):
                key = row.override.removeprefix(start).removesuffix("=...")
                if row.number in numbers:
                    assert apply_settings(part, {key: json.dumps(numbers[row.number])}) == part


def test_equal_plans_differ_in_nothing_and_others_in_what_was_changed(make_plans):
    plans = make_plans()
    assert compare_plans(plans, plans) == []
    changed = plans.evolve(pretraining=plans.pretraining.evolve(koleo_weight=0.2).model_dump(mode="json"))
    (row,) = compare_plans(changed, plans)
    assert row.number == "pretraining.koleo_weight"
    assert row.value == "0.2 (0.1 in Dataset501_Heads fmsegPlans)"


def test_plans_survive_the_disk(make_plans, tmp_path, machine):
    plans = make_plans(machine)
    plans.save(tmp_path / "plans.json")
    assert Plans.load(tmp_path / "plans.json") == plans
    assert plans == make_plans(machine)


def test_a_budget_changes_the_pretraining_alone(make_plans):
    short, long = make_plans(budget_s=600.0), make_plans(budget_s=6000.0)
    assert short.pretraining.iterations < long.pretraining.iterations
    assert short.preprocessing == long.preprocessing


def test_a_planner_can_be_plugged_in(fingerprint):
    class Hasty(Planner):
        def recipes(self):
            return ("linear",), "in a hurry"

    planners.add("hasty-test", Hasty)
    plans = plan(fingerprint(), None, TWO_CORES, ("B-mode",), planner="hasty-test")
    assert plans.recipes == ("linear",)
    assert plans.because[-2].because == "in a hurry"
    with pytest.raises(UnknownName, match="standard"):
        plan(fingerprint(), None, TWO_CORES, ("B-mode",), planner="standart")


def test_an_unlabelled_set_is_planned_for_pretraining_only(make_plans):
    plans = make_plans(ONE_GPU, labels=None, task="unlabelled", num_images=2_000_000)
    assert plans.finetuning is None
    assert plans.recipes == ()
    assert plans.pretraining.architecture.name == "vit_small"


@pytest.mark.parametrize("make_table", [overview_table, ladder_table])
def test_the_tables_of_the_documentation_are_what_the_code_plans(make_table):
    table = make_table()
    assert table in PLANNING.read_text(), f"docs/explanation/planning.md must hold this table:\n{table}"
