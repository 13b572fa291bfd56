# Every target works in a fresh checkout with nothing but make and Python 3.11 or newer: the first one that needs it
# creates .venv and installs the package there, and again when pyproject.toml changes.
#
#   PYTHON=python3.13   the interpreter the environment is made with
#   VENV=folder         another place for it
#   ARGS="-k name"      run pytest with these arguments only, one test at a time (test); arguments for bench, bench-peers
#   JOBS=6              tests that run at the same time (test); most of them wait most of the time
#   LOGS=…              passed to the demo as --logs
#   ONLY="hole flush"   causes these faults alone (chaos)

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 6
# The package is compiled once, and not by each of the many processes that a test starts.
export PYTHONDONTWRITEBYTECODE :=
PEERS := .venv-peers
PEERS_STAMP := $(PEERS)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-heavy lint docs bench bench-peers chaos wheel clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

demo: $(STAMP)  ## ship growing log files exactly once while workers are killed, paused and drained
	$(BIN)/python -m examples.log_shipper.demo $(if $(LOGS),--logs $(LOGS))

test: $(STAMP)  ## run the whole test suite on real servers, or pytest with ARGS
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	$(BIN)/python -m pytest -m 'not timing and not heavy' --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder
endif

test-heavy: $(STAMP)  ## run the tests that take long, need more than a Redis server, or check times
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[heavy]'
	$(BIN)/python -m pytest -m 'heavy and not timing' --numprocesses 3 --dist loadfile $(ARGS)
	$(BIN)/python -m pytest -m timing $(ARGS)

lint: $(STAMP)  ## check style, types, the direction of imports, spelling and prose
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/python .ci/prose.py
	$(BIN)/python .ci/first_lines.py

docs: $(STAMP)  ## build the documentation into build/docs; a warning is an error
	$(BIN)/python -m sphinx -W -n --keep-going --quiet -b html docs build/docs

bench: $(STAMP)  ## measure what the documentation promises
	$(BIN)/python -m tests.benchmarks $(ARGS)

bench-peers: $(PEERS_STAMP)  ## measure Celery with locks, and Ray, beside the package, in an environment of their own
	$(PEERS)/bin/python -m tests.benchmarks.peers $(ARGS)

chaos: $(STAMP)  ## random faults against four workers for MINUTES (2), repeatable with SEED
	$(BIN)/python -m tests.chaos --minutes $(or $(MINUTES),2) $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only $(ONLY))

wheel: $(STAMP)  ## build the sdist, and the wheel out of it, into dist/
	rm -rf dist
	$(BIN)/python -m build --no-isolation

clean:  ## remove everything that was built or cached, the environment included
	rm -rf $(VENV) $(PEERS) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): INSTALLED = --editable '.[dev]'
$(PEERS_STAMP): INSTALLED = --editable '.[demo,hiredis]' --requirement tests/benchmarks/peers/requirements.txt
$(PEERS_STAMP): tests/benchmarks/peers/requirements.txt
$(STAMP) $(PEERS_STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=…")'
	@test -x $(@D)/bin/pip || $(PYTHON) -m venv $(@D)
	@echo "installing the package and its tools into $(@D) …"
	@$(@D)/bin/python -m pip install --quiet --quiet --disable-pip-version-check $(INSTALLED)
	@touch $@
