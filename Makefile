# The newcomer's path: `make run` and `make test` set themselves up in .venv; nothing else need be running.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TESTS ?= tests
WORKERS ?= auto
FUZZ_SECONDS ?= 600
FUZZ_EVENTS ?= 100000
ROUNDS ?= 20
MESSAGES ?= 10000
SEED ?=
FIRST ?=
NODE_MODULES := tests/e2e/js/node_modules/.done clients/typescript/node_modules/.done

.PHONY: help run demo cluster test test-quick test-exhaustive chaos chaos-embedded chaos-messages races fuzz check format bench lock client-types clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 16

$(VENV)/.python: ; @$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	{ echo "Python 3.11 or newer is needed; say where: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "On Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	@touch $@

# The package itself is built by the pinned build tools of the environment, so that nothing unpinned is fetched.
$(VENV)/.run: $(VENV)/.python requirements/run.txt pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

# The npm client that app teams use, for the end-to-end tests. Without Node they say loudly that they are left out.
tests/e2e/js/node_modules/.done: tests/e2e/js/package.json tests/e2e/js/package-lock.json
	@if command -v npm >/dev/null; then cd tests/e2e/js && npm ci --silent --no-audit --no-fund && touch node_modules/.done; \
	else echo "NODE IS MISSING: the tests with the npm socket.io-client will be skipped" >&2; fi

# What the TypeScript client is compiled with and runs on; the tests compile it.
clients/typescript/node_modules/.done: clients/typescript/package.json clients/typescript/package-lock.json
	@if command -v npm >/dev/null; then cd clients/typescript && npm ci --silent --no-audit --no-fund && touch node_modules/.done; \
	else echo "NODE IS MISSING: the tests of the TypeScript client will be skipped" >&2; fi

run: $(VENV)/.run ## serve on http://127.0.0.1:8000, on an embedded database in data/
	$(BIN)/tarazu serve

demo: $(VENV)/.run ## a whole paid consultation, live in the terminal
	$(BIN)/tarazu demo

cluster: $(VENV)/.dev ## the production path from pip packages: two web processes, a worker, MongoDB's protocol, Valkey
	@$(BIN)/python -m tools.cluster

test: $(VENV)/.dev $(NODE_MODULES) ## all tests
	$(BIN)/python -m pytest $(TESTS) -n $(WORKERS)

test-quick: $(VENV)/.dev ## all but the slow ones
	$(BIN)/python -m pytest $(TESTS) -n $(WORKERS) -m "not slow and not node"

test-exhaustive: $(VENV)/.dev $(NODE_MODULES) ## all tests, and every death in both modes of the ledger
	TARAZU_EXHAUSTIVE=1 $(BIN)/python -m pytest $(TESTS) -n $(WORKERS)

chaos: $(VENV)/.dev ## break a cluster of real processes under load again and again: ROUNDS=500 SEED=n; goes on where it stopped
	@ROUNDS=$(ROUNDS) SEED=$(SEED) FIRST=$(FIRST) $(BIN)/python -m tools.chaos

chaos-embedded: $(VENV)/.dev ## kill -9 of the one embedded process under load: ROUNDS=50 SEED=n
	TARAZU_CHAOS_ROUNDS=$(ROUNDS) TARAZU_CHAOS_SEED=$(SEED) $(BIN)/python -m pytest tests/e2e/test_kill.py -s -k any_instant

chaos-messages: $(VENV)/.dev $(NODE_MODULES) ## both clients' messages at a cluster that breaks: MESSAGES=100000 SEED=n
	@MESSAGES=$(MESSAGES) SEED=$(SEED) PYTHONPATH=clients/python $(BIN)/python -m tools.chaos_messages

races: $(VENV)/.dev ## the same user, and the same lawyer, wanted at two processes at once: ROUNDS=1000
	TARAZU_RACE_ROUNDS=$(ROUNDS) $(BIN)/python -m pytest tests/e2e/test_cluster.py -k of_two_starts

fuzz: $(VENV)/.dev ## schemathesis and the event fuzzer with new data, each for FUZZ_SECONDS (600), and FUZZ_EVENTS (100000) with canaries
	FUZZ_SECONDS=$(FUZZ_SECONDS) FUZZ_EVENTS=$(FUZZ_EVENTS) FUZZ_SEED= $(BIN)/python -m pytest tests/integration/test_schemathesis.py tests/integration/test_event_fuzz.py tests/integration/test_event_canaries.py

check: $(VENV)/.dev ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

client-types: $(VENV)/.dev ## the clients' types from the event tables
	$(BIN)/python -m clients.generate

format: $(VENV)/.dev ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev ## the benchmarks, each a side-by-side ratio
	$(BIN)/python -m bench

lock: $(VENV)/.dev ## pin what pyproject.toml asks for, with hashes
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -q --extra build -o requirements/run.txt
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -q --extra build --group dev -o requirements/dev.txt

clean: ## remove what make has made; the database in data/ stays
	rm -rf $(VENV) tests/e2e/js/node_modules clients/typescript/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis
