"""The providers' keys that a plan needs, and those that nobody has set."""

from __future__ import annotations

from io3ops.adapters import files
from io3ops.routing.plan import Plan
from io3ops.settings import Settings


def needed_keys(settings: Settings, plan: Plan) -> dict[str, bytes]:
    """The providers' keys that the plan's enabled providers name, and no other."""
    found = {name: files.read_bytes(settings.provider_keys / name) for name in plan.secrets}
    return {name: data for name, data in found.items() if data is not None}


def keyless(settings: Settings, plan: Plan) -> tuple[str, ...]:
    """The names of provider keys that the plan needs and nobody has set: what needs them is left out."""
    return tuple(sorted(set(plan.secrets) - set(needed_keys(settings, plan))))
