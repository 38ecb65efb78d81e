"""The facts of all cases pooled into one fingerprint.

Means and deviations are exact, pooled over all pixels; percentiles are the median of the cases' percentiles.
Cases that cannot be read are left out. Where RGB is reduced to grey, the few colour images are left out of the
intensities.
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeVar

import cv2
import numpy as np

from fmseg.errors import BadData
from fmseg.records.dataset import Dataset
from fmseg.records.fingerprint import CaseFacts, ClassFacts, Fingerprint, Intensity
from fmseg.records.labels import LabelScheme, is_labelled, split_classes

V = TypeVar("V", int, str)

#: a set declared with one channel, and saved as RGB, counts as grey if this share of its images is grey: a few
#: Doppler images do not make a network of three channels
GREY_SHARE = 0.95
FIGURES = tuple(Intensity.model_fields)


def pool_facts(
    dataset: Dataset, all_facts: Iterable[CaseFacts], patient_source: str, patients_declared: bool
) -> Fingerprint:
    """Return the fingerprint of a dataset; the facts are looked at once, in order.

    Raises BadData if no image can be read.
    """
    pool = _Pool(keeps_labels=dataset.task != "unlabelled")
    for fact in all_facts:
        pool.add(fact)
    if not len(pool):
        example = f" The first one, {pool.first_problem}." if pool.first_problem else ""
        raise BadData(f"{dataset.folder}: none of its {len(pool.lines)} images can be read.{example}")
    channels = pool.input_channels(len(dataset.channel_names))
    shapes, spacings = pool.table(pool.shapes), pool.table(pool.spacings)
    figures = pool.figures_of(channels)
    scaled = [_pooled_moments(part[:, -2:], weights) for part, weights in figures]
    return Fingerprint(
        dataset=dataset.name,
        task=dataset.task,
        modality=dataset.modality,
        num_cases=len(pool),
        num_images=int(shapes[:, 0].sum()),
        num_patients=len(pool.patients),
        patient_source=patient_source,
        patients_declared=patients_declared,
        patient_unit=dataset.declaration.patient_unit,
        is_3d=bool((shapes[:, 0] > 1).any()),
        median_size=_pair(np.rint(np.median(shapes[:, 1:], axis=0))),
        min_size=_pair(shapes[:, 1:].min(axis=0)),
        max_size=_pair(shapes[:, 1:].max(axis=0)),
        median_spacing_mm=None if np.isnan(spacings).any() else _median_spacing(spacings),
        file_channels=_most_common(pool.channels),
        channels=channels,
        dtype=_most_common(pool.dtypes),
        intensity=tuple(_pooled_intensity(part, weights) for part, weights in figures),
        foreground_intensity=_foreground(pool, dataset, channels),
        sector_intensity=pool.sector_intensity(channels),
        scaled_mean=tuple(mean for mean, _ in scaled),
        scaled_std=tuple(std for _, std in scaled),
        classes=_classes(dataset, pool.labelled),
        content_hash=pool.content_hash(),
    )


class _Pool:
    """The facts of all cases in columns of numbers: some 300 bytes a case, of which its name takes most."""

    def __init__(self, *, keeps_labels: bool) -> None:
        self.keeps_labels = keeps_labels
        #: of all cases
        self.lines: list[bytes] = []
        self.first_problem = ""
        #: of those that can be read: three numbers each; spacing is NaN where there is none
        self.shapes, self.spacings = array("d"), array("d")
        self.channels: Counter[int] = Counter()
        self.dtypes: Counter[str] = Counter()
        self.num_rgb = self.num_grey_rgb = 0
        self.patients: set[str] = set()
        #: FIGURES inside the scan sector, and its pixels, of each case that has one
        self._sectors = array("d")
        #: of a labelled set
        self.labelled: list[CaseFacts] = []
        #: (channels of the file, is it grey, channels with figures) -> case numbers; per case and channel FIGURES,
        #: mean and std
        self._figures: dict[tuple[int, bool, int], tuple[array[int], array[float]]] = {}

    def __len__(self) -> int:
        return len(self.shapes) // 3

    def add(self, fact: CaseFacts) -> None:
        """Take in one case."""
        line = f"{fact.case}\t{fact.content_hash}\t{fact.label_hash}\t{fact.spacing_mm}\n"
        self.lines.append(line.encode(errors="surrogateescape"))
        if not self.first_problem and fact.findings:
            self.first_problem = f"{fact.findings[0].where}: {fact.findings[0].problem}"
        if not fact.shape[0]:
            return
        if fact.intensity:
            # the channels of a grey RGB image have equal figures
            used = 1 if fact.is_grey else len(fact.intensity)
            key = (fact.channels, fact.is_grey, used)
            numbers, values = self._figures.setdefault(key, (array("q"), array("d")))
            numbers.append(len(self))
            for intensity, moments in zip(fact.intensity[:used], fact.scaled[:used], strict=True):
                values.extend(getattr(intensity, name) for name in FIGURES)
                values.extend(moments)
        for intensity in fact.sector_intensity[:1]:
            # of colour, the first channel stands for all: nearly all of ultrasound is grey
            area = cv2.contourArea(np.array(fact.sector, np.int32)) * fact.shape[0]
            self._sectors.extend((*(getattr(intensity, name) for name in FIGURES), area))
        self.shapes.extend(fact.shape)
        self.spacings.extend(fact.spacing_mm or (np.nan,) * 3)
        self.channels[fact.channels] += 1
        self.dtypes[fact.dtype] += 1
        self.num_rgb += fact.channels == 3
        self.num_grey_rgb += fact.channels == 3 and fact.is_grey
        self.patients.add(fact.patient)
        if self.keeps_labels:
            self.labelled.append(fact)

    @staticmethod
    def table(values: "array[float]") -> np.ndarray:
        """Return (N, 3)."""
        return np.frombuffer(values).reshape(-1, 3)

    @property
    def pixels(self) -> np.ndarray:
        """Pixels of each case, (N,)."""
        return self.table(self.shapes).prod(axis=1)

    def input_channels(self, declared: int) -> int:
        """Return the number of channels of the network's input: 1 if RGB files are grey."""
        needed_share = GREY_SHARE if declared == 1 else 1.0
        if self.num_rgb and self.num_grey_rgb >= needed_share * self.num_rgb:
            return 1
        return max(self.channels) if self.num_rgb else _most_common(self.channels)

    def figures_of(self, channels: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return, per input channel, FIGURES with mean and std (M, 9), and pixels (M,), of the cases that fit."""
        groups = [
            (np.frombuffer(numbers, np.int64), np.frombuffer(values).reshape(len(numbers), used, len(FIGURES) + 2))
            for (file_channels, is_grey, used), (numbers, values) in self._figures.items()
            if _fits(file_channels, is_grey, channels)
        ]
        if not groups:
            return []
        numbers = np.concatenate([numbers for numbers, _ in groups])
        order = np.argsort(numbers, kind="stable")
        weights = self.pixels[numbers[order]]
        return [
            (np.concatenate([values[:, channel % values.shape[1]] for _, values in groups])[order], weights)
            for channel in range(channels)
        ]

    def sector_intensity(self, channels: int) -> tuple[Intensity, ...]:
        """Return the figures inside the scan sectors, one per input channel; none without sectors."""
        values = np.frombuffer(self._sectors).reshape(-1, len(FIGURES) + 1)
        figures = _pooled_intensity(values[:, :-1], values[:, -1]) if len(values) else None
        return (figures,) * channels if figures else ()

    def content_hash(self) -> str:
        """Return a digest that changes with any pixel, label, spacing or case name."""
        self.lines.sort()
        digest = hashlib.sha256()
        for line in self.lines:
            digest.update(line)
        return digest.hexdigest()


def _fits(file_channels: int, is_grey: bool, channels: int) -> bool:
    """Return whether a case's intensities stand for the network's input."""
    if channels == 1:
        return file_channels == 1 or is_grey
    return file_channels in (1, channels)


def _pooled_intensity(figures: np.ndarray, weights: np.ndarray) -> Intensity:
    """figures: (M, 9), FIGURES first. weights: (M,), the pixels that they stand for."""
    column = {name: figures[:, place] for place, name in enumerate(FIGURES)}
    mean, std = _pooled_moments(np.stack([column["mean"], column["std"]], axis=1), weights)
    return Intensity(
        mean=mean,
        std=std,
        minimum=float(column["minimum"].min()),
        maximum=float(column["maximum"].max()),
        percentile_00_5=float(np.median(column["percentile_00_5"])),
        median=float(np.median(column["median"])),
        percentile_99_5=float(np.median(column["percentile_99_5"])),
    )


def _foreground(pool: _Pool, dataset: Dataset, channels: int) -> tuple[Intensity, ...]:
    if dataset.task != "segmentation":
        return ()
    ignored = dataset.labels.ignore
    facts = [
        fact for fact in pool.labelled if fact.foreground_intensity and _fits(fact.channels, fact.is_grey, channels)
    ]
    if not facts:
        return ()
    weights = [sum(pixels for value, pixels, _ in fact.label_counts if value != ignored) for fact in facts]
    pooled = []
    for channel in range(channels):
        each = [fact.foreground_intensity[channel % len(fact.foreground_intensity)] for fact in facts]
        figures = np.array([[getattr(one, name) for name in FIGURES] for one in each])
        pooled.append(_pooled_intensity(figures, np.array(weights, float)))
    return tuple(pooled)


def _pooled_moments(moments: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """moments: (N, 2), mean and standard deviation; weights: (N,), number of pixels."""
    means, deviations = moments.T
    mean = np.average(means, weights=weights)
    return float(mean), float(np.sqrt(np.average(deviations**2 + (means - mean) ** 2, weights=weights)))


def _classes(dataset: Dataset, facts: Sequence[CaseFacts]) -> tuple[ClassFacts, ...]:
    if dataset.task == "classification":
        labels, scheme = dataset.classes_of_cases(), dataset.class_scheme
        given = [labels[fact.case] for fact in facts if is_labelled(labels.get(fact.case, ""), scheme)]
        counts = Counter(name for label in given for name in split_classes(label))
        return tuple(_class_without_pixels(name, counts[name] / len(given)) for name in scheme.names)
    if dataset.task == "segmentation":
        return _segmented_classes(dataset.labels, [fact for fact in facts if fact.class_counts])
    return ()


def _segmented_classes(scheme: LabelScheme, facts: Sequence[CaseFacts]) -> tuple[ClassFacts, ...]:
    sizes = np.array([_pixels(fact) for fact in facts], dtype=float)
    classes = []
    for index, name in enumerate(scheme.names):
        counts = np.array([fact.class_counts[index] for fact in facts]).reshape(-1, 2)
        present = counts[:, 0] > 0
        if not present.any():
            classes.append(_class_without_pixels(name, 0.0))
            continue
        classes.append(
            ClassFacts(
                name=name,
                case_share=float(present.mean()),
                pixel_share=float(counts[:, 0].sum() / sizes.sum()),
                median_components=float(np.median(counts[present, 1])),
                median_area_share=float(np.median(counts[present, 0] / sizes[present])),
            )
        )
    return tuple(classes)


def _class_without_pixels(name: str, case_share: float) -> ClassFacts:
    return ClassFacts(name=name, case_share=case_share, pixel_share=0, median_components=0, median_area_share=0)


def _median_spacing(spacings: np.ndarray) -> tuple[float, float, float]:
    z, y, x = np.median(spacings, axis=0).tolist()
    return z, y, x


def _pixels(fact: CaseFacts) -> int:
    return fact.shape[0] * fact.shape[1] * fact.shape[2]


def _pair(values: np.ndarray) -> tuple[int, int]:
    return int(values[0]), int(values[1])


def _most_common(counts: Counter[V]) -> V:
    """Return the most frequent value, the smallest one of several."""
    return min(counts, key=lambda value: (-counts[value], value))
