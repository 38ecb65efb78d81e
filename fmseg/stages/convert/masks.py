"""A folder of images and a folder of masks, or masks beside their images, named after them.

An image and its masks have one name, apart from words such as ``_mask`` behind it, and lie in folders of the same
names, apart from words such as ``images`` and ``masks``. Several masks of an image are one mask (``_mask``,
``_mask_1``) or, in folders of their own below that of the masks, one class each. Where no mask has the name of an
image, words behind it are classes (``P1_head``, ``P1_femur``). What cannot be seen is said in a dataset.json of the
source: labels, mask_colors, mask_suffixes, mask_outlines (see docs/how-to/convert.md).
"""

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from fmseg.console import track
from fmseg.errors import BadData, BadRecord
from fmseg.files import read_json
from fmseg.imaging.case import Array
from fmseg.imaging.masks import LOSSY, MaskScheme, fill_lines, find_scheme, read_values
from fmseg.records.cases import is_image_file, is_junk
from fmseg.records.dataset import SPACINGS
from fmseg.records.naming import match_names, plain_name
from fmseg.records.record import explain_validation
from fmseg.records.tables import read_rows
from fmseg.stages.convert.layout import (
    Layout,
    NewDataset,
    Skipped,
    all_files,
    checked_size,
    layouts,
    place_file,
    reason_of,
    stem_of,
    write_table,
)

# fmt: off
IMAGE_FOLDERS = frozenset((
    "images", "image", "imgs", "img", "imagestr", "imagests", "original", "originals", "frames", "scans", "pictures",
))
MASK_FOLDERS = frozenset((
    "masks", "mask", "labels", "label", "labelstr", "labelsts", "gt", "groundtruth", "ground_truth", "ground-truth",
    "annotations", "annotation", "segmentations", "segmentation", "seg", "segs", "contours",
))
# fmt: on
TEST_FOLDERS = frozenset(("test", "testing", "test_set", "imagests", "labelsts"))
FIRST_CHANNEL = "_0000"
#: values from this one on are drawn, where a mask was saved with loss
LOSSY_LEAST = 128
#: behind a name; a number behind it counts masks of one image
MASK_SUFFIX = re.compile(
    r"[ _-](?:mask|masks|label|labels|gt|groundtruth|ground_truth|seg|segmentation|annotation|contour)(?:[ _-]?\d+)?$",
    re.IGNORECASE,
)
WORD_STARTS = re.compile(r"[ _.-]")
#: keys of a dataset.json in the source that go into the new one as they are
KEPT = ("modality", "group_regex", "channel_names", "reference", "licence", "name", "description")

Key = tuple[tuple[str, ...], str]
#: folders, the image's name, class, file
Mask = tuple[tuple[str, ...], str, str, Path]


class Declaration(BaseModel):
    """What the owner says about the masks, in a dataset.json of the source."""

    model_config = ConfigDict(extra="allow", strict=True)

    #: class -> value in the masks
    labels: dict[str, int] = {}
    #: class -> colour, as "#ff0000"
    mask_colors: dict[str, str] = {}
    #: class -> what stands behind the image's name in the name of its mask
    mask_suffixes: dict[str, str] = {}
    #: whether masks are lines around what is meant; looked at if it is not said
    mask_outlines: bool | None = None

    @classmethod
    def of(cls, source: Path) -> "Declaration":
        """Read it, if it is there. Raises BadRecord naming a wrong key."""
        path = source / "dataset.json"
        if not path.exists():
            return cls()
        try:
            found = cls.model_validate(read_json(path))
        except ValidationError as error:
            raise BadRecord(f"{path}: {explain_validation(error, cls)}") from error
        for name, colour in found.mask_colors.items():
            if not re.fullmatch(r"#[0-9A-Fa-f]{6}", colour):
                raise BadRecord(f"{path}: the colour of '{name}' is '{colour}'. Write it as \"#ff0000\".")
        return found

    @property
    def kept(self) -> dict[str, Any]:
        """Return what goes into the new dataset.json as it is."""
        extra: dict[str, Any] = self.model_extra or {}
        return {key: extra[key] for key in KEPT if key in extra}


@dataclass(slots=True)
class Pair:
    """An image and its masks: class ("" for that which the values say) -> files."""

    image: Path
    is_test: bool
    masks: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))


def bring(source: Path, target: Path) -> Skipped:
    """Fill ``target``. Raises BadData if no image has a mask."""
    said = Declaration.of(source)
    dataset = NewDataset(source, target)
    pairs = _pairs(source, said, dataset)
    classes = _classes(pairs.values(), said)
    scheme = _scheme(pairs.values(), said) if not classes else None
    names = classes or (scheme.names if scheme else ())
    for (parts, stem), pair in track(pairs.items(), "reading masks", len(pairs)):
        files = [path for paths in pair.masks.values() for path in paths]
        try:
            label, drawn = _label(pair, scheme, classes, said)
            geometry = checked_size(pair.image, label, drawn)
        except BadData as error:
            for path in (pair.image, *files):
                dataset.skip(path, reason_of(error))
            continue
        is_only = len({key[1] for key in pairs}) == len(pairs)
        case = plain_name(stem if is_only else "_".join((*parts, stem)))
        dataset.add(case, pair.image, label, geometry=geometry, is_test=pair.is_test)
        dataset.used.update(files)
    if (source / "dataset.json").exists():
        dataset.used.add(source / "dataset.json")
    _bring_tables(dataset)
    labels = {"background": 0} | {name: value for value, name in enumerate(names, start=1)}
    return dataset.finish({"labels": labels, "task": "segmentation"} | said.kept, "neither an image nor a mask")


def _bring_tables(dataset: NewDataset) -> None:
    """Take patients and pixel sizes along, where the source has them by case or by the name of its image.

    Lines of images that were left out stay as they are.
    """
    for path in (dataset.source / name for name in ("patients.csv", SPACINGS)):
        if not path.exists():
            continue
        rows = [row for _, row in read_rows(path, ("case",))]
        try:
            named = match_names((row["case"] for row in rows), dataset.cases, path)
        except BadData as error:
            dataset.skip(path, reason_of(error))
            continue
        if rows and not named:
            dataset.skip(path, f"none of its cases is called so now; the first one is {rows[0]['case']}")
            continue
        if all(case == name for name, case in named.items()):
            place_file(path, dataset.target / path.name)
        else:
            rows = [row | {"case": named.get(row["case"], row["case"])} for row in rows]
            write_table(dataset.target / path.name, tuple(rows[0]), (row.values() for row in rows))
        dataset.used.add(path)


def _pairs(source: Path, said: Declaration, dataset: NewDataset) -> dict[Key, Pair]:
    """Return the images that have masks; the others are noted as left out, and so are masks without image."""
    images: dict[Key, Pair] = {}
    masks: list[Mask] = []
    for path in sorted(path for path in all_files(source) if not is_junk(path.name) and is_image_file(path)):
        folders = path.relative_to(source).parts[:-1]
        is_test = any(part.lower() in TEST_FOLDERS for part in folders)
        parts = tuple(part for part in folders if part.lower() not in IMAGE_FOLDERS | MASK_FOLDERS)
        stem, name, is_mask = _split_name(stem_of(path), said)
        if is_mask or any(part.lower() in MASK_FOLDERS for part in folders):
            masks.append((parts, stem, name, path))
        elif (parts, stem_of(path)) in images:
            dataset.skip(path, f"another image is called {path.name} too")
        else:
            images[parts, stem_of(path)] = Pair(path, is_test)
    for parts, stem in [key for key in images if key[1].endswith(FIRST_CHANNEL)]:
        # of an nnU-Net dataset with one channel, whose masks have no such number
        bare = parts, stem.removesuffix(FIRST_CHANNEL)
        if not {bare, (parts, f"{bare[1]}_0001")} & images.keys():
            images[bare] = images.pop((parts, stem))
    if not any((at, stem) in images for parts, stem, _, _ in masks for at in (parts, parts[:-1])):
        masks = _split_words(masks, images)
    for parts, stem, name, path in masks:
        own, above = images.get((parts, stem)), images.get((parts[:-1], stem))
        if own is not None:
            own.masks[name].append(path)
        elif above is not None and parts:
            above.masks[name or parts[-1]].append(path)
        else:
            dataset.skip(path, "this mask has no image of its name")
    for pair in images.values():
        if not pair.masks:
            dataset.skip(pair.image, "this image has no mask of its name")
    found = {key: pair for key, pair in images.items() if pair.masks}
    if not found:
        example = next((f" {file}: {reason}." for file, reason in dataset.skipped.items()), "")
        raise BadData(f"{dataset.source}: no image has a mask of its name.{example}")
    return found


def _split_name(stem: str, said: Declaration) -> tuple[str, str, bool]:
    """Return the image's name, the class, and whether a file is a mask by its name."""
    for name, suffix in said.mask_suffixes.items():
        if suffix and stem.endswith(suffix):
            return stem[: -len(suffix)], name, True
    bare = MASK_SUFFIX.sub("", stem)
    return bare, "", bare != stem


def _split_words(masks: list[Mask], images: Collection[Key]) -> list[Mask]:
    """Return masks none of which has the name of an image, with what stands behind it taken for the class.

    A number is no class, and one word alone says nothing that the values do not; ``_0000`` is an image's channel.
    """
    split: list[Mask] = []
    for parts, stem, name, path in masks:
        cuts = [match.start() for match in WORD_STARTS.finditer(stem) if (parts, stem[: match.start()]) in images]
        behind = stem[cuts[-1] :] if cuts else ""
        word = "" if behind == FIRST_CHANNEL else behind[1:]
        if behind and not word.isdigit():
            stem, name = stem.removesuffix(behind), name or word
        split.append((parts, stem, name, path))
    if len({name for parts, stem, name, _ in split if (parts, stem) in images}) == 1:
        return [(parts, stem, "", path) for parts, stem, _, path in split]
    return split


def _classes(pairs: Collection[Pair], said: Declaration) -> tuple[str, ...]:
    """Return the classes, where each has files of its own."""
    found = {name for pair in pairs for name in pair.masks}
    if found == {""}:
        return ()
    if "" in found:
        raise BadData("Some masks lie in a folder for their class and some do not. Put all of them in one way.")
    order = [*said.mask_suffixes, *said.labels]
    return tuple(sorted(found, key=lambda name: (order.index(name) if name in order else len(order), name)))


def _scheme(pairs: Collection[Pair], said: Declaration) -> MaskScheme:
    paths = [path for pair in pairs for path in pair.masks[""]]
    names = {value: name for name, value in said.labels.items() if value and name != "background"}
    colours = {name: int(colour[1:], 16) for name, colour in said.mask_colors.items()}
    return find_scheme(paths, names=names, colours=colours, is_outline=said.mask_outlines)


def _label(pair: Pair, scheme: MaskScheme | None, classes: Sequence[str], said: Declaration) -> tuple[Array, Path]:
    """Return the label map (Z, Y, X) of all masks of an image, and one of their files."""
    label: Array | None = None
    path = pair.image
    for value, name in enumerate(classes or ("",), start=1):
        for path in pair.masks.get(name, ()):
            if scheme is not None:
                part, _ = scheme.apply(path)
            else:
                part = _drawn(path, said) * np.uint8(value)
            if label is not None and label.shape != part.shape:
                raise BadData(f"{path.name}: the masks of this image have different sizes")
            label = part if label is None else np.where(part > 0, part, label)
    assert label is not None
    return label, path


def _drawn(path: Path, said: Declaration) -> Array:
    """Return where a mask of one class is drawn, (Z, Y, X) of 0 and 1."""
    least = LOSSY_LEAST if path.name.lower().endswith(LOSSY) else 1
    drawn = (read_values(path)[0] >= least).astype(np.uint8)
    return fill_lines(path, drawn) if said.mask_outlines else drawn


def _fits(source: Path) -> bool:
    """Return whether there are folders, or names, of images and masks."""
    names = [path.relative_to(source) for path in all_files(source) if is_image_file(path)]
    in_folders = any(part.lower() in MASK_FOLDERS for path in names for part in path.parts[:-1])
    return in_folders or any(MASK_SUFFIX.search(stem_of(path)) for path in names)


layouts.add("masks", Layout(None, bring, _fits))
