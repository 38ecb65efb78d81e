"""Which foundation checkpoint a finetuning starts from, and why."""

from collections.abc import Sequence
from pathlib import Path

from fmseg.planning.finetuning import pretraining_strength
from fmseg.records.foundation import Foundation, named_foundation
from fmseg.records.plans import Plans
from fmseg.records.run import Initialisation

#: folder and card of a checkpoint
Found = tuple[Path, Foundation]


def choose_start(found: Sequence[Found], plans: Plans, init: str) -> tuple[Found | None, Initialisation]:
    """Return the checkpoint to start from (None: scratch), and what to record about it.

    ``auto`` takes the one of this modality and number of channels that was pretrained longest, of those whose probes
    are better than random weights. Other people's weights it leaves alone, since they bear a licence; but one that was
    pretrained here from them on counts as theirs, which is longer than any.
    Raises UnknownName for a name, or ``modality/name``, that is not there.
    """
    if init == "scratch":
        return None, Initialisation(
            name="scratch", sha256="", because="starting from scratch, as asked, or as the other folds did"
        )
    if init != "auto":
        chosen, why = named_foundation(found, init), "as asked, or as the other folds did"
    else:
        fitting = [
            (folder, card)
            for folder, card in found
            if card.origin is None
            and card.modality.split("-")[0] == plans.modality.split("-")[0]
            and card.architecture.channels == plans.preprocessing.channels
        ]
        if not fitting:
            why = (
                f"starting from scratch: there is no foundation checkpoint for {plans.modality} with "
                f"{plans.preprocessing.channels} channel(s) yet; 'fmseg pretrain' makes one{_imported(found)}"
            )
            return None, Initialisation(name="scratch", sha256="", because=why)
        learned = [pair for pair in fitting if pair[1].has_learned]
        if not learned:
            return None, Initialisation(name="scratch", sha256="", because=_not_learned(fitting[-1][1], found))
        chosen = max(learned, key=lambda pair: (pretraining_strength(pair[1]), pair[1].total_samples, pair[1].name))
        why = f"it was pretrained longest of the {len(fitting)} for {plans.modality}"
    card = chosen[1]
    return chosen, Initialisation(
        name=card.name,
        sha256=card.weights_sha256,
        because=f"starting from {card.summary}: {why}",
        terms=card.foreign[1],
    )


def _imported(found: Sequence[Found]) -> str:
    """Return what to type for other people's weights, if there are any."""
    names = [f"--init {card.name}" for _, card in found if card.origin is not None]
    return f", and other people's weights are taken when they are named: {', '.join(names)}" if names else ""


def _not_learned(card: Foundation, found: Sequence[Found]) -> str:
    probes = "; ".join(
        f"{probe.dataset}: {probe.measure} {probe.score:.3f}, random weights {probe.random:.3f}"
        for probe in card.probes
    )
    return (
        f"starting from scratch: {card.name} has learned too little to help ({probes}). Pretrain it longer, or take it "
        f"all the same with --init {card.name}{_imported(found)}"
    )
