# One verb per job; each can be run twice in a row, and from a clean clone.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m
SOURCES := __main__.py settings components docs operations sandbox tests

.DEFAULT_GOAL := help
.PHONY: help up preview status down env test test-fast bench check format pictures lock outdated package clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{gsub(/[$$]+/, "$$"); printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: $(VENV)/run ## Start the sandbox where it is not running, deploy the local stack, show what runs
	@$(RUN) sandbox up

preview: $(VENV)/run ## Show what `make up` would change (DIFF=1: field by field)
	@$(RUN) sandbox preview $(if $(DIFF),--diff)

status: $(VENV)/run ## Show what runs in the sandbox
	@$(RUN) sandbox status

down: $(VENV)/run ## Stop the sandbox; what it stores is kept
	@$(RUN) sandbox down

env: $(VENV)/run ## Print the variables for kubectl, helm and pulumi: eval "$$(make -s env)"
	@$(RUN) sandbox env

test: $(VENV)/dev ## Run all tests, on control planes of their own (ARGS=…: of pytest)
	@$(RUN) pytest $(PARALLEL) $(ARGS)

test-fast: $(VENV)/dev ## Run the tests that need neither Pulumi nor a control plane
	@$(RUN) pytest --numprocesses 2 --dist loadfile -m "not engine" $(ARGS)
# More than two cores have: a worker waits for its cluster half of the time.
PARALLEL := --numprocesses 3 --dist loadfile --no-loadscope-reorder

bench: $(VENV)/dev ## Measure what users wait for, and write docs/bench.md (ROUNDS=3: a short try)
	@$(RUN) tests.bench $(ROUNDS)

check: $(VENV)/dev ## Check style, types and workflows; changes nothing
	@$(RUN) ruff check $(SOURCES)
	@$(RUN) ruff format --check $(SOURCES)
	@$(RUN) mypy
	@$(VENV)/bin/zizmor --offline --quiet .github
	@$(PREPARE_CHECKS)
	@.sandbox/checks/actionlint -config-file .github/actionlint.yaml -shellcheck $(VENV)/bin/shellcheck -pyflakes= .github/workflows/*.yaml
	@$(VENV)/bin/shellcheck .ci/run

format: $(VENV)/dev ## Rewrite the sources in the project's style, and the chart's page from its values
	@$(RUN) ruff check --fix-only $(SOURCES)
	@$(RUN) ruff format $(SOURCES)
	@$(PREPARE_CHECKS)
	@.sandbox/checks/helm-docs --log-level warn --chart-search-root chart --sort-values-order file
PREPARE_CHECKS := $(VENV)/bin/python -c 'from pathlib import Path; from sandbox.tools import CHECKS, prepare; \
	prepare(Path(".sandbox/checks"), [CHECKS])'

pictures: $(VENV)/dev ## Make the README's pictures anew, from real output
	@$(RUN) docs.pictures

lock: $(VENV)/dev ## Pin the Python packages anew, with hashes
	@$(call COMPILE,--output-file=requirements.txt)
	@$(call COMPILE,--constraint=requirements.txt --extra=dev --output-file=requirements-dev.txt)
# Each file begins with a command, which the bot runs; what is not in it goes for the machine of `make lock`.
COMPILE = CUSTOM_COMPILE_COMMAND="pip-compile $(sort $(PINNED) $(1)) pyproject.toml" \
	$(RUN) piptools compile --quiet --upgrade --no-emit-find-links $(PINNED) $(1) pyproject.toml
PINNED := --allow-unsafe --generate-hashes --no-emit-index-url --strip-extras

outdated: $(VENV)/dev ## Say which packages and tools have newer versions
	@$(RUN) pip list --outdated --disable-pip-version-check || echo "The Python packages cannot be asked for."
	@for tools in sandbox/tools/*; do \
		go list -C $$tools -m -u -f '{{with .Update}}{{$$.Path}} {{$$.Version}} {{.Version}}{{end}}' \
			$$(go list -C $$tools -f '{{.Module.Path}}' tool 2> /dev/null) || echo "$$tools cannot be asked for."; done
	@echo "Actions, the controller's chart and the devcontainer cannot be asked for here: see Renovate's dashboard on GitHub."

package: $(VENV)/dev ## Build the release component as a package of its own, into dist/
	@rm -rf dist
	@$(RUN) build --no-isolation --outdir dist package

clean: ## Remove the sandbox and the virtual environment; built programs and your stack file stay
	@if [ -x $(VENV)/bin/python ]; then $(RUN) sandbox clean; fi
	@rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The virtual environment is made anew when the pins change.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than 3.11; name another: make PYTHON=python3.11 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/run: requirements.txt | $(VENV)/bin/python
	@echo "Installing the Python packages of $< into $(VENV) …" >&2
	@$(RUN) pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

$(VENV)/dev: requirements-dev.txt | $(VENV)/bin/python
	@echo "Installing the Python packages of $< into $(VENV) …" >&2
	@$(RUN) pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@ $(VENV)/run
