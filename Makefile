# Only python3 (3.11 or newer), make and a package registry are assumed.

PYTHON ?= python3
PORT   ?= 8181
DATA   ?=
ARGS   ?=
FOR    ?= 300
STEPS  ?= 100000
PARTS  ?= 4
SEED   ?=

VERSIONS ?= 14 15 16 17 18

BIN  := .venv/bin
CODE := $(wildcard notifier migrations tests bench release)
PIP  := $(BIN)/python -m pip --quiet --disable-pip-version-check

# Stamps of the complete environment, and of the part that `demo` needs (a third of it). A newer lock file outdates them.
READY := .venv/.requirements
RUNS  := .venv/.requirements-demo

# The browser client's tests run on the Node in Playwright's wheel: the same version on every machine.
NODE = $(shell ls .venv/lib/python3*/site-packages/playwright/driver/node 2>/dev/null || command -v node)

# The tests mostly wait, so four processes share two cores. Each starts its own PostgreSQL; idle ones take over
# tests of others.
PARALLEL := --numprocesses=4 --dist=worksteal

# What `matrix` runs unless ARGS names other tests. test_embedded.py starts its own servers anyway.
DATABASE := tests/postgres --ignore=tests/postgres/test_embedded.py

# PostgreSQL 14 to 17. Started by root, a server runs as another user, who cannot enter root's home.
OLDER := $(if $(filter 0,$(shell id -u)),/var/cache/notifier,$(CURDIR)/.venv)/postgres-versions

# The tests start hundreds of processes: reuse compiled modules.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test matrix check docs bench chaos soak release format lock clean

help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## create .venv with everything in it, from requirements.lock

.venv/.%: %.lock pyproject.toml | $(BIN)/pip
	@echo "Installing $*.lock into .venv; the first time this takes about a minute."
	@$(PIP) install --no-compile --require-hashes --requirement $<
	@$(PIP) install --no-compile --no-deps --no-build-isolation --editable .
	@touch $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed. Name one: make $(MAKECMDGOALS) PYTHON=python3.13" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "This Python cannot create a virtual environment. On Debian and Ubuntu: apt-get install python3-venv" >&2; \
		exit 1; }
	@$(PYTHON) -m venv .venv

demo: $(if $(NODES),$(READY),$(RUNS)) ## PostgreSQL, sample company, server and live page  [PORT=8181] [DATA=folder] [NODES=3, with NATS]
	@$(BIN)/notifier demo --port $(PORT) $(if $(DATA),--data "$(DATA)") $(if $(NODES),--nodes $(NODES))

test: $(READY) ## the whole test suite, four at a time, on PostgreSQL servers that it starts itself  [ARGS="-k word"]
	@status=0; \
	$(if $(ARGS),,$(NODE) --test 'tests/client/**/*.test.mjs' || status=$$?;) \
	$(BIN)/python -m pytest $(if $(ARGS),$(ARGS),$(PARALLEL)) || status=$$?; \
	exit $$status

matrix: $(READY) $(OLDER)/.installed ## the database tests on each version of PostgreSQL  [VERSIONS="14 15 16 17 18"] [ARGS="tests/..."]
	@status=0; for version in $(VERSIONS); do \
		NOTIFIER_TEST_POSTGRES=$$version $(BIN)/python -m pytest $(PARALLEL) $(or $(ARGS),$(DATABASE)) || status=$$?; \
	done; exit $$status

$(OLDER)/.installed: tests/versions/package-lock.json
	@echo "Installing PostgreSQL 14 to 17 into $(@D)"
	@install -d -m 755 $(@D) && cp tests/versions/package.json tests/versions/package-lock.json $(@D)
	@cd $(@D) && npm ci --ignore-scripts --no-audit --no-fund --silent
	@for package in $(@D)/node_modules/*/; do (cd "$$package" && node scripts/hydrate-symlinks.js) || exit 1; done
	@touch $@

check: $(READY) ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports

format: $(READY) ## format the code and apply ruff's fixes
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .

docs: $(READY) ## build the documentation site into build/docs/site, with every link checked
	@$(BIN)/python -m docs.site

bench: $(READY) ## measure, and print the table of ratios
	@$(BIN)/python -m bench $(ARGS)

chaos: $(READY) ## kill, freeze and cut for a while, and compare with the ledger  [FOR=300] [SEED=n]
	@NOTIFIER_CHAOS_SECONDS=$(FOR) NOTIFIER_CHAOS_SEED=$(SEED) $(BIN)/python -m pytest -s tests/chaos $(ARGS)

soak: $(READY) ## writes, subscriptions with filters and faults in any order, on two nodes  [STEPS=100000] [PARTS=4] [SEED=n]
	@NOTIFIER_SOAK_STEPS=$(STEPS) NOTIFIER_SOAK_PARTS=$(PARTS) NOTIFIER_SOAK_SEED=$(SEED) \
		$(BIN)/python -m pytest --numprocesses=$(PARTS) tests/chaos/test_subscriptions.py $(ARGS)

release: $(READY) ## wheel, sdist, SBOM and checksums in dist/, built twice and compared; demo and image from the wheel
	@$(BIN)/python -m release --run --image

# Package index and cache come from the environment and are not written into the lock files.
COMPILE := $(BIN)/uv pip compile pyproject.toml --quiet --no-config --universal --python-version 3.11 \
	--generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links

lock: $(READY) ## resolve pyproject.toml into the lock files
	@$(PIP) install uv
	@$(COMPILE) --all-extras --group dev > .venv/lock && mv .venv/lock requirements.lock
	@$(COMPILE) --constraint requirements.lock --group build --extra demo > .venv/lock && mv .venv/lock requirements-demo.lock
	@$(COMPILE) --constraint requirements.lock --group build --extra otel > .venv/lock && mv .venv/lock requirements-serve.lock

clean: ## remove everything that was built, including .venv
	rm -rf .venv build dist .coverage htmlcov .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
