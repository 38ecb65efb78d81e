"""Importing this module registers all commands, in the order of the job."""

from fmseg.cli import (
    data_commands,
    exchange_commands,
    model_commands,
    report_commands,
    scoring_commands,
)
from fmseg.cli import benchmark_commands, feature_commands  # isort: skip

__all__ = [
    "benchmark_commands",
    "data_commands",
    "exchange_commands",
    "feature_commands",
    "model_commands",
    "report_commands",
    "scoring_commands",
]
