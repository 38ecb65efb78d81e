"""Is one model better than another, or is the difference within the noise? A paired test over the patients.

Both are scored on the same cases. Patients are drawn with replacement, all their cases with them, and in each draw the
difference of the two scores is taken: what a patient's images make harder for both cancels out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fmseg.errors import BadData
from fmseg.inference.class_scoring import macro_f1_of_draws
from fmseg.inference.scoring import column_means, dice_table, draw_patients, interval, mean_over_classes
from fmseg.records.labels import split_classes
from fmseg.records.scores import CaseScore, ClassificationScores, ClassifiedCase, Interval, Scores

AnyScores = Scores | ClassificationScores


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two models differ on the same cases; ``difference`` is the second minus the first."""

    measure: str
    num_cases: int
    num_patients: int
    first: float
    second: float
    difference: Interval
    #: share of draws that speak against the sign of the difference, twice
    p_value: float

    @property
    def is_noise(self) -> bool:
        """Whether the 95 % interval of the difference holds 0."""
        return self.difference.low <= 0 <= self.difference.high

    def verdict(self, first: str, second: str) -> str:
        """Return the outcome in words."""
        if self.is_noise:
            return f"the difference between {first} and {second} is within the noise (p = {self.p_value:.2g})"
        better, worse = (second, first) if self.difference.mean > 0 else (first, second)
        return f"{better} is better than {worse} (p = {self.p_value:.2g})"


def compare(first: AnyScores, second: AnyScores) -> Comparison:
    """Compare two scores of the same cases by their headline. Raises BadData for other cases or another task."""
    if type(first) is not type(second):
        raise BadData("one has scores of label maps, the other of classes: they have no measure in common")
    one, other = ({case.case: case for case in scores.cases} for scores in (first, second))
    if set(one) != set(other):
        alone = sorted(set(one) ^ set(other))
        raise BadData(
            f"they were scored on different cases ({len(alone)} are in one alone, such as '{alone[0]}'); finish all "
            "folds of both, or evaluate both on the same labels"
        )
    names = sorted(one)
    patients = [one[name].patient for name in names]
    draws = draw_patients(patients)
    values = []
    for cases in ([one[name] for name in names], [other[name] for name in names]):
        values.append(_values(cases, first, patients, np.vstack([np.ones((1, draws.shape[1]), dtype=int), draws])))
    differences = values[1] - values[0]
    centre, spread = float(differences[0]), differences[1:]
    spread = spread[~np.isnan(spread)]
    against = min(np.mean(spread >= 0), np.mean(spread <= 0)) if len(spread) else 0.5
    return Comparison(
        measure=first.headline[0],
        num_cases=len(names),
        num_patients=draws.shape[1],
        first=float(values[0][0]),
        second=float(values[1][0]),
        difference=interval(centre, spread),
        # a finite number of draws shows no probability of 0
        p_value=min(1.0, 2 * max(float(against), 1 / (len(spread) + 1))),
    )


def _values(cases: Sequence, scores: AnyScores, patients: Sequence[str], draws: np.ndarray) -> np.ndarray:
    """Return the headline for each draw of the patients: (D,), NaN where no class occurs. draws: all, then D - 1."""
    if isinstance(scores, Scores):
        found: Sequence[CaseScore] = cases
        means = column_means(dice_table(found), patients, draws)
        # the set as it is comes first
        return np.append(mean_over_classes(means[:1]), mean_over_classes(means[1:], nothing=np.nan))
    told: Sequence[ClassifiedCase] = cases
    truth, decided = (
        np.array([[name in split_classes(text) for name in scores.classes] for text in texts])
        for texts in ([case.label for case in told], [case.predicted for case in told])
    )
    return macro_f1_of_draws(truth, decided, patients, draws)
