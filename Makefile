# Every target only calls the package. `make` without a target lists them.
.DEFAULT_GOAL := help
.PHONY: help up down status health smoke logs reset test check docs lock bench
HOST := @scripts/bootstrap.sh host &&
DEV := @scripts/bootstrap.sh dev &&
IO3OPS := .venv/bin/io3ops
PYTHON := src tests benchmarks scripts
LOCK := .venv/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-python-downloads --custom-compile-command 'make lock'

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile
up: ## Set everything up and start the stack (again: only what changed)
	$(HOST) $(IO3OPS) up $(ARGS)
down: ## Stop the stack; models, key and config are kept
	$(HOST) $(IO3OPS) down
status: ## What runs, and which model serves each mode
	$(HOST) $(IO3OPS) status
health: ## Probe every layer, one line each
	$(HOST) $(IO3OPS) health $(ARGS)
smoke: ## One real call per mode
	$(HOST) $(IO3OPS) smoke
logs: ## Follow every layer's log, merged by time
	$(HOST) $(IO3OPS) logs -f
reset: ## Remove models, key and state too (asks first)
	$(HOST) $(IO3OPS) down --purge
test: ## Run every test, with real containers
	$(DEV) .venv/bin/python -m pytest $(ARGS)
check: ## Style, types, lint, and whether the rendered config is current (ARGS=--all: no lint tool may be missing)
	$(DEV) .venv/bin/ruff check $(PYTHON) && .venv/bin/ruff format --check --quiet $(PYTHON) && .venv/bin/mypy && $(IO3OPS) render-config --check && scripts/lint.sh $(ARGS)
docs: ## Write docs/reference/ from the code and build the docs into site/
	$(DEV) .venv/bin/python scripts/reference.py && NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build
lock: ## Resolve the requirements again, with hashes
	$(DEV) for name in host uv; do $(LOCK) --python-version 3.11 $(ARGS) requirements/$$name.in -o requirements/$$name.lock || exit; done
	@$(LOCK) --python-version 3.13 $(ARGS) requirements/observer.in -o requirements/observer.lock
	@$(LOCK) --python-version 3.13 $(ARGS) --excludes requirements/gateway-unused.txt requirements/gateway.in -o requirements/gateway.lock
	@sed -nE 's/^((aiohttp|fastapi|httptools|orjson|starlette|uvicorn|uvloop)==[^ ;]+).*/\1/p' requirements/gateway.lock > requirements/gateway-server.txt
	@$(LOCK) --python-version 3.11 $(ARGS) requirements/dev.in -o requirements/dev.lock
bench: ## Measure this stack's own times
	$(DEV) .venv/bin/python benchmarks/stack.py
