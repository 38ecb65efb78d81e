"""Explain: every planned number of a dataset with its reason, or what differs from other plans."""

from pathlib import Path

from fmseg.planning.explain import Row, compare_plans, explain_plans
from fmseg.planning.planner import DEFAULT_NAME, plans_file
from fmseg.records.plans import Plans
from fmseg.workspace import Workspace, dataset_id


def explain(workspace: Workspace, name: str, *, other: Path | None = None, plans_name: str = DEFAULT_NAME) -> list[Row]:
    """Return rows (number, value, because, how to override); with ``other`` plans, only of what differs.

    Raises NotReady if the dataset is not planned yet, BadRecord if ``other`` is no plans file.
    """
    path = workspace.need(workspace.prepared(name) / plans_file(plans_name), f"fmseg plan -d {dataset_id(name)}")
    plans = Plans.load(path)
    return explain_plans(plans) if other is None else compare_plans(plans, Plans.load(other))
