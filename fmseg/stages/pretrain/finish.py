"""How a pretraining ends: the weights, what they have seen and what they are worth, in one card."""

import logging
from datetime import UTC, datetime

import torch

from fmseg.files import write_bytes
from fmseg.imaging.measure import read_facts
from fmseg.inference.probes import MOST_CASES
from fmseg.networks.tensors import read_tensors
from fmseg.networks.vit import ViT
from fmseg.networks.weights import load_weights, save_backbone, save_weights
from fmseg.records.foundation import CARD, BestTeacher, Foundation, ProbeScore, read_seen, write_seen
from fmseg.records.run import PretrainConfig, RunFolder
from fmseg.reporting.model_card import model_card
from fmseg.sampling.corpora import Corpus
from fmseg.stages.pretrain.probing import open_probes
from fmseg.stages.pretrain.watch import BEST, Watcher, read_best, score_of
from fmseg.tasks.dino_troubles import all_troubles
from fmseg.workspace import Workspace

logger = logging.getLogger(__name__)

#: the last teacher, where another one is the backbone
LAST = "last.safetensors"
#: by so much the best teacher must beat the last one. One probe moves by 0.008 between seeds of random weights, and
#: the best of twenty equal teachers lies 1.9 such steps above their mean, by chance
PROBE_MARGIN = 0.02
#: RankMe tells a living representation from a dead one, not a good one from a better one: a run that learns to tell
#: images apart begins with half of the dimensions of random weights
RANKME_SHARE = 0.25


def finish(workspace: Workspace, corpus: Corpus, watcher: Watcher, last: Watcher, teacher: ViT) -> None:
    """Write the backbone, what it has seen, what it is worth and its card, and mark the run as finished.

    last: who watched the last phase; ``watcher`` itself where there is only one. teacher: as that phase left it.
    """
    config, run, recipe = watcher.config, watcher.run, watcher.config.recipe
    iterations, path = last.config.recipe.iterations, last.run.path / BEST
    best = choose_best(last.run, iterations)
    if best is not None and best.is_used:
        save_weights(teacher, run.path / LAST)
        load_weights(teacher, read_tensors(path), str(path))
    if last is not watcher or (best is not None and best.is_used):
        last.draw_features(teacher, run.path)
    weights_sha256 = save_backbone(teacher, run.path)
    phases = [watcher] if last is watcher else [watcher, last]
    timing = [line for phase in phases for line in phase.timing()]
    card = Foundation(
        name=run.path.name,
        modality=corpus.modality,
        architecture=teacher.architecture,
        mean=recipe.mean,
        std=recipe.std,
        recipe=recipe,
        datasets=corpus.names,
        num_images=len(corpus.distinct(recipe.min_difference)),
        iterations=sum(phase.config.recipe.iterations for phase in phases),
        samples_seen=sum(phase.config.recipe.iterations * phase.config.recipe.batch_size for phase in phases),
        metrics=_last_values(last.run, iterations),
        weights_sha256=weights_sha256,
        seen_count=_write_seen(workspace, corpus, config, run),
        probes=_probe(workspace, config, teacher),
        best=best,
        troubles=tuple(
            trouble
            for phase in phases
            for trouble in all_troubles(phase.run.history(), phase.timing(), phase.config.recipe)
        ),
        parent=config.parent,
        seconds=round(sum(line["seconds"] for line in timing), 1),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        licence=_licence(config),
        provenance=config.provenance,
    )
    pictures = [name for name in ("progress", "attention", "features") if (run.path / f"{name}.png").exists()]
    write_bytes(run.path / "card.md", model_card(card, pictures).encode())
    card.save(run.path / CARD)
    run.finish({"samples_seen": card.samples_seen})


def _licence(config: PretrainConfig) -> str:
    """Return the terms that hold for the weights: of the images, and of those that they began with."""
    images = "that of the images it was made from"
    if config.parent is None or not config.parent.terms:
        return images
    return f"{config.parent.terms}, of the weights from {config.parent.source} that it began with; and {images}"


def choose_best(run: RunFolder, iterations: int) -> BestTeacher | None:
    """Return the teacher that looked best, and whether it beats the last one by more than chance would."""
    note = read_best(run)
    values = _last_values(run, iterations)
    if note is None or "rankme_cls" not in values:
        return None
    measure, last = score_of(values)
    if measure != note["measure"]:
        return None
    least = note["score"] - PROBE_MARGIN if measure == "probes" else RANKME_SHARE * note["score"]
    is_used = last < least
    if is_used:
        logger.warning(
            "%s: the teacher of step %d is kept, not the last one (%s: %.3f, last %.3f).",
            *(run.path.name, note["step"], measure, note["score"], last),
        )
    return BestTeacher(step=note["step"], measure=measure, score=note["score"], last_score=last, is_used=is_used)


def _last_values(run: RunFolder, iterations: int) -> dict[str, float]:
    """Return all that was logged at the last step."""
    lines = [line for line in run.history() if line["step"] == iterations]
    return {key: float(value) for line in lines for key, value in line.items() if key != "step"}


def _write_seen(workspace: Workspace, corpus: Corpus, config: PretrainConfig, run: RunFolder) -> int:
    """Note the images seen, those that its parent has seen among them; return their number."""
    hashes = [
        facts.content_hash for name in corpus.names for facts in read_facts(workspace.prepared(name) / "cases.jsonl")
    ]
    if config.parent is not None:
        hashes += [f"{int(key):016x}" for key in read_seen(run.path)]
    return write_seen(run.path, hashes)


def _probe(workspace: Workspace, config: PretrainConfig, teacher: ViT) -> tuple[ProbeScore, ...]:
    """Score the features of the teacher, and of random weights, on the first fold of each labelled dataset."""
    recipe = config.recipe
    torch.manual_seed(recipe.seed)
    random = ViT(teacher.architecture).to(next(teacher.parameters()).device)
    scores = []
    for probe in open_probes(workspace, config.watch.datasets, MOST_CASES):
        cases = len(probe.fold.train) + len(probe.fold.val)
        logger.info("%s: probing with %d cases, beside random weights", probe.name, cases)
        try:
            found = [next(iter(probe.scores(vit, (recipe.mean, recipe.std)).values())) for vit in (teacher, random)]
        except Exception as error:  # what took a day must not be lost to a probe
            logger.warning("%s: the probe is left out: %s: %s", probe.name, type(error).__name__, error)
            continue
        logger.info("%s: %s %.3f, random weights %.3f", probe.name, probe.measure, *found)
        scores.append(ProbeScore(dataset=probe.name, measure=probe.measure, score=found[0], random=found[1]))
    return tuple(scores)
