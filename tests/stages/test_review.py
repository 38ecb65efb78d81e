"""review: labels that are wrong come first."""

import csv
import json

import cv2
import numpy as np
import pytest
import tiny_run
from PIL import Image

from fmseg.cli.frame import type_command
from fmseg.errors import NotReady
from fmseg.imaging.decode import targets_from_labels
from fmseg.inference.out_of_fold_classes import CaseProbabilities
from fmseg.inference.out_of_fold_classes import save_probabilities as save_rows
from fmseg.inference.probabilities import save_probabilities
from fmseg.records.labels import ClassScheme
from fmseg.records.plans import Fold, Plans
from fmseg.records.run import RunFolder
from fmseg.sampling.store import Store
from fmseg.stages.review import review

NAME = "Dataset501_Discs"


def prepare(root) -> None:
    assert type_command("--root", str(root), "plan_and_preprocess", "-d", "501", "-np", "0") == 0


def write_folds(workspace, predict) -> None:
    """Write finished runs of both halves; predict: (store, cases, folder) writes their predictions."""
    folder = workspace.prepared(NAME)
    plans = Plans.load(folder / "plans.json")
    store = Store.of(folder, plans)
    names = list(store.cases)
    halves = (names[: len(names) // 2], names[len(names) // 2 :])
    for number in range(2):
        run = workspace.results_of(NAME) / "upernet__fmsegPlans" / f"fold_{number}"
        fold = Fold(train=tuple(halves[1 - number]), val=tuple(halves[number]))
        config = tiny_run.config(fold=number, cases=fold).evolve(plans=plans.model_dump(mode="json"))
        config.save(run / "run.json")
        predict(store, halves[number], run / "validation")
        RunFolder(run).finish({})


def test_a_label_map_that_misses_a_part_is_the_first_to_look_at(raw_dataset, tmp_path):
    workspace = raw_dataset(NAME, num_patients=6)
    wrong = workspace.raw_dataset(NAME) / "labelsTr" / "P03_1.png"
    label = cv2.imread(str(wrong), cv2.IMREAD_UNCHANGED)
    true = label.copy()
    label[:, : label.shape[1] // 2] = 0
    Image.fromarray(label).save(wrong)
    prepare(tmp_path)

    def predict(store, cases, folder):
        rng = np.random.default_rng(0)
        scheme = Plans.load(workspace.prepared(NAME) / "plans.json").labels
        for case in cases:
            labels = np.stack([store.label(index) for index in store.cases[case]])
            if case == "P03_1":
                labels = cv2.resize(true, labels.shape[:0:-1], interpolation=cv2.INTER_NEAREST)[None]
            sure = targets_from_labels(labels, scheme) * 0.8 + 0.2 / 3 + rng.normal(0, 0.01, (3, *labels.shape))
            save_probabilities(folder / f"{case}.prob", sure / sure.sum(axis=0))

    write_folds(workspace, predict)
    found = review(workspace, NAME)
    assert found.cases[0].case == "P03_1" and len(found.cases) == 12
    assert found.cases[0].doubt > 0.4 > 0.2 > found.cases[1].doubt
    rows = list(csv.DictReader(found.table.read_text().splitlines()))
    assert list(rows[0]) == ["rank", "case", "patient", "doubt", "Dice"] and rows[0]["patient"] == "P03"
    assert float(rows[0]["Dice"]) < 0.8 < float(rows[1]["Dice"])
    assert Image.open(found.sheet).width > 3 * 256
    assert review(workspace, NAME) == found


def test_a_wrong_class_is_the_first_to_look_at(raw_dataset, tmp_path, capsys):
    workspace = raw_dataset(NAME, num_patients=6, task="classification")
    table = workspace.raw_dataset(NAME) / "labelsTr.csv"
    table.write_text(table.read_text().replace("P02_0,even", "P02_0,odd"))
    prepare(tmp_path)

    def predict(store, cases, folder):
        scheme = ClassScheme(names=("even", "odd"), is_exclusive=True)
        odd = [0.9 if int(case[1:3]) % 2 else 0.2 for case in cases]
        rows = np.array([[1 - each, each] for each in odd])
        save_rows(folder / "probabilities.npz", CaseProbabilities(tuple(cases), scheme.names, rows))

    write_folds(workspace, predict)
    capsys.readouterr()
    assert type_command("--root", str(tmp_path), "review", "501", "-n", "2", "--json") == 0
    first, second = json.loads(capsys.readouterr().out.splitlines()[-1])["cases"]
    assert first[:3] == [1, "P02_0", "P02"] and first[4:] == ["odd", "even"]
    assert first[3] == pytest.approx(0.8) and second[3] == pytest.approx(0.2)


def test_before_training_there_is_nothing_to_review(raw_dataset, tmp_path):
    workspace = raw_dataset(NAME)
    with pytest.raises(NotReady, match="fmseg train 501"):
        review(workspace, NAME)
