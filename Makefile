# `make demo` and `make test` are all that a newcomer needs: both set up everything first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
UV     := $(BIN)/python -m uv
MEMBERS := clients/python rpc feature_repo storage model_store warehouse training server workbench
EDITABLE := $(foreach m,$(MEMBERS),-e $(m)$(if $(filter clients/python,$(m)),[cli])$(if $(filter feature_repo,$(m)),[feast]))
MANIFESTS := pyproject.toml $(addsuffix /pyproject.toml,$(MEMBERS))
UV_PIN := $(shell sed -n 's/^uv==/uv==/p' constraints.txt 2>/dev/null)
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Containers often set it. Every process would compile every module anew, and tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test check gen dashboards lock lint types contract format bench clean
.DEFAULT_GOAL := help

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(VENV)/.ready: $(MANIFESTS) constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Conductor needs Python 3.11 or later; set PYTHON=…")'
	@echo "Setting up $(VENV) (first time: about a minute)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(or $(UV_PIN),uv)
	@$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt --group dev $(EDITABLE)
	@touch $@

setup: $(VENV)/.ready ## Install everything into .venv

demo: setup ## Run the whole way once: events in, predictions out, a report at the end
	@$(BIN)/conductor demo

# A test that its time limit does not reach, in a library's lock for one, ends its process: tests/watchdog.py.
test: setup ## Run the tests, two files at a time
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --instafail --max-worker-restart=1

check: setup lint types contract ## Lint, types, import directions, contract

lint: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: setup
	@$(BIN)/mypy

contract: setup
	@./protos/check.sh

gen: setup ## Regenerate the stubs from protos/
	@./protos/generate.sh

dashboards: setup ## Write deploy/grafana/*.json from their code
	@PYTHONPATH=deploy/grafana $(BIN)/python -m conductor_dashboards deploy/grafana

format: setup ## Format the code
	@$(BIN)/ruff check --fix-only . && $(BIN)/ruff format .

bench: setup ## Measure, and write benchmarks/results/latest.json
	@$(BIN)/conductor bench

lock: ## Pin anew: constraints.txt from the members' declarations
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(UV) pip compile --quiet --upgrade --python-version 3.11 --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
	  --no-emit-package conductor-client --no-emit-package conductor-rpc --no-emit-package conductor-features --no-emit-package conductor-storage --no-emit-package conductor-model-store \
	  --no-emit-package conductor-warehouse --no-emit-package conductor-training --no-emit-package conductor-server --no-emit-package conductor-workbench \
	  --group dev --all-extras $(addsuffix /pyproject.toml,$(MEMBERS)) -o constraints.txt

clean: ## Remove what was built; keeps .venv
	@rm -rf build .conductor .mypy_cache .ruff_cache .pytest_cache
