"""The facts of all cases pooled into one fingerprint.

Means and deviations are exact, pooled over all pixels; percentiles are the median of the cases' percentiles.
Cases that cannot be read are left out. Where RGB is reduced to grey, the few colour images are left out of the
intensities.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from fmseg.errors import BadData
from fmseg.files import sha256
from fmseg.records.dataset import Dataset
from fmseg.records.fingerprint import CaseFacts, ClassFacts, Fingerprint, Intensity
from fmseg.records.labels import LabelScheme, is_labelled, split_classes

V = TypeVar("V", int, str)

#: a set declared with one channel, and saved as RGB, counts as grey if this share of its images is grey: a few
#: Doppler images do not make a network of three channels
GREY_SHARE = 0.95


def pool_facts(
    dataset: Dataset, all_facts: Sequence[CaseFacts], patient_source: str, patients_declared: bool
) -> Fingerprint:
    """Return the fingerprint of a dataset. Raises BadData if no image can be read."""
    facts = [fact for fact in all_facts if fact.shape[0]]
    if not facts:
        first = next((finding for fact in all_facts for finding in fact.findings), None)
        example = f" The first one, {first.where}: {first.problem}." if first else ""
        raise BadData(f"{dataset.folder}: none of its {len(all_facts)} images can be read.{example}")
    channels = input_channels(facts, len(dataset.channel_names))
    sizes = np.array([fact.shape[1:] for fact in facts])
    spacings = [fact.spacing_mm for fact in facts if fact.spacing_mm is not None]
    used = [fact for fact in facts if _fits(fact, channels)]
    return Fingerprint(
        dataset=dataset.name,
        task=dataset.task,
        modality=dataset.modality,
        num_cases=len(facts),
        num_images=sum(fact.shape[0] for fact in facts),
        num_patients=len({fact.patient for fact in facts}),
        patient_source=patient_source,
        patients_declared=patients_declared,
        is_3d=any(fact.shape[0] > 1 for fact in facts),
        median_size=_pair(np.rint(np.median(sizes, axis=0))),
        min_size=_pair(sizes.min(axis=0)),
        max_size=_pair(sizes.max(axis=0)),
        median_spacing_mm=_median_spacing(spacings) if len(spacings) == len(facts) else None,
        file_channels=_most_common([fact.channels for fact in facts]),
        channels=channels,
        dtype=_most_common([fact.dtype for fact in facts]),
        intensity=_pooled_intensity([(fact.intensity, _pixels(fact)) for fact in used], channels),
        foreground_intensity=_foreground(used, dataset, channels),
        scaled_mean=tuple(mean for mean, _ in _pooled_scaled(used, channels)),
        scaled_std=tuple(std for _, std in _pooled_scaled(used, channels)),
        classes=_classes(dataset, facts),
        content_hash=_content_hash(all_facts),
    )


def input_channels(facts: Sequence[CaseFacts], declared: int) -> int:
    """Return the number of channels of the network's input: 1 if RGB files are grey."""
    rgb = [fact.is_grey for fact in facts if fact.channels == 3]
    needed_share = GREY_SHARE if declared == 1 else 1.0
    if rgb and sum(rgb) >= needed_share * len(rgb):
        return 1
    return max(fact.channels for fact in facts) if rgb else _most_common([fact.channels for fact in facts])


def _fits(fact: CaseFacts, channels: int) -> bool:
    """Return whether the case's intensities stand for the network's input."""
    if not fact.intensity:
        return False
    if channels == 1:
        return fact.channels == 1 or fact.is_grey
    return fact.channels in (1, channels)


def _pooled_intensity(cases: Sequence[tuple[tuple[Intensity, ...], int]], channels: int) -> tuple[Intensity, ...]:
    """cases: intensities per channel, and the pixels that they stand for."""
    if not cases:
        return ()
    weights = np.array([pixels for _, pixels in cases], dtype=float)
    pooled = []
    for channel in range(channels):
        figures = [case[channel % len(case)] for case, _ in cases]
        moments = np.array([(each.mean, each.std) for each in figures])
        mean, std = _pooled_moments(moments, weights)
        pooled.append(
            Intensity(
                mean=mean,
                std=std,
                minimum=min(each.minimum for each in figures),
                maximum=max(each.maximum for each in figures),
                percentile_00_5=float(np.median([each.percentile_00_5 for each in figures])),
                median=float(np.median([each.median for each in figures])),
                percentile_99_5=float(np.median([each.percentile_99_5 for each in figures])),
            )
        )
    return tuple(pooled)


def _foreground(facts: Sequence[CaseFacts], dataset: Dataset, channels: int) -> tuple[Intensity, ...]:
    if dataset.task != "segmentation":
        return ()
    ignored = dataset.labels.ignore
    cases = [
        (fact.foreground_intensity, sum(pixels for value, pixels, _ in fact.label_counts if value != ignored))
        for fact in facts
        if fact.foreground_intensity
    ]
    return _pooled_intensity(cases, channels)


def _pooled_scaled(facts: Sequence[CaseFacts], channels: int) -> list[tuple[float, float]]:
    weights = np.array([_pixels(fact) for fact in facts], dtype=float)
    return [
        _pooled_moments(np.array([fact.scaled[channel % len(fact.scaled)] for fact in facts]), weights)
        for channel in range(channels)
        if facts
    ]


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


def _content_hash(facts: Sequence[CaseFacts]) -> str:
    """Return a digest that changes with any pixel, label, spacing or case name."""
    lines = sorted(f"{fact.case}\t{fact.content_hash}\t{fact.label_hash}\t{fact.spacing_mm}\n" for fact in facts)
    return sha256("".join(lines).encode())


def _median_spacing(spacings: Sequence[tuple[float, float, float]]) -> tuple[float, float, float]:
    z, y, x = np.median(np.array(spacings), axis=0).tolist()
    return z, y, x


def _pixels(fact: CaseFacts) -> int:
    return fact.shape[0] * fact.shape[1] * fact.shape[2]


def _pair(values: np.ndarray) -> tuple[int, int]:
    return int(values[0]), int(values[1])


def _most_common(values: Sequence[V]) -> V:
    """Return the most frequent value, the smallest one of several."""
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], value))
