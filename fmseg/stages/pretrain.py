"""Pretrain a foundation checkpoint per modality: prepared stores in, a ViT that knows such images out."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from fmseg.errors import BadData, UsageError
from fmseg.files import locked, read_lines
from fmseg.imaging.measure import read_facts
from fmseg.inference.probes import MEASURES, probe, thinned
from fmseg.learning.loop import FitOptions, Hook, fit
from fmseg.learning.parallel import gathered, shard
from fmseg.learning.pretraining import pretraining_optimizer, set_pretraining_step
from fmseg.learning.runtime import Runtime
from fmseg.networks.vit import ViT
from fmseg.networks.weights import save_backbone
from fmseg.planning.benefit import expected_benefit
from fmseg.planning.budget import predict_cost
from fmseg.planning.folds import load_folds
from fmseg.planning.hardware import detect_hardware
from fmseg.planning.patients import patients_of
from fmseg.planning.pretraining import corpus_facts, plan_pretraining, pool_facts
from fmseg.records.dataset import Dataset
from fmseg.records.fingerprint import Fingerprint
from fmseg.records.foundation import CARD, Foundation, ProbeScore, write_seen
from fmseg.records.plans import Plans, Pretraining, Reason
from fmseg.records.run import PretrainConfig, Provenance, RunFolder, Source
from fmseg.records.settings import apply_settings
from fmseg.reporting.curves import draw_progress
from fmseg.sampling.corpora import Corpus, collect_corpora
from fmseg.sampling.corpus import ViewDataset
from fmseg.sampling.loaders import batches
from fmseg.sampling.store import Store
from fmseg.tasks.dino import DinoTask
from fmseg.workspace import Workspace

logger = logging.getLogger(__name__)

#: steps of the short run that a time budget is planned from
PROBE_STEPS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainOptions:
    """What the user may choose."""

    name: str | None = None
    budget_s: float | None = None
    settings: dict[str, str] = field(default_factory=dict)
    num_workers: int | None = None
    checkpoint_minutes: float = 10.0
    fresh: bool = False
    plugins: tuple[str, ...] = ()


def pretrain(workspace: Workspace, names: Sequence[str], options: PretrainOptions) -> list[Foundation]:
    """Pretrain on the given datasets, one checkpoint per modality. Goes on where it was stopped.

    Raises NotReady if none of them is preprocessed.
    """
    corpora = collect_corpora(workspace, names)
    if options.name is not None and len(corpora) > 1:
        found = ", ".join(corpus.modality for corpus in corpora)
        raise UsageError(f"--name names one checkpoint, and the datasets have several modalities ({found}). Use -d.")
    return [pretrain_corpus(workspace, corpus, options) for corpus in corpora]


def pretrain_corpus(workspace: Workspace, corpus: Corpus, options: PretrainOptions) -> Foundation:
    """Run or go on with the pretraining of one modality."""
    run = RunFolder(workspace.foundation(corpus.modality, options.name or corpus.default_name))
    runtime = Runtime.detect("float32")
    with locked(run.path, "this pretraining") if runtime.is_main else nullcontext():
        if runtime.is_main and options.fresh:
            run.clear()
        measured_s = _measured_step(workspace, corpus, run, runtime, options)
        if runtime.is_main:
            run.claim(_config(workspace, corpus, run, runtime, options, measured_s))
        runtime.barrier()
        # what rank 0 planned is what all ranks do
        config = PretrainConfig.load(run.path / "run.json")
        if not run.is_finished:
            _tell_benefit(config.recipe, runtime)
            task = _fit(corpus, config.recipe, run, runtime.at(config.recipe.precision), options)
            if runtime.is_main:
                _finish(workspace, corpus, task, config, run)
        runtime.barrier()
    runtime.close()
    return Foundation.load(run.path / CARD)


def _config(
    workspace: Workspace,
    corpus: Corpus,
    run: RunFolder,
    runtime: Runtime,
    options: PretrainOptions,
    measured_s: float | None,
) -> PretrainConfig:
    """Return the configuration of the run that is there, or plan a new one.

    A run that goes on keeps its plan: a budget is measured anew each time and would come out differently.
    """
    sources = tuple(
        Source(dataset=name, content_hash=plans.content_hash, num_images=len(store))
        for name, plans, store in zip(corpus.names, corpus.plans, corpus.stores, strict=True)
    )
    path = run.path / "run.json"
    if path.exists():
        there = PretrainConfig.load(path)
        recipe, because = there.recipe, there.because
    else:
        recipe, because = _plan(workspace, corpus, runtime, options, measured_s)
    return PretrainConfig(
        modality=corpus.modality,
        recipe=apply_settings(recipe, options.settings),
        because=because,
        sources=sources,
        plugins=options.plugins,
        provenance=Provenance.here(),
    )


def _plan(
    workspace: Workspace, corpus: Corpus, runtime: Runtime, options: PretrainOptions, measured_s: float | None = None
) -> tuple[Pretraining, tuple[Reason, ...]]:
    """Plan from the facts of all datasets. measured_s: what a step of the plan made without it takes."""
    facts = pool_facts(
        [
            corpus_facts(
                Fingerprint.load(workspace.prepared(name) / "dataset_fingerprint.json"),
                plans.preprocessing,
                plans.labels,
            )
            for name, plans in zip(corpus.names, corpus.plans, strict=True)
        ]
    )
    hardware = detect_hardware().evolve(num_devices=runtime.world)
    return plan_pretraining(facts, hardware, budget_s=options.budget_s, measured_step_s=measured_s)


def _measured_step(
    workspace: Workspace, corpus: Corpus, run: RunFolder, runtime: Runtime, options: PretrainOptions
) -> float | None:
    """With a budget, let all ranks measure a step of what rank 0 would plan; None where the plan is there already."""
    is_new = not (run.path / "run.json").exists()
    (is_needed,) = runtime.highest([runtime.is_main and options.budget_s is not None and is_new])
    if not is_needed:
        return None
    planned = _plan(workspace, corpus, runtime, options)[0].model_dump_json() if runtime.is_main else ""
    guess = Pretraining.model_validate_json(runtime.from_main(planned))
    return _measure_step(corpus, guess, runtime.at(guess.precision), options)


def _tell_benefit(recipe: Pretraining, runtime: Runtime) -> None:
    """Say before the time is spent what may be expected of it."""
    cost = predict_cost(recipe, detect_hardware().evolve(num_devices=runtime.world))
    benefit = expected_benefit(cost.samples_seen)
    logger.log(logging.INFO if benefit.pays else logging.WARNING, "%s.", benefit.describe(cost.images_per_s))


def _measure_step(corpus: Corpus, recipe: Pretraining, runtime: Runtime, options: PretrainOptions) -> float:
    """Return the median seconds of a whole training step: views, both networks, optimizer."""
    with TemporaryDirectory() as folder:
        short = recipe.evolve(iterations=PROBE_STEPS)
        run = RunFolder(Path(folder))
        _fit(corpus, short, run, runtime, options, log_every=1)
        seconds = [json.loads(line)["seconds"] for line in read_lines(run.timing)]
    if not runtime.is_main:
        return 0.0  # rank 0 keeps the time
    # the first steps start workers and choose kernels
    step_s = median(seconds[PROBE_STEPS // 2 :])
    logger.info("a step of %d images takes %.2f s here", recipe.batch_size, step_s)
    return step_s


def _fit(
    corpus: Corpus,
    recipe: Pretraining,
    run: RunFolder,
    runtime: Runtime,
    options: PretrainOptions,
    log_every: int | None = None,
) -> DinoTask:
    """Build student and teacher, and train them to the end of the plan."""
    logger.info(
        "%s: %d images, %s/%d, %d iterations of %d images",
        *(corpus.modality, corpus.num_images, recipe.architecture.name, recipe.architecture.patch_size),
        *(recipe.iterations, recipe.batch_size),
    )
    torch.manual_seed(recipe.seed)
    task = DinoTask.build(recipe).to(runtime.device)
    if recipe.sharding == "fsdp" and runtime.world > 1:
        shard(task, runtime)
    optimizer = pretraining_optimizer(task.model, recipe)
    fit_options = FitOptions(
        iterations=recipe.iterations,
        batch_size=recipe.batch_size,
        accumulation=recipe.accumulation,
        clip_norm=recipe.clip_norm,
        seed=recipe.seed,
        log_every=log_every or min(max(recipe.iterations // 200, 1), 50),
        checkpoint_minutes=options.checkpoint_minutes,
        split=task.split,
        forget_step=task.forget_step,
    )
    draw = Hook(max(recipe.iterations // 20, 10), lambda step: _draw(run, runtime))
    draws = _batches(corpus, recipe, runtime, options.num_workers)
    schedule = partial(set_pretraining_step, optimizer, recipe)
    fit(task, draws, optimizer, schedule, run, runtime, fit_options, [draw])
    return gathered(task, lambda: DinoTask.build(recipe).to(runtime.device))


def _batches(
    corpus: Corpus, recipe: Pretraining, runtime: Runtime, num_workers: int | None
) -> Callable[[int], Iterator[dict[str, Tensor]]]:
    dataset = ViewDataset(corpus.stores, recipe, seed=recipe.seed)
    return lambda start: batches(
        dataset,
        num_samples=corpus.num_images,
        batch_size=recipe.batch_size,
        accumulation=recipe.accumulation,
        seed=recipe.seed,
        start=start,
        stop=recipe.iterations,
        num_workers=runtime.loader_processes() if num_workers is None else num_workers,
        rank=runtime.rank,
        world=runtime.world,
    )


def _draw(run: RunFolder, runtime: Runtime) -> dict[str, float]:
    if runtime.is_main:
        draw_progress(run.metrics, run.path / "progress.png")
    return {}


def _finish(workspace: Workspace, corpus: Corpus, task: DinoTask, config: PretrainConfig, run: RunFolder) -> None:
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
