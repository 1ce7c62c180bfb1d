PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO ?= demo-report
PYTEST ?= -n 2
BENCH ?= --quick

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench clean distclean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

# An existing .venv is used as it is. torch goes in alone and first, so that no other package's wishes
# choose its version; the stamp makes the install happen again when its two inputs change.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

demo: $(STAMP)  ## train a collapsing VAE and its repair, audit both, compare (DEMO=folder)
	$(BIN)/collapsekit demo --out $(DEMO)

# One thread per worker: two workers with a thread pool each are slower than either alone.
test: $(STAMP)  ## run the tests (PYTEST='-n 0 -k name' for other options)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST)

lint: $(STAMP)  ## ruff, its formatter as a check, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## let ruff repair and format what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## run the benchmarks, small (BENCH= for full size)
	@set -e; for script in benchmarks/[a-z]*.py; do \
		test -e "$$script" || continue; \
		echo "== $$script $(BENCH)"; $(BIN)/python "$$script" $(BENCH); \
	done

clean:  ## remove what can be made again, except .venv
	rm -rf build dist $(DEMO) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find collapsekit tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## clean, and remove .venv
	rm -rf $(VENV)
