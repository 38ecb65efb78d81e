"""How a pretraining ends: the weights, what they have seen and what they are worth, in one card."""

import logging

import torch

from fmseg.errors import BadData
from fmseg.imaging.measure import read_facts
from fmseg.inference.probes import MEASURES, probe, thinned
from fmseg.networks.vit import ViT
from fmseg.networks.weights import save_backbone
from fmseg.planning.folds import load_folds
from fmseg.planning.patients import patients_of
from fmseg.records.dataset import Dataset
from fmseg.records.foundation import CARD, Foundation, ProbeScore, write_seen
from fmseg.records.plans import Plans, Pretraining
from fmseg.records.run import PretrainConfig, RunFolder
from fmseg.sampling.corpora import Corpus
from fmseg.sampling.store import Store
from fmseg.tasks.dino import DinoTask
from fmseg.workspace import Workspace

logger = logging.getLogger(__name__)


def finish(workspace: Workspace, corpus: Corpus, task: DinoTask, config: PretrainConfig, run: RunFolder) -> None:
    """Write the teacher's backbone, what it has seen and its card, and mark the run as finished."""
    recipe, last = config.recipe, run.history()[-1]
    weights_sha256 = save_backbone(task.teacher_backbone, run.path)
    hashes = [
        facts.content_hash for name in corpus.names for facts in read_facts(workspace.prepared(name) / "cases.jsonl")
    ]
    card = Foundation(
        name=run.path.name,
        modality=corpus.modality,
        architecture=recipe.architecture,
        mean=recipe.mean,
        std=recipe.std,
        recipe=recipe,
        datasets=corpus.names,
        num_images=corpus.num_images,
        iterations=recipe.iterations,
        samples_seen=recipe.iterations * recipe.batch_size,
        metrics={key: float(value) for key, value in last.items() if key != "step"},
        weights_sha256=weights_sha256,
        seen_count=write_seen(run.path, hashes),
        probes=_probe(workspace, corpus, task.teacher_backbone, recipe),
        licence="that of the images it was made from",
        provenance=config.provenance,
    )
    card.save(run.path / CARD)
    run.finish({"samples_seen": card.samples_seen})


def _probe(workspace: Workspace, corpus: Corpus, teacher: ViT, recipe: Pretraining) -> tuple[ProbeScore, ...]:
    """Score the teacher's features, and those of random weights, on the first fold of each labelled dataset."""
    torch.manual_seed(recipe.seed)
    random = ViT(recipe.architecture).to(next(teacher.parameters()).device)
    scores = []
    for name, plans, store in zip(corpus.names, corpus.plans, corpus.stores, strict=True):
        if plans.task not in MEASURES:
            continue
        try:
            found = [_probe_dataset(workspace, plans, store, vit, recipe) for vit in (teacher, random)]
        except Exception as error:  # what took a day must not be lost to a probe
            logger.warning("%s: the probe is left out: %s: %s", name, type(error).__name__, error)
            continue
        logger.info("%s: %s %.3f, random weights %.3f", name, MEASURES[plans.task], *found)
        scores.append(ProbeScore(dataset=name, measure=MEASURES[plans.task], score=found[0], random=found[1]))
    return tuple(scores)


def _probe_dataset(workspace: Workspace, plans: Plans, store: Store, vit: ViT, recipe: Pretraining) -> float:
    fold = thinned(load_folds(workspace.prepared(plans.dataset) / "splits_final.json")[0], store)
    dataset = Dataset.load(workspace.raw_dataset(plans.dataset))
    patients = patients_of(dataset, [*fold.train, *fold.val])[0]
    if not fold.val or len({patients[case] for case in fold.train}) < 2:
        raise BadData("it takes two patients to learn from and one to be scored on")
    labels = dataset.classes_of_cases() if plans.labels is None else plans.labels
    return probe(vit, (recipe.mean, recipe.std), store, fold, labels, patients)
