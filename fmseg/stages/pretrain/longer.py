"""A finished pretraining that more time or more steps were asked for: a run of its own goes on from it.

The finished one stays as it is: others may have started from it, and its schedules have come to their end. So what is
asked for is compared with all that the runs NAME, NAME-longer, NAME-longer2 ... had, and only the rest is planned, by
the rules of ``planning/continuation.py``.
"""

import math
from dataclasses import replace
from itertools import count

from fmseg.console import duration
from fmseg.records.plans import Reason
from fmseg.records.run import PretrainConfig, RunFolder
from fmseg.sampling.corpora import Corpus
from fmseg.stages.pretrain.options import PretrainOptions
from fmseg.workspace import Workspace

STEPS = "iterations"


def lengthened(workspace: Workspace, corpus: Corpus, options: PretrainOptions) -> PretrainOptions:
    """Return options for the run that is to be done: those typed, or those of one that goes on from what is finished.

    The time that a run was planned for counts, not what it took; where only steps are known, only steps can be added.
    """
    if options.init is not None or options.fresh:
        return options
    first = options.name or corpus.default_name
    name, steps, seconds, found = first, 0, 0.0, options
    for number in count(1):
        run = RunFolder(workspace.foundation(corpus.modality, name))
        if not run.is_finished or not (run.path / "run.json").exists():  # one that was imported has no plan
            break
        there = PretrainConfig.load(run.path / "run.json")
        steps += there.recipe.iterations
        seconds += math.inf if there.budget_s is None else there.budget_s
        rest = _rest(options, steps, seconds)
        if rest is None:
            break
        finished, name = name, f"{first}-longer{number if number > 1 else ''}"
        found = replace(rest, init=finished, name=name, lengthens=finished)
    return found


def _rest(options: PretrainOptions, steps: int, seconds: float) -> PretrainOptions | None:
    """Return options for what was asked for beyond so many steps, or seconds; None if it was no more."""
    if STEPS not in options.settings:
        is_more = options.budget_s is not None and options.budget_s > seconds
        return replace(options, budget_s=(options.budget_s or 0) - seconds) if is_more else None
    asked = options.settings[STEPS]
    if not asked.isdecimal() or int(asked) <= steps:
        return None
    return replace(options, budget_s=None, settings=options.settings | {STEPS: str(int(asked) - steps)})


def lengthening(options: PretrainOptions) -> tuple[Reason, ...]:
    """Return why a run goes on from a finished one; nothing for any other run."""
    if options.lengthens is None:
        return ()
    asked = f"{options.settings[STEPS]} steps" if STEPS in options.settings else duration(options.budget_s or 0)
    because = (
        f"{options.lengthens} is finished and stays as it is, and {asked} more were asked for than it had. This run "
        "takes over its weights, the moments of the optimizer begin anew, and the learning rate rises and falls again"
    )
    return (Reason(key="lengthens", because=because),)
