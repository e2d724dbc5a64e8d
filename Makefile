# Thin: every target is one line that calls the package. `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help up down status health smoke logs reset test check lock bench
HOST := @scripts/bootstrap.sh host &&
DEV := @scripts/bootstrap.sh dev &&
IO3OPS := .venv/bin/io3ops

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile
up: ## Set everything up and start the stack (again: only what changed)
	$(HOST) $(IO3OPS) up $(ARGS)
down: ## Stop the stack; models, key and config are kept
	$(HOST) $(IO3OPS) down
status: ## What runs, and which model serves each mode
	$(HOST) $(IO3OPS) status
health: ## Probe every layer, one line each
	$(HOST) $(IO3OPS) health
smoke: ## One real call per mode
	$(HOST) $(IO3OPS) smoke
logs: ## Follow the containers' logs
	$(HOST) $(IO3OPS) logs -f
reset: ## Remove models, key and state too (asks first)
	$(HOST) $(IO3OPS) down --purge
test: ## Run every test, with real containers
	$(DEV) .venv/bin/python -m pytest $(ARGS)
check: ## Style, types, shell, and the rendered config
	$(DEV) scripts/check.sh
lock: ## Resolve the requirements again, with hashes
	$(DEV) scripts/lock.sh
bench: ## Measure this stack and print the table for benchmarks/README.md
	$(DEV) .venv/bin/python benchmarks/stack.py
