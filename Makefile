PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO ?= demo-report
PYTEST ?= -n 2
ECO ?= $(VENV)/ecosystem
BENCH ?= --quick
DOCS := .venv-docs
AXE := build/npm/node_modules/axe-core/axe.min.js

.DEFAULT_GOAL := help
.PHONY: help demo test test-ecosystem lint format bench docs axe reports clean distclean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' Makefile

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

# One environment for every library that has an adapter; scvi-tools keeps pandas below 3 in it, so it is
# not the one above, and the constraints stay out of it. 2.8 GB and about 8 minutes the first time, a
# minute afterwards.
$(ECO)/.installed: pyproject.toml
	test -x $(ECO)/bin/python || $(PYTHON) -m venv $(ECO)
	$(ECO)/bin/python -m pip install --quiet -c constraints.txt torch
	$(ECO)/bin/python -m pip install --quiet -e '.[ecosystem]' pytest
	touch $@

test-ecosystem: $(ECO)/.installed  ## run the adapters' tests with all the libraries (ECO=folder)
	$(ECO)/bin/python -c 'import anndata, diffusers, flax, jax, lightning, onnxruntime, onnxscript, pythae'
	KERAS_BACKEND=torch $(ECO)/bin/python -c 'import keras, scvi'
	OMP_NUM_THREADS=1 KERAS_BACKEND=torch $(ECO)/bin/python -m pytest \
		tests/adapters tests/test_testing.py tests/test_doctor.py

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

# In an environment of its own: what builds pages has no say in the versions that the tests run with.
$(DOCS)/.installed: pyproject.toml constraints.txt
	test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet -c constraints.txt torch
	$(DOCS)/bin/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	touch $@

docs: $(DOCS)/.installed  ## the documentation as pages in build/site; a dead link fails
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict
	@echo "build/site/index.html"

# The tests that look at pages run it where it is, and skip where it is not.
axe: $(AXE)  ## axe-core from npm, for the accessibility tests

$(AXE):
	mkdir -p build/npm
	npm install --silent --no-audit --no-fund --no-save --prefix build/npm axe-core@4

# Trains five models; the .npz files of DATA, else OpenML (Omniglot needs its file).
reports: $(STAMP)  ## the finished reports of reports/ again (about 4 minutes of CPU; DATA=folder)
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) OMP_NUM_THREADS=1 \
		$(BIN)/python reports/make.py $(if $(DATA),--data $(DATA))

clean:  ## remove what can be made again, except .venv
	rm -rf build dist $(DEMO) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find collapsekit tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean  ## clean, and remove .venv and .venv-docs
	rm -rf $(VENV) $(DOCS)
