"""The end of a pretraining on views of more pixels: the same networks, their positions resampled once.

It is a run of its own in the folder ``fine``, with its own schedules, checkpoints and curves, and begins where the
main one ended. Before its first step the network is looked at, so that the phase is used only if it did no harm.
"""

import logging

from fmseg.learning.parallel import gathered
from fmseg.learning.runtime import Runtime
from fmseg.planning.fine_views import fine_recipe
from fmseg.records.run import PretrainConfig, RunFolder
from fmseg.sampling.corpora import Corpus
from fmseg.stages.pretrain.learn import Pace, build_task, learn
from fmseg.stages.pretrain.watch import Watcher
from fmseg.tasks.dino import DinoTask
from fmseg.workspace import Workspace

logger = logging.getLogger(__name__)

#: below the run's folder
FOLDER = "fine"
#: looks at the teacher, besides the one before the first step
LOOKS = 4


def learn_finely(
    workspace: Workspace,
    corpus: Corpus,
    config: PretrainConfig,
    run: RunFolder,
    runtime: Runtime,
    pace: Pace,
    task: DinoTask,
) -> Watcher | None:
    """Train the last phase, from its last checkpoint on; return who watched it, None if none is planned.

    task: as the main run left it; all ranks must call this.
    """
    recipe = fine_recipe(config.recipe)
    if recipe is None:
        return None
    own = RunFolder(run.path / FOLDER)
    every = -(-recipe.iterations // LOOKS) if config.watch.every else 0
    config = config.evolve(recipe=recipe, watch=config.watch.evolve(every=every))
    size = recipe.views.global_size
    logger.info("%s: on views of %d x %d px from here on", run.path.name, *size)
    plain = gathered(task, lambda: build_task(task.recipe).to(runtime.device))
    finer = refined(plain, build_task(recipe)).to(runtime.device)
    plain.cpu()  # no longer needed on the device, which the larger views fill
    watcher = Watcher.of(workspace, own, config, corpus, finer, runtime)
    if runtime.is_main and every and not own.history():
        own.log(0, watcher.look(0))
    learn(finer, corpus, recipe, own, runtime, pace, watcher.hooks())
    return watcher


def refined(task: DinoTask, finer: DinoTask) -> DinoTask:
    """Write weights and centres into a task for views of another size: on such views it then is the same function."""
    size = finer.recipe.architecture.image_size
    state = task.state_dict()
    for name, network in (("model", task.model), ("teacher", task.teacher)):
        positions = network.backbone.positions_for(size)
        if positions is not None:
            state[f"{name}.backbone.pos_embed"] = positions
    finer.load_state_dict(state)
    return finer
