import dataclasses
import json
import random
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import fmseg.stages.preprocess as module
from fmseg.errors import BadData, EnvironmentProblem, NotReady
from fmseg.imaging.prepare import prepare, prepare_label
from fmseg.imaging.readers import read_case, read_label
from fmseg.records.dataset import Dataset
from fmseg.sampling.store import Store
from fmseg.stages.fingerprint import fingerprint
from fmseg.stages.preprocess import preprocess

NAME = "Dataset501_Discs"


def planned(workspace, tiny_plans, **changes):
    """Measure, plan, and return the plan."""
    plans = tiny_plans(fingerprint(workspace, NAME, num_processes=0), **changes)
    plans.save(workspace.prepared(NAME) / "plans.json")
    return plans


def content(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if not path.name.startswith(".")}


@pytest.mark.parametrize("options", [{}, {"ending": ".nii.gz"}, {"colour": "grey"}, {"colour": "rgb"}], ids=str)
def test_the_store_holds_every_case_prepared(raw_dataset, tiny_plans, options):
    workspace = raw_dataset(**options)
    plans = planned(workspace, tiny_plans)
    store = Store.open(preprocess(workspace, NAME, num_processes=0))
    cases = Dataset.load(workspace.raw_dataset(NAME)).training_cases()
    assert list(store.cases) == [files.name for files in cases] and store.has_labels
    for files in cases:
        case = read_case(files)
        images = prepare(case.voxels, case.geometry, plans.preprocessing)
        labels = prepare_label(read_label(files.label)[0], case.geometry, plans.preprocessing)
        for z, index in enumerate(store.cases[files.name]):
            np.testing.assert_array_equal(store.image(index), images[z])
            np.testing.assert_array_equal(store.label(index), labels[z])
    assert store.channels == plans.preprocessing.channels
    assert len(Store.of(workspace.prepared(NAME), plans)) == len(store)


def test_the_number_of_processes_does_not_change_a_byte(raw_dataset, tiny_plans):
    workspace = raw_dataset(num_patients=10)
    planned(workspace, tiny_plans)
    alone = content(preprocess(workspace, NAME, num_processes=0))
    other = dataclasses.replace(workspace, preprocessed=workspace.preprocessed.with_name("other"))
    planned(other, tiny_plans)
    assert content(preprocess(other, NAME, num_processes=2)) == alone


def test_a_finished_store_is_left_alone_until_plan_or_data_change(raw_dataset, tiny_plans):
    workspace = raw_dataset()
    plans = planned(workspace, tiny_plans)
    folder = preprocess(workspace, NAME, num_processes=0)
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    new_mean = plans.evolve(preprocessing=plans.preprocessing.evolve(mean=[0.4]).model_dump(mode="json"))
    assert preprocess(workspace, NAME, new_mean, num_processes=0) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times
    smaller = plans.evolve(preprocessing=plans.preprocessing.evolve(image_size=[16, 16]).model_dump(mode="json"))
    with pytest.raises(NotReady, match="another plan"):
        Store.of(workspace.prepared(NAME), smaller)
    assert Store.open(preprocess(workspace, NAME, smaller, num_processes=0)).sizes.max() == 16


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(raw_dataset, tiny_plans, monkeypatch):
    workspace = raw_dataset(task="unlabelled", num_patients=20)
    plans = planned(workspace, tiny_plans)
    whole = preprocess(workspace, NAME, num_processes=0)
    taken = sum(path.stat().st_size for path in whole.glob("images-*.bin"))
    smaller = plans.evolve(preprocessing=plans.preprocessing.evolve(image_size=[33, 33]).model_dump(mode="json"))

    def with_free(free):
        monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))

    with_free(taken // 2)
    with pytest.raises(EnvironmentProblem, match=r"need about \d.* kB, and .* are free.*--no-store") as caught:
        preprocess(workspace, NAME, smaller, num_processes=0)
    told = float(re.search(r"about ([\d.]+) kB", str(caught.value))[1]) * 1000
    assert not list(whole.glob("images-*.bin"))
    with_free(2 * told)  # less than uncompressed, more than compressed
    folder = preprocess(workspace, NAME, smaller, num_processes=0)
    written = sum(path.stat().st_size for path in folder.glob("images-*.bin"))
    assert written == pytest.approx(told, rel=0.1)


def test_each_missing_or_stale_step_is_named(raw_dataset, tiny_plans):
    workspace = raw_dataset()
    with pytest.raises(NotReady, match=f"fmseg plan -d {NAME}"):
        preprocess(workspace, NAME, num_processes=0)
    plans = planned(workspace, tiny_plans)
    with pytest.raises(NotReady, match="not preprocessed yet"):
        Store.of(workspace.prepared(NAME), plans)
    with pytest.raises(NotReady, match="made for other images"):
        preprocess(workspace, NAME, plans.evolve(content_hash="0" * 64), num_processes=0)
    path = workspace.raw_dataset(NAME) / "imagesTr" / "P01_1_0000.png"
    cv2.imwrite(str(path), np.zeros((48, 48), np.uint8))
    with pytest.raises(NotReady, match=r"1 cases were changed.*'P01_1'"):
        preprocess(workspace, NAME, num_processes=0)
    fingerprint(workspace, NAME, num_processes=0)
    with pytest.raises(NotReady, match="made for other images"):
        preprocess(workspace, NAME, num_processes=0)


def test_bad_files_of_an_unlabelled_set_are_left_out_and_listed(raw_dataset, tiny_plans):
    workspace = raw_dataset(task="unlabelled")
    folder = workspace.raw_dataset(NAME) / "imagesTr"
    (folder / "P01_0_0000.png").write_bytes(b"no picture")
    cv2.imwrite(str(folder / "P01_1_0000.png"), np.full((48, 48), 300, np.uint16))  # found out while preparing
    planned(workspace, tiny_plans)
    store = Store.open(preprocess(workspace, NAME, num_processes=0))
    assert len(store.cases) == 4 and not store.has_labels
    lines = (workspace.prepared(NAME) / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line)["case"] for line in lines] == ["P01_0_0000", "P01_1_0000"]
    assert "uint16" in lines[1]


def test_too_many_bad_files_end_the_work(raw_dataset, tiny_plans):
    workspace = raw_dataset(task="unlabelled", num_patients=12, images_per_patient=1)
    for path in sorted((workspace.raw_dataset(NAME) / "imagesTr").iterdir())[:11]:
        path.write_bytes(b"no picture")
    planned(workspace, tiny_plans)
    with pytest.raises(BadData, match="11 of 12 images cannot be used"):
        preprocess(workspace, NAME, num_processes=0)


def test_a_labelled_set_must_be_whole(raw_dataset, tiny_plans):
    workspace = raw_dataset()
    (workspace.raw_dataset(NAME) / "labelsTr" / "P00_1.png").unlink()
    planned(workspace, tiny_plans)
    with pytest.raises(BadData, match=r"P00_1_0000\.png: the label map of this image is missing"):
        preprocess(workspace, NAME, num_processes=0)


SLOW_RUN = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    import fmseg.sampling.store_writer as writing
    import fmseg.stages.preprocess as module
    from fmseg.workspace import Workspace

    original = module.read_case

    def slowly(*args, **options):
        time.sleep(0.02)
        return original(*args, **options)

    module.read_case, writing.FLUSH_SECONDS = slowly, 0.0
    module.preprocess(Workspace.find(Path(sys.argv[1])), sys.argv[2], num_processes=0)
    """
)


def kill_somewhere(command: list[str], journal: Path, after: int) -> None:
    """Run a command and kill it a random moment after its journal has ``after`` more lines than now."""
    wanted = after + (len(journal.read_bytes().splitlines()) if journal.exists() else 0)
    process = subprocess.Popen(command)
    while process.poll() is None and not (journal.exists() and len(journal.read_bytes().splitlines()) >= wanted):
        time.sleep(0.002)
    assert process.poll() is None, "it ended before it could be killed"
    time.sleep(random.uniform(0, 0.03))
    process.kill()
    process.wait()


def test_a_killed_preprocess_ends_in_the_same_bytes(raw_dataset, tiny_plans, tmp_path):
    workspace = raw_dataset(num_patients=8)
    plans = planned(workspace, tiny_plans)
    folder = preprocess(workspace, NAME, num_processes=0)
    wanted = content(folder)
    (folder / "store.json").write_text(json.dumps({"digest": "old"}))  # as left by another plan
    command = [sys.executable, "-c", SLOW_RUN, str(tmp_path), NAME]
    journal = folder / "journal.jsonl"
    random.seed(2)
    for after in (3, 4):
        kill_somewhere(command, journal, after)
    assert not (folder / "store.json").exists()
    preprocess(workspace, NAME, plans, num_processes=0)
    assert content(folder) == wanted


def test_a_set_that_has_grown_keeps_what_is_prepared(raw_dataset, tiny_plans, monkeypatch):
    workspace = raw_dataset(num_patients=10)
    planned(workspace, tiny_plans)
    folder = preprocess(workspace, NAME, num_processes=0)
    (old,) = folder.glob("images-*.bin")
    before = old.read_bytes()
    raw = workspace.raw_dataset(NAME)
    images, labels = raw / "imagesTr", raw / "labelsTr"
    (images / "P02_1_0000.png").unlink()
    (labels / "P02_1.png").unlink()
    cv2.imwrite(str(labels / "P03_0.png"), np.ones((48, 48), np.uint8))  # corrected by hand
    for case in ("P00_7", "P11_0"):
        cv2.imwrite(str(images / f"{case}_0000.png"), np.full((48, 48), 50, np.uint8))
        cv2.imwrite(str(labels / f"{case}.png"), np.ones((48, 48), np.uint8))
    read = []
    original = module.read_case
    monkeypatch.setattr(module, "read_case", lambda files, *rest: (read.append(files.name), original(files, *rest))[1])
    plans = planned(workspace, tiny_plans)
    store = Store.of(preprocess(workspace, NAME, num_processes=0).parent, plans)
    assert read == ["P00_7", "P03_0", "P11_0"]
    assert old.read_bytes() == before
    cases = Dataset.load(raw).training_cases()
    assert list(store.cases) == [files.name for files in cases]
    for files in cases:
        case = original(files)
        (index,) = store.cases[files.name]
        np.testing.assert_array_equal(store.image(index), prepare(case.voxels, case.geometry, plans.preprocessing)[0])
        np.testing.assert_array_equal(
            store.label(index), prepare_label(read_label(files.label)[0], case.geometry, plans.preprocessing)[0]
        )
