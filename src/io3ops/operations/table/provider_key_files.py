"""The provider keys that a plan needs: their files, and the names of those that are not set."""

from __future__ import annotations

from io3ops.adapters import files
from io3ops.routing.plan import Plan
from io3ops.settings import Settings


def needed_keys(settings: Settings, plan: Plan) -> dict[str, bytes]:
    """Return the stored keys of the plan's enabled providers, by name."""
    stored = {name: files.read_bytes(settings.provider_keys / name) for name in plan.secrets}
    return {name: data for name, data in stored.items() if data is not None}


def missing_keys(settings: Settings, plan: Plan) -> tuple[str, ...]:
    """Return the names of the provider keys that the plan needs and that are not set; the gateway skips their deployments."""
    return tuple(sorted(set(plan.secrets) - set(needed_keys(settings, plan))))
