# elmd: `make demo` shows it, `make test` checks it. Everything lives in .venv; models lie in ~/.cache/elmd.
# Another Python:    make setup PYTHON=/opt/python3.12/bin/python3
# Another PyTorch:   make setup TORCH="torch==2.13.0 --index-url URL"     (see pytorch.org/get-started for the URLs)
# To start afresh:   rm -rf .venv

SHELL := /bin/sh
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup demo test lint docs browser clean

VENV := .venv
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0
PIP := $(BIN)/python -m pip --disable-pip-version-check
ARGS ?=

NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	if "$$p" $(NEW_ENOUGH) 2>/dev/null; then echo "$$p"; break; fi; done)

help:  ## what there is
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-12s %s\n", $$1, $$2}'

setup: $(VENV)/.dev browser  ## the environment with everything that developing needs

demo: $(VENV)/.ui  ## the page on http://127.0.0.1:7860; ARGS=--once prints one turn and exits
	@$(BIN)/elmd assets get >&2
	@$(BIN)/elmd demo $(ARGS)

test: setup lint  ## lint, the site, and every test: unit, weights, browser, package
	@site=$$(mktemp -d) && trap 'rm -rf "$$site"' EXIT && NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict -d "$$site"
	@$(BIN)/elmd assets get >&2
	OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest $(ARGS)

lint: $(VENV)/.dev  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.dev  ## the site into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:  ## remove what was built, but not .venv
	rm -rf site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# PyTorch goes first, so that its version is the one named above. Both stamps grow old when pyproject.toml changes.
define install
	@test -x $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1 || { \
		"$(PYTHON)" $(NEW_ENOUGH) 2>/dev/null || { \
			echo "elmd needs Python 3.11 or newer, and $(if $(PYTHON),'$(PYTHON)' is not that,found none): install it, or name one with PYTHON=PATH" >&2; \
			exit 1; }; \
		"$(PYTHON)" -m venv --clear $(VENV) || { \
			echo "$(PYTHON) cannot make an environment; on Debian: apt-get install -y python3-venv" >&2; exit 1; }; }
	$(PIP) install $(TORCH) >&2
	$(PIP) install -e '.[$(1)]' >&2
	@touch $(2)
endef

$(VENV)/.ui: pyproject.toml
	$(call install,ui,$@)

$(VENV)/.dev: pyproject.toml
	$(call install,dev,$@ $(VENV)/.ui)

# The browser tests drive a Chromium. Where it cannot be installed from here, the command is said and work goes on.
browser:
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null 2>&1 && exit 0; done; \
	if ! command -v apt-get >/dev/null 2>&1; then \
		echo "the browser tests need Chromium; install it with your system's package manager" >&2; \
	elif [ "$$(id -u)" != 0 ]; then \
		echo "the browser tests need Chromium; install it: sudo apt-get install -y chromium" >&2; \
	else \
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium; } >&2 \
		|| echo "Chromium could not be installed; the browser tests need it: apt-get install -y chromium" >&2; \
	fi
