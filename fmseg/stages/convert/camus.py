"""CAMUS: echocardiography in two and four chamber views, at end diastole (ED) and end systole (ES).

Layout: https://www.creatis.insa-lyon.fr/Challenge/camus, as NIfTI: patient0001/patient0001_2CH_ED.nii.gz, and its
label map patient0001_2CH_ED_gt.nii.gz. The clips from ED to ES begin and end with these images, so they are left out.
Patients in database_split/subgroup_testing.txt become the test set.
"""

import re
from pathlib import Path

from fmseg.console import track
from fmseg.errors import BadData
from fmseg.imaging.readers import read_label
from fmseg.stages.convert.layout import (
    Layout,
    NewDataset,
    Skipped,
    all_files,
    checked_size,
    layouts,
    reason_of,
    stem_of,
)

LABELS = {"background": 0, "left ventricle": 1, "myocardium": 2, "left atrium": 3}
IMAGE = re.compile(r"(patient\d+)_[24]CH_(?:ED|ES)")
CLIP = re.compile(r"patient\d+_[24]CH_half_sequence(?:_gt)?")
TESTS = "subgroup_testing.txt"


def bring(source: Path, target: Path) -> Skipped:
    """Fill ``target``. Raises BadData if there is no image."""
    dataset = NewDataset(source, target)
    files = sorted(all_files(source))
    tests = _tests(files, dataset)
    images = [path for path in files if path.name.endswith((".nii.gz", ".nii")) and IMAGE.fullmatch(stem_of(path))]
    if not images:
        raise BadData(f"{source}: there is no patient0001_2CH_ED.nii.gz or alike in it.")
    for image in track(images, "reading", len(images)):
        case, patient = stem_of(image), image.name.split("_")[0]
        mask = image.with_name(image.name.replace(case, f"{case}_gt"))
        try:
            checked_size(image, read_label(mask)[0], mask)
        except BadData as error:
            for path in (image, mask):
                if path.exists():
                    dataset.skip(path, reason_of(error))
            continue
        dataset.add(case, image, mask, patient=patient, is_test=patient in tests)
    for path in files:
        if CLIP.fullmatch(stem_of(path)):
            dataset.skip(path, "a clip that begins and ends with the ED and ES images")
    reference = "https://doi.org/10.1109/TMI.2019.2900516"
    declaration = {"labels": LABELS, "task": "segmentation", "reference": reference}
    return dataset.finish(declaration, "neither an ED or ES image nor its label map")


def _tests(files: list[Path], dataset: NewDataset) -> set[str]:
    """Return the patients of the test set, empty if no file lists them."""
    found: set[str] = set()
    for path in files:
        if path.name == TESTS:
            found |= set(path.read_text(encoding="utf-8-sig").split())
            dataset.used.add(path)
    return found


def _fits(source: Path) -> bool:
    return any(IMAGE.fullmatch(stem_of(path)) for path in all_files(source))


layouts.add("camus", Layout("CAMUS", bring, _fits))
