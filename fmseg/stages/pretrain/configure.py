"""How a pretraining is planned: from the facts of all datasets, to the time that a step really takes here."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from fmseg.errors import UsageError
from fmseg.files import read_lines
from fmseg.learning.runtime import Runtime
from fmseg.planning.benefit import expected_benefit
from fmseg.planning.budget import Cost, predict_cost
from fmseg.planning.continuation import find_parent, plan_continuation
from fmseg.planning.hardware import detect_hardware
from fmseg.planning.ladder import default_budget_s
from fmseg.planning.pretraining import corpus_facts, plan_pretraining, pool_facts
from fmseg.planning.pretraining_rules import MIN_DIFFERENCE
from fmseg.planning.watching import median_size, plan_watch
from fmseg.records.bundle import MANIFEST
from fmseg.records.fingerprint import Fingerprint
from fmseg.records.foundation import find_foundations
from fmseg.records.plans import Hardware, Pretraining, Reason
from fmseg.records.run import Parent, PretrainConfig, Provenance, RunFolder, Source, Watch
from fmseg.records.settings import apply_settings
from fmseg.sampling.corpora import Corpus
from fmseg.stages.pretrain.learn import build_task, learn
from fmseg.stages.pretrain.longer import STEPS, lengthened, lengthening
from fmseg.stages.pretrain.options import PretrainOptions
from fmseg.stages.pretrain.parent import parent_of
from fmseg.stages.pretrain.probing import fitting_datasets, spread_images
from fmseg.workspace import Workspace

logger = logging.getLogger(__name__)

#: steps of the short run that a time budget is planned from
PROBE_STEPS = 8
#: of a run that goes on from other people's weights
UNKNOWN_BENEFIT = "{} is other people's: what going on from it brings, the probes will tell"


@dataclass(frozen=True, slots=True)
class Preview:
    """What a pretraining would take and bring."""

    folder: Path
    modality: str
    network: str
    num_images: int
    cost: Cost
    benefit: str


def look_ahead(workspace: Workspace, corpus: Corpus, options: PretrainOptions) -> Preview:
    """Return what the pretraining of a corpus would take on one device; of a run that is there, the whole of it."""
    options = lengthened(workspace, corpus, options)
    run = run_folder(workspace, corpus, options)
    hardware = detect_hardware().evolve(num_devices=1)
    if (run.path / "run.json").exists() and not options.fresh:
        config = PretrainConfig.load(run.path / "run.json")
        recipe, parent = config.recipe, config.parent
    else:
        parent, decide = _rules(workspace, corpus, hardware, options)
        recipe = apply_settings(decide()[0], options.settings)
    seen = parent.samples_seen if parent else 0
    cost = predict_cost(recipe, hardware)
    benefit = expected_benefit(cost.samples_seen + seen).describe(cost.images_per_s)
    if parent is not None and parent.source:
        benefit = UNKNOWN_BENEFIT.format(parent.name)
    network = f"{recipe.architecture.name}/{recipe.architecture.patch_size}"
    return Preview(run.path, corpus.modality, network, corpus.num_images, cost, benefit)


def run_folder(workspace: Workspace, corpus: Corpus, options: PretrainOptions) -> RunFolder:
    """Return where the run of a corpus lies. Raises UsageError if it cannot go on from the checkpoint named."""
    if options.init is None:
        run = RunFolder(workspace.foundation(corpus.modality, options.name or corpus.default_name))
        if (run.path / MANIFEST).exists():
            raise UsageError(f"{run.path} is a checkpoint that was imported. Give the new one a --name of its own.")
        return run
    found = find_foundations(workspace.foundations())
    parent, card = find_parent(found, corpus.modality, _channels(corpus), options.init)
    run = RunFolder(workspace.foundation(corpus.modality, options.name or f"{corpus.default_name}-from-{card.name}"))
    if run.path == parent:  # --fresh would remove what it goes on from
        raise UsageError(f"{run.path} cannot go on from itself. Give the longer run a --name of its own.")
    return run


def configure(
    workspace: Workspace,
    corpus: Corpus,
    run: RunFolder,
    runtime: Runtime,
    options: PretrainOptions,
    step_s: float | None,
) -> PretrainConfig:
    """Return the configuration of the run that is there, or plan a new one.

    step_s: what ``measured_step`` returned. A run that goes on keeps its plan: a budget is measured anew each time and
    would come out differently.
    """
    sources = tuple(
        Source(dataset=name, content_hash=plans.content_hash, num_images=len(store))
        for name, plans, store in zip(corpus.names, corpus.plans, corpus.stores, strict=True)
    )
    path = run.path / "run.json"
    if path.exists():
        there = PretrainConfig.load(path)
        recipe = apply_settings(there.recipe, options.settings)
        because, watch, parent, budget_s = there.because, there.watch, there.parent, there.budget_s
        _check_resumed(run, there, recipe, options)
    else:
        hardware = detect_hardware().evolve(num_devices=runtime.world)
        parent, decide = _rules(workspace, corpus, hardware, options)
        budget_s = None if STEPS in options.settings else options.budget_s or default_budget_s(hardware)
        recipe, because = decide(measured_step_s=step_s)
        recipe = apply_settings(recipe, options.settings)
        watch, why = _plan_watch(workspace, corpus, recipe, runtime)
        because = (*because, Reason(key="watch.every", because=why), *lengthening(options))
    return PretrainConfig(
        modality=corpus.modality,
        recipe=recipe,
        because=because,
        sources=sources,
        watch=watch,
        parent=parent,
        budget_s=budget_s,
        plugins=options.plugins,
        provenance=Provenance.here(
            deterministic=runtime.deterministic, device=runtime.device.type, num_devices=runtime.num_devices
        ),
    )


def claim(run: RunFolder, config: PretrainConfig) -> None:
    """Write run.json, or check that it is of the same run; what changes the speed alone may be another one now."""
    run.claim(config)
    path = run.path / "run.json"
    there = PretrainConfig.load(path)
    if there.recipe.compile != config.recipe.compile:
        there.evolve(recipe=there.recipe.evolve(compile=config.recipe.compile)).save(path)


def measured_step(
    workspace: Workspace, corpus: Corpus, run: RunFolder, runtime: Runtime, options: PretrainOptions
) -> float | None:
    """With a budget, let all ranks measure a step of what rank 0 would plan; None where the plan is there already."""
    is_new = not (run.path / "run.json").exists()
    (is_needed,) = runtime.highest([runtime.is_main and options.budget_s is not None and is_new])
    if not is_needed:
        return None
    planned = ""
    if runtime.is_main:
        _, decide = _rules(workspace, corpus, detect_hardware().evolve(num_devices=runtime.world), options)
        planned = decide()[0].model_dump_json()
    guess = Pretraining.model_validate_json(runtime.from_main(planned))
    return _measure_step(corpus, guess, runtime.at(guess.precision), options)


def _rules(
    workspace: Workspace, corpus: Corpus, hardware: Hardware, options: PretrainOptions
) -> tuple[Parent | None, Callable[..., tuple[Pretraining, tuple[Reason, ...]]]]:
    """Return the checkpoint to go on from, if one was named, and the rules to plan by: from all datasets' facts."""
    fingerprints = [Fingerprint.load(workspace.prepared(name) / "dataset_fingerprint.json") for name in corpus.names]
    parts = [corpus_facts(f, p.preprocessing, p.labels) for f, p in zip(fingerprints, corpus.plans, strict=True)]
    facts = replace(pool_facts(parts), num_images=len(corpus.distinct(MIN_DIFFERENCE)))
    if options.init is None:
        return None, partial(plan_pretraining, facts, hardware, budget_s=options.budget_s)
    found = find_foundations(workspace.foundations())
    folder, _ = find_parent(found, corpus.modality, _channels(corpus), options.init)
    parent, card = parent_of(folder, _channels(corpus))
    keeps = parent.keeps_heads
    return parent, partial(plan_continuation, card, facts, hardware, keeps_heads=keeps, budget_s=options.budget_s)


def _channels(corpus: Corpus) -> int:
    return corpus.plans[0].preprocessing.channels


def _check_resumed(run: RunFolder, there: PretrainConfig, recipe: Pretraining, options: PretrainOptions) -> None:
    """Raise UsageError if a run that is there cannot become what was typed; say how it can."""
    mend = f"Go on from it under another name: fmseg pretrain --init {run.path.name}; or type --fresh to start over."
    if run.is_finished and recipe != there.recipe:
        raise UsageError(f"{run.path} is finished, and its settings stay as they are. {mend}")
    if run.is_finished and options.budget_s is not None and there.budget_s is None:
        logger.warning("%s is finished, and no --budget is noted: another one changes nothing. %s", run.path, mend)
    if options.init is not None and (there.parent is None or there.parent.name != options.init.rpartition("/")[2]):
        start = there.parent.name if there.parent else "random weights"
        raise UsageError(
            f"{run.path} started from {start}, not from {options.init}. Choose another --name, or --fresh."
        )


def _plan_watch(workspace: Workspace, corpus: Corpus, recipe: Pretraining, runtime: Runtime) -> tuple[Watch, str]:
    """Return how often to look, and at which labelled datasets."""
    labelled = fitting_datasets(workspace, corpus, recipe.architecture.channels)
    sizes = [image.shape[1:] for image in spread_images(corpus, 20)]
    hardware = detect_hardware().evolve(num_devices=runtime.world)
    return plan_watch(recipe, hardware, labelled, median_size([(h, w) for h, w in sizes]))


def tell_benefit(config: PretrainConfig, runtime: Runtime) -> None:
    """Say before the time is spent what may be expected of it; nobody knows after other people's weights."""
    if config.parent is not None and config.parent.source:
        logger.info("%s.", UNKNOWN_BENEFIT.format(config.parent.name))
        return
    cost = predict_cost(config.recipe, detect_hardware().evolve(num_devices=runtime.world))
    benefit = expected_benefit(cost.samples_seen + (config.parent.samples_seen if config.parent else 0))
    logger.log(logging.INFO if benefit.pays else logging.WARNING, "%s.", benefit.describe(cost.images_per_s))


def _measure_step(corpus: Corpus, recipe: Pretraining, runtime: Runtime, options: PretrainOptions) -> float:
    """Return the median seconds of a whole training step: views, both networks, optimizer."""
    with TemporaryDirectory() as folder:
        short = recipe.evolve(iterations=PROBE_STEPS)
        run = RunFolder(Path(folder))
        learn(build_task(short).to(runtime.device), corpus, short, run, runtime, options.pace, log_every=1)
        seconds = [json.loads(line)["seconds"] for line in read_lines(run.timing)]
    if not runtime.is_main:
        return 0.0  # rank 0 keeps the time
    # the first steps start workers and choose kernels
    step_s = median(seconds[PROBE_STEPS // 2 :])
    logger.info("a step of %d images takes %.2f s here", recipe.batch_size, step_s)
    return step_s
