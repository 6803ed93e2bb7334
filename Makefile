# Needs only make and a CPython >= 3.11 with venv and pip; everything else goes into .venv.
# The first usable interpreter of this list makes .venv; choose one with `make PYTHON=...`.
PYTHON ?= python3 python3.14 python3.13 python3.12 python3.11

VENV_PYTHON := .venv/bin/python
STAMP := .venv/.installed
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench docs clean

help:
	@echo "make demo | test | lint | bench | docs | clean   (PYTHON=... chooses the interpreter)"

demo: $(STAMP)
	$(VENV_PYTHON) docs/examples/demo.py

test: $(STAMP)
	$(VENV_PYTHON) -m pytest -n 2 -q

lint: $(STAMP)
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m mypy

bench: $(STAMP)
	$(VENV_PYTHON) -m tests.benchmarks

docs: $(STAMP)
	$(VENV_PYTHON) -m tracegraph.docs_table

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name .git -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

$(STAMP): pyproject.toml
	@set -e; \
	if ! $(VENV_PYTHON) -c '$(USABLE)' >/dev/null 2>&1; then \
	  python=; \
	  for candidate in $(PYTHON); do \
	    if $$candidate -c '$(USABLE)' >/dev/null 2>&1; then python=$$candidate; break; fi; \
	  done; \
	  if [ -z "$$python" ]; then \
	    echo "make: no CPython >= 3.11 with venv and ensurepip among: $(PYTHON)" >&2; \
	    echo "make: install one, or name it: make PYTHON=/path/to/python3.12" >&2; \
	    exit 1; \
	  fi; \
	  echo "making .venv with $$($$python --version)"; \
	  $$python -m venv --clear .venv; \
	fi
	@echo "installing tracegraph and its tools into .venv"
	@$(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check --no-input -e '.[dev]'
	@touch $@
