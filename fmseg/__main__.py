"""Run the command line with ``python -m fmseg`` (and under torchrun)."""

from fmseg.cli import main

main()
