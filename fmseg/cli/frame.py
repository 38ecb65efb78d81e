"""What all commands share: their common options, output as text or JSON, errors and exit codes.

Exit codes: 0 done, 1 a fault of ours, 2 wrong usage, 3 invalid data, 4 environment (disk, memory, device,
missing package), 5 done but some inputs were skipped and listed, 130/143 interrupted after a checkpoint.
"""

import errno
import inspect
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from fmseg._version import __version__
from fmseg.console import messages, print_json, print_line, print_table, printable, set_up_logging
from fmseg.errors import EnvironmentProblem, FmsegError, Interrupted, is_out_of_memory
from fmseg.files import DISK_TROUBLE
from fmseg.registry import load_plugins
from fmseg.workspace import Workspace

logger = logging.getLogger(__name__)

JOB = "The whole job: fmseg plan_and_preprocess -d 501; fmseg pretrain; fmseg train 501; fmseg predict -i in -o out"

#: commands that with --fresh forget all that they have done
RUNS = ("train", "pretrain")


@dataclass(frozen=True, slots=True)
class Session:
    """What the common options say."""

    workspace: Workspace
    dry_run: bool
    plugins: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Output:
    """What a command has to say: an object for ``--json``, or a function that prints it for people."""

    value: Any
    show: Callable[[], None] = field(default=lambda: None)
    exit_code: int = 0
    #: whether other processes have said it already
    is_told: bool = False


#: heading of the help -> its commands
CHAPTERS = {
    "The job": ("plan_and_preprocess", "pretrain", "train", "predict"),
    "Its parts": ("convert", "doctor", "fingerprint", "plan", "preprocess", "find_best", "evaluate"),
    "To look and to ask": ("list", "explain", "report", "view"),
    "To compare": ("benchmark", "compare", "probe"),
    "To label": ("suggest", "review", "embed"),
    "To give and to take": (
        *("import_weights", "export_weights", "import", "export", "pull", "push"),
        *("export_predictions", "serve"),
    ),
    "To see how it works": ("demo",),
}


class Chapters(TyperGroup):
    """Lists the commands in chapters."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return all names, in the order of the chapters."""
        names = [name for chapter in CHAPTERS.values() for name in chapter]
        return sorted(self.commands, key=names.index)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a heading for each chapter, and a line for each of its commands."""
        width = formatter.width - 6 - max(map(len, self.commands))
        for title, names in CHAPTERS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(width)) for name in names])


class ListCommand(TyperCommand):
    """Accepts nnU-Net's ``-d 501 502 503`` for ``-d 501 -d 502 -d 503``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the option before each further value, then parse as usual."""
        lists = {name for param in self.params if getattr(param, "multiple", False) for name in param.opts}
        spread: list[str] = []
        option, first = None, False
        for arg in args:
            if arg in lists:
                option, first = arg, True
            elif arg.startswith("-"):
                option = None
            elif option and not first:
                spread.append(option)
            elif option:
                first = False
            spread.append(arg)
        return super().parse_args(ctx, spread)


app = typer.Typer(
    cls=Chapters,
    invoke_without_command=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    # commands have underscores, options dashes; either may be typed
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda name: name.replace("-", "_"),
    },
    help=f"Self-configuring foundation models for medical image segmentation.\n\n{JOB}",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"fmseg {__version__}")
        raise typer.Exit


@app.callback()
def _frame(
    context: typer.Context,
    root: Annotated[Path | None, typer.Option(help="Folder that holds fmseg_raw, fmseg_preprocessed ...")] = None,
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True)] = False,
) -> None:
    context.obj = root
    if context.invoked_subcommand is None:
        settings = {key: _default(key) for key in COMMON} | {"root": root}
        raise typer.Exit(execute(_show_standing, settings, {}))


def _show_standing(session: Session) -> Output:
    """Show where one stands in this workspace, and the next command."""
    from fmseg.stages.listing import standing

    found = standing(session.workspace)

    def show() -> None:
        print_line(found.where)
        if found.rows:
            print_table("Datasets", found.columns, found.rows)
        print_line(f"Next: {found.next_command}")
        print_line(f"{found.why} All commands: fmseg --help")

    return Output(found.next_command, show)


COMMON = {
    "root": Annotated[Path | None, typer.Option(help="Folder that holds fmseg_raw, fmseg_preprocessed ...")],
    "plugin": Annotated[list[str] | None, typer.Option(help="Module that registers parts of your own.")],
    "dry_run": Annotated[bool, typer.Option("--dry-run", help="Say what would be read and written; do nothing.")],
    "json": Annotated[bool, typer.Option("--json", help="Print one machine-readable object.")],
    "verbose": Annotated[bool, typer.Option("-v", "--verbose", help="Say more.")],
    "quiet": Annotated[bool, typer.Option("-q", "--quiet", help="Say only what is wrong.")],
    "debug": Annotated[bool, typer.Option("--debug", help="Show tracebacks.")],
}


def command(name: str, *, example: str) -> Callable[[Callable[..., Output]], Callable[..., Output]]:
    """Register ``function(session, ...)`` as a command that also has the common options."""

    def register(function: Callable[..., Output]) -> Callable[..., Output]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        common = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=_default(key))
            for key, kind in COMMON.items()
        ]
        own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]

        def run(context: typer.Context, **values: Any) -> None:
            settings = {key: values.pop(key) for key in COMMON}
            settings["root"] = settings["root"] or context.obj
            raise typer.Exit(execute(function, settings, values))

        first = inspect.Parameter("context", inspect.Parameter.POSITIONAL_ONLY, annotation=typer.Context)
        run.__signature__ = inspect.Signature([first, *own, *common])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in [first, *own, *common]}
        text = f"{inspect.getdoc(function)}\n\nExample: {example}"
        app.command(name, cls=ListCommand, help=text)(run)
        return function

    return register


def _default(key: str) -> Any:
    return None if key in ("root", "plugin") else False


def execute(function: Callable[..., Output], settings: dict[str, Any], values: dict[str, Any]) -> int:
    """Run one command and return its exit code; all that goes wrong becomes one message."""
    set_up_logging(settings["verbose"] - settings["quiet"])
    try:
        workspace = Workspace.find(settings["root"])
        plugins = (*workspace.plugins, *(settings["plugin"] or ()))
        load_plugins(plugins)
        # the processes that read images import them too
        session = Session(replace(workspace, plugins=plugins), settings["dry_run"], plugins)
        output = function(session, **values)
    except BaseException as error:
        if isinstance(error, typer.Exit | SystemExit):
            raise
        if settings["debug"]:
            traceback.print_exc()
        return _report(error, settings["json"], starts_over=function.__name__ in RUNS and values["fresh"])
    if output.is_told:
        return output.exit_code
    if settings["json"]:
        print_json(output.value)
    else:
        output.show()
    return output.exit_code


def _report(error: BaseException, as_json: bool, *, starts_over: bool = False) -> int:
    error = _recognised(error)
    code = error.exit_code if isinstance(error, FmsegError) else 1
    text = str(error)
    if isinstance(error, KeyboardInterrupt):
        code, text = 130, "Stopped. Type the same command again to go on."
    elif not isinstance(error, FmsegError):
        last = traceback.extract_tb(error.__traceback__)[-1]
        text = (
            f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno}). "
            "This is a fault of fmseg: please report it with the output of --debug."
        )
    if starts_over and isinstance(error, Interrupted | KeyboardInterrupt):
        text += " Leave out --fresh then: with it, everything begins anew."
    text = printable(text)
    messages.print("error:", style="bold red", end=" ")
    messages.print(text, markup=False, soft_wrap=True)
    if as_json:
        print_json({"error": text, "exit_code": code})
    return code


def _recognised(error: BaseException) -> BaseException:
    """Return the environment's own refusals (disk, memory, rights) as an EnvironmentProblem."""
    refusals = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EMFILE, *DISK_TROUBLE)
    if isinstance(error, OSError) and error.errno in refusals:
        where = error.filename or "a file"
        return EnvironmentProblem(f"{where}: {error.strerror}. Mend that, then run the same command again.")
    if is_out_of_memory(error):
        return EnvironmentProblem(f"Out of memory ({error}). Type --set batch_size=... with half the planned number.")
    if _is_of_another_rank(error):
        return EnvironmentProblem(
            "Another process of this job has ended, so this one cannot go on. That one's message says why; mend that, "
            "then run the same command again."
        )
    return error


def _is_of_another_rank(error: BaseException) -> bool:
    """Return whether this is how a rank hears that another one is gone."""
    # gloo raises a plain RuntimeError, nccl and the launcher's store a class of torch's
    is_torchs = any(kind.__name__ == "DistError" for kind in type(error).__mro__)
    return "RANK" in os.environ and (is_torchs or (isinstance(error, RuntimeError) and "/gloo/" in str(error)))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit code."""
    _register()
    if os.environ.get("TERM") == "dumb":
        os.environ.setdefault("NO_COLOR", "1")
    # By default OpenMP's threads spin for long while they wait: beside one busy process a step took 4.6 times
    # as long, with a short spin 2.1 times. On an idle machine OMP_WAIT_POLICY=ACTIVE takes a quarter less time than
    # the short spin (LOG.md, 2026-11-22). It is read when torch is imported, long before a stage could set it.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    app(args=list(arguments) if arguments is not None else sys.argv[1:], prog_name="fmseg")
    sys.exit(0)


def type_command(*arguments: str) -> int:
    """Print a command, run it in this process as if it had been typed, and return its exit code."""
    _register()
    messages.print(f"\n$ fmseg {' '.join(arguments)}", style="bold", markup=False, soft_wrap=True)
    return int(app(args=list(arguments), prog_name="fmseg", standalone_mode=False) or 0)


def _register() -> None:
    import fmseg.cli.commands  # noqa: F401  (registers the commands)
