"""The runs of a study: datasets opened, cases dealt out, folders named, times told."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fmseg.errors import BadData, NotReady, UsageError
from fmseg.files import sha256
from fmseg.imaging.measure import read_facts
from fmseg.networks.classifier import classifiers, heads
from fmseg.networks.cnn import TIMM_MODELS, find_weights
from fmseg.networks.decoders import decoders
from fmseg.networks.segmenter import segmenters
from fmseg.planning.assignment import Assignment
from fmseg.planning.classification import careful_with_classes
from fmseg.planning.finetuning import adapt_finetuning, pretraining_strength
from fmseg.planning.folds import load_folds
from fmseg.planning.length import of_settings, run_seconds
from fmseg.planning.planner import plans_file
from fmseg.planning.regimes import Regime, check_apart, fit_to_regime, held_out, parse_regime, sample_cases
from fmseg.planning.starting_point import choose_start
from fmseg.planning.targets import digest_of, read_targets
from fmseg.records.dataset import Dataset
from fmseg.records.fingerprint import Fingerprint
from fmseg.records.foundation import Foundation, find_foundations
from fmseg.records.labels import split_classes
from fmseg.records.plans import Fold, Plans
from fmseg.records.protocol import FOLDS, OFFICIAL, SCRATCH, Study
from fmseg.records.recipe import Recipe, recipes, resolve
from fmseg.records.run import RunConfig, RunFolder
from fmseg.sampling.store import Store
from fmseg.stages.benchmark.external import digest_of_test, need_alike
from fmseg.workspace import Workspace, dataset_id

VIT = "vit"
#: as ``train --init``: what timm has for a network of its own
TIMM = "timm"


@dataclass(frozen=True, slots=True)
class Setting:
    """A study whose dataset is open."""

    study: Study
    dataset: str
    cohorts: tuple[str, ...]
    plans: Plans
    #: those in the store
    cases: tuple[str, ...]
    patients: Mapping[str, str]
    #: case -> the classes that it shows
    classes: Mapping[str, tuple[str, ...]]
    #: case -> digest of its label map, or its class
    targets: Mapping[str, str]
    #: cohort, or the dataset itself where it has an official test -> digest of its images and labels
    tests: Mapping[str, str]
    folds: tuple[Fold, ...]
    #: case -> how many images it has
    num_images: Mapping[str, int]
    #: it says what patients are known from
    fingerprint: Fingerprint

    def pool(self, split: int) -> Fold:
        """Return all cases that a split may learn from, and those that it is tested on, of other patients."""
        if self.study.test == FOLDS:
            whole, kept = self.folds[split % len(self.folds)], set(self.cases)
            fold = Fold(
                train=tuple(case for case in whole.train if case in kept),
                val=tuple(case for case in whole.val if case in kept),
            )
        elif self.study.share is not None:
            fold = held_out(self.cases, self.patients, self.study.share)
        else:
            fold = Fold(train=self.cases, val=())
        check_apart(fold, self.patients, f"{self.dataset}, split {split}")
        return fold


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkRun:
    """One network of a benchmark: what it learns from, where it lies, how long it takes by rule of thumb."""

    setting: Setting
    regime: Regime
    split: int
    recipe: str
    start: str
    settings: dict[str, str]
    work: Assignment
    #: of its training
    numbers: Recipe
    folder: RunFolder
    #: of what it starts from; empty for random weights
    weights_sha256: str
    #: whether its network is the one that foundation checkpoints are of
    takes_foundation: bool
    predicted_seconds: float

    @property
    def is_stale(self) -> bool:
        """Whether what lies there was trained under other plans or numbers, on other cases or labels, or weights."""
        path = self.folder.path / "run.json"
        if not path.exists():
            return False
        there = RunConfig.load(path)
        is_same = there.plans.digest() == self.work.plans.digest() and there.cases == self.work.cases
        is_same = is_same and (not there.labels or there.labels == digest_of(self.setting.targets, there.cases))
        return not is_same or there.init.sha256 != self.weights_sha256 or there.recipe != self.numbers

    @property
    def state(self) -> Literal["waiting", "begun", "trained"]:
        """How far its training is."""
        if self.folder.is_finished:
            return "trained"
        return "begun" if (self.folder.path / "run.json").exists() else "waiting"

    @property
    def dataset(self) -> str:
        """Full name of what is learned from."""
        return self.setting.dataset

    @property
    def cohorts(self) -> tuple[str, ...]:
        """Full names of the datasets that it is tested on besides its own."""
        return self.setting.cohorts

    @property
    def test(self) -> str:
        """How the test images were chosen."""
        return self.setting.study.test

    @property
    def title(self) -> str:
        """What it is, for people."""
        return f"{self.dataset}, {self.regime.name}, split {self.split}: {self.recipe} from {self.start}"


def open_setting(workspace: Workspace, study: Study, plans_name: str) -> Setting:
    """Open the dataset of a study. Raises NotReady naming the command that makes what is missing."""
    name = workspace.dataset_name(study.dataset)
    folder, command = workspace.prepared(name), f"fmseg plan_and_preprocess -d {dataset_id(name)}"
    plans = Plans.load(workspace.need(folder / plans_file(plans_name), command))
    if plans.task == "unlabelled" or plans.labels is None:
        raise UsageError(f"{name} has no labels to compare on (task: {plans.task}). Name a labelled dataset.")
    store = Store.of(folder, plans)
    facts = [fact for fact in read_facts(workspace.need(folder / "cases.jsonl", command)) if fact.case in store.cases]
    if plans.task == "classification":
        labels = Dataset.load(workspace.raw_dataset(name)).classes_of_cases()
        classes = {fact.case: split_classes(labels.get(fact.case, "")) for fact in facts}
    else:
        names = plans.labels.names
        classes = {
            fact.case: tuple(one for one, (pixels, _) in zip(names, fact.class_counts, strict=True) if pixels)
            for fact in facts
        }
    if study.only_complete:
        every = set(plans.labels.names)
        facts = [fact for fact in facts if set(classes[fact.case]) == every]
    if study.test == OFFICIAL and not (workspace.raw_dataset(name) / "imagesTs").is_dir():
        raise NotReady(
            f"{name} has no folder imagesTs to test on. Put its test images and labels (labelsTs, or labelsTs.csv) "
            "there, or hold some out with: test: 0.2"
        )
    cohorts = tuple(dict.fromkeys(workspace.dataset_name(each) for each in study.cohorts))
    if name in cohorts:
        raise UsageError(f"{name} is learned from, so it is no cohort. Test on its own patients with: test: 0.2")
    _ = study.share  # a wrong word is refused before anything runs
    for each in cohorts:
        need_alike(workspace, plans, each)
    tests = (*cohorts, name) if study.test == OFFICIAL else cohorts
    return Setting(
        study=study,
        dataset=name,
        cohorts=cohorts,
        plans=plans,
        cases=tuple(fact.case for fact in facts),
        patients={fact.case: fact.patient for fact in facts},
        classes=classes,
        targets=read_targets(workspace, plans, [fact.case for fact in facts]),
        tests={each: digest_of_test(Dataset.load(workspace.raw_dataset(each)), is_own=each == name) for each in tests},
        folds=load_folds(workspace.need(folder / "splits_final.json", command)),
        num_images={fact.case: len(store.cases[fact.case]) for fact in facts},
        fingerprint=Fingerprint.load(workspace.need(folder / "dataset_fingerprint.json", command)),
    )


@dataclass(frozen=True, slots=True)
class Way:
    """One way to learn that is compared: a recipe with its settings, and what it starts from."""

    recipe: str
    settings: dict[str, str]
    start: str
    #: of a foundation checkpoint
    card: Foundation | None
    #: empty for random weights
    weights_sha256: str
    network: str

    @property
    def folder(self) -> str:
        """Name of the folder of its runs, without the plans."""
        mark = f"-{sha256(json.dumps(self.settings, sort_keys=True).encode())[:8]}" if self.settings else ""
        return f"{self.recipe}-{self.start}{mark}"


def runs_of(workspace: Workspace, setting: Setting, starts: Sequence[str]) -> Iterator[BenchmarkRun]:
    """Yield the runs of a study. Raises BadData or UsageError for one that cannot be."""
    ways = list(_ways(workspace, setting, starts))
    for text, num_splits in setting.study.regimes.items():
        regime = parse_regime(text)
        for split in range(num_splits):
            pool = setting.pool(split)
            try:
                train = sample_cases(regime, pool.train, setting.patients, setting.classes, seed=split)
            except BadData as error:
                raise BadData(f"{setting.dataset}, split {split}: {error}. Ask for less.") from error
            for way in ways:
                yield _run(workspace, setting, regime, split, Fold(train=train, val=pool.val), way)


def _ways(workspace: Workspace, setting: Setting, starts: Sequence[str]) -> Iterator[Way]:
    found = find_foundations(workspace.foundations())
    wanted = setting.study.recipes or {name: {} for name in setting.plans.recipes}
    for name, settings in wanted.items():
        need_fitting(name, setting.plans)
        network = _resolved(name, setting.plans).network
        if network != VIT:
            # no foundation checkpoint has weights for it; only some have any
            for start in dict.fromkeys((SCRATCH, *([TIMM] if TIMM in starts and network in TIMM_MODELS else []))):
                file = find_weights(network, workspace.foundations() / TIMM) if start == TIMM else None
                yield Way(name, settings, start, None, sha256(file.read_bytes()) if file else "", network)
            continue
        for start in starts:
            if start != TIMM:
                chosen, init = choose_start(found, setting.plans, start)
                yield Way(name, settings, init.name, chosen[1] if chosen else None, init.sha256, network)


def _resolved(name: str, plans: Plans) -> Recipe:
    assert plans.finetuning is not None, "a labelled dataset without a plan for its training"
    return resolve(name, plans.finetuning, {})


def fits(name: str, plans: Plans) -> bool:
    """Return whether a recipe is one for the task of a plan. Raises UnknownName."""
    try:
        recipe = _resolved(name, plans)
    except NotReady:  # of networks that the plan of such a task has no numbers for
        return False
    if plans.task == "classification":
        return recipe.network in classifiers if recipe.network != VIT else recipe.decoder in heads
    return recipe.network in segmenters if recipe.network != VIT else recipe.decoder in decoders


def need_fitting(name: str, plans: Plans) -> None:
    """Raise UsageError unless a recipe is one for the task of a plan."""
    if not fits(name, plans):
        known = ", ".join(each for each in recipes if fits(each, plans))
        raise UsageError(f"The recipe {name} is none for {plans.task}. For {plans.dataset} there are: {known}.")


def _run(workspace: Workspace, setting: Setting, regime: Regime, split: int, cases: Fold, way: Way) -> BenchmarkRun:
    plans = setting.plans
    assert plans.finetuning is not None and plans.labels is not None, "a labelled dataset without a plan for it"
    num_images = sum(setting.num_images[case] for case in cases.train)
    shown = [setting.classes[case] for case in cases.train]
    planned = fit_to_regime(plans.finetuning, plans.labels, num_images, shown)
    # the seed of weights and order is the split's, so that the spread over splits is that of both
    settings = {"seed": str(split)} | way.settings
    of_length = of_settings(planned, settings, num_images if plans.task == "classification" else None)
    adapted, _ = adapt_finetuning(of_length, way.card)
    if plans.task == "classification" and way.weights_sha256:
        adapted, _ = careful_with_classes(adapted, pretraining_strength(way.card) if way.card else 1.0)
    recipe = resolve(way.recipe, adapted, settings)
    if recipe.patience:
        raise UsageError("patience learns from fewer cases than what it is compared with. Leave it out.")
    test = f"test_{setting.study.test}" + ("_complete" if setting.study.only_complete else "")
    place = workspace.benchmarks() / "runs" / setting.dataset / test / regime.folder
    return BenchmarkRun(
        setting=setting,
        regime=regime,
        split=split,
        recipe=way.recipe,
        start=way.start,
        settings=settings,
        work=Assignment(plans, cases, split, planned),
        numbers=recipe,
        folder=RunFolder(place / f"{way.folder}__{plans.name}" / f"split_{split}"),
        weights_sha256=way.weights_sha256,
        takes_foundation=way.network == VIT,
        predicted_seconds=run_seconds(recipe, plans, way.card, sum(setting.num_images.values()), len(cases.val)),
    )
