# Every task of the project; hooks and CI call these and nothing else. `make` lists them.
VENV     := .venv
BIN      := $(VENV)/bin
PORT     ?= 3000
FLEET    ?= fleet.yaml
POOL     ?=
# cpu or gpu; found out where it is empty
PLATFORM ?=
CHAOS_S  ?= 300
# where `make dist` puts what it builds
DIST     ?= dist
# public gateways that `make bench` installs beside ours, or nothing
PEERS    ?= vllm-router sglang-router litellm
# further arguments of `make bench-scheduler`
ARGS     ?=
export PYTHONDONTWRITEBYTECODE := 1
export BENTOML_DO_NOT_TRACK := True

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test unit chaos check lint types imports fmt console screenshot bench bench-scheduler simulate bento dist lock clean

help:  ## list the tasks
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

setup:  ## create or update the environment (.venv) from the lock of this machine's platform
	@requirements/install.sh $(VENV) $(PLATFORM)

demo: setup  ## train the demo models (.cache/demo) if they are absent
	@$(BIN)/python -m adapters.demo

serve: demo  ## serve FLEET (or one POOL of it) on PORT with real vLLM
	@exec $(BIN)/python -m tenantry serve "$(FLEET)" --port $(PORT) $(if $(POOL),--pool $(POOL))

test: demo  ## run everything, the real engine included (some five minutes on two cores)
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest

unit: setup  ## run what needs no engine (seconds)
	@$(BIN)/python -m pytest -q -m "not engine"

chaos: demo  ## kill, stop and restart engines under load for CHAOS_S seconds, then offer ten times the capacity, then meter 10 000 requests
	@PATH="$(CURDIR)/$(BIN):$$PATH" TENANTRY_CHAOS_S=$(CHAOS_S) $(BIN)/python -m pytest --log-cli-level=INFO tests/stress

check: lint types imports  ## lint, types, import contracts

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: setup
	@$(BIN)/mypy

imports: setup
	@PYTHONPATH=. $(BIN)/lint-imports

fmt: setup  ## format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

console:  ## build the operators' page from console/ into routing/console/static (needs Node.js 20.19 or newer)
	@cd console && npm ci --no-fund --no-audit && npm run build

screenshot: demo  ## take docs/console.png anew, of the real service while one model is flooded (needs Chromium)
	@PATH="$(CURDIR)/$(BIN):$$PATH" TENANTRY_SCREENSHOT=1 $(BIN)/python -m pytest -q tests/e2e/test_console.py -k flooded

bench: demo  ## compare the gateway with its baselines, public PEERS where they install, and the engine alone
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m benchmarks.gateway $(PEERS:%=--peer %)
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m benchmarks.observability
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m benchmarks.decisions
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m benchmarks.engine

bench-scheduler: demo  ## compare the scheduler with four others on two real engines; ARGS go to it (some twenty minutes)
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m benchmarks.scheduler $(ARGS)

simulate: setup  ## compare schedulers on simulated fleets of sixteen replicas and a thousand adapters
	@$(BIN)/python -m benchmarks.simulator compare

bento: demo  ## build a Bento of the whole FLEET, or of one POOL
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tenantry build --fleet $(FLEET) $(if $(POOL),--pool $(POOL)) \
	  $(if $(PLATFORM),--platform $(PLATFORM))

dist: setup  ## build the command as a wheel and an sdist into dist/: light, without vLLM
	@$(BIN)/uv build --quiet --clear --offline --no-build-isolation --python $(BIN)/python --out-dir $(DIST) .
	@rm -rf tenantry.egg-info

lock: setup  ## resolve the locks anew (needs the network)
	@requirements/lock.sh

clean:  ## remove what the tasks made, except the environment
	rm -rf .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache benchmarks/build test-output dist
