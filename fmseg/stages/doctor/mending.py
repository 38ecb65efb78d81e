"""A mended copy of a dataset: what a rule can mend is mended, what only a person can is left out or left alone.

First the declaration and the values of label maps, so that the copy can be measured; then, by the findings about
the copy, the cases that cannot be used. The original is only ever read.
"""

import csv
import io
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fmseg.errors import BadData, UsageError
from fmseg.files import read_json, write_bytes, write_json
from fmseg.imaging.case import Geometry
from fmseg.imaging.readers import read_case, read_label, write_label
from fmseg.records.cases import CaseFiles, visible_files
from fmseg.records.dataset import Dataset
from fmseg.records.declaration import remap
from fmseg.records.endings import image_endings, strip_ending
from fmseg.records.fingerprint import Finding
from fmseg.workspace import Workspace, dataset_id, dataset_title

logger = logging.getLogger(__name__)

#: key of dataset.json in a copy
ORIGIN = "mended_from"
DECLARATION = "dataset.json"
TABLES = ("patients.csv", "labelsTr.csv")
FULL = 255


def copy_mended(workspace: Workspace, name: str) -> tuple[str, list[str]]:
    """Copy a dataset with its declaration and label values mended; return the copy's name and what was changed.

    Raises UsageError if there is a copy already, or nothing that can be mended in one; BadData if dataset.json
    cannot be read at all.
    """
    source = workspace.raw_dataset(name)
    value = read_json(source / DECLARATION)
    if not isinstance(value, dict) or value.get("task") == "unlabelled" or "dataset" in value:
        raise UsageError(f"{source}: only a dataset with labels and folders is mended in a copy. Mend it by hand.")
    new = _new_name(workspace, name)
    target = workspace.raw_dataset(new)
    declaration, mapping, changes = _mended(value)
    for folder in ("imagesTr", "imagesTs", "labelsTr", "labelsTs"):
        if (source / folder).is_dir():
            changes += _copy_folder(source / folder, target / folder, mapping, declaration)
    for path in visible_files(source):
        if path.name != DECLARATION:
            shutil.copyfile(path, target / path.name)
    write_json(target / DECLARATION, declaration | {ORIGIN: name})
    return new, changes


def leave_out(workspace: Workspace, name: str, findings: Sequence[Finding]) -> list[str]:
    """Take out of a mended copy what its findings say cannot be used; return what was taken out."""
    folder = workspace.raw_dataset(name)
    if ORIGIN not in read_json(folder / DECLARATION):
        raise AssertionError("only a copy is ever changed")
    dataset = Dataset.load(folder)
    files = {case.name: case for case in dataset.training_cases()}
    changes: list[str] = []
    for finding in findings:
        if finding.remedy == "remove":
            (folder / finding.where).unlink(missing_ok=True)
            changes.append(f"{finding.where} was left out: {finding.problem}")
        out = {"leave_out": finding.cases, "keep_first": finding.cases[1:]}.get(finding.remedy, ())
        for case in out:
            if case in files:
                _remove(files.pop(case))
                changes.append(f"the case '{case}' was left out: {finding.problem}")
    value = read_json(folder / DECLARATION)
    if value.get("numTraining") != len(files):
        changes.append(f"'numTraining' is now {len(files)}")
    write_json(folder / DECLARATION, value | {"numTraining": len(files)})
    known = {*files, *(case.name for case in dataset.test_cases())}
    for table in TABLES:
        changes += _without_unknown(folder / table, known)
    return changes


def _new_name(workspace: Workspace, name: str) -> str:
    """Return the name of the copy: the next free number."""
    names = workspace.dataset_names()
    for other in names:
        path = workspace.raw_dataset(other) / DECLARATION
        if path.is_file() and other != name and json.dumps(name) in path.read_text(errors="replace"):
            try:
                value = read_json(path)
            except BadData:
                continue
            if isinstance(value, dict) and value.get(ORIGIN) == name:
                raise UsageError(f"{other} is a mended copy of {name} already. Remove {path.parent}, or use it.")
    taken = {dataset_id(other) for other in names}
    number = next(number for number in range(dataset_id(name) + 1, 10_000_000) if number not in taken)
    return f"Dataset{number:03d}_{dataset_title(name)}Mended"


def _mended(value: dict[str, Any]) -> tuple[dict[str, Any], dict[int, int], list[str]]:
    """Return a declaration whose rules are kept, old -> new of label values, and what was changed."""
    new = dict(value)
    changes: list[str] = []
    mapping: dict[int, int] = {}
    ending = value.get("file_ending")
    if isinstance(ending, str) and ending and not ending.startswith("."):
        new["file_ending"] = f".{ending}"
        changes.append(f"'file_ending' is now '.{ending}'")
    names = value.get("channel_names")
    if isinstance(names, list | dict) and names:
        listed = names if isinstance(names, list) else [names[key] for key in sorted(names)]
        numbered = {str(index): str(each) for index, each in enumerate(listed)}
        if numbered != names:
            new["channel_names"] = numbered
            changes.append(f"'channel_names' is now {numbered}")
    labels = value.get("labels")
    if isinstance(labels, dict) and labels:
        new["labels"], mapping = _mended_labels(labels)
        if new["labels"] != labels:
            changes.append(f"'labels' is now {new['labels']}")
        order = value.get("regions_class_order")
        if isinstance(order, list) and mapping:
            new["regions_class_order"] = [mapping.get(each, each) for each in order]
    return new, mapping, changes


def _mended_labels(labels: dict[str, Any]) -> tuple[dict[str, Any], dict[int, int]]:
    """Return labels with values from 1 on, ignore the highest, and old -> new; as they are where that is no rule."""
    rest = {name: each for name, each in labels.items() if name not in ("background", "ignore")}
    groups = {name: each if isinstance(each, list) else [each] for name, each in rest.items()}
    values = sorted({each for group in groups.values() for each in group if type(each) is int and each > 0})
    if len(values) < len({each for group in groups.values() for each in group}):
        return labels, {}  # fractions, texts or the background among them
    mapping = remap(values)
    ignore = labels.get("ignore")
    if type(ignore) is int and ignore not in values and ignore > 0:
        mapping[ignore] = len(values) + 1
    if all(old == new for old, new in mapping.items()):
        return {"background": 0} | {name: each for name, each in labels.items() if name != "background"}, {}
    new: dict[str, Any] = {"background": 0}
    for name, each in rest.items():
        new[name] = [mapping[value] for value in each] if isinstance(each, list) else mapping[each]
    return new | ({"ignore": mapping.get(ignore, ignore)} if ignore is not None else {}), mapping


def _copy_folder(source: Path, target: Path, mapping: dict[int, int], declaration: dict[str, Any]) -> list[str]:
    """Copy images as they are, label maps with their values mapped; return what was changed."""
    target.mkdir(parents=True)
    changed: list[str] = []
    placed: list[str] = []
    for path in visible_files(source):
        is_label = source.name.startswith("labels") and path.name.lower().endswith(image_endings())
        result = _mended_label(path, mapping, declaration) if is_label else None
        if result is None:
            shutil.copyfile(path, target / path.name)
            continue
        labels, geometry, is_moved = result
        write_label(labels, geometry, target / path.name)
        (placed if is_moved else changed).append(path.name)
    found = [f"{len(changed)} label maps of {source.name} have other values"] if changed else []
    return found + ([f"{len(placed)} label maps of {source.name} lie where their images do"] if placed else [])


def _mended_label(
    path: Path, mapping: dict[int, int], declaration: dict[str, Any]
) -> tuple[np.ndarray, Geometry, bool] | None:
    """Return a label map whose values or place were mended, and whether it was its place; None if neither was."""
    try:
        labels, geometry = read_label(path)
    except BadData:
        return None  # left out later, with its case
    new = _mapped(labels, mapping, declaration.get("labels", {}))
    own = _geometry_of_image(path, labels.shape, str(declaration.get("file_ending", "")))
    is_moved = own is not None and own.spacing_mm is not None and own != geometry
    if new is labels and not is_moved:
        return None
    return new, own if own is not None and is_moved else geometry, is_moved and new is labels


def _mapped(labels: np.ndarray, mapping: dict[int, int], declared: dict[str, Any]) -> np.ndarray:
    """Return label values mapped; 255 becomes 1 where it is the only foreground and one class is declared."""
    there = set(np.unique(labels).tolist())
    num_classes = len(set(declared) - {"background", "ignore"})
    if there - {0} == {FULL} and num_classes == 1 and FULL not in mapping and FULL not in declared.values():
        return (labels == FULL).astype(np.uint8)
    if not there & {old for old, new in mapping.items() if old != new}:
        return labels
    new = labels.astype(np.int64)
    for old, value in mapping.items():
        new[labels == old] = value
    return new


def _geometry_of_image(path: Path, shape: tuple[int, ...], ending: str) -> Geometry | None:
    """Return where the image of a label map lies, if it has its shape."""
    images = path.parents[1] / path.parent.name.replace("labels", "images")
    case = strip_ending(path.name)
    for image in (images / f"{case}_0000{ending}", images / f"{case}{ending}"):
        if image.is_file():
            try:
                read = read_case(CaseFiles(case, (image,), None))
            except BadData:
                return None
            return read.geometry if read.voxels.shape[1:] == shape else None
    return None


def _remove(case: CaseFiles) -> None:
    for path in (*case.images, *([case.label] if case.label else [])):
        path.unlink(missing_ok=True)


def _without_unknown(path: Path, known: set[str]) -> list[str]:
    """Take the lines of unknown cases out of a table of a copy."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8-sig")
    head, *lines = list(csv.reader(io.StringIO(text), delimiter=max(",;\t", key=text.partition("\n")[0].count)))
    at = [name.strip() for name in head].index("case")
    kept = [line for line in lines if len(line) > at and line[at].strip() in known]
    if len(kept) == len(lines):
        return []
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([head, *kept])
    write_bytes(path, out.getvalue().encode())
    return [f"{len(lines) - len(kept)} lines of {path.name} were left out, of cases that are not there"]
