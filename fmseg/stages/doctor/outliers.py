"""Cases that are unlike the others in size or spacing, and classes that nobody has drawn."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from fmseg.imaging.survey import finding
from fmseg.records.dataset import Dataset
from fmseg.records.fingerprint import CaseFacts, Finding

#: an image of so many times the pixels of the median, or of one part of it, is told
MAX_SIZE_RATIO = 16.0
#: likewise of the size of a pixel: mm taken for cm is 10, for micrometres 1000
MAX_SPACING_RATIO = 5.0
#: so many pieces, of fewer pixels than that each on average, are noise
MIN_DUST, MAX_DUST_PX = 50, 8
#: so few pixels, and that part of the median, are a speck
MAX_SPECK_PX, MIN_SPECK_RATIO = 4, 100


def odd_sizes(facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Find images that are much larger or smaller than the others, and sets that mix images with volumes."""
    there = [fact for fact in facts if fact.shape[0]]
    if not there:
        return
    areas = np.array([fact.shape[1] * fact.shape[2] for fact in there], float)
    median = float(np.median(areas))
    for fact, area in zip(there, areas.tolist(), strict=True):
        if not 1 / MAX_SIZE_RATIO < area / median < MAX_SIZE_RATIO:
            size = f"{fact.shape[1]} x {fact.shape[2]}"
            problem = f"it has {size} pixels, {area / median:.3g} times as many as the median"
            mend = "Check that it is of the same kind as the others, and not a thumbnail or a montage."
            yield finding("warning", fact.case, problem, mend, "All images are brought to one size.", [fact.case])
    flat = [fact.case for fact in there if fact.shape[0] == 1]
    if 0 < len(flat) < len(there):
        few, many = (flat, "volumes") if 2 * len(flat) <= len(there) else (
            [fact.case for fact in there if fact.shape[0] > 1], "single images")  # fmt: skip
        problem = f"{len(few)} cases such as {few[0]} are unlike the others, which are {many}"
        mend = "Check that they belong to one dataset."
        yield finding("warning", few[0], problem, mend, "Slices and single images may show different things.", few)


def odd_spacings(facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Find images whose pixels are said to be much larger or smaller than those of the others."""
    there = [fact for fact in facts if fact.shape[0]]
    sized = [(fact, fact.spacing_mm) for fact in there if fact.spacing_mm is not None]
    if not sized:
        return
    if len(sized) < len(there):
        case = next(fact.case for fact in there if fact.spacing_mm is None)
        problem = f"{len(there) - len(sized)} images such as {case} have no pixel size, and {len(sized)} have one"
        mend = "Nothing to do: sizes in mm are then used for none of them. Give all of them one, if you can."
        yield finding("warning", case, problem, mend, "Lengths in mm cannot be compared.", [case])
    values = np.array([spacing for _, spacing in sized])
    median = np.median(values, axis=0)
    for (fact, spacing), ratios in zip(sized, values / median, strict=True):
        if ratios.max() > MAX_SPACING_RATIO or ratios.min() < 1 / MAX_SPACING_RATIO:
            told = " x ".join(f"{size:.4g}" for size in spacing)
            usual = " x ".join(f"{size:.4g}" for size in median)
            problem = f"its voxels are {told} mm (z, y, x), those of the others {usual} mm"
            mend = "Check the unit: cm or micrometres may have been taken for mm."
            yield finding("warning", fact.case, problem, mend, "It would be shrunk or enlarged by much.", [fact.case])


def odd_planes(facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Find volumes whose slices are of another plane than most."""
    usual = _usual_plane(facts)
    for fact in facts:
        if fact.slices not in ("", usual):
            problem = f"its slices are {fact.slices}, those of the others {usual}"
            mend = "Save image and label map with their axes in the order of the others."
            why = "A volume is taken slice by slice along its last axis, and these show other cuts of the body."
            yield finding("warning", fact.case, problem, mend, why, [fact.case])


def of_usual_plane(facts: Sequence[CaseFacts]) -> list[CaseFacts]:
    """Return the cases whose sizes can be compared: those that ``odd_planes`` does not name."""
    usual = _usual_plane(facts)
    return [fact for fact in facts if fact.slices in ("", usual)]


def _usual_plane(facts: Sequence[CaseFacts]) -> str:
    counts = Counter(fact.slices for fact in facts if fact.slices)
    return counts.most_common(1)[0][0] if counts else ""


def absent_classes(dataset: Dataset, facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Find classes that no label map shows."""
    drawn = [fact for fact in facts if fact.class_counts]
    if not drawn:
        return
    shown = [sum(fact.class_counts[index][0] > 0 for fact in drawn) for index in range(len(dataset.labels.names))]
    if not any(shown):
        problem = "all label maps are empty, so there is nothing to learn"
        yield finding("error", "labelsTr", problem, "Draw the classes, or export the label maps again.", UNSEEN)
        return
    for name, count in zip(dataset.labels.names, shown, strict=True):
        if not count:
            problem = f"'labels' declares {name}, which no label map shows"
            yield finding("warning", "dataset.json", problem, "Remove it, or look for the cases that show it.", UNSEEN)


def odd_labels(facts: Sequence[CaseFacts], ignored: int | None) -> Iterator[Finding]:
    """Find label maps without a background where others have one, of dust, or of next to nothing.

    ignored: the value of pixels that nobody has labelled, which are no class.
    """
    totals = [sum(pixels for value, pixels, _ in fact.label_counts if value != ignored) for fact in facts]
    filled = [total == math.prod(fact.shape) for fact, total in zip(facts, totals, strict=True)]
    has_background = 2 * sum(filled) < len(facts)
    median = float(np.median([total for total in totals if total] or [0]))
    for fact, total, is_filled in zip(facts, totals, filled, strict=True):
        pieces = sum(count for value, _, count in fact.label_counts if value != ignored)
        if not total:
            continue  # told where it was measured
        if is_filled and has_background:
            problem, why = "its label map has no background: every pixel is of a class", "It may be turned inside out."
        elif pieces >= MIN_DUST and total < MAX_DUST_PX * pieces:
            problem, why = f"its label map is {pieces} pieces of {total / pieces:.1f} pixels", "It looks like noise."
        elif total <= MAX_SPECK_PX and total * MIN_SPECK_RATIO <= median:
            what = "1 pixel" if total == 1 else f"{total} pixels"
            problem, why = f"{what} are labelled, where others have {median:.0f}", "It may be a slip of the pen."
        else:
            continue
        yield finding("warning", fact.case, problem, "Look at it, and correct it.", why, [fact.case])


UNSEEN = "A network cannot learn what it never sees."
