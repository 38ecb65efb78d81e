"""The command line: one verb, one stage. Parse, call, print; no logic."""

from fmseg.cli.frame import main

__all__ = ["main"]
