"""Which prediction is of which label: by its name, or by the name that ``convert`` gives its file."""

import logging
from collections.abc import Collection, Iterable
from pathlib import Path

from fmseg.errors import BadData
from fmseg.records.dataset import Dataset
from fmseg.records.naming import match_names, near_name

logger = logging.getLogger(__name__)

MAX_LISTED = 10


def cases_of_labels(dataset: Dataset, labels: Collection[str], place: Path) -> dict[str, str]:
    """Return case -> its label's name, which differs where the labels have the names of the original files."""
    folders = {"imagesTr": dataset.training_cases, "imagesTs": dataset.test_cases}
    known = {case.name for folder, cases in folders.items() if (dataset.folder / folder).is_dir() for case in cases()}
    found = match_names(labels, known, place)
    return {found.get(label, label): label for label in labels}


def predictions_of_cases(
    cases: Collection[str], predictions: Collection[str], place: Path, *, mend: str
) -> dict[str, str]:
    """Return case -> the name of its prediction. Raises BadData listing cases that have none; mend: what else to do."""
    found = {case: name for name, case in match_names(predictions, cases, place).items()}
    missing = [case for case in cases if case not in found]
    if missing:
        listed = ", ".join(missing[:MAX_LISTED]) + (" ..." if len(missing) > MAX_LISTED else "")
        others = sorted(set(predictions) - set(found.values()))
        raise BadData(
            f"{place}: {len(missing)} of {len(cases)} predictions are missing: {listed}. "
            f"{_hint(missing[:MAX_LISTED], others)}Predict them, or {mend}."
        )
    renamed = [(case, name) for case, name in found.items() if case != name]
    if renamed:
        logger.info(
            "%s: %d predictions have the names of their original files, such as '%s' of %s",
            *(place, len(renamed), renamed[0][1], renamed[0][0]),
        )
    return found


def _hint(missing: Iterable[str], others: Collection[str]) -> str:
    """Return a sentence on a prediction that may be one of the missing; an empty text without any."""
    for case in missing:
        near = near_name(case, others)
        if near is not None:
            return f"'{near}' is there and has no label: if it is '{case}', rename one like the other. "
    return ""
