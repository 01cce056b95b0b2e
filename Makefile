# `make run` and `make test` are all a newcomer needs; both prepare what they use and are quick the second time.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
# The models that the tests run on are kept here between runs; the arena itself keeps its own in ARENA_DATA.
TEST_DATA ?= $(CURDIR)/.cache/arena

.DEFAULT_GOAL := help
.PHONY: help install run test check fmt docs bench promises models system npm bytecode clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)/.dev ## virtual environment with everything for running and testing

run: $(VENV)/.run ## serve the arena on http://127.0.0.1:7860 (ARGS="--port 8000" passes options)
	$(BIN)/python arena_app.py $(ARGS)

test: ## lint, types, and all tests with branch coverage (ARGS="-k chat" passes options to pytest)
	@$(MAKE) --no-print-directory -j4 $(WHOLE_OUTPUT) system check models npm bytecode
	ARENA_TEST_DATA=$(TEST_DATA) $(BIN)/python -m pytest $(PYTEST_OPTIONS) $(ARGS)

check: $(VENV)/.dev ## format, lint and types only
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fmt: $(VENV)/.dev ## format the code and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.dev ## rewrite .env.example and the README's table from the settings
	$(BIN)/python -m tests.test_docs

bench: $(VENV)/.dev ## measure the arena beside direct access to the same server (ARGS passes options)
	$(BIN)/python bench/run.py $(ARGS)

promises: $(VENV)/.dev ## what is promised about votes, tested at length: 1,000 kills, 500 races, 200 battles ... (half an hour)
	ARENA_TEST_KILLS=1000 ARENA_TEST_CRASHES=20 ARENA_TEST_WHOLE=1 ARENA_TEST_SERVER_KILLS=20 ARENA_TEST_SYNCED=200 \
	  ARENA_TEST_RACES=500 ARENA_TEST_HISTORIES=3 ARENA_TEST_BATTLES=200 \
	  $(BIN)/python -m pytest -n 2 tests/store/test_durability.py tests/durability tests/api/test_battles.py

clean: ## remove the virtual environment and every cache
	rm -rf $(VENV) tests/clients/node_modules .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*

# ---- below: what the targets above rest on

# Three processes, since many tests wait; with more, two cores are late for the browser. tests/order.py says what stays together.
PYTEST_OPTIONS ?= -n 3 --dist loadfile --cov --cov-report=term
# what is made at the same time speaks one after another, where make can
WHOLE_OUTPUT := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name it: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.txt | $(VENV)/bin/python
	@echo "Fetching what the arena needs into $(VENV) (once; some 700 MB on the disk, a minute or more)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements.txt requirements-dev.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --only-binary :all: -r requirements-dev.txt
	@touch $@ $(VENV)/.run

# dozens of processes import the same modules, and each of pytest's rewrites the tests: once, before they do it at once
unexport PYTHONDONTWRITEBYTECODE
bytecode: $(VENV)/.dev
	@$(BIN)/python -m pytest --collect-only -qqq --no-cov -p no:cacheprovider >/dev/null || true  # the run itself tells what is wrong

models: $(VENV)/.dev
	ARENA_DATA=$(TEST_DATA) $(BIN)/python -m arena setup

# the ollama client of npm, which one test runs as it is
npm: tests/clients/node_modules/ollama
tests/clients/node_modules/ollama: tests/clients/package.json
	@{ command -v npm >/dev/null && npm install --prefix tests/clients --no-audit --no-fund --no-package-lock --silent && touch $@; } \
	  || echo "note: the ollama package of npm cannot be installed: its test is skipped"

system:
	@command -v chromium-headless-shell >/dev/null || command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
	  || { echo "note: no Chromium here: the browser tests cannot run (Debian: apt-get install chromium-headless-shell)"; test -z "$$CI"; }
	@command -v node >/dev/null || { echo "note: no node here: the JavaScript samples cannot run"; test -z "$$CI"; }
