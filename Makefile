# hutch: make run shows it, make check and make test are what a change must pass.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
HUTCH_GUEST ?= ../shared/vm/vm
IMAGES := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/hutch-tests
GUEST_VENV := $(CURDIR)/.make/guest

.DEFAULT_GOAL := help
.PHONY: help run install dev packages check lint type layers house fmt test unit contract integration conformance e2e \
	bench docs guest clean

help: ## this list
	@sed -n 's/^\([a-z][a-z0-9]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

run: install ## install into .venv and show your own system from inside a container
	@$(BIN)/python scripts/look $(BIN)/hutch

# A stamp for each kind of installation: make knows what changed, pip takes seconds to find out.
install: .make/install
dev: .make/dev

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

.make/install: pyproject.toml scripts/hutch scripts/hutch-oci | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@mkdir -p .make && touch $@

.make/dev: pyproject.toml scripts/hutch scripts/hutch-oci | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@mkdir -p .make && touch .make/install $@

packages: ## the programs the tests drive, from Debian or Ubuntu (root only; tests skip what is not there)
	@scripts/packages

check: lint type layers house ## format, lint, types, direction of imports, house rules

lint: dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check

type: dev
	$(BIN)/mypy

layers: dev
	$(BIN)/lint-imports --no-cache

house: dev
	$(PYTEST) -q tests/unit/test_house.py

fmt: dev ## format the code, and fix what can be fixed by itself
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

test: packages dev ## everything
	$(PYTEST) $(ARGS)

unit contract integration conformance e2e: dev ## one level of the tests
	$(PYTEST) tests/$@ $(ARGS)

bench: packages dev ## measure against docker, podman, runc, crun; tables, JSON and SVG in bench-out/
	$(BIN)/python -m tests.bench $(ARGS)

docs: dev ## make the pages of commands, and check that what the documentation points to is there
	$(BIN)/python scripts/docs

guest: ## the tests that need a real host (systemd, cgroup v2, AppArmor), in a virtual machine, as root and as a user
	@if [ ! -x "$(HUTCH_GUEST)" ]; then echo "make guest: skipped, no virtual machine at $(HUTCH_GUEST) (HUTCH_GUEST)"; \
	else $(MAKE) --no-print-directory guest-root guest-tester; fi

.PHONY: guest-root guest-tester
guest-root guest-tester: guest-%: $(GUEST_VENV) dev
	@$(BIN)/python -m tests.support.images
	$(HUTCH_GUEST) run --user $* --mount $(CURDIR):/src --mount $(GUEST_VENV):$(GUEST_VENV) \
		--mount $(IMAGES):/images --env HUTCH_TESTS_PREBUILT=/images --env PYTHONPATH=/src/src --env PYTHONDONTWRITEBYTECODE=1 --env PYTHONUNBUFFERED=1 --timeout 1500 -- \
		$(GUEST_VENV)/bin/python -m pytest -m host -p no:cacheprovider --timeout 900 $(or $(ARGS),tests)

# The guest's interpreter is Debian's, so the environment is made with the same; it has what hutch needs, and in place
# of hutch the path where the guest has the checkout: commands start with -I, which PYTHONPATH says nothing to.
$(GUEST_VENV): pyproject.toml
	rm -rf $@
	/usr/bin/python3 -m venv $@
	$@/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	$@/bin/pip uninstall --quiet --yes hutch
	echo /src/src > $$(echo $@/lib/python3*/site-packages)/checkout.pth

clean: ## remove what make made
	rm -rf $(VENV) .make bench-out build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
