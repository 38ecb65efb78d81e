"""Importing this module registers all commands, in the order of the job."""

from fmseg.cli import (
    benchmark_commands,
    data_commands,
    exchange_commands,
    feature_commands,
    model_commands,
    report_commands,
    scoring_commands,
)

__all__ = [
    "benchmark_commands",
    "data_commands",
    "exchange_commands",
    "feature_commands",
    "model_commands",
    "report_commands",
    "scoring_commands",
]
