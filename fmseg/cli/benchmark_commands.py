"""The command that compares starting points and recipes on the user's own data: benchmark."""

from typing import Annotated

import typer

from fmseg.cli.arguments import parse_settings
from fmseg.cli.data_commands import Datasets, PlansName
from fmseg.cli.frame import Output, Session, command
from fmseg.cli.model_commands import Deterministic, Minutes, Settings, Workers

Regimes = Annotated[list[str] | None, typer.Option("--regime", help="full, n=20, p=4x10 or 25%; several.")]
Starts = Annotated[
    list[str] | None, typer.Option("--start", help="scratch, or a foundation checkpoint; several; default: scratch.")
]
Recipes = Annotated[list[str] | None, typer.Option("-r", "--recipe", help="Several; by default those of the plan.")]


@command("benchmark", example="fmseg benchmark -d 501 -r upernet --start scratch d503 --regime n=20 full")
def benchmark(
    session: Session,
    protocol: Annotated[
        str | None, typer.Argument(help="YAML file, or a published protocol: fass, jnu_ifm, fetal_planes")
    ] = None,
    dataset: Datasets = None,
    recipe: Recipes = None,
    start: Starts = None,
    regime: Regimes = None,
    splits: Annotated[int | None, typer.Option(min=1, help="Samples and seeds of each regime; default: 3.")] = None,
    test: Annotated[
        str | None, typer.Option(help="folds, official (imagesTs), or a share of the cases, as 0.2; default: folds.")
    ] = None,
    cohort: Annotated[list[str] | None, typer.Option("--cohort", help="Further dataset to test on; several.")] = None,
    settings: Settings = None,
    name: Annotated[str | None, typer.Option(help="Of the folder of the tables.")] = None,
    plans: PlansName = "fmsegPlans",
    workers: Workers = None,
    checkpoint_minutes: Minutes = 10.0,
    deterministic: Deterministic = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train anew what is of another plan or start.")] = False,
) -> Output:
    """Compare starting points and recipes with few and many labels; runs what is missing, continues where it stopped.

    Writes the paper's Table 1 (mean and standard error) and Figure 1b (score by number of labels) for your data.
    """
    from fmseg.cli.benchmark import Asked, compare

    asked = Asked(
        protocol=protocol,
        datasets=dataset or (),
        recipes=recipe or (),
        starts=start or (),
        regimes=regime or (),
        splits=splits,
        test=test,
        cohorts=cohort or (),
        settings=parse_settings(settings),
        name=name,
        plans=plans,
        num_workers=workers,
        checkpoint_minutes=checkpoint_minutes,
        deterministic=deterministic,
        fresh=fresh,
    )
    return compare(session, asked)
