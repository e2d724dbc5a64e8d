"""The names that the observer may use as labels: it puts no other word into a metric or a trace. Pure."""

from __future__ import annotations

from io3ops.routing.plan import Plan
from io3ops_shared.label_names import Deployment, render


def words(plan: Plan) -> str:
    """Return the names of modes and deployments as JSON. Same plan, same text."""
    deployments = {d.name: Deployment(provider=d.provider, kind=d.kind, model=d.model) for d in plan.deployments}
    return render(plan.modes, deployments)
