# `make run` and `make test` are the two to know. Each sets up what it needs, once; `make help` lists the rest.

# The Python of .venv: by default the newest supported one; another one makes a new .venv.
PYTHON ?=
PORT ?= 8080
ARGS ?=
# Processes that run the suite. Each takes neighbouring tests, which share gateways, until the last ones are shared out.
WORKERS ?= 4
PARALLEL = -n $(WORKERS) --dist worksteal

# The Claude Code that the tests run.
CLAUDE_CODE := 2.1.331
CLAUDE_STAMP := .cache/npm/claude-code-$(CLAUDE_CODE)
SERVE = .venv/bin/mitm-gateway serve --port $(PORT) $(ARGS)

# What drives Chromium in the test of mitmweb.
PLAYWRIGHT := 1.65.1
PLAYWRIGHT_STAMP := .cache/npm/playwright-$(PLAYWRIGHT)

# A Node whose `fetch` knows proxies; systems often have an older one.
NODE := 24.21.0
NODE_STAMP := .cache/npm/node-$(NODE)

# Compiled tests and modules are kept, or each process of the suite compiles them again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run web screenshots quick test check matrix clients sdk-suites bench fuzz soak bystander host-suite package clean
.DELETE_ON_ERROR:
.PRECIOUS: .venv-%/dev

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile | expand -t 14

run: .venv/runtime ## the gateway on port $PORT (8080), with the demo gateway or yours behind it; ARGS="--rules FILE" and others of `serve`
	@echo "$(call taken,.venv)"
	@exec $(SERVE)

web: .venv/runtime ## the same with mitmproxy's web page
	@echo "$(call taken,.venv)"
	@exec $(SERVE) --web

quick: WORKERS = 2
# Without the folders of real processes. The folders to test, named one by one, would be imported an extra time.
quick: QUICK = -m "not e2e and not exhaustive" $(addprefix --ignore=tests/,behaviour clients e2e security)
quick: .venv/dev ## the tests without real processes, within half a minute
	@.venv/bin/python -m pytest $(PARALLEL) --hypothesis-profile=quick $(QUICK) $(ARGS)

test: .venv/dev $(CLAUDE_STAMP) $(PLAYWRIGHT_STAMP) $(NODE_STAMP) ## the whole suite; ARGS="-k stream" for a part of it
	@$(call suite,.venv)

check: .venv/dev ## lint, format and types
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

matrix: matrix-3.11 matrix-3.13 ## the suite on the oldest and the newest supported mitmproxy

matrix-3.11 host-suite-3.11: MITMPROXY := mitmproxy==11.0.2
matrix-3.13 host-suite-3.13: MITMPROXY := mitmproxy>=12,<13
matrix-%: .venv-%/dev $(CLAUDE_STAMP) $(PLAYWRIGHT_STAMP) $(NODE_STAMP)
	@echo "=== matrix: $(call taken,.venv-$*)"
	@if [ "$(IS_WHOLE)" ] && [ -e "$(call verdict,.venv-$*)" ]; then \
		echo "=== matrix: the whole suite has passed there on these files; without $(PASSED) it runs again"; \
	else $(call suite,.venv-$*); fi

# The suite. A pass of all of it, on these files with this Python and mitmproxy, is not repeated by the matrix.
PASSED := .cache/passed
IS_WHOLE = $(if $(filter-out --reruns 1 -rR -q -v -x,$(ARGS) $(PYTEST_ADDOPTS)),,$(wildcard .git))
verdict = $(PASSED)/$$({ git ls-files -coz --exclude-standard | sort -z | xargs -0 sha256sum; \
	 echo "$(call taken,$(1))"; } 2>&1 | sha256sum | cut -c -32)
suite = verdict="$(call verdict,$(1))"; $(1)/bin/python -m pytest $(PARALLEL) $(ARGS) && \
	{ [ ! "$(IS_WHOLE)" ] || { mkdir -p $(PASSED) && touch "$$verdict"; }; }

clients: .venv/dev ## real client programs in every mode; writes the table of docs/clients.md
	@PYTHONPATH=addon:tests .venv/bin/python tests/clients/install.py
	@.venv/bin/python -m pytest -n 2 -m clients --junitxml=.cache/clients/results.xml tests/clients $(ARGS)
	@PYTHONPATH=addon:tests .venv/bin/python tests/clients/table.py .cache/clients/results.xml docs/clients.md

sdk-suites: .venv/dev ## the API tests of anthropic-sdk-python and openai-python, with and without the gateway
	@PYTHONPATH=addon:tests .venv/bin/python tests/sdk_suites/run.py $(ARGS)

bench: .venv/runtime ## what the gateway costs, beside mitmproxy, fast proxies and other gateways; ARGS=--curves
	@.venv/bin/python bench/run.py $(ARGS)

screenshots: MITMPROXY := mitmproxy>=12,<13
screenshots: .venv-3.13/dev $(CLAUDE_STAMP) $(PLAYWRIGHT_STAMP) ## docs/*.png, from mitmweb on mitmproxy 12 in Chromium
	@fc-list 2>/dev/null | grep -qi emoji || echo "no font with emojis: markers will be boxes (fonts-noto-color-emoji has them)"
	@SCREENSHOTS=$(CURDIR)/docs .venv-3.13/bin/python -m pytest tests/e2e/test_browser.py

fuzz: .venv-fuzz ## coverage-guided fuzzing, 30 s a target; FUZZ_S=600 for longer
	@for target in rules body events; do \
		.venv-fuzz/bin/python tests/fuzz/run.py $$target -max_total_time=$(FUZZ_S) || exit 1; done

soak: .venv/dev ## 500 parallel streams, clients that leave, upstreams that fail: nothing may grow
	@ulimit -n 8192; PYTHONPATH=addon:tests .venv/bin/python tests/security/soak.py $(ARGS)

bystander: .venv/dev ## attacks while another client asks: how long it waits, and whether memory returns
	@ulimit -n 8192; PYTHONPATH=addon:tests .venv/bin/python tests/security/bystander.py $(ARGS)

host-suite: host-suite-3.11 host-suite-3.13 ## mitmproxy's own tests, with and without the gateway's patches

host-suite-%: .venv-%/dev
	@PYTHONPATH=addon:tests .venv-$*/bin/python tests/host_suite/run.py $(ARGS)

package: .venv/dev ## sdist and wheel in dist/, checked
	@rm -rf dist
	@.venv/bin/python -m build
	@.venv/bin/python -m twine check --strict dist/*

clean: ## remove all that these commands made
	rm -rf .venv .venv-* .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage build dist

# The fuzzer has no wheels for the newest Python, so it gets its own environment.
FUZZ_S ?= 30
.venv-fuzz: pyproject.toml
	@python=$$($(call find_python,3.11)) || python=$$($(call find_python,3.12)) || { echo "fuzzing needs Python 3.11 or 3.12"; exit 1; }; \
		echo "setting up .venv-fuzz (once)" && $$python -m venv $@
	@$(call install,.venv-fuzz,atheris pyyaml pydantic 'pysimdjson>=7' --only-binary pysimdjson)
	@touch $@

# Environments. A stamp is older than pyproject.toml when the packages may have changed.

version_of = $(shell $(1) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
ifneq ($(wildcard .venv/runtime),)
ifneq ($(call version_of,.venv/bin/python),$(call version_of,$(or $(PYTHON),.venv/bin/python)))
.venv/runtime: other-python
else ifeq ($(call version_of,.venv/bin/python),)
.venv/runtime: other-python
endif
endif
.PHONY: other-python
other-python:
	@rm -rf .venv

.venv/runtime: pyproject.toml
	@python="$(PYTHON)"; [ -n "$$python" ] || python=$$($(call find_python,3.13)) || python=$$($(call find_python,3.12)) || \
		python=$$($(call find_python,3.11)) || { echo "needs Python 3.11, 3.12 or 3.13; make PYTHON=… names one"; exit 1; }; \
		$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "needs Python 3.11 or newer, and $$python is $$($$python --version 2>&1)"; exit 1; }; \
		echo "setting up .venv with $$($$python --version), once; this takes about a minute" && $$python -m venv .venv
	@# The extra where a wheel of it exists for this Python; it needs no compiler, and nothing needs it.
	@{ $(call install,.venv,--only-binary pysimdjson -e '.[speed]'); } 2>.venv/pip.log || \
		{ $(call install,.venv,-e .); } 2>.venv/pip.log || \
		{ tail -n 1 .venv/pip.log; echo "the packages could not be installed; is this machine online? See .venv/pip.log"; exit 1; }
	@touch $@

# The mitmproxy of an environment.
taken = $$($(1)/bin/python -c 'import platform; from importlib.metadata import version; \
	print("mitmproxy", version("mitmproxy"), "on Python", platform.python_version())')

.venv/dev: .venv/runtime
	@echo "setting up the development tools (once)"
	@$(call install,.venv,--only-binary pysimdjson -e . --group dev)
	@touch $@

.venv-%/dev: pyproject.toml
	@python=$$($(call find_python,$*)) || { echo "no Python $* found, so the matrix cannot run on it"; exit 1; }; \
		echo "setting up .venv-$* with $(MITMPROXY) (once)" && $$python -m venv .venv-$*
	@$(call install,.venv-$*,--only-binary pysimdjson -e . --group dev '$(MITMPROXY)')
	@touch $@

install = $(1)/bin/python -m pip install -q --upgrade pip && $(1)/bin/python -m pip install -q $(2)

# A name on PATH may be a pyenv shim that cannot run, so each candidate has to prove its version.
find_python = for python in python$(1) python3 "$$(pyenv root 2>/dev/null)"/versions/$(1).*/bin/python; do \
	[ "$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" != $(1) ] || \
	{ echo $$python; exit; }; done; exit 1

# Claude Code for the end-to-end tests. Without npm, or without its registry, they are skipped.
$(CLAUDE_STAMP):
	@mkdir -p .cache/npm
	@if ! command -v npm >/dev/null; then \
		echo "no npm: the tests with Claude Code will be skipped"; \
	elif npm install --prefix .cache/npm --no-fund --no-audit --loglevel=error \
			@anthropic-ai/claude-code@$(CLAUDE_CODE) && .cache/npm/node_modules/.bin/claude --version; then \
		touch $@; \
	else \
		echo "Claude Code could not be installed: its tests will be skipped"; \
	fi

$(PLAYWRIGHT_STAMP): $(CLAUDE_STAMP)
	@if command -v npm >/dev/null && npm install --prefix .cache/npm --no-fund --no-audit --loglevel=error \
			playwright-core@$(PLAYWRIGHT); then \
		touch $@; \
	else \
		echo "playwright-core could not be installed: the test in a browser will be skipped"; \
	fi

$(NODE_STAMP): $(PLAYWRIGHT_STAMP)
	@if command -v npm >/dev/null && npm install --prefix .cache/npm --no-fund --no-audit --loglevel=error \
			node@$(NODE); then \
		touch $@; \
	else \
		echo "Node $(NODE) could not be installed: the test of its fetch needs one on PATH"; \
	fi
