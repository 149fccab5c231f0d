# The commands of this project; people and CI call only these. `make help` lists them.
# Everything is set up on first use: the environment in .venv from requirements.lock, state in .leastwise.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# Another PYTHON than the one .venv was made with gets an environment beside it: make test PYTHON=python3.13
ifeq ($(origin PYTHON),command line)
  NUMBER := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  MADE_WITH := $(shell sed -n 's/^version = \([0-9]*\.[0-9]*\).*/\1/p' .venv/pyvenv.cfg 2>/dev/null)
endif
VENV := .venv$(if $(MADE_WITH),$(if $(filter $(MADE_WITH),$(NUMBER)),,-$(NUMBER)))
BIN := $(VENV)/bin
USE_CASE ?= use_cases/alert-triage.yaml
TESTS ?= tests
# Processes that share the tests: one more than cores, since tests wait for servers a third of their time.
TESTERS ?= 3
ROUNDS ?= 5

# Nothing is reported to anybody and no model is fetched from a hub; idle threads must not starve the busy ones.
export DO_NOT_TRACK := true
export MLFLOW_DISABLE_TELEMETRY := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export GX_ANALYTICS_ENABLED := false
export ORT_DISABLE_TELEMETRY := 1
export HF_HUB_OFFLINE ?= 1
export TRANSFORMERS_OFFLINE ?= $(HF_HUB_OFFLINE)
export TOKENIZERS_PARALLELISM := false
export OMP_WAIT_POLICY := PASSIVE
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# A process that may not keep what it compiled compiles torch, transformers and Prefect anew each time it starts.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help env data demo test check bench soak up down kube-check kube-apiserver clean

# What a target takes is said before it begins: on two quiet cores, measured (docs/log.md), and disk where it is not little.
comma := ,
DEMO_TAKES = $(or $(DEMO_TAKES_$(notdir $(basename $(USE_CASE)))),as long as its stages: python -m flows.advise $(USE_CASE) says of each what it costs)
DEMO_TAKES_alert-triage := 6 to 7 min and 0.5 GB$(comma) to the first verdict about 85 s
takes = @echo "leastwise: make $@ takes $(1)" >&2

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(VENV)/.complete ## Set up .venv from requirements.lock; nothing to do where it is there

# torch once more with its requirements: nothing to do for the CPU build, the CUDA libraries for the GPU build.
$(VENV)/.complete: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "leastwise: $(PYTHON) is not Python 3.11 to 3.13; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "leastwise: setting up $(VENV) from requirements.lock takes about 3 min and 3 GB, once" >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --no-compile --no-deps -r requirements.lock
	@$(BIN)/python -m pip install -qq --no-compile "$$(grep '^torch==' requirements.lock)"
	@touch $@

data: env ## Build the embedded use case's data; nothing to do where it is unchanged
	$(call takes,3 s and 2 MB$(comma) once)
	@$(BIN)/python -m use_cases.build_alert_triage >/dev/null

demo: data ## Climb the ladder on USE_CASE (default use_cases/alert-triage.yaml); no server, no key
	$(call takes,$(DEMO_TAKES))
	@$(BIN)/python -m flows.customize $(USE_CASE)

test: data ## Run the tests; TESTS="tests/unit -k gate" runs some
	$(call takes,about 19 min)
	@$(BIN)/python -m pytest -n $(TESTERS) --dist loadfile --no-loadscope-reorder $(TESTS)

check: env ## Lint, format, types, direction of the imports
	$(call takes,about 1 min$(comma) longer the first time)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check -q .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: data ## Run every measurement in benchmarks/
	$(call takes,hours; one of them is python -m benchmarks.NAME)
	@set -e; for file in $$(ls benchmarks/*.py 2>/dev/null | grep -v __init__); do \
	  echo "== $$file" >&2; $(BIN)/python -m "benchmarks.$$(basename $$file .py)"; done

soak: data ## Run the tests ROUNDS times (default 5), with new random examples, ten times the kills, 2,000 corruptions, and those marked soak
	$(call takes,$(ROUNDS) rounds$(comma) each longer than the 19 min of make test)
	@set -e; for round in $$(seq $(ROUNDS)); do echo "== round $$round of $(ROUNDS)" >&2; \
	  LEASTWISE_SOAK=1 LEASTWISE_KILLS=50 LEASTWISE_CORRUPTIONS=2000 $(BIN)/python -m pytest -n $(TESTERS) --dist loadfile --no-loadscope-reorder $(TESTS); done

up: data ## Start the Prefect and MLflow servers, a worker a pool, and deploy every flow
	$(call takes,20 s; it runs until make down)
	@$(BIN)/python -m infra.local up

down: env ## End exactly what `make up` started
	$(call takes,some seconds)
	@$(BIN)/python -m infra.local down

# Checkers have packages that the product does not: they lie in a folder of their own, which only these commands look into.
KUBE_PACKAGES = cat infra/kubernetes/*.lock | cmp -s - .kube-check/.complete || { rm -rf .kube-check; \
  $(BIN)/python -m pip install -qq --no-deps --no-compile --target .kube-check -r infra/kubernetes/worker.lock -r infra/kubernetes/check.lock && \
  cat infra/kubernetes/*.lock > .kube-check/.complete; }

kube-check: env ## Hold infra/kubernetes/ strictly to Kubernetes' schemas; needs kubectl, no cluster
	$(call takes,seconds and$(comma) once$(comma) 160 MB for its packages)
	@command -v kubectl >/dev/null || { echo "leastwise: kubectl is not installed (1.21 or newer)" >&2; exit 2; }
	@$(KUBE_PACKAGES)
	@PYTHONPATH=.kube-check $(BIN)/python -m infra.kube_check

kube-apiserver: data ## The same and self_host against a real API server, which it builds once from Debian's source
	$(call takes,4 min and$(comma) once$(comma) 7 min and 220 MB to build the server)
	@$(KUBE_PACKAGES)
	@PYTHONPATH=$(CURDIR)/.kube-check $(BIN)/python -m infra.kube_apiserver

clean: ## Remove the environment and caches; .leastwise stays, for it holds what was paid for, and .kube-apiserver
	@rm -rf .venv .venv-* .kube-check .mypy_cache .ruff_cache .import_linter_cache .hypothesis .pytest_cache dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
