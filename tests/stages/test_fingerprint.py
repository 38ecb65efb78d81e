import dataclasses
import json
import random
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import fmseg.stages.fingerprint as module
from fmseg.errors import BadData
from fmseg.imaging.measure import read_facts
from fmseg.imaging.readers import read_label
from fmseg.stages.fingerprint import fingerprint

NAME = "Dataset501_Discs"
FILES = ("cases.jsonl", "dataset_fingerprint.json")


def content(workspace) -> dict[str, bytes]:
    return {name: (workspace.prepared(NAME) / name).read_bytes() for name in FILES}


def elsewhere(workspace, name: str):
    return dataclasses.replace(workspace, preprocessed=workspace.preprocessed.with_name(name))


def pixels_of(folder: Path) -> list[np.ndarray]:
    return [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(folder.iterdir())]


def test_the_fingerprint_says_what_is_there(raw_dataset):
    workspace = raw_dataset()
    found = fingerprint(workspace, NAME, num_processes=0)
    folder = workspace.raw_dataset(NAME)
    images, labels = np.stack(pixels_of(folder / "imagesTr")), np.stack(pixels_of(folder / "labelsTr"))
    assert (found.num_cases, found.num_images, found.num_patients, found.is_3d) == (6, 6, 3, False)
    assert (found.median_size, found.channels, found.file_channels, found.dtype) == ((48, 48), 1, 1, "uint8")
    assert found.patients_declared and found.modality == "ultrasound" and found.median_spacing_mm is None
    pooled, inside = found.intensity[0], found.foreground_intensity[0]
    np.testing.assert_allclose([pooled.mean, pooled.std], [images.mean(), images.std()])
    np.testing.assert_allclose([inside.mean, inside.std], [images[labels > 0].mean(), images[labels > 0].std()])
    assert (pooled.minimum, pooled.maximum) == (images.min(), images.max())
    medians = np.median([np.percentile(image, [0.5, 50, 99.5]) for image in images], axis=0)
    np.testing.assert_allclose([pooled.percentile_00_5, pooled.median, pooled.percentile_99_5], medians)
    assert [each.name for each in found.classes] == ["head", "organ"]
    for value, each in enumerate(found.classes, start=1):
        assert (each.case_share, each.median_components) == (1, 1)
        assert each.pixel_share == pytest.approx((labels == value).mean())
        areas = (labels == value).mean(axis=(1, 2))
        assert each.median_area_share == pytest.approx(np.median(areas))


def test_scaled_figures_are_pooled_over_images_of_different_sizes(raw_dataset):
    workspace = raw_dataset(task="unlabelled")
    folder = workspace.raw_dataset(NAME) / "imagesTr"
    cv2.imwrite(str(folder / "P09_0_0000.png"), np.random.default_rng(0).integers(0, 99, (90, 20)).astype(np.uint8))
    found = fingerprint(workspace, NAME, num_processes=0)
    scaled = []
    for image in pixels_of(folder):
        low, high = np.percentile(image, [0.5, 99.5])
        scaled.append(np.clip((image - low) / (high - low), 0, 1).ravel())
    values = np.concatenate(scaled)
    np.testing.assert_allclose([found.scaled_mean[0], found.scaled_std[0]], [values.mean(), values.std()])


def test_volumes_carry_their_spacing(raw_dataset):
    found = fingerprint(raw_dataset(ending=".nii.gz"), NAME, num_processes=0)
    assert (found.num_cases, found.num_images, found.is_3d) == (6, 18, True)
    np.testing.assert_allclose(found.median_spacing_mm, (2.0, 0.5, 0.25))


def test_grey_rgb_counts_as_one_channel_and_colour_as_three(raw_dataset, tmp_path):
    grey = fingerprint(raw_dataset("Dataset001_A", colour="grey"), "Dataset001_A", num_processes=0)
    assert (grey.file_channels, grey.channels, len(grey.intensity)) == (3, 1, 1)
    colour = fingerprint(raw_dataset("Dataset002_B", colour="rgb"), "Dataset002_B", num_processes=0)
    assert (colour.file_channels, colour.channels, len(colour.intensity)) == (3, 3, 3)
    assert colour.intensity[0].mean > colour.intensity[2].mean  # red first


def test_a_few_colour_images_do_not_make_three_channels(raw_dataset):
    workspace = raw_dataset(colour="grey", num_patients=20, images_per_patient=1)
    path = workspace.raw_dataset(NAME) / "imagesTr" / "P00_0_0000.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 48, 3)).astype(np.uint8)).save(path)
    assert fingerprint(workspace, NAME, num_processes=0).channels == 1
    declaration = workspace.raw_dataset(NAME) / "dataset.json"
    value = json.loads(declaration.read_text()) | {"channel_names": {"0": "red", "1": "green", "2": "blue"}}
    declaration.write_text(json.dumps(value))
    assert fingerprint(workspace, NAME, num_processes=0).channels == 3


def test_classes_of_a_classification_set_are_counted(raw_dataset):
    found = fingerprint(raw_dataset(task="classification"), NAME, num_processes=0)
    assert [(each.name, each.case_share) for each in found.classes] == [("even", 2 / 3), ("odd", 1 / 3)]


def test_the_number_of_processes_does_not_change_a_byte(raw_dataset):
    workspace = raw_dataset(num_patients=10)
    other = elsewhere(workspace, "other")
    fingerprint(workspace, NAME, num_processes=0)
    fingerprint(other, NAME, num_processes=2)
    assert content(workspace) == content(other)


def test_only_what_changed_is_read_again(raw_dataset, monkeypatch):
    workspace = raw_dataset()
    before = fingerprint(workspace, NAME, num_processes=0)
    measured = []

    def noted(files, *args, **options):
        measured.append(files.name)
        return original(files, *args, **options)

    original = module.measure_case
    monkeypatch.setattr(module, "measure_case", noted)
    assert fingerprint(workspace, NAME, num_processes=0) == before and measured == []
    label = workspace.raw_dataset(NAME) / "labelsTr" / "P01_0.png"
    pixels = read_label(label)[0][0]
    pixels = pixels.copy()
    pixels[0, 0] = 1
    cv2.imwrite(str(label), pixels)
    after = fingerprint(workspace, NAME, num_processes=0)
    assert measured == ["P01_0"] and after.content_hash != before.content_hash
    (workspace.raw_dataset(NAME) / "imagesTr" / "P02_0_0000.png").unlink()
    assert fingerprint(workspace, NAME, num_processes=0).num_cases == 5
    fresh = elsewhere(workspace, "fresh")
    fingerprint(fresh, NAME, num_processes=0)
    assert content(fresh) == content(workspace) and len(measured) == 1 + 5
    fingerprint(workspace, NAME, num_processes=0, fresh=True)
    assert len(measured) == 1 + 5 + 5


def test_patients_follow_their_declaration_without_reading(raw_dataset):
    workspace = raw_dataset()
    fingerprint(workspace, NAME, num_processes=0)
    rows = [f"P{patient:02d}_{index},one" for patient in range(3) for index in range(2)]
    (workspace.raw_dataset(NAME) / "patients.csv").write_text("\n".join(["case,patient", *rows]))
    assert fingerprint(workspace, NAME, num_processes=0).num_patients == 1
    assert {facts.patient for facts in read_facts(workspace.prepared(NAME) / "cases.jsonl")} == {"one"}


def test_torn_and_foreign_lines_are_measured_again(raw_dataset):
    workspace = raw_dataset()
    fingerprint(workspace, NAME, num_processes=0)
    wanted = content(workspace)
    journal = workspace.prepared(NAME) / "cases.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([lines[0], '{"case": "P00_1"}\n', lines[2], lines[4], lines[3][:50]]))
    fingerprint(workspace, NAME, num_processes=0)
    assert content(workspace) == wanted


def test_sets_without_a_readable_image_end_at_once(raw_dataset):
    workspace = raw_dataset()
    folder = workspace.raw_dataset(NAME) / "imagesTr"
    for path in folder.iterdir():
        path.write_bytes(b"")
    with pytest.raises(BadData, match=r"none of its 6 images can be read.*P00_0_0000\.png: the file is empty"):
        fingerprint(workspace, NAME, num_processes=0)
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(BadData, match="there is no image in it"):
        fingerprint(workspace, NAME, num_processes=0)


SLOW_RUN = textwrap.dedent(
    """
    import dataclasses, sys, time
    from pathlib import Path
    import fmseg.stages.fingerprint as module
    from fmseg.sampling import case_journal
    from fmseg.workspace import Workspace

    original = module.measure_case

    def slowly(*args, **options):
        time.sleep(0.02)
        return original(*args, **options)

    module.measure_case, case_journal.APPEND_SECONDS = slowly, 0.0
    workspace = Workspace.find(Path(sys.argv[1]))
    workspace = dataclasses.replace(workspace, preprocessed=Path(sys.argv[2]))
    module.fingerprint(workspace, sys.argv[3], num_processes=0)
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


def test_a_killed_fingerprint_ends_in_the_same_bytes(raw_dataset, tmp_path):
    workspace = raw_dataset(num_patients=8)
    fingerprint(workspace, NAME, num_processes=0)
    killed = elsewhere(workspace, "killed")
    command = [sys.executable, "-c", SLOW_RUN, str(tmp_path), str(killed.preprocessed), NAME]
    journal = killed.prepared(NAME) / "cases.jsonl"
    random.seed(1)
    for after in (3, 4):
        kill_somewhere(command, journal, after)
    assert not (killed.prepared(NAME) / "dataset_fingerprint.json").exists()
    fingerprint(killed, NAME, num_processes=0)
    assert content(killed) == content(workspace)


def test_measuring_png_imports_nothing_heavy(raw_dataset, tmp_path):
    raw_dataset()
    code = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from fmseg.stages.fingerprint import fingerprint
        from fmseg.stages.preprocess import preprocess
        from fmseg.workspace import Workspace
        fingerprint(Workspace.find(Path(sys.argv[1])), sys.argv[2], num_processes=0)
        heavy = {"torch", "SimpleITK", "nibabel", "sklearn", "matplotlib", "timm", "monai", "scipy"}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
        """
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path), NAME], check=True)
