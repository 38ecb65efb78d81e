"""How well scan sectors are found, and how long that takes.

    python benchmarks/sector.py --data DATA

On made images the true sector is known. On real ones (``DATA/hc18``, ``DATA/fetal_planes``; every ``--step``-th image)
it is not: there it counts how much of the annotated head lies inside, and which marks are found. ``--pictures FOLDER``
writes every image with its outline, to look at.
"""

import argparse
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

from fmseg.errors import BadData
from fmseg.imaging.marks import find_marks
from fmseg.imaging.outlines import fill_outline
from fmseg.imaging.phantoms import render, sample_patient, sample_scan
from fmseg.imaging.readers import read_case, read_label
from fmseg.imaging.scanner import in_sector
from fmseg.imaging.sector import find_sector
from fmseg.records.cases import CaseFiles, walk_images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--pictures", type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    measure_phantoms(60)
    for name in ("hc18", "fetal_planes") if arguments.data else ():
        images = [path for path in walk_images(arguments.data / name) if "Annotation" not in path.name]
        measure_real(name, images[:: arguments.step], arguments.pictures)


def measure_phantoms(count: int) -> None:
    overlaps = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        scan = sample_scan(rng, sample_patient(rng))
        image, truth = render(scan)[0], in_sector(scan.patient.device, scan.settings.depth_mm)
        sector = find_sector(image[None, None])
        found = sector.mask(image.shape) > 0 if sector else np.zeros_like(truth)
        overlaps.append((found & truth).sum() / (found | truth).sum())
    print(f"phantoms: {count} images, IoU {np.mean(overlaps):.4f} on average, {min(overlaps):.4f} at least")


def measure_real(name: str, images: list[Path], pictures: Path | None) -> None:
    kinds: Counter[str] = Counter()
    heads, areas, sector_s, marks_s = [], [], 0.0, 0.0
    for path in images:
        voxels = read_case(CaseFiles(path.stem, (path,), None)).voxels
        start = time.process_time()
        sector = find_sector(voxels)
        found = time.process_time()
        marks = find_marks(voxels, sector)
        sector_s, marks_s = sector_s + found - start, marks_s + time.process_time() - found
        mask = sector.mask(voxels.shape[2:]) if sector else np.zeros(voxels.shape[2:], np.uint8)
        areas.append(mask.mean())
        kinds.update(marks.kinds)
        annotation = path.with_name(f"{path.stem}_Annotation.png")
        if annotation.exists():
            heads += inside(annotation, mask)
        if pictures and sector:
            pictures.mkdir(parents=True, exist_ok=True)
            image = cv2.imread(str(path))
            cv2.polylines(image, [np.array(sector.outline, np.int32)[:, ::-1]], True, (0, 255, 255), 2)
            image[marks.inside > 0] = (0, 0, 255)
            cv2.imwrite(str(pictures / f"{path.stem}.png"), image)
    print(f"{name}: {len(images)} images, {areas.count(0)} without a sector, half of them fill {np.median(areas):.2f}")
    if heads:
        print(f"  of the heads {np.mean(heads):.4f} lie inside on average, {min(heads):.4f} at least")
    print(
        f"  marks: {dict(kinds)}; {1000 * sector_s / len(images):.1f} + {1000 * marks_s / len(images):.1f} ms an image"
    )


def inside(annotation: Path, mask: np.ndarray) -> list[float]:
    try:
        head = fill_outline(read_label(annotation)[0][0])
    except BadData:
        return []
    return [float((head & (mask > 0)).sum() / head.sum())]


if __name__ == "__main__":
    main()
