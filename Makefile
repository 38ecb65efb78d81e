.DEFAULT_GOAL := help
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "fmseg needs Python 3.11 or newer: make PYTHON=python3.11 ..."'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

setup: $(READY)  ## Make the virtual environment and install fmseg into it

demo: $(READY)  ## The whole job on made phantoms, some minutes
	$(BIN)/fmseg demo

format: $(READY)  ## Format the code and sort its imports
	$(BIN)/ruff check --fix-only --quiet fmseg tests benchmarks examples docs
	$(BIN)/ruff format --quiet fmseg tests benchmarks examples docs

check: $(READY)  ## Lint, formatting and types
	$(BIN)/ruff check fmseg tests benchmarks examples docs
	$(BIN)/ruff format --check --quiet fmseg tests benchmarks examples docs
	$(BIN)/mypy

test: check  ## Checks and the fast tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

test-all: check  ## Checks and all tests, slow ones too
	$(BIN)/pytest -m 'slow or not slow'

reference: $(READY)  ## Write the parts of docs/ that are made from the code
	$(BIN)/python docs/make_commands.py
	$(BIN)/python docs/make_records.py
	$(BIN)/python docs/make_architecture.py

docs: $(READY)  ## Build the documents into site/, to be read without a network
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

clean:  ## Remove the virtual environment and caches
	rm -rf site $(VENV) .mypy_cache .ruff_cache .pytest_cache *.egg-info

.PHONY: help setup demo format check test test-all reference docs clean
