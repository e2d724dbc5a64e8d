"""Routing tables that ship with io3ops; `io3ops preset NAME` copies one to runtime/routing.yaml."""
