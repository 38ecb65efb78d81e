"""How a pretraining is watched: what the teacher is worth so far, what is wrong with it, and pictures of both."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fmseg.errors import BadRecord
from fmseg.files import read_lines, write_bytes
from fmseg.inference.representation import look_closely, sampled_tokens
from fmseg.learning.loop import Hook
from fmseg.learning.parallel import gathered
from fmseg.learning.runtime import Runtime
from fmseg.networks.vit import ViT
from fmseg.networks.weights import read_note, save_weights
from fmseg.planning.watching import CORPUS_IMAGES
from fmseg.records.run import PretrainConfig, RunFolder
from fmseg.reporting.curves import draw_progress
from fmseg.reporting.feature_pictures import attention_picture, feature_picture, to_grey
from fmseg.sampling.corpora import Corpus
from fmseg.stages.pretrain.probing import Probe, open_probes, spread_images
from fmseg.tasks.dino import DinoTask
from fmseg.tasks.dino_collapse import rankme
from fmseg.tasks.dino_troubles import NUM_TIMES, find_troubles
from fmseg.workspace import Workspace

logger = logging.getLogger(__name__)

#: the best teacher so far, with a note of its step and score
BEST = "best.safetensors"
#: images of attention.png and features.png, and the patches along their longer side
PICTURES, PATCHES_ALONG = 6, 40


@dataclass(slots=True)
class Watcher:
    """Looks at a teacher now and then. Rank 0 looks, the others wait for it."""

    run: RunFolder
    config: PretrainConfig
    corpus: Corpus
    task: DinoTask
    runtime: Runtime
    probes: list[Probe]
    _told: set[str] = field(default_factory=set)

    @classmethod
    def of(
        cls,
        workspace: Workspace,
        run: RunFolder,
        config: PretrainConfig,
        corpus: Corpus,
        task: DinoTask,
        runtime: Runtime,
    ) -> "Watcher":
        """Open what is needed on rank 0."""
        names = config.watch.datasets if runtime.is_main else ()
        return cls(run, config, corpus, task, runtime, open_probes(workspace, names, config.watch.cases))

    def hooks(self) -> list[Hook]:
        """Return what ``fit`` calls while it learns."""
        iterations, every = self.config.recipe.iterations, self.config.watch.every
        looks = [Hook(every, self.look)] if every else []
        return [*looks, Hook(max(iterations // NUM_TIMES, 10), self.draw)]

    def begin(self) -> None:
        """Note once, as step 0, what random weights are worth; and the checkpoint that it goes on from, if any."""
        if not self.runtime.is_main or not self.config.watch.every or self.run.history():
            return
        torch.manual_seed(self.config.recipe.seed)
        random = ViT(self.config.recipe.architecture).to(self.runtime.device)
        values = {f"random_{name}": value for name, value in self.measure(random).items()}
        if self.config.parent is not None:
            values |= self.measure(self.task.teacher_backbone)
        self.run.log(0, {name: float(f"{value:.6g}") for name, value in values.items()})

    def teacher(self) -> ViT:
        """Return the teacher's backbone, whole; all ranks must call this."""
        whole = gathered(self.task, lambda: DinoTask.build(self.config.recipe).to(self.runtime.device))
        return whole.teacher_backbone

    def look(self, step: int) -> dict[str, float]:
        """Measure the teacher, keep it if it is the best so far, and draw what it sees."""
        teacher = self.teacher()
        if not self.runtime.is_main:
            return {}
        values = self.measure(teacher)
        measure, score = score_of(values)
        best = read_best(self.run)
        if best is None or best["measure"] != measure or score > best["score"]:
            note = {"step": step, "measure": measure, "score": score}
            save_weights(teacher, self.run.path / BEST, note)
        self.draw_features(teacher)
        return values

    def measure(self, vit: ViT) -> dict[str, float]:
        """Return RankMe of CLS tokens and of patches, and the scores of the labelled datasets."""
        recipe = self.config.recipe
        tokens = sampled_tokens(vit, spread_images(self.corpus, CORPUS_IMAGES), (recipe.mean, recipe.std))
        cls, patches = (float(rankme(torch.from_numpy(each))) for each in tokens)
        values = {"rankme_cls": cls, "rankme_patches": patches}
        for probe in list(self.probes):
            try:
                found = probe.scores(vit, (recipe.mean, recipe.std))
            except Exception as error:  # what takes a day must not be lost to a probe
                logger.warning("%s is not probed: %s: %s", probe.name, type(error).__name__, error)
                self.probes.remove(probe)
                continue
            values |= {f"probe_{probe.key}_{name}": value for name, value in found.items()}
        return values

    def draw(self, step: int) -> dict[str, float]:
        """Draw the curves, and say once what is wrong."""
        if self.runtime.is_main:
            draw_progress(self.run.metrics, self.run.path / "progress.png", self.run.timing)
            for trouble in find_troubles(self.run.history(), self.timing(), self.config.recipe):
                if trouble.name not in self._told:
                    logger.warning("%s, step %d: %s.", self.run.path.name, step, trouble.text)
                    self._told.add(trouble.name)
        return {}

    def timing(self) -> list[dict[str, float]]:
        """Return the lines of timing.jsonl."""
        return [json.loads(line) for line in read_lines(self.run.timing)]

    def draw_features(self, vit: ViT, folder: Path | None = None) -> None:
        """Draw where a backbone looks, and which patches are alike to it. folder: by default the run's."""
        recipe, folder = self.config.recipe, folder or self.run.path
        shown = list(spread_images(self.corpus, PICTURES))
        seen = [look_closely(vit, image, (recipe.mean, recipe.std), PATCHES_ALONG) for image in shown]
        grey = [to_grey(image) for image in shown]
        heads = [attention for attention, _ in seen if attention is not None]
        if heads:
            write_bytes(folder / "attention.png", attention_picture(grey, heads))
        write_bytes(folder / "features.png", feature_picture(grey, [features for _, features in seen]))


def read_best(run: RunFolder) -> dict[str, Any] | None:
    """Return step, measure and score of the best teacher so far, None if none was kept."""
    path = run.path / BEST
    try:
        return read_note(path) if path.exists() else None
    except BadRecord as error:
        logger.warning("%s", error)
        return None


def score_of(values: Mapping[str, float]) -> tuple[str, float]:
    """Return what a teacher is judged by, and the score: the mean of the probes, RankMe where there is none."""
    probes = {name: value for name, value in values.items() if name.startswith("probe_")}
    scores = [value for name, value in probes.items() if name.endswith(("_dice", "_linear_f1"))]
    return ("probes", sum(scores) / len(scores)) if scores else ("rankme", values["rankme_cls"])
