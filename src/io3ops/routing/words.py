"""The names that the observer may use as labels: it puts no other word into a metric or a trace. Pure."""

from __future__ import annotations

import json

from io3ops.routing.plan import Plan


def words(plan: Plan) -> str:
    """Return the names of modes and deployments as JSON. Same plan, same text."""
    deployments = {d.name: {"provider": d.provider, "kind": d.kind, "model": d.model} for d in plan.deployments}
    return json.dumps({"modes": list(plan.modes), "deployments": deployments}, indent=1) + "\n"
