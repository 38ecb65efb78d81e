"""Importing this module registers all commands; ``frame.CHAPTERS`` has their order."""

from fmseg.cli import (
    benchmark_commands,
    convert_commands,
    data_commands,
    exchange_commands,
    feature_commands,
    hub_commands,
    model_commands,
    report_commands,
    scoring_commands,
    weights_commands,
)

__all__ = [
    "benchmark_commands",
    "convert_commands",
    "data_commands",
    "exchange_commands",
    "feature_commands",
    "hub_commands",
    "model_commands",
    "report_commands",
    "scoring_commands",
    "weights_commands",
]
