"""What is tested elsewhere, and what is left out and counted."""

from pathlib import Path

from fmseg.records.dataset import CaseFiles
from fmseg.records.labels import ClassScheme
from fmseg.stages.benchmark.external import answerable

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
