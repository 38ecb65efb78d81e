"""The chapter on the images: what there is, what is odd about it, how the folds divide it."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fmseg.files import read_json, stream_lines
from fmseg.imaging.measure import read_facts
from fmseg.planning.folds import load_folds
from fmseg.records.fingerprint import CaseFacts, Finding, Fingerprint
from fmseg.records.plans import Fold
from fmseg.reporting import charts
from fmseg.reporting.page import Block, Facts, Figure, Figures, Section, Table, Words

#: cases that pictures of the data are drawn from, evenly spaced: millions would take minutes and change no curve
MOST_CASES = 20_000
MOST_FINDINGS = 300
FINDINGS_WORD = {"error": "must be mended", "warning": "look at it", "note": "good to know"}


def section(prepared: Path, measured: Fingerprint) -> Section:
    """Return the chapter. prepared: the dataset's folder of measurements."""
    facts = _some_facts(prepared / "cases.jsonl")
    findings = _findings(prepared / "doctor.json")
    blocks: list[Block] = [_facts(measured)]
    figures = [*_figures(measured, facts), *_of_folds(prepared / "splits_final.json", measured, facts)]
    if figures:
        blocks.append(Figures(tuple(figures)))
    blocks.append(_finding_table(findings))
    counts = Counter(each.severity for each in findings)
    told = ", ".join(_count(counts[key], key) for key in counts)
    lead = f"{measured.num_cases:,} cases, measured file by file. The doctor found {told or 'nothing odd'}."
    return Section("Data", lead, tuple(blocks))


def _count(number: int, severity: str) -> str:
    return f"{number:,} {severity}{'s' if number > 1 else ''}"


def _some_facts(path: Path) -> list[CaseFacts]:
    if not path.exists():
        return []
    total = sum(1 for _ in stream_lines(path))
    stride = -(-total // MOST_CASES) if total else 1
    if stride == 1:
        return list(read_facts(path))
    lines = (line for number, line in enumerate(stream_lines(path)) if number % stride == 0)
    return [CaseFacts.model_validate_json(line) for line in lines]


def _facts(measured: Fingerprint) -> Facts:
    height, width = measured.median_size
    smallest, largest = ("{} x {}".format(*size) for size in (measured.min_size, measured.max_size))
    same = measured.min_size == measured.max_size
    spacing = measured.median_spacing_mm
    rows = [
        ("images", f"{measured.num_images:,}"),
        ("patients", f"{measured.num_patients:,}, {measured.patient_source}"),
        ("height x width, pixels", f"{height} x {width}" + ("" if same else f" (median; {smallest} to {largest})")),
        ("pixel size", "unknown" if spacing is None else f"{spacing[1]:.3g} x {spacing[2]:.3g} mm"),
        ("channels, type", f"{measured.file_channels}, {measured.dtype}"),
        ("modality", measured.modality),
    ]
    return Facts(tuple(rows))


def _figures(measured: Fingerprint, facts: Sequence[CaseFacts]) -> list[Figure]:
    """Return what the images are like, one thing a figure."""
    found = []
    readable = [each for each in facts if each.intensity]
    means = [each.intensity[0].mean for each in readable]
    if means:
        low, high = np.percentile(means, (5, 95)).tolist()
        found.append(
            Figure(
                "How bright the images are",
                f"Mean intensity of each image; nine of ten lie between {low:.4g} and {high:.4g}.",
                charts.histogram(means, alt=f"Histogram of mean intensities, mostly {low:.4g} to {high:.4g}.",
                                 unit="mean intensity"),
            )
        )  # fmt: skip
    if measured.task == "segmentation":
        found += _of_classes(measured, readable)
    if measured.task == "classification" and measured.classes:
        names = [each.name for each in measured.classes]
        counts = [round(each.case_share * measured.num_cases) for each in measured.classes]
        told = ", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True))
        found.append(Figure("How often each class occurs", "Cases of each class.",
                            charts.bars(names, counts, alt=f"Cases of each class: {told}.")))  # fmt: skip
    sizes = Counter(Counter(each.patient for each in facts).values())
    if measured.num_patients and len(sizes) > 1 and measured.patients_declared:
        most = sorted(sizes)[:12]
        names = [f"{size} case{'s' if size > 1 else ''}" for size in most]
        found.append(Figure("Cases of one patient", "Patients by the number of their cases; folds keep them together.",
                            charts.bars(names, [sizes[size] for size in most],
                                        alt="Number of patients by cases of each.")))  # fmt: skip
    return found


def _of_classes(measured: Fingerprint, facts: Sequence[CaseFacts]) -> list[Figure]:
    """Return how large and how frequent the classes of label maps are."""
    names = [each.name for each in measured.classes]
    shares = [
        np.array([
            100 * each.class_counts[index][0] / max(int(np.prod(each.shape)), 1)
            for each in facts
            if index < len(each.class_counts) and each.class_counts[index][0]
        ])
        for index in range(len(names))
    ]  # fmt: skip
    shown = [(name, values) for name, values in zip(names, shares, strict=True) if len(values)]
    if not shown:
        return []
    told = ", ".join(f"{name} {np.median(values):.2g} %" for name, values in shown)
    figure = Figure(
        "How large each class is",
        "Share of the image that a class covers where it is present: bar the middle half, line 5 to 95 %.",
        charts.spreads([name for name, _ in shown], [values for _, values in shown], unit="% of the image",
                       alt=f"Median share of the image: {told}."),
    )  # fmt: skip
    everywhere = all(each.case_share == 1 for each in measured.classes)
    if everywhere:
        return [figure]
    counts = [round(100 * each.case_share, 1) for each in measured.classes]
    often = Figure("How often each class is there", "Share of the cases that show it, in %.",
                   charts.bars(names, counts, alt="Share of the cases that show each class."))  # fmt: skip
    return [figure, often]


def _of_folds(path: Path, measured: Fingerprint, facts: Sequence[CaseFacts]) -> list[Figure]:
    """Return how the folds divide the cases, and whether they are alike."""
    if not path.exists():
        return []
    folds = load_folds(path)
    names = [f"fold {number}" for number in range(len(folds))]
    sizes = [len(fold.val) for fold in folds]
    found = [Figure("How many cases each fold validates", "No patient is on both sides of a fold.",
                    charts.bars(names, sizes, alt=f"Validation cases of each fold: {sizes}."))]  # fmt: skip
    return found + (_balance(folds, names, facts) if measured.task == "segmentation" else [])


def _balance(folds: Sequence[Fold], names: Sequence[str], facts: Sequence[CaseFacts]) -> list[Figure]:
    shares = {
        each.case: 100 * sum(pixels for pixels, _ in each.class_counts) / max(int(np.prod(each.shape)), 1)
        for each in facts
        if each.class_counts
    }
    values = [np.array([shares[case] for case in fold.val if case in shares]) for fold in folds]
    if not all(len(each) for each in values):
        return []
    return [
        Figure(
            "Whether the folds are alike",
            "Labelled share of the image in the validation cases of each fold.",
            charts.spreads(names, values, unit="% of the image", alt="Labelled share of the image, fold by fold."),
        )
    ]


def _findings(path: Path) -> list[Finding]:
    return [Finding.parse(each, str(path)) for each in read_json(path)] if path.exists() else []


def _finding_table(findings: Sequence[Finding]) -> Block:
    if not findings:
        return Words(("The doctor looked for damaged files, odd sizes and values, duplicates, and patients or images "
                      "that are in training and test alike, and found nothing.",))  # fmt: skip
    rows = tuple((FINDINGS_WORD[each.severity], each.where, each.problem, each.why, each.mend) for each in findings)
    note = f"The first {MOST_FINDINGS} of {len(rows):,}; doctor.json has all." if len(rows) > MOST_FINDINGS else ""
    return Table(
        "What the doctor found", ("how bad", "where", "what", "why it matters", "mend"), rows[:MOST_FINDINGS], note
    )
