"""dataset.json: which keys fmseg reads, and all that can be wrong with them, found at once."""

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fmseg.errors import BadRecord
from fmseg.files import read_json
from fmseg.records.endings import image_endings
from fmseg.records.labels import LabelScheme
from fmseg.records.record import explain_validation

Task = Literal["segmentation", "classification", "unlabelled"]

#: what is wrong, and how to mend it
Problem = tuple[str, str]

#: keys of nnU-Net's first version that its second one does not have
OLD_KEYS = ("modality", "training")
#: keys that say how masks become label maps, which happens once
MASK_KEYS = ("mask_colors", "mask_suffixes", "mask_outlines")
#: a quantifier without end, of a group that has one too: it may take longer than anyone waits
ENDLESS_REPEATS = re.compile(r"(?:[+*]|\{\d+,\})[^()\[\]\\]*\)(?:[+*]|\{\d+,\})")
EXAMPLE = (
    '{"channel_names": {"0": "ultrasound"}, "labels": {"background": 0, "head": 1}, '
    '"numTraining": 20, "file_ending": ".png"}'
)


class Entry(BaseModel):
    """The files of one case, where they are listed one by one."""

    images: list[str]
    label: str | None = None


class Declaration(BaseModel):
    """The keys of dataset.json that fmseg reads."""

    model_config = ConfigDict(extra="ignore", strict=True)

    channel_names: dict[str, str]
    labels: dict[str, int | list[int]] = Field(default_factory=dict)
    numTraining: int | None = None
    file_ending: str | None = None
    regions_class_order: list[int] | None = None
    overwrite_image_reader_writer: str | None = None
    dataset: dict[str, Entry] | None = None
    task: Task = "segmentation"
    modality: str | None = None
    group_regex: str | None = None
    #: what the declared groups are, where they are no patients: a video, for example, or an exam
    patient_unit: str = Field(default="patient", pattern=r"^[A-Za-z][A-Za-z -]{0,29}$")
    #: centre: the column of patients.csv; each fold is validated on one centre
    split_by: Literal["patient", "centre"] = "patient"
    images: str | None = None


class BadDeclaration(BadRecord):
    """Everything that is wrong with a dataset.json."""

    def __init__(self, path: Path, problems: list[Problem]) -> None:
        super().__init__(path, problems)
        self.path, self.problems = path, problems

    def __str__(self) -> str:
        return f"{self.path}: " + " ".join(f"{problem}. {mend}" for problem, mend in self.problems)


def load_declaration(path: Path) -> Declaration:
    """Read a dataset.json. Raises BadDeclaration with all that is wrong in it, BadRecord if it cannot be read."""
    if not path.exists():
        raise BadRecord(
            f"{path}: there is no such file. It must name the channels, labels and file ending, as in nnU-Net: "
            f"{EXAMPLE}"
        )
    value = read_json(path)
    if not isinstance(value, dict):
        raise BadRecord(f"{path}: this must be one object in curly brackets, as {EXAMPLE}.")
    if "channel_names" not in value and all(key in value for key in OLD_KEYS):
        raise BadRecord(
            f"{path}: this is the declaration of nnU-Net v1, whose keys are other ones. "
            "Bring the dataset over with: fmseg convert nnunet"
        )
    try:
        declaration = Declaration.model_validate(value)
    except ValidationError as error:
        raise BadRecord(f"{path}: {explain_validation(error, Declaration)}") from error
    problems = [*_problems(declaration), *_of_masks(path.parent, value)]
    if problems:
        raise BadDeclaration(path, problems)
    return declaration


def free_number(raw: Path) -> int:
    """Return a number that no dataset of a folder has."""
    numbers = (int(match[1]) for path in raw.iterdir() if (match := re.match(r"Dataset(\d+)_", path.name)))
    return max(numbers, default=0) + 1


def label_scheme(declaration: Declaration) -> LabelScheme:
    """Return what the label values of a sound declaration mean."""
    labels: dict[str, Any] = dict(declaration.labels)
    del labels["background"]
    ignore = labels.pop("ignore", None)
    values = tuple(tuple(value) if isinstance(value, list) else (value,) for value in labels.values())
    has_regions = any(isinstance(value, list) for value in labels.values())
    painted = tuple(declaration.regions_class_order or ()) if has_regions else tuple(value[0] for value in values)
    return LabelScheme(names=tuple(labels), values=values, painted=painted, has_regions=has_regions, ignore=ignore)


def remap(values: list[int]) -> dict[int, int]:
    """Return old -> new of label values that are to be consecutive from 1."""
    return {value: index for index, value in enumerate(sorted(values), start=1)}


def _problems(declaration: Declaration) -> list[Problem]:
    found = [*_of_channels(declaration.channel_names), *_of_patients(declaration.group_regex)]
    if declaration.task == "unlabelled":
        return found
    if declaration.dataset is None:
        found += _of_ending(declaration.file_ending)
    else:
        found += _of_entries(declaration.dataset)
    return found + (_of_labels(declaration) if declaration.task == "segmentation" else [])


def _of_masks(folder: Path, value: dict[str, Any]) -> list[Problem]:
    """Find keys that ``convert`` goes by: to read masks as if they were not there would be to read them wrongly."""
    keys = [f"'{key}'" for key in MASK_KEYS if value.get(key)]
    if not keys:
        return []
    command = f"fmseg convert masks {folder} -d {free_number(folder.parent)}"
    return [(f"{', '.join(keys)} says how masks become label maps", f"Map them, into a new dataset, with: {command}")]


def _of_channels(names: dict[str, str]) -> list[Problem]:
    if names and sorted(names) == sorted(str(index) for index in range(len(names))):
        return []
    mend = f"Write {{{', '.join(f'{chr(34)}{index}{chr(34)}: ...' for index in range(max(len(names), 1)))}}}."
    return [(f"'channel_names' must number the channels from \"0\" on, and has {list(names)}", mend)]


def _of_patients(expression: str | None) -> list[Problem]:
    if expression is None:
        return []
    mend = 'It must have one group in brackets, as in "^(P[0-9]+)_"'
    try:
        groups = re.compile(expression).groups
    except (re.error, RecursionError, OverflowError) as error:
        return [(f"'group_regex' is no regular expression ({error})", f"{mend}.")]
    if groups != 1:
        return [("'group_regex' must have one group", f"{mend}.")]
    if ENDLESS_REPEATS.search(expression):
        problem = f"'group_regex' {expression!r} repeats what repeats itself, which may take for ever"
        return [(problem, f"{mend}, and no + or * behind a bracket that holds one.")]
    return []


def _of_ending(ending: str | None) -> list[Problem]:
    if ending is None:
        return [("the key 'file_ending' is missing", 'Write the ending of the images, for example ".png".')]
    if ending and not ending.startswith("."):
        return [(f"'file_ending' is '{ending}' and must begin with a dot", f"Write '.{ending}'.")]
    if ending and not ending.lower().endswith(image_endings()):
        mend = f"Convert the images to one of {', '.join(image_endings())}."
        return [(f"no reader knows the 'file_ending' {ending}", mend)]
    return []


def _of_entries(entries: dict[str, Entry]) -> list[Problem]:
    found = []
    for name, entry in entries.items():
        if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
            found.append((f"the case name {name!r} is no file name", "Take the folders out of the name."))
        if not entry.images:
            found.append((f"the case '{name}' has no images", "List its 'images', or remove the case."))
    return found


def _of_labels(declaration: Declaration) -> list[Problem]:
    """Find what is wrong with label values, regions and the ignore label."""
    labels: dict[str, Any] = dict(declaration.labels)
    found: list[Problem] = []
    background = labels.pop("background", None)
    if background != 0:
        was = "is not there" if background is None else f"is {background}"
        found.append((f"'labels' must have \"background\": 0, which {was}", "Give the background the value 0."))
    ignore = labels.pop("ignore", None)
    if isinstance(ignore, list):
        return [*found, ("'ignore' is a list and must be one value", "Give it the highest value.")]
    if not labels:
        return [*found, ("'labels' has a background only", "Add the classes to be segmented.")]
    nameless = [name for name in labels if not name.strip() or not name.isprintable()]
    if nameless:
        found.append((f"'labels' has the name {nameless[0]!r}, which cannot be printed", "Give the class a name."))
    values = {name: tuple(value) if isinstance(value, list) else (value,) for name, value in labels.items()}
    used = sorted({value for group in values.values() for value in group} - {0})
    for name, group in values.items():
        if not group:
            found.append((f"the region '{name}' has no value", "List its values, or remove it."))
        elif 0 in group and background == 0:
            found.append((f"'{name}' holds 0, which is the background", "Take the 0 out of it."))
        elif ignore is not None and ignore in group:
            found.append((f"'{name}' holds {ignore}, which is the ignore label", "Take it out of one of them."))
            used.remove(ignore) if ignore in used else None
    between = ignore is not None and sorted([*used, ignore]) == list(range(1, len(used) + 2))
    if background == 0 and not between and used and used != list(range(1, len(used) + 1)):
        mend = f"Remap them: {remap(used)}. fmseg doctor --fix writes a copy in which they are."
        found.append((f"label values must be consecutive from 1 and are {used}", mend))
    elif ignore is not None and ignore != len(used) + 1:
        mend = "Give it that value, in the label maps too. fmseg doctor --fix writes a copy in which it has."
        found.append((f"'ignore' must be the highest value, {len(used) + 1}, and is {ignore}", mend))
    return found + _of_regions(declaration, values, used)


def _of_regions(declaration: Declaration, values: dict[str, tuple[int, ...]], used: list[int]) -> list[Problem]:
    order, key = declaration.regions_class_order, "'regions_class_order'"
    if not any(isinstance(value, list) for name, value in declaration.labels.items() if name != "ignore"):
        owners: dict[tuple[int, ...], str] = {}
        return [
            (f"'{owners[value]}' and '{name}' have the same value {value[0]}", "Give each class a value of its own.")
            for name, value in values.items()
            if owners.setdefault(value, name) != name
        ]
    if order is None or len(order) != len(values):
        has = "is missing" if order is None else f"has {len(order)}"
        mend = f"List, for {', '.join(values)}, the value that is painted where each was found; later ones win."
        return [(f"{key} must give one value per region ({len(values)}), and {has}", mend)]
    unknown = sorted(set(order) - set(used))
    if unknown:
        return [(f"{key} holds {unknown}, and the values of 'labels' are {used}", "Use these.")]
    if len(set(order)) < len(order):
        return [(f"{key} names a value twice: {order}", "Give each region a value of its own.")]
    return []
