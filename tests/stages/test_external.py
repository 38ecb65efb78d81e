"""What is tested elsewhere, and what is left out and counted."""

import os
import shutil
from pathlib import Path

import pytest

from fmseg.records.dataset import CaseFiles, Dataset
from fmseg.records.labels import ClassScheme
from fmseg.stages.benchmark.external import answerable, digest_of_test

NAMES = ("effusion", "mass")
LABELS = {"both": "effusion;mass", "none": "", "also_none": ";", "one": "mass", "other": "mass;cyst"}


def kept(*, is_exclusive: bool) -> list[str]:
    images = [CaseFiles(name, (Path(f"{name}.png"),), None) for name in (*LABELS, "in_no_row")]
    scheme = ClassScheme(names=NAMES, is_exclusive=is_exclusive)
    return [case.name for case in answerable(images, LABELS, scheme)]


def test_cases_of_none_of_several_classes_are_tested_as_they_are_learned():
    assert kept(is_exclusive=False) == ["both", "none", "also_none", "one"]


def test_a_network_of_one_class_each_is_tested_on_cases_of_one():
    assert kept(is_exclusive=True) == ["one"]


@pytest.fixture(params=["segmentation", "classification"])
def cohort(request, raw_dataset) -> Path:
    """The folder of a raw dataset whose imagesTs and labels are a copy of its training images."""
    folder = raw_dataset("Dataset502_Elsewhere", task=request.param).raw_dataset("Dataset502_Elsewhere")
    for path in (*folder.glob("*Tr"), *folder.glob("*Tr.csv")):
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, path.with_name(path.name.replace("Tr", "Ts")))
    return folder


def digests(folder: Path) -> list[str]:
    """Return the digests of a test on imagesTr, and on imagesTs."""
    return [digest_of_test(Dataset.load(folder), is_own=is_own) for is_own in (False, True)]


def replace_in(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


def mend_a_label(folder: Path, part: str) -> None:
    if (folder / f"labels{part}").is_dir():
        shutil.copy(folder / f"labels{part}/P01_0.png", folder / f"labels{part}/P00_0.png")
    else:
        replace_in(folder / f"labels{part}.csv", b"P00_0,even", b"P00_0,odd")


def remove_an_image(folder: Path, part: str) -> None:
    (folder / f"images{part}/P00_0_0000.png").unlink()


def replace_an_image(folder: Path, part: str) -> None:
    shutil.copy(folder / f"images{part}/P01_0_0000.png", folder / f"images{part}/P00_0_0000.png")


@pytest.mark.parametrize("mend", [mend_a_label, remove_an_image, replace_an_image])
def test_the_digest_of_a_test_is_of_its_own_images_and_labels(cohort, mend):
    before = digests(cohort)
    mend(cohort, "Tr")
    after = digests(cohort)
    assert after[0] != before[0] and after[1] == before[1]
    mend(cohort, "Ts")
    assert digests(cohort)[1] != before[1]


def test_the_digest_of_a_test_knows_pixel_sizes_and_declared_patients(cohort):
    before = digests(cohort)[0]
    (cohort / "patients.csv").write_text("case,patient\nP00_0,Ann\n")
    with_patients = digests(cohort)[0]
    (cohort / "spacings.csv").write_text("case,spacing_mm\nP00_0,0.5\n")
    assert len({before, with_patients, digests(cohort)[0]}) == 3


def test_a_copy_of_a_workspace_has_the_same_tests(cohort, tmp_path):
    before = digests(cohort)
    other = tmp_path / "elsewhere" / cohort.name
    shutil.copytree(cohort, other, copy_function=shutil.copyfile)
    for path in other.rglob("*"):
        os.utime(path, ns=(1, 1))
    assert digests(other) == before


def test_what_is_not_tested_on_does_not_change_a_test(cohort):
    before = digests(cohort)
    if (cohort / "labelsTr").is_dir():
        shutil.copy(cohort / "imagesTr/P00_0_0000.png", cohort / "imagesTr/P77_0_0000.png")
    else:
        replace_in(cohort / "labelsTr.csv", b"P00_0,even", b"P00_0,even\nP77_0,even")
    assert digests(cohort) == before
