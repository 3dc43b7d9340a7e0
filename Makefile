# Only python3 (3.11 or newer), make and a package registry are assumed.

PYTHON ?= python3
PORT   ?= 8181
DATA   ?=
ARGS   ?=

BIN   := .venv/bin
READY := .venv/.ready
CODE  := $(wildcard notifier migrations tests bench)

# The browser client's tests run on the Node that Playwright's wheel brings: the same version everywhere.
NODE = $(firstword $(wildcard .venv/lib/python3*/site-packages/playwright/driver/node) $(shell command -v node))

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench chaos format lock clean

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with everything in it, from requirements.lock

# Made anew when what it was made from has changed, so that every other target can ask for it.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed. Say which: make $(MAKECMDGOALS) PYTHON=python3.13" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "This Python cannot make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@echo "Setting up .venv; the first time this downloads for a minute or so."
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY) ## PostgreSQL, sample company, server and live page  [PORT=8181] [DATA=folder]
	@$(BIN)/notifier demo --port $(PORT) $(if $(DATA),--data "$(DATA)")

test: $(READY) ## the whole test suite, on a PostgreSQL that it brings itself  [ARGS="-k word"]
	@if [ -z "$(ARGS)" ] && [ -d tests/client ]; then $(NODE) --test 'tests/client/**/*.test.mjs'; fi
	@$(BIN)/python -m pytest $(ARGS)

check: $(READY) ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports

format: $(READY) ## format the code and mend what ruff can mend
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .

bench: $(READY) ## measure, and print the table of ratios
	@$(BIN)/python -m bench $(ARGS)

chaos: $(READY) ## kill, freeze and cut for some minutes, and compare with the ledger
	@$(BIN)/python -m bench.chaos $(ARGS)

# The environment's say about indexes and caches is heard, and written into neither file.
COMPILE := $(BIN)/uv pip compile pyproject.toml --quiet --no-config --universal --python-version 3.11 \
	--generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links

lock: $(READY) ## resolve pyproject.toml anew into the two lock files
	@$(BIN)/pip install --quiet --disable-pip-version-check uv
	@{ echo '# Everything that the repository uses. Made by `make lock`.'; \
		$(COMPILE) --all-extras --group dev; } > requirements.new && mv requirements.new requirements.lock
	@{ echo '# What `notifier serve` needs of it, in the same versions. Made by `make lock`.'; \
		$(COMPILE) --constraint requirements.lock; } > requirements.new && mv requirements.new requirements-serve.lock

clean: ## remove what was made, .venv too
	rm -rf .venv build dist .coverage htmlcov .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
