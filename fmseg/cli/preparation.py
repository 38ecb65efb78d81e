"""The steps that bring datasets from raw to prepared, for the commands that need all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fmseg.cli.frame import Session
from fmseg.console import is_only_process
from fmseg.errors import BadData, UnknownName
from fmseg.files import stream_lines

if TYPE_CHECKING:
    from fmseg.records.fingerprint import Finding

Row = tuple[str, int, int, str, int, int]


@dataclass(frozen=True, slots=True)
class Preparation:
    """How datasets are prepared."""

    num_processes: int
    plans: str = "fmsegPlans"
    planner: str = "standard"
    budget_s: float | None = None
    #: of the preparation, as typed with --set
    settings: Mapping[str, str] = field(default_factory=dict)
    #: measure every file again
    fresh: bool = False
    #: a plan of these very images stays as it is
    keeps_plan: bool = False
    #: False leaves the images in their files
    with_store: bool = True
    #: address of a Dask scheduler; None for processes of this machine
    cluster: str | None = None


def image_datasets(session: Session, sources: Sequence[Path] | None, modality: str | None) -> list[str]:
    """Return the names of the datasets of ``--images``, made if need be by the only process there is."""
    from fmseg.stages.register import need_registered, register

    names: list[str] = []
    for source in sources or ():
        if is_only_process():
            names += register(session.workspace, source, modality)
        else:
            names += need_registered(session.workspace, source)
    return list(dict.fromkeys(names))


def examine(session: Session, name: str, how: Preparation) -> "tuple[Finding, ...]":
    """Measure a dataset and return all that is wrong with it, also where it cannot be measured."""
    from fmseg.stages.doctor import doctor, refused
    from fmseg.stages.fingerprint import fingerprint

    try:
        fingerprint(session.workspace, name, num_processes=how.num_processes, cluster=how.cluster, fresh=how.fresh)
    except (BadData, UnknownName) as error:
        return refused(session.workspace, name, error)
    return doctor(session.workspace, name, num_processes=how.num_processes)


def mend_dataset(session: Session, name: str, how: Preparation) -> tuple[str, list[str], "tuple[Finding, ...]"]:
    """Write a mended copy; return its name, what was changed in it, and what is still found in it."""
    from fmseg.stages.doctor import copy_mended, leave_out

    copy, changes = copy_mended(session.workspace, name)
    changes += leave_out(session.workspace, copy, examine(session, copy, how))
    return copy, changes, examine(session, copy, how)


def prepare_dataset(session: Session, name: str, how: Preparation) -> Row:
    """Measure, check, plan and prepare; return name, cases, patients, input size, warnings and skipped images."""
    from fmseg.records.fingerprint import Fingerprint
    from fmseg.stages.doctor import check, tell
    from fmseg.stages.plan import current_plan, plan
    from fmseg.stages.preprocess import preprocess

    workspace = session.workspace
    findings = examine(session, name, how)
    tell(findings)
    check(findings)
    facts = Fingerprint.load(workspace.prepared(name) / "dataset_fingerprint.json")
    made = current_plan(workspace, name, how.plans) if how.keeps_plan else None
    made = made or plan(
        workspace, name, plans_name=how.plans, planner=how.planner, budget_s=how.budget_s, settings=how.settings
    )
    skipped = 0
    if how.with_store:
        preprocess(workspace, name, made, num_processes=how.num_processes, cluster=how.cluster)
        skipped = sum(1 for _ in stream_lines(workspace.prepared(name) / "skipped.jsonl"))
    warnings = sum(finding.severity == "warning" for finding in findings)
    size = "x".join(map(str, made.preprocessing.image_size))
    return name, facts.num_cases, facts.num_patients, size, warnings, skipped
