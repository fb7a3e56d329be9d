# Needs Python 3.11 or newer, and network for package installation only.
#   make demo                          audit the bundled examples, show one verdict in full
#   make audit PR=<url> [MIRROR=dir]   audit a pull request (or a folder, or a train_gpt.py)
#   make probe PR=<url> [MIRROR=dir]   run a submission's own code, tiny, in a sandbox (Linux, bubblewrap, torch)
#   make test                          lint, type check, tests
#   make docs                          write docs/rules/ from the rules
#   make lint | schema | clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXAMPLES := tests/fixtures/submissions
# Versions of the big packages; CONSTRAINTS= leaves the choice to pip.
CONSTRAINTS ?= constraints.txt
# The example that `make demo` shows in full; by default the first that violates a rule.
DEMO ?=

.PHONY: help demo audit probe test lint schema docs clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   //p' Makefile

# Stamps, so that set-up runs again only when the dependencies change.
$(VENV)/.light: EXTRAS :=
$(VENV)/.probe: EXTRAS := [probe]
$(VENV)/.dev: EXTRAS := [dev]
$(VENV)/.light $(VENV)/.probe $(VENV)/.dev: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed; name one with PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/pip || { echo "Creating $(VENV)"; $(PYTHON) -m venv $(VENV); } || \
		{ echo "error: no virtual environment (on Debian: apt install python3-venv)" >&2; exit 1; }
	@echo "Installing into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(addprefix -c ,$(CONSTRAINTS)) -e '.$(EXTRAS)'
	@touch $@

# Exit codes of `auditor audit`: 1 and 3 are verdicts, not failures of the demo.
demo: $(VENV)/.light
	@full='$(DEMO)'; \
	for example in $(EXAMPLES)/*/; do \
		code=0; $(BIN)/auditor audit "$$example" --format summary || code=$$?; \
		if [ $$code -eq 130 ]; then exit $$code; fi; \
		if [ $$code -eq 1 ] && [ -z "$$full" ]; then full=$$example; fi; \
	done; \
	echo; echo "One of them in full ($${full:=$$example}):"; echo; \
	code=0; $(BIN)/auditor audit "$$full" || code=$$?; \
	[ $$code -eq 0 ] || [ $$code -eq 1 ] || [ $$code -eq 3 ]

audit: $(VENV)/.light
	@if [ -z '$(PR)' ]; then echo "usage: make audit PR=<url> [MIRROR=dir]" >&2; exit 2; fi
	@code=0; $(BIN)/auditor audit '$(PR)' $(if $(MIRROR),--mirror '$(MIRROR)') || code=$$?; \
	[ $$code -eq 0 ] || [ $$code -eq 1 ] || [ $$code -eq 3 ]

probe: $(VENV)/.probe
	@if [ -z '$(PR)' ]; then echo "usage: make probe PR=<url> [MIRROR=dir]" >&2; exit 2; fi
	@code=0; $(BIN)/auditor probe '$(PR)' $(if $(MIRROR),--mirror '$(MIRROR)') || code=$$?; \
	[ $$code -eq 0 ] || [ $$code -eq 1 ] || [ $$code -eq 3 ]

test: lint
	@$(BIN)/python -m pytest

lint: $(VENV)/.dev
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m mypy

schema: $(VENV)/.light
	@$(BIN)/auditor schema > docs/.verdict.schema.json
	@mv docs/.verdict.schema.json docs/verdict.schema.json

docs: $(VENV)/.light
	@$(BIN)/auditor rules docs docs/rules

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
