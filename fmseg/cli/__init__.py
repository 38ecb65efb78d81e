"""The command line: one verb, one stage. Parse, call, print; no logic."""

from fmseg.cli.frame import main, type_command

__all__ = ["main", "type_command"]
