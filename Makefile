# `make help` lists the targets. Everything runs in .venv, which the first target that needs it sets up.
SHELL := bash
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Of these, a shell's variables of the same names are none: HOST is often the machine's own.
HOST := 127.0.0.1
PORT := 5000
TESTS :=
DVC_OPTIONS :=
JOBS := 1
NODES :=
CPUS :=
SUBMIT_OPTIONS :=
PINS_OPTIONS :=

# DVC's stages and their children run the environment's python.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export RAY_USAGE_STATS_ENABLED ?= 0
export RAY_TRAIN_ENABLE_PRINT_PATCH ?= 0
export MLFLOW_DISABLE_TELEMETRY ?= true
export DVC_NO_ANALYTICS ?= 1
export DO_NOT_TRACK ?= 1

.PHONY: help setup check lint types test reproduce cluster cluster-down submit bench ui plots pins clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with the pinned packages (about two minutes and 7 GB); again only when the pins change

$(READY): requirements.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed; '$(PYTHON)' is $$("$(PYTHON)" --version 2>&1 || echo missing)." >&2; \
	  echo "Install it, or name one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Setting up $(VENV) from requirements.txt (about two minutes, once) ..."
	@"$(PYTHON)" -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --no-input --disable-pip-version-check -r requirements.txt
	@touch $@

check: lint types ## ruff, mypy and the quick tests, in under a minute
	@$(BIN)/python -m pytest -q -n auto -m "not slow and not gpu" $(TESTS)

lint: $(READY) ## ruff: lint and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY) ## mypy
	@$(BIN)/mypy

test: $(READY) ## the whole test suite (TESTS=tests/data for a part)
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(TESTS)

reproduce: $(READY) ## run the experiment in params.yaml through DVC and print its results (JOBS=2: two stages at once)
	@$(BIN)/python -m infra.reproduce -j $(JOBS) $(DVC_OPTIONS)

cluster: $(READY) ## start S3, MLflow and Ray on this machine's loopback (NODES, CPUS each)
	@$(BIN)/python -m infra.cluster up $(if $(NODES),--nodes $(NODES)) $(if $(CPUS),--cpus $(CPUS))

cluster-down: $(READY) ## stop what `make cluster` started
	@$(BIN)/python -m infra.cluster down

submit: $(READY) ## run the experiment as one job of the cluster and bring its results back (SUBMIT_OPTIONS)
	@$(BIN)/python -m infra.submit $(SUBMIT_OPTIONS)

bench: $(READY) ## measure the speed against what people would otherwise run
	@$(BIN)/python -m benchmarks

ui: $(READY) ## MLflow's pages of the runs and models, with a view of each experiment's errors (HOST, PORT)
	@$(BIN)/python -m pipeline.tracking.ui $(PORT) --host $(HOST)

plots: $(READY) ## draw the curves of the experiments with dvc plots
	@$(BIN)/dvc plots show

pins: $(READY) ## compile requirements.txt from pyproject.toml (PINS_OPTIONS=--upgrade for newer versions)
	@$(BIN)/python tools/pins.py $(PINS_OPTIONS)

clean: ## remove what the stages wrote, checkpoints of unfinished trainings too, and caches; .venv, DVC's cache, MLflow's store and results/ stay
	@rm -rf data models predictions checkpoints dvc_plots .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove .venv, DVC's cache and MLflow's local store as well
	@rm -rf $(VENV) .dvc/cache .dvc/tmp mlflow.db mlflow.db-shm mlflow.db-wal mlflow.db.* .mlflow-*.lock mlartifacts mlruns
