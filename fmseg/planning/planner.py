"""From facts to every number: fingerprint and hardware in, ``Plans`` with a reason for each number out.

The rules are the methods of ``Planner``, each a value with its reasons. A planner of your own is a subclass that
changes some of them, entered in ``planners``; ``fmseg list planners`` shows what is there.
"""

from collections.abc import Sequence

from fmseg.planning.augmentation import mirror_axes_of, plan_augmentation
from fmseg.planning.finetuning import FinetuningFacts, plan_finetuning
from fmseg.planning.preprocessing import Options, plan_preprocessing
from fmseg.planning.pretraining import corpus_facts, plan_pretraining
from fmseg.planning.reasons import Decision, Reasons
from fmseg.planning.steadiness import steady
from fmseg.records.fingerprint import Fingerprint
from fmseg.records.labels import OutputScheme
from fmseg.records.plans import Hardware, Plans, Preprocessing, Pretraining, Reason
from fmseg.records.recipe import Recipe
from fmseg.registry import Registry

DEFAULT_NAME = "fmsegPlans"

Reasoned = tuple[Reason, ...]


class Planner:
    """The standard rules."""

    def __init__(
        self,
        fingerprint: Fingerprint,
        labels: OutputScheme | None,
        hardware: Hardware,
        channel_names: Sequence[str],
        *,
        budget_s: float | None = None,
        options: Options | None = None,
        former: Preprocessing | None = None,
    ) -> None:
        """former: how the images that are there already were prepared, of a set that has grown since."""
        self.fingerprint = fingerprint
        self.labels = labels
        self.hardware = hardware
        self.channel_names = tuple(channel_names)
        self.budget_s = budget_s
        self.options = options
        self.former = former

    def plan(self, name: str) -> Plans:
        """Apply all rules."""
        preprocessing, why_preprocessing = steady(*self.preprocessing(), self.former)
        pretraining, why_pretraining = self.pretraining(preprocessing)
        reasons = Reasons()
        is_labelled = self.fingerprint.task != "unlabelled"
        finetuning, why_finetuning = self.finetuning(preprocessing, pretraining) if is_labelled else (None, ())
        recipes = reasons.keep("recipes", self.recipes())
        mirror_axes = reasons.keep("mirror_axes", mirror_axes_of(self.fingerprint.modality, self.labels))
        return Plans(
            name=name,
            dataset=self.fingerprint.dataset,
            task=self.fingerprint.task,
            modality=self.fingerprint.modality,
            content_hash=self.fingerprint.content_hash,
            labels=self.labels,
            hardware=self.hardware,
            preprocessing=preprocessing,
            pretraining=pretraining,
            finetuning=finetuning,
            recipes=recipes,
            mirror_axes=mirror_axes,
            because=(*why_preprocessing, *why_pretraining, *why_finetuning, *reasons.all()),
        )

    def preprocessing(self) -> tuple[Preprocessing, Reasoned]:
        """Return how images are prepared."""
        return plan_preprocessing(self.fingerprint, self.hardware, self.channel_names, self.options)

    def pretraining(self, preprocessing: Preprocessing) -> tuple[Pretraining, Reasoned]:
        """Return the DINOv2 recipe for this dataset alone; ``fmseg pretrain`` plans for all that it is given."""
        facts = corpus_facts(self.fingerprint, preprocessing, self.labels)
        return plan_pretraining(facts, self.hardware, budget_s=self.budget_s)

    def finetuning(self, preprocessing: Preprocessing, pretraining: Pretraining) -> tuple[Recipe, Reasoned]:
        """Return the numbers common to all recipes."""
        facts = FinetuningFacts(self.fingerprint, self.hardware, preprocessing, pretraining)
        augmentation, why = plan_augmentation(self.fingerprint.modality, self.labels)
        recipe, because = plan_finetuning(facts, augmentation, self.labels)
        return recipe, (*because, *why)

    def recipes(self) -> Decision[tuple[str, ...]]:
        """Return the recipes that ``fmseg train`` runs."""
        if self.fingerprint.task == "unlabelled":
            return (), "nothing is labelled"
        if self.fingerprint.task == "classification":
            cnn = "resnet50" if self.hardware.device == "cuda" else "resnet18"
            because = (
                "all weights; a regression on frozen features, which takes a minute; and a CNN from random weights: of "
                "498 fetal planes it learned more than a ViT after a short pretraining (macro F1 0.89 against 0.80); "
                "find_best keeps what helps"
            )
            return ("finetune", "linear_probe", cnn), because
        because = (
            "the paper's, and a U-Net from random weights: after a short pretraining it learned more from 20 labels "
            "(Dice of fetal heads 0.93 against 0.89); find_best keeps what helps"
        )
        if self.hardware.device != "cuda":
            return ("upernet", "unet"), because
        return ("upernet", "unet", "linear"), f"{because}; and a linear one on frozen features, at a sixth of the cost"


planners: Registry[type[Planner]] = Registry("planner")
planners.add("standard", Planner)


def plan(
    fingerprint: Fingerprint,
    labels: OutputScheme | None,
    hardware: Hardware,
    channel_names: Sequence[str],
    *,
    name: str = DEFAULT_NAME,
    planner: str = "standard",
    budget_s: float | None = None,
    options: Options | None = None,
    former: Preprocessing | None = None,
) -> Plans:
    """Return the plans of a dataset. budget_s: time of the pretraining. Raises UnknownName for a planner."""
    facts = (fingerprint, labels, hardware, channel_names)
    return planners[planner](*facts, budget_s=budget_s, options=options, former=former).plan(name)


def plans_file(plans_name: str = DEFAULT_NAME) -> str:
    """Return the name of the file of plans: plans.json, other plans under their own names."""
    return "plans.json" if plans_name == DEFAULT_NAME else f"{plans_name}.json"
