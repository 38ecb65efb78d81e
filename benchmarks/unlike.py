"""How often `predict` notes an image as unlike the training images: wrongly, and rightly.

    python benchmarks/unlike.py --data DATA

Ranges are made of some patients of one source (``DATA/hc18``, ``DATA/fetal_planes``), 20 draws each. The images of all
other patients should not be noted; images of the other sources, and heads that were changed in one way, should.
"""

import argparse
import csv
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from fmseg.imaging.case import Array, Case
from fmseg.imaging.readers import read_case
from fmseg.inference.unlike import Look, differences, look_of, ranges_of
from fmseg.records.cases import CaseFiles, walk_images
from fmseg.records.plans import Preprocessing

SOURCES = ("hc18", "fetal_planes", "isbi2012_em", "dicom_us")
MODES = ("eight_bit", "image_percentiles")
PATIENT = re.compile(r"Patient\d+|\d+(?=_\d?HC)")
DRAWS = 20


def _resized(voxels: Array) -> Array:
    height, width = voxels.shape[2:]
    return cv2.resize(voxels[0, 0], (width // 4, height // 4), interpolation=cv2.INTER_AREA)[None, None]


def _coloured(voxels: Array) -> Array:
    colour = np.repeat(voxels[:1], 3, axis=0)
    colour[0, :, :50, :50] = 255
    return colour


CHANGES: dict[str, Callable[[Array], Array]] = {
    "inverted": lambda voxels: 255 - voxels,
    "a third of the brightness": lambda voxels: voxels // 3,
    "brighter by 80 of 255": lambda voxels: np.minimum(voxels.astype(int) + 80, 255).astype(np.uint8),
    "turned by 90 degrees": lambda voxels: np.ascontiguousarray(voxels.swapaxes(2, 3)),
    "a quarter of the side": _resized,
    "coloured": _coloured,
    "grey saved as RGB": lambda voxels: np.repeat(voxels[:1], 3, axis=0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    cv2.setNumThreads(1)
    with open(data / "hc18" / "training_set_pixel_size_and_HC.csv", newline="") as file:
        sizes = {row["filename"]: float(row["pixel size(mm)"]) for row in csv.DictReader(file)}
    cases = {source: read(data / source, sizes) for source in SOURCES}
    others = {f"heads, {name}": [(who, changed(case, change)) for who, case in cases["hc18"]]
              for name, change in CHANGES.items()}  # fmt: skip
    for factor in (10, 0.1):
        others[f"heads, pixel size times {factor}"] = [(who, enlarged(case, factor)) for who, case in cases["hc18"]]
    for mode in MODES:
        settings = Preprocessing.model_construct(intensity=mode, window=())
        start = time.process_time()
        looks = {source: [(who, look_of(case, settings)) for who, case in found] for source, found in cases.items()}
        spent = (time.process_time() - start) / sum(map(len, cases.values()))
        print(f"{mode}: {1000 * spent:.2f} ms an image")
        changes = {name: [(who, look_of(case, settings)) for who, case in found] for name, found in others.items()}
        for source in SOURCES[:2]:
            foreign = {name: found for name, found in looks.items() if name != source}
            told = (foreign | changes) if source == "hc18" else foreign
            measure(source, looks[source], told)


def read(folder: Path, sizes: dict[str, float]) -> list[tuple[str, Case]]:
    """Return the images of a folder, each with its patient."""
    found = []
    for path in walk_images(folder):
        if "Annotation" not in path.name and path.parent.name != "label":
            spacing = (sizes[path.name],) * 2 if path.name in sizes else None
            match = PATIENT.match(path.name)
            found.append((match[0] if match else path.name, read_case(CaseFiles(path.stem, (path,), None, spacing))))
    return found


def changed(case: Case, change: Callable[[Array], Array]) -> Case:
    return replace(case, voxels=change(case.voxels))


def enlarged(case: Case, factor: float) -> Case:
    assert case.geometry.spacing_mm is not None, case.name
    z, y, x = case.geometry.spacing_mm
    return replace(case, geometry=replace(case.geometry, spacing_mm=(z, factor * y, factor * x)))


def measure(source: str, looks: list[tuple[str, Look]], others: dict[str, list[tuple[str, Look]]]) -> None:
    """Print how many are noted by ranges of so many patients: of the others of the source, and of other images."""
    patients = sorted({who for who, _ in looks})
    everything = ranges_of(looks)
    assert everything is not None, source
    noted = sum(bool(differences(look, everything)) for _, look in looks)
    print(f"  {source}: {noted} of its own {len(looks)} images, by ranges of all {len(patients)} patients")
    for count in (len(patients) // 2, 100, 50, 20, 10, 5):
        shares: dict[str, list[bool]] = {}
        why: Counter[str] = Counter()
        for draw in range(DRAWS):
            chosen = set(np.random.default_rng(draw).permutation(patients)[:count].tolist())
            ranges = ranges_of([(who, look) for who, look in looks if who in chosen])
            assert ranges is not None, source
            for name, found in {source: looks, **others}.items():
                for who, look in found:
                    if who in chosen:
                        continue
                    told = differences(look, ranges)
                    shares.setdefault(name, []).append(bool(told))
                    if name == source:
                        why.update(re.split(r" -?\d", each)[0] for each in told)
        own = shares.pop(source)
        print(f"    {count} patients: {sum(own)} of {len(own)} images of others ({np.mean(own):.2%})", dict(why) or "")
        if others:
            print("      " + "; ".join(f"{name} {np.mean(told):.0%}" for name, told in shares.items()))


if __name__ == "__main__":
    main()
