"""COCO JSON: images with polygons or run-lengths, one class a category.

Layout: https://cocodataset.org/#format-data. All .json files of a folder that have ``images``, ``annotations`` and
``categories`` are taken; one whose name tells of test makes test images. Where areas overlap, the smaller one lies
above. Boxes without an area are no label maps and are left out.
"""

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fmseg.console import track
from fmseg.errors import BadData, BadRecord, FmsegError
from fmseg.files import read_json
from fmseg.imaging.case import Array
from fmseg.records.cases import walk_images
from fmseg.records.naming import plain_name
from fmseg.stages.convert.layout import (
    Layout,
    NewDataset,
    Skipped,
    all_files,
    checked_size,
    find_file,
    layouts,
    reason_of,
    stem_of,
)

KEYS = ("images", "annotations", "categories")
#: polygons are drawn so many times finer, since OpenCV draws their border too; large images as they are
FINER, FINER_PIXELS = 4, 2**24
#: of 255
HALF = 128
MAX_SIDE = 20_000


def bring(source: Path, target: Path) -> Skipped:
    """Fill ``target``. source: the .json, or the folder that holds it and the images."""
    files = _descriptions(source)
    if not files:
        raise BadData(f"{source}: there is no .json with {', '.join(KEYS)} in it.")
    folder = source.parent if source.is_file() else source
    dataset = NewDataset(folder, target)
    there: dict[str, Path] = {}
    for path in walk_images(folder):
        there.setdefault(path.name, path)
    names = _names(files)
    for path, content in files.items():
        dataset.used.add(path)
        _bring_one(dataset, path, content, names, there)
    labels = {"background": 0} | {name: value for value, name in enumerate(names, start=1)}
    return dataset.finish({"labels": labels, "task": "segmentation"}, "no image that a COCO file names")


def _bring_one(
    dataset: NewDataset, path: Path, content: dict[str, Any], names: list[str], there: dict[str, Path]
) -> None:
    """Add the images of one description."""
    label_of = {item["id"]: 1 + names.index(str(item["name"])) for item in content["categories"]}
    drawn_on: dict[Any, list[dict[str, Any]]] = {}
    for item in content["annotations"]:
        drawn_on.setdefault(item["image_id"], []).append(item)
    for item in track(content["images"], "drawing", len(content["images"])):
        name = str(item["file_name"])
        near = find_file(path.parent, name)
        image = near if near.is_file() else there.get(Path(name).name)
        try:
            if image is None:
                raise BadData(f"{path.name} names it, but there is no such image")
            label = _drawn(item, drawn_on.get(item["id"], []), label_of)
            geometry = checked_size(image, label, path)
        except BadData as error:
            dataset.skip(image or dataset.source / name, reason_of(error))
            continue
        is_test = "test" in path.stem.lower()
        dataset.add(plain_name(stem_of(Path(name))), image, label, geometry=geometry, is_test=is_test)


def _drawn(image: dict[str, Any], items: list[dict[str, Any]], label_of: dict[Any, int]) -> Array:
    """Return the label map (1, Y, X) uint8. Raises BadData for annotations without an area."""
    height, width = int(image["height"]), int(image["width"])
    if not 0 < min(height, width) <= max(height, width) <= MAX_SIDE:
        raise BadData(f"its size is said to be {width} x {height}")
    areas = []
    for item in items:
        area = _area(item.get("segmentation"), height, width)
        if area is None:
            raise BadData(f"its annotation {item.get('id')} has a box, but no area")
        areas.append((area, label_of[item["category_id"]]))
    label = np.zeros((height, width), np.uint8)
    for area, value in sorted(areas, key=lambda each: -int(each[0].sum())):
        label[area > 0] = value
    return label[None]


def _area(segmentation: Any, height: int, width: int) -> Array | None:
    """Return where an annotation is drawn, (Y, X) uint8; None if it tells of no area."""
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        runs = _runs(counts) if isinstance(counts, str) else [int(count) for count in counts]
        if sum(runs) != height * width or min(runs, default=0) < 0:
            raise BadData(f"its run-lengths cover {sum(runs)} of {height * width} pixels")
        values = np.arange(len(runs)) % 2
        return np.repeat(values, runs).reshape(width, height).T.astype(np.uint8)
    polygons = [np.array(points, float).reshape(-1, 2) for points in segmentation or () if len(points) >= 6]
    if not polygons:
        return None
    finer = FINER if height * width <= FINER_PIXELS else 1
    area = np.zeros((finer * height, finer * width), np.uint8)
    for points in polygons:
        if not np.isfinite(points).all() or np.abs(points).max() > MAX_SIDE:
            raise BadData("its polygon leaves every image")
        # COCO counts from the corner of a pixel, OpenCV from its centre
        cv2.fillPoly(area, [np.rint(finer * points - 0.5).astype(np.int32)], 255)
    share = cv2.resize(area, (width, height), interpolation=cv2.INTER_AREA)
    return (share >= HALF).astype(np.uint8)


def _runs(text: str) -> list[int]:
    """Return the run-lengths of COCO's compressed form: 5 bits a character, differences to the last but one."""
    runs: list[int] = []
    place = 0
    while place < len(text):
        value = shift = 0
        while True:
            bits = ord(text[place]) - 48
            if not 0 <= bits < 64:
                raise BadData("its run-lengths are damaged")
            value |= (bits & 31) << shift
            shift += 5
            place += 1
            if not bits & 32:
                break
            if place == len(text):
                raise BadData("its run-lengths are damaged")
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    return runs


def _names(files: dict[Path, dict[str, Any]]) -> list[str]:
    """Return the classes of all descriptions, in the order of their numbers."""
    found: dict[str, float] = {}
    for content in files.values():
        for item in content["categories"]:
            number = item["id"] if isinstance(item["id"], int) else math.inf
            found.setdefault(str(item["name"]), number)
    return sorted(found, key=lambda name: (found[name], name))


def _descriptions(source: Path) -> dict[Path, dict[str, Any]]:
    """Return the .json files that describe images, and what they say. Raises BadRecord for one that lacks a key."""
    paths = [source] if source.is_file() else sorted(path for path in all_files(source) if path.suffix == ".json")
    found = {}
    for path in paths:
        content = read_json(path)
        if isinstance(content, dict) and all(isinstance(content.get(key), list) for key in KEYS):
            _check(path, content)
            found[path] = content
    return found


def _check(path: Path, content: dict[str, Any]) -> None:
    needed = {
        "images": ("id", "file_name", "height", "width"),
        "annotations": ("image_id", "category_id"),
        "categories": ("id", "name"),
    }
    for key, names in needed.items():
        for number, item in enumerate(content[key]):
            missing = [name for name in names if not isinstance(item, dict) or name not in item]
            if missing:
                raise BadRecord(f"{path}: {key}[{number}] has no '{missing[0]}'.")
    known = {item["id"] for item in content["categories"]}
    strange = {item["category_id"] for item in content["annotations"]} - known
    if strange:
        raise BadRecord(f"{path}: an annotation is of the category {sorted(map(str, strange))[0]}, which is not there.")


def _fits(source: Path) -> bool:
    try:
        return bool(_descriptions(source))
    except FmsegError:
        return False


layouts.add("coco", Layout(None, bring, _fits))
