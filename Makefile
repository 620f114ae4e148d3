# Every task of the project; hooks and CI call these and nothing else. `make` lists them.
VENV     := .venv
# where it really is: VENV is a link where the path has a space, which torch's compiler cannot be given
BIN       = $$(cd $(VENV)/bin && pwd -P)
PORT     ?= 3000
FLEET    ?= fleet.yaml
POOL     ?=
# cpu or gpu; found out where it is empty
PLATFORM ?=
CHAOS_S  ?= 300
# of each of seven kinds of requests, and what they follow from
HOSTILE_BODIES ?= 3000
HOSTILE_SEED   ?= 1
# processes for the tests that need no engine; `logical`: one for each core
JOBS     ?= logical
# where `make dist` puts what it builds
DIST     ?= dist
# public gateways that `make bench` installs beside ours, or nothing
PEERS    ?= vllm-router sglang-router litellm
# of clients; all where it is empty
SUITES   ?=
# further arguments of `make bench-scheduler` and `make fresh`
ARGS     ?=
# the demo's models are trained for whoever serves them, and for nobody else
models   := $(if $(filter fleet.yaml demo/turns.yaml,$(FLEET)),demo,setup)
export PYTHONDONTWRITEBYTECODE := 1
export BENTOML_DO_NOT_TRACK := True

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup dev demo serve test unit chaos hostile check lint types imports fmt console screenshot clients bench gate gpu-check bench-scheduler simulate bento dist lock fresh clean

help:  ## list the tasks
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

setup:  ## create or update the environment (.venv) with what serving needs
	@requirements/install.sh $(VENV) serve $(PLATFORM)

dev:  ## the same, with what checks and tests need besides
	@requirements/install.sh $(VENV) dev $(PLATFORM)

demo:  ## train the demo models (.cache/demo) if they are absent
	@requirements/install.sh $(VENV) demo $(PLATFORM)
	@$(BIN)/python -m demo

serve: $(models)  ## serve FLEET (or one POOL of it) on PORT with real vLLM
	@exec $(BIN)/python -m tenantry serve "$(FLEET)" --port $(PORT) $(if $(POOL),--pool $(POOL))

test: dev demo  ## run everything: what needs no engine on JOBS cores, then the real engine (a good half hour on two)
	@PATH="$(BIN):$$PATH" $(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not engine and not fresh"
	@PATH="$(BIN):$$PATH" $(BIN)/python -m pytest -m "engine or fresh" tests/e2e tests/fresh

unit: dev  ## run what needs no engine, on JOBS cores (some minutes on two)
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile -m "not engine and not network and not fresh"

chaos: dev demo  ## kill, stop and restart engines under load for CHAOS_S seconds, then offer ten times the capacity, then meter 10 000 requests, then answer as many beside churn and a hostile client
	@PATH="$(BIN):$$PATH" TENANTRY_CHAOS_S=$(CHAOS_S) $(BIN)/python -m pytest --log-cli-level=INFO tests/stress

hostile: dev demo  ## send HOSTILE_BODIES wrong requests of each kind, made from HOSTILE_SEED, beside two tenants that behave (half an hour)
	@PATH="$(BIN):$$PATH" HOSTILE_BODIES=$(HOSTILE_BODIES) HOSTILE_SEED=$(HOSTILE_SEED) HOSTILE_LEAST_RATIO=0.9 \
	  $(BIN)/python -m pytest --log-cli-level=INFO tests/integration/test_hostile.py tests/e2e/test_hostile.py

check: lint types imports  ## lint, types, import contracts

lint: dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: dev
	@$(BIN)/mypy

imports: dev
	@PYTHONPATH=. $(BIN)/lint-imports

fmt: dev  ## format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

console: dev  ## build the operators' page from console/ into routing/console/static (needs Node.js 20.19 or newer)
	@$(BIN)/python -m console.api_types > console/src/types.ts
	@cd console && npm ci --no-fund --no-audit && npm run build

screenshot: dev demo  ## take docs/console.png anew, of the real service while one model is flooded (needs Chromium)
	@PATH="$(BIN):$$PATH" TENANTRY_SCREENSHOT=1 $(BIN)/python -m pytest -q tests/e2e/test_console.py -k flooded

clients: dev demo  ## run clients' suites through the gateway and beside plain vLLM; SUITES names some (half an hour)
	@PATH="$(BIN):$$PATH" $(BIN)/python -m tests.clients $(SUITES)

bench: dev demo  ## compare the gateway with its baselines, public PEERS where they install, and the engine alone
	@PATH="$(BIN):$$PATH" $(BIN)/python -m benchmarks.gateway $(PEERS:%=--peer %)
	@PATH="$(BIN):$$PATH" $(BIN)/python -m benchmarks.observability
	@PATH="$(BIN):$$PATH" $(BIN)/python -m benchmarks.decisions
	@PATH="$(BIN):$$PATH" $(BIN)/python -m benchmarks.engine

gate: dev  ## print what a chat and a chunk cost against the plain proxy (two minutes)
	@PATH="$(BIN):$$PATH" $(BIN)/python -m benchmarks.gateway --rounds 5 --seconds 1.5 \
	  --scenario chat_32 --scenario streams_16 --scenario slow_200

gpu-check: dev demo  ## measure and check switches between whole models on this machine's GPU, under eight minutes; ARGS=--cpu: what CPUs can
	@PATH="$(BIN):$$PATH" $(BIN)/python -m benchmarks.switches --json switches.json $(ARGS)

bench-scheduler: dev demo  ## compare the scheduler with four others on two real engines; ARGS go to it (some twenty minutes)
	@PATH="$(BIN):$$PATH" $(BIN)/python -m benchmarks.scheduler $(ARGS)

simulate: dev  ## compare schedulers on simulated fleets of sixteen replicas and a thousand adapters
	@$(BIN)/python -m benchmarks.simulator compare

bento: $(models)  ## build a Bento of the whole FLEET, or of one POOL
	@PATH="$(BIN):$$PATH" $(BIN)/python -m tenantry build --fleet "$(FLEET)" $(if $(POOL),--pool $(POOL)) \
	  $(if $(PLATFORM),--platform $(PLATFORM))

dist: dev  ## build the command as a wheel and an sdist into dist/: light, without vLLM
	@$(BIN)/uv build --quiet --clear --offline --no-build-isolation --python $(BIN)/python --out-dir $(DIST) .
	@rm -rf tenantry.egg-info

lock: dev  ## resolve the locks anew (needs the network)
	@requirements/lock.sh

fresh:  ## try the README on a bare Debian: make it with debootstrap, run both commands there (needs root; ARGS=--help)
	@python3 -m tests.fresh $(ARGS)

clean:  ## remove what the tasks made, except the environment
	rm -rf .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache benchmarks/build test-output dist
