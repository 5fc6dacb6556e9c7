# make demo     simulate micrographs and run the whole workflow on them
# make test     the quick tests
# make bounds   the unit tests with every array index of the kernels checked
# make lint     format, rules and types
# make bench    speed and accuracy beside RELION's, 10 minutes; make bench BENCH=--quick: two
# make docs     the documentation as a site, docs/_build/index.html
# make lock     new requirements.lock from the newest releases
# make clean    remove the environment, caches and the demo
#
# PYTHON=/path/to/python chooses the interpreter (3.11 or newer); without it the first one that is new enough is taken.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo test bounds lint bench docs lock clean python-is-new-enough

VENV := .venv
BIN := $(VENV)/bin
NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do $$p $(NEW_ENOUGH) >/dev/null 2>&1 && echo $$p && break; done)
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint requirements.lock

help:
	@sed -n 's/^# make /  make /p' Makefile

python-is-new-enough:
	@if [ -z "$(PYTHON)" ] || ! "$(PYTHON)" $(NEW_ENOUGH) >/dev/null 2>&1; then \
	  echo "Nephila needs Python 3.11 or newer; '$(or $(PYTHON),python3)' is not. Try: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; \
	  exit 1; fi

# An environment is made once; it is brought up to date when pyproject.toml or the lock file has changed.
$(BIN)/python: | python-is-new-enough
	"$(PYTHON)" -m venv $(VENV)

$(VENV)/run.stamp: pyproject.toml requirements.lock | $(BIN)/python
	@echo "Installing Nephila into $(VENV) ..."
	$(PIP) --editable .
	@touch $@

$(VENV)/dev.stamp: pyproject.toml requirements.lock | $(VENV)/run.stamp
	@echo "Installing what the tests need into $(VENV) ..."
	$(PIP) --editable '.[slurm,dev]'
	@touch $@ $(VENV)/run.stamp

demo/config.yaml: | $(VENV)/run.stamp
	$(BIN)/nephila simulate demo --seed 1 --micrographs 24

demo: $(VENV)/run.stamp demo/config.yaml
	$(BIN)/nephila run demo
	@echo "Settings in demo/config.yaml, results in demo/results/, maps in demo/results/refinement/."

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest

# every index that a kernel uses is checked; its compiled code is kept apart from the usual
bounds: $(VENV)/dev.stamp
	NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=$(CURDIR)/$(VENV)/numba-bounds $(BIN)/python -m pytest -q tests/unit

lint: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/mypy

# 1 thread unless a part asks for more: rates are per core
bench: $(VENV)/run.stamp
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks $(BENCH)

$(VENV)/docs.stamp: pyproject.toml requirements.lock | $(VENV)/run.stamp
	$(PIP) --editable '.[docs]'
	@touch $@ $(VENV)/run.stamp

# every warning is an error, a broken link is a warning
docs: $(VENV)/docs.stamp
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs docs/_build
	@echo "Read docs/_build/index.html"

lock: | python-is-new-enough
	rm -rf $(VENV)/lock && mkdir -p $(VENV) && "$(PYTHON)" -m venv $(VENV)/lock
	$(VENV)/lock/bin/pip install --quiet --upgrade . && $(VENV)/lock/bin/pip freeze --exclude nephila >$(VENV)/1
	$(VENV)/lock/bin/pip install --quiet '.[slurm]' && $(VENV)/lock/bin/pip freeze --exclude nephila >$(VENV)/2
	$(VENV)/lock/bin/pip install --quiet '.[slurm,dev]' && $(VENV)/lock/bin/pip freeze --exclude nephila >$(VENV)/3
	$(VENV)/lock/bin/pip install --quiet '.[slurm,dev,docs]' && $(VENV)/lock/bin/pip freeze --exclude nephila >$(VENV)/4
	{ echo "# Versions that work together, for pip install --constraint. Written by 'make lock'."; \
	  echo; echo "# run time"; cat $(VENV)/1; \
	  echo; echo "# extra: slurm"; grep -vxFf $(VENV)/1 $(VENV)/2; \
	  echo; echo "# extra: dev"; grep -vxFf $(VENV)/2 $(VENV)/3; \
	  echo; echo "# extra: docs"; grep -vxFf $(VENV)/3 $(VENV)/4; } >requirements.lock

clean:
	rm -rf $(VENV) demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find nephila tests -name __pycache__ -prune -exec rm -rf {} +
