"""Pretrain a foundation checkpoint per modality: prepared stores in, a ViT that knows such images out.

The method is in this file; how a run is planned, learns, is watched and ends stands in a file of its own each.
"""

import logging
from collections.abc import Sequence
from contextlib import nullcontext

from fmseg.errors import UsageError
from fmseg.files import locked
from fmseg.learning.runtime import Runtime
from fmseg.records.foundation import CARD, Foundation
from fmseg.records.run import PretrainConfig
from fmseg.sampling.corpora import Corpus, collect_corpora
from fmseg.stages.pretrain.configure import (
    Preview,
    claim,
    configure,
    look_ahead,
    measured_step,
    run_folder,
    tell_benefit,
)
from fmseg.stages.pretrain.fine import learn_finely
from fmseg.stages.pretrain.finish import finish
from fmseg.stages.pretrain.learn import build_task, learn
from fmseg.stages.pretrain.longer import lengthened
from fmseg.stages.pretrain.options import PretrainOptions
from fmseg.stages.pretrain.parent import inherit_seen, start_from
from fmseg.stages.pretrain.watch import Watcher
from fmseg.workspace import Workspace

logger = logging.getLogger(__name__)

__all__ = ["PretrainOptions", "Preview", "preview", "pretrain", "pretrain_corpus"]


def pretrain(workspace: Workspace, names: Sequence[str], options: PretrainOptions) -> list[Foundation]:
    """Pretrain on the given datasets, one checkpoint per modality. Goes on where it was stopped.

    Raises NotReady if none of them is preprocessed.
    """
    corpora = collect_corpora(workspace, names, from_files=options.from_files)
    if options.name is not None and len(corpora) > 1:
        found = ", ".join(corpus.modality for corpus in corpora)
        raise UsageError(f"--name names one checkpoint, and the datasets have several modalities ({found}). Use -d.")
    if options.init is not None and len(corpora) > 1:
        found = ", ".join(corpus.modality for corpus in corpora)
        raise UsageError(f"--init goes on with one modality, and the datasets have several ({found}). Use -d.")
    return [pretrain_corpus(workspace, corpus, options) for corpus in corpora]


def preview(workspace: Workspace, names: Sequence[str], options: PretrainOptions) -> list[Preview]:
    """Return what each pretraining would take and bring, by rule of thumb; nothing is measured or written."""
    return [
        look_ahead(workspace, corpus, options)
        for corpus in collect_corpora(workspace, names, from_files=options.from_files)
    ]


def pretrain_corpus(workspace: Workspace, corpus: Corpus, options: PretrainOptions) -> Foundation:
    """Run or go on with the pretraining of one modality."""
    options = lengthened(workspace, corpus, options)
    run = run_folder(workspace, corpus, options)
    runtime = Runtime.detect("float32", deterministic=options.deterministic)
    with locked(run.path, "this pretraining") if runtime.is_main else nullcontext():
        if runtime.is_main and options.fresh:
            run.clear()
        step_s = measured_step(workspace, corpus, run, runtime, options)
        if runtime.is_main:
            claim(run, configure(workspace, corpus, run, runtime, options, step_s))
        # what rank 0 planned is what all ranks do, and what it finds is what is there
        path = run.path / "run.json"
        config = PretrainConfig.read(runtime.read_main(path), str(path))
        has_begun = any(run.checkpoints.glob("step_*.json"))
        is_finished, goes_on = runtime.highest([runtime.is_main and each for each in (run.is_finished, has_begun)])
        if not is_finished:
            if options.lengthens is not None:
                logger.info("%s is finished, so %s goes on from it.", options.lengthens, run.path.name)
            tell_benefit(config, runtime)
            if config.parent is not None and config.parent.terms:
                logger.warning(
                    "It is made from other people's weights, so their licence holds: %s.", config.parent.terms
                )
            inherit_seen(workspace, run, config.parent if runtime.is_main else None)
            task = build_task(config.recipe)
            if config.parent is not None and not goes_on:
                start_from(task, workspace, config.parent)
            task = task.to(runtime.device)
            watcher = Watcher.of(workspace, run, config, corpus, task, runtime)
            watcher.begin()
            runtime = runtime.at(config.recipe.precision)
            learn(task, corpus, config.recipe, run, runtime, options.pace, watcher.hooks())
            last = learn_finely(workspace, corpus, config, run, runtime, options.pace, task) or watcher
            teacher = last.teacher()
            if runtime.is_main:
                finish(workspace, corpus, watcher, last, teacher)
        runtime.barrier()
    runtime.close()
    return Foundation.load(run.path / CARD)
