"""Test a trained network on images that are in no store: an official test set, or another cohort.

They are read, prepared and predicted as ``predict`` does it. An image that was trained on is left out, whatever it
is called, and so is one without a label, or with one that the network cannot give.
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from fmseg.console import track
from fmseg.errors import BadData
from fmseg.files import sha256, sha256_file
from fmseg.imaging.case import Case, Spacing, content_hash
from fmseg.imaging.decode import targets_from_classes
from fmseg.imaging.metrics import background_counts, score_case
from fmseg.imaging.readers import read_reference
from fmseg.inference.cases import Failure
from fmseg.inference.class_scoring import score_classes
from fmseg.inference.classes import ClassPredictor, Verdict
from fmseg.inference.exposure import Exposure, exposure_of
from fmseg.inference.inputs import find_inputs
from fmseg.inference.members import Member, classes_of, find_device, load_member, scheme_of
from fmseg.inference.out_of_fold import distance_unit, save_scores
from fmseg.inference.out_of_fold_classes import save_class_scores
from fmseg.inference.predictor import Prediction, Predictor
from fmseg.inference.scoring import NSD_TOLERANCE, score
from fmseg.planning.patients import known_patients
from fmseg.records.cases import THREADS
from fmseg.records.dataset import SPACINGS, CaseFiles, Dataset, visible_files
from fmseg.records.endings import strip_ending
from fmseg.records.labels import ClassScheme, LabelScheme, split_classes
from fmseg.records.plans import Fold, Plans
from fmseg.records.scores import CaseScore, ClassificationScores, Scores
from fmseg.records.tables import read_classes, read_spacings
from fmseg.workspace import Workspace

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tested:
    """What a test came to."""

    scores: Scores | ClassificationScores
    #: test images that the pretraining had met; None where nobody knows
    seen_in_pretraining: int | None
    #: trained on, unreadable, without a label, or of classes that the network cannot answer with
    left_out: int
    #: of ``digest_of_test``, before the test began; empty for validation cases
    digest: str = ""


def score_elsewhere(workspace: Workspace, run_folder: Path, name: str, place: Path) -> Tested:
    """Test a finished run on a dataset: on imagesTs if it is the one it was trained on, else on its labelled images.

    Writes scores.json and summary.json into ``place``, below ``test`` where the run itself lies.
    Raises BadData if the labels mean other things, or nothing is left to test on.
    """
    member = load_member(run_folder, find_device())
    dataset = Dataset.load(workspace.need(workspace.raw_dataset(name), f"fmseg convert, or put {name} there"))
    if dataset.task != member.config.plans.task:
        raise BadData(f"{name} is for {dataset.task}, and the networks were trained for {member.config.plans.task}.")
    is_own = name == member.config.plans.dataset
    # taken first, so that labels that are mended while the test runs make it one of before
    digest = digest_of_test(dataset, is_own=is_own)
    config = member.config
    learned = config.evolve(cases=Fold(train=config.cases.train, val=()).model_dump(mode="json"))
    exposure = exposure_of(workspace, [learned])
    way = _on_label_maps if dataset.task == "segmentation" else _on_classes
    tested = way(workspace, member, dataset, exposure, is_own=is_own)
    target = place / "test" if is_own else place
    if isinstance(tested.scores, Scores):
        maps = {case.name: case.label for case in _images(dataset, is_own=is_own) if case.label is not None}
        # predictions are not kept
        save_scores(tested.scores, target, scheme_of(config), {name: (path, path) for name, path in maps.items()})
    else:
        save_class_scores(tested.scores, target)
    return replace(tested, digest=digest)


def digest_of_test(dataset: Dataset, *, is_own: bool) -> str:
    """Return the SHA-256 of what a test on a dataset rests on: images, labels, what these mean, declared patients.

    is_own: whether imagesTs is tested on, else imagesTr. Of label maps all bytes count: 5000 of 0.3 MB are read in some
    seconds. Images may be a thousand times larger, so of these name and size count. Times of files count for nothing:
    a copy of the workspace has others, and would have all networks tested again. Raises BadData for a wrong table.
    """
    is_of_maps = dataset.task == "segmentation"
    classes = {} if is_of_maps else read_classes(_class_table(dataset, is_own=is_own))
    patients = dataset.patients_of_cases()
    # without a label map, an image is not tested on; without a class, it is counted
    cases = [case for case in _images(dataset, is_own=is_own) if case.label is not None or not is_of_maps]
    with ThreadPoolExecutor(THREADS) as pool:
        files = list(pool.map(_mark_of, cases))
    rows = [
        (case.name, case.spacing_mm, mark, classes.get(case.name), patients.get(case.name))
        for case, mark in zip(cases, files, strict=True)
    ]
    meaning = dataset.labels.digest() if is_of_maps else ""
    return sha256(json.dumps([meaning, dataset.declaration.group_regex, rows]).encode())


def _mark_of(case: CaseFiles) -> list[str]:
    """Return name and size of each image, and the digest of the label map."""
    try:
        sizes = [f"{path.name}:{path.stat().st_size}" for path in case.images]
        return [*sizes, sha256_file(case.label) if case.label else ""]
    except OSError:  # the test names it
        return ["unreadable"]


def need_alike(workspace: Workspace, plans: Plans, name: str) -> None:
    """Raise BadData unless a cohort is labelled with what networks of a plan know."""
    dataset = Dataset.load(workspace.raw_dataset(name))
    if dataset.task != plans.task:
        raise BadData(f"{name} is for {dataset.task}, and {plans.dataset} for {plans.task}. Choose another cohort.")
    if isinstance(plans.labels, LabelScheme):
        label_reader(dataset.labels, plans.labels, name)
    elif plans.labels is not None and not set(dataset.class_scheme.names) & set(plans.labels.names):
        raise BadData(f"{name} shows none of the classes {', '.join(plans.labels.names)} of {plans.dataset}.")


def _on_label_maps(
    workspace: Workspace, member: Member, dataset: Dataset, exposure: Exposure, *, is_own: bool
) -> Tested:
    scheme = scheme_of(member.config)
    read = label_reader(dataset.labels, scheme, dataset.name)
    cases = [case for case in _images(dataset, is_own=is_own) if case.label is not None]
    unit = distance_unit(cases)
    patients = known_patients(workspace, dataset, [case.name for case in cases])

    def finish(done: Prediction) -> tuple[str, CaseScore]:
        reference, spacing = read(done.files)
        rule = spacing if unit == "mm" else None
        found = score_case(done.labels, reference, scheme, rule, NSD_TOLERANCE)
        background = background_counts(done.labels, reference, scheme)
        name = done.files.name
        case = CaseScore(case=name, patient=patients.get(name, name), classes=found, background=background)
        return exposure.sight(content_hash(done.case.voxels)), case

    rows = _finished(Predictor([member]).predict_cases(cases, finish), len(cases), dataset.name)
    kept = [(sight, case) for sight, case in rows if sight != "training"]
    _need_some(kept, dataset.name)
    scores = score([case for _, case in kept], distance_unit=unit)
    return Tested(scores, _count_seen([sight for sight, _ in kept]), len(cases) - len(kept))


def _on_classes(workspace: Workspace, member: Member, dataset: Dataset, exposure: Exposure, *, is_own: bool) -> Tested:
    scheme = classes_of(member.config)
    source = _class_table(dataset, is_own=is_own)
    labels = read_classes(source)
    images = _images(dataset, is_own=is_own)
    cases = answerable(images, labels, scheme)

    def finish(files: CaseFiles, case: Case, verdict: Verdict) -> tuple[str, str, np.ndarray]:
        return exposure.sight(content_hash(case.voxels)), files.name, verdict.probabilities

    rows = _finished(ClassPredictor([member]).predict_cases(cases, finish), len(cases), dataset.name)
    kept = [row for row in rows if row[0] != "training"]
    _need_some(kept, dataset.name)
    names = [name for _, name, _ in kept]
    scores = score_classes(
        names,
        np.array([row for _, _, row in kept], dtype=np.float64),
        targets_from_classes(labels, names, scheme, source),
        scheme,
        patients=known_patients(workspace, dataset, names),
    )
    return Tested(scores, _count_seen([sight for sight, _, _ in kept]), len(images) - len(kept))


def answerable(images: Sequence[CaseFiles], labels: Mapping[str, str], scheme: ClassScheme) -> list[CaseFiles]:
    """Return the images whose label a network could have given: of known classes, none or several only if it may."""

    def is_answerable(label: str) -> bool:
        shown = split_classes(label)
        return set(shown) <= set(scheme.names) and (len(shown) == 1 or not scheme.is_exclusive)

    return [case for case in images if case.name in labels and is_answerable(labels[case.name])]


def label_reader(
    theirs: LabelScheme, ours: LabelScheme, name: str
) -> Callable[[CaseFiles], tuple[np.ndarray, Spacing]]:
    """Return a function that reads label maps of one scheme as those of another: (values (Z, Y, X), spacing in mm).

    Classes are told by their names, whatever their values. Raises BadData if names or regions differ.
    """
    same = theirs.values == ours.values and theirs.names == ours.names and theirs.ignore == ours.ignore
    if not same and (set(theirs.names) != set(ours.names) or theirs.has_regions or ours.has_regions or theirs.ignore):
        raise BadData(
            f"{name}: its labels are {', '.join(theirs.names)}, those of the networks {', '.join(ours.names)}. "
            "Give both the same names in dataset.json; regions and 'ignore' must be equal."
        )
    table = np.arange(max(*theirs.declared, *ours.declared) + 1)
    if not same:
        value_of = dict(zip(ours.names, ours.values, strict=True))
        for one, values in zip(theirs.names, theirs.values, strict=True):
            table[list(values)] = value_of[one][0]

    def read(case: CaseFiles) -> tuple[np.ndarray, Spacing]:
        values, spacing = read_reference(case)
        if values.max(initial=0) >= len(table):
            raise BadData(f"{case.label}: the value {values.max()} is not declared in dataset.json.")
        return table[values], spacing

    return read


def _images(dataset: Dataset, *, is_own: bool) -> list[CaseFiles]:
    """Return the images to test on, each with its label map if there is one."""
    if not is_own:
        return list(dataset.training_cases())
    folder = dataset.folder / "labelsTs"
    maps = {strip_ending(path.name): path for path in visible_files(folder)} if folder.is_dir() else {}
    sizes = read_spacings(dataset.folder / SPACINGS)
    return [
        CaseFiles(case.name, case.images, maps.get(case.name), case.spacing_mm or sizes.get(case.name))
        for case in find_inputs(dataset.folder / "imagesTs").cases
    ]


def _class_table(dataset: Dataset, *, is_own: bool) -> Path:
    return dataset.folder / ("labelsTs.csv" if is_own else "labelsTr.csv")


def _finished(answers: Iterable[tuple[CaseFiles, T] | Failure], total: int, name: str) -> list[T]:
    rows = []
    for answer in track(answers, f"test on {name}", total):
        if isinstance(answer, Failure):
            logger.warning("%s: %s is left out: %s", name, answer.files.name, answer.problem)
        else:
            rows.append(answer[1])
    return rows


def _need_some(rows: Sequence[object], name: str) -> None:
    if not rows:
        raise BadData(f"{name}: no labelled image is left to test on. Does it hold what the networks were trained on?")


def _count_seen(sights: list[str]) -> int | None:
    return None if "unknown" in sights else sights.count("pretraining")
