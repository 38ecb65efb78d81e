"""What was chosen to predict a dataset, loaded: the networks, and what follows their average."""

from dataclasses import dataclass
from pathlib import Path

from fmseg.inference.classes import ClassPredictor
from fmseg.inference.members import Member, find_device, load_members
from fmseg.inference.predictor import Predictor
from fmseg.inference.trained import Chosen, check_chosen, chosen_runs


@dataclass(frozen=True, slots=True)
class Choice:
    """Networks that predict together."""

    chosen: Chosen
    members: tuple[Member, ...]

    @property
    def task(self) -> str:
        """What they have learned."""
        return self.members[0].config.plans.task

    def predictor(self, *, mirror: bool) -> Predictor | ClassPredictor:
        """Return them ready for images."""
        if self.task == "classification":
            return ClassPredictor(self.members, temperature=self.chosen.temperature, mirror=mirror)
        return Predictor(self.members, clean_up=self.chosen.clean_up, mirror=mirror)


def load_choice(results: Path) -> Choice:
    """Load what ``find_best`` chose, or what is finished of the one recipe. results: of one dataset.

    Raises NotReady naming the command that is missing, BadData for weights that do not fit.
    """
    chosen = chosen_runs(results)
    members = tuple(load_members(chosen.runs, find_device()))
    check_chosen(chosen, [member.config for member in members])
    return Choice(chosen, members)
