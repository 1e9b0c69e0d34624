# `make demo` and `make test` are all that is needed: each sets up what it uses, once, and a second call reuses it.
# A stamp inside an environment says what has been installed there; it is stale when pyproject.toml or the constraints change.

PYTHON ?= $(or $(shell command -v python3.11),$(shell command -v python3))
WORKERS ?= 2
ARGS ?=

VENV := .venv
OLDEST := .venv-oldest
DEMO_EXTRAS := mlflow,sklearn,plots
TEST_EXTRAS := mlflow,sklearn,plots,lightning,dev
BENCH_EXTRAS := $(TEST_EXTRAS),bench
OLDEST_EXTRAS := mlflow,sklearn,plots,test
OLDEST_LIGHTNING := 2.4.0
# The name says to overt's warnings that what lies there is no code of the user's.
OLDEST_LIGHTNING_PLACE = $(VENV)/lightning-$(OLDEST_LIGHTNING)/site-packages

export MLFLOW_DISABLE_TELEMETRY := true
# Some containers set it. The tests start hundreds of processes, and each would compile overt afresh.
unexport PYTHONDONTWRITEBYTECODE
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
export PIP_ROOT_USER_ACTION := ignore

# -qq: errors only. PIP_CONSTRAINT rather than -c, because it reaches the environment in which pip builds overt as well.
define install
@echo "Installing overt[$(2)] into $(1) from $(3): once, a minute or two on a new machine."
@PIP_CONSTRAINT=$(3) $(1)/bin/python -m pip install -qq --editable '.[$(2)]'
endef

# What measures time, or needs the machine to itself, runs first and alone. pytest's 5 means that there was no such test.
define run-tests
$(1)/bin/python -m pytest -m "serial$(2)" $(ARGS) || test $$? -eq 5
$(1)/bin/python -m pytest -n $(WORKERS) --dist worksteal -m "not serial$(2)" $(ARGS)
endef

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow test-all test-oldest test-oldest-lightning lint format docs bench clean

help:  ## Say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-21s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.demo-stamp  ## Compare three classifiers on real data and look the runs up in MLflow
	$(VENV)/bin/python examples/compare_classifiers.py

test: $(VENV)/.test-stamp  ## Run the tests, but for the slow ones (ARGS="-k name" picks some)
	$(call run-tests,$(VENV), and not slow)

test-slow: $(VENV)/.test-stamp  ## Run the slow tests: every estimator, scikit-learn's own checks, worker processes and ranks, autolog, examples
	$(call run-tests,$(VENV), and slow)

test-all: test test-slow  ## Run all tests

test-oldest: $(OLDEST)/.stamp  ## Run the tests on the oldest supported libraries, without torch
	$(call run-tests,$(OLDEST), and not ui)

# Lightning alone is put in front of the newest libraries: the oldest torch would be half a gigabyte for the sake of one package.
test-oldest-lightning: $(OLDEST_LIGHTNING_PLACE)/.stamp  ## Run the tests of TrackingCallback on the oldest supported Lightning
	PYTHONPATH=$(abspath $(OLDEST_LIGHTNING_PLACE)) $(VENV)/bin/python -m pytest -n $(WORKERS) --dist worksteal tests/integrations/test_*lightning*.py $(ARGS)

lint: $(VENV)/.test-stamp  ## Check style, format, types and the layers
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(VENV)/.test-stamp  ## Format the code and mend what ruff can mend
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

docs: $(VENV)/.test-stamp  ## Build the documentation, offline; a warning is an error
	$(VENV)/bin/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "Built docs/_build/html/index.html"

bench: $(VENV)/.bench-stamp  ## Time overt against MLflow's own ways, side by side in one run
	$(VENV)/bin/python benchmarks/headline.py $(ARGS)

clean:  ## Remove the environments, the caches and what was built
	rm -rf $(VENV) $(OLDEST) docs/_build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(VENV)/bin/python $(OLDEST)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "overt needs Python 3.11 or newer: make PYTHON=…")'
	@$(PYTHON) -m venv $(@D)/..

$(VENV)/.demo-stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(call install,$(VENV),$(DEMO_EXTRAS),constraints.txt)
	@touch $@

$(VENV)/.test-stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(call install,$(VENV),$(TEST_EXTRAS),constraints.txt)
	@touch $@ $(VENV)/.demo-stamp

$(VENV)/.bench-stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(call install,$(VENV),$(BENCH_EXTRAS),constraints.txt)
	@touch $@ $(VENV)/.test-stamp $(VENV)/.demo-stamp

$(OLDEST_LIGHTNING_PLACE)/.stamp: $(VENV)/.test-stamp
	@rm -rf $(OLDEST_LIGHTNING_PLACE)
	@$(VENV)/bin/python -m pip install -qq --no-deps --target $(OLDEST_LIGHTNING_PLACE) \
		lightning==$(OLDEST_LIGHTNING) pytorch-lightning==$(OLDEST_LIGHTNING)
	@cd $(OLDEST_LIGHTNING_PLACE) && ../../bin/python -c 'import lightning; assert lightning.__version__ == "$(OLDEST_LIGHTNING)", lightning'
	@touch $@

$(OLDEST)/.stamp: pyproject.toml constraints-oldest.txt | $(OLDEST)/bin/python
	$(call install,$(OLDEST),$(OLDEST_EXTRAS),constraints-oldest.txt)
	@touch $@
