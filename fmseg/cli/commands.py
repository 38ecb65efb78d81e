"""Importing this module registers all commands, in the order of the job."""

from fmseg.cli import (
    convert_commands,
    data_commands,
    exchange_commands,
    model_commands,
    report_commands,
    scoring_commands,
    weights_commands,
)

__all__ = [
    "convert_commands",
    "data_commands",
    "exchange_commands",
    "model_commands",
    "report_commands",
    "scoring_commands",
    "weights_commands",
]
