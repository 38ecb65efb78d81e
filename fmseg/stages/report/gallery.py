"""The chapter of pictures: the best, the middle and the worst cases, beside their labels."""

import logging
from collections.abc import Sequence
from pathlib import Path

from fmseg.errors import BadData, FmsegError
from fmseg.imaging.readers import read_case, read_label
from fmseg.inference.outcome import Outcome, worst_first
from fmseg.records.dataset import CaseFiles, Dataset
from fmseg.records.scores import ClassificationScores, ClassifiedCase, Scores
from fmseg.reporting.case_pictures import EXTRA, MISSED, as_picture, data_uri, differences, telling_slice
from fmseg.reporting.overlays import colour_of, overlay
from fmseg.reporting.page import Block, Cases, Picture, Section, Shown, Words
from fmseg.workspace import Workspace

logger = logging.getLogger(__name__)

NUM_WORST, NUM_OTHERS = 6, 3
NUM_MISTAKES, NUM_RIGHT = 12, 6
PICTURE_PX = 360
MOST_LEGEND = 12


def section(workspace: Workspace, name: str, outcome: Outcome) -> Section | None:
    """Return the chapter; None where nothing is scored."""
    pooled = outcome.pooled
    if pooled is None:
        return None
    try:
        cases = {case.name: case for case in Dataset.load(workspace.raw_dataset(name)).training_cases()}
    except FmsegError as error:
        return Section("Cases", "The images are not here any more.", (Words((str(error),)),))
    if isinstance(pooled, Scores):
        lead = "Look at the worst ones first: is it the model, or the label? What is shown was predicted out of fold."
        return Section("Cases", lead, tuple(_of_maps(pooled, outcome, cases)))
    lead = "The surest mistakes come first: is it the model, or the label? What is shown was predicted out of fold."
    return Section("Cases", lead, tuple(_of_classes(pooled, outcome, cases)))


def _of_maps(pooled: Scores, outcome: Outcome, cases: dict[str, CaseFiles]) -> list[Block]:
    dice = {case.case: case.mean_dice for case in pooled.cases if case.mean_dice is not None and case.case in cases}
    order = worst_first(list(dice.items()))
    worst, rest = order[:NUM_WORST], order[NUM_WORST:]
    best = rest[::-1][:NUM_OTHERS]
    between = rest[: len(rest) - len(best)]
    start = max((len(order) // 2 - NUM_WORST) - NUM_OTHERS // 2, 0)
    median = between[start : start + NUM_OTHERS]
    legend = [(name, _css(colour_of(value))) for name, value in _painted(outcome)][:MOST_LEGEND]
    legend += [("missed, or another class", _css(MISSED)), ("not in the label", _css(EXTRA))]
    blocks: list[Block] = []
    for title, names in (("The worst", worst), ("In the middle", median), ("The best", best)):
        shown = [found for case in names if (found := _shown_map(cases[case], dice[case], outcome)) is not None]
        if shown:
            blocks.append(Cases(title, tuple(shown), tuple(legend)))
    return blocks


def _painted(outcome: Outcome) -> list[tuple[str, int]]:
    return list(zip(outcome.scheme.names, outcome.scheme.painted, strict=True))


def _shown_map(files: CaseFiles, dice: float, outcome: Outcome) -> Shown | None:
    """Return one case with its pictures; None, with a warning, where a file of it is gone."""
    try:
        case = read_case(files, outcome.chosen[0].config.plans.reader)
        if files.label is None:
            raise BadData(f"{files.name}: its label map is gone.")
        label, _ = read_label(files.label)
        depth, height, width = label.shape
        prediction = outcome.label_map(outcome.probabilities(files.name), (depth, height, width))
    except FmsegError as error:
        logger.warning("%s is not shown: %s", files.name, error)
        return None
    z = telling_slice(label, prediction)
    image = as_picture(case.voxels[:, z])
    pictures = (
        ("image", image, f"Image of case {files.name}"),
        ("label", overlay(image, label[z]), "The image with its label drawn on it"),
        ("prediction", overlay(image, prediction[z]), "The image with the prediction drawn on it"),
        ("disagreement", differences(image, label[z], prediction[z]), "Where label and prediction disagree"),
    )
    shown = tuple(Picture(data_uri(picture, PICTURE_PX), caption, alt) for caption, picture, alt in pictures)
    where = f", slice {z}" if depth > 1 else ""
    return Shown(files.name, f"Dice {dice:.3f}, fold {outcome.fold_of[files.name]}{where}", shown)


def _of_classes(pooled: ClassificationScores, outcome: Outcome, cases: dict[str, CaseFiles]) -> list[Block]:
    there = [case for case in pooled.cases if case.case in cases]
    wrong = sorted((case for case in there if case.label != case.predicted), key=lambda case: -case.confidence)
    right = sorted((case for case in there if case.label == case.predicted), key=lambda case: case.confidence)
    reader = outcome.chosen[0].config.plans.reader
    parts: tuple[tuple[str, Sequence[ClassifiedCase]], ...] = (
        ("The surest mistakes", wrong[:NUM_MISTAKES]),
        ("Right, but hardly", right[:NUM_RIGHT]),
        ("The surest of all", right[::-1][:NUM_RIGHT]),
    )
    blocks: list[Block] = []
    for title, some in parts:
        shown = [found for case in some if (found := _shown_class(cases[case.case], case, reader)) is not None]
        if shown:
            blocks.append(Cases(title, tuple(shown)))
    return blocks


def _shown_class(files: CaseFiles, case: ClassifiedCase, reader: str | None) -> Shown | None:
    try:
        voxels = read_case(files, reader).voxels
    except FmsegError as error:
        logger.warning("%s is not shown: %s", files.name, error)
        return None
    picture = as_picture(voxels[:, voxels.shape[1] // 2])
    label, found = case.label.strip(";") or "none", case.predicted.strip(";") or "none"
    note = f"{label}, {case.confidence:.2f}" if label == found else f"{label}, taken for {found}, {case.confidence:.2f}"
    return Shown(
        Path(files.name).name, note, (Picture(data_uri(picture, PICTURE_PX), "image", f"{files.name}: {note}"),)
    )


def _css(colour: tuple[int, int, int]) -> str:
    return "rgb({}, {}, {})".format(*colour)
