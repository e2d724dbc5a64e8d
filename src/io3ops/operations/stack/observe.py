"""What a table with `observe:` adds to the stack: the observer, and the outlet to a collector. Nothing without it."""

from __future__ import annotations

import hashlib

from io3ops.adapters import machine
from io3ops.adapters.docker_engine import Container
from io3ops.errors import PortTaken
from io3ops.routing.egress import egress
from io3ops.routing.plan import Plan
from io3ops.routing.words import words
from io3ops.settings import Settings


def overlays(plan: Plan) -> tuple[str, ...]:
    """The Compose files, in their order."""
    found = [
        ("compose/observe.yaml", plan.observe.on),
        ("compose/observe-metrics.yaml", bool(plan.observe.metrics_port)),
    ]
    return tuple(name for name, chosen in [*found, ("compose/observe-otlp.yaml", bool(plan.collector))] if chosen)


def services(plan: Plan) -> tuple[str, ...]:
    """The containers, in the order in which they start."""
    return (*(("outlet",) if plan.collector else ()), *(("observer",) if plan.observe.on else ()))


def variables(settings: Settings, plan: Plan) -> dict[str, str]:
    """What Compose must know for them."""
    found = {}
    if plan.observe.metrics_port:
        found["IO3OPS_METRICS_PORT"] = str(plan.observe.metrics_port)
    if plan.collector:
        found["IO3OPS_OTLP_URL"] = plan.collector
        found["IO3OPS_OUTLET_DIGEST"] = hashlib.sha256(_outlet(settings, plan)).hexdigest()[:16]
    return found


def handed_words(plan: Plan) -> dict[str, bytes]:
    """The observer's folder."""
    return {"words.json": words(plan).encode()} if plan.observe.on else {}


def handed_outlet(settings: Settings, plan: Plan) -> dict[str, bytes]:
    """The outlet's folder."""
    return {"egress.conf": _outlet(settings, plan)} if plan.collector else {}


def _outlet(settings: Settings, plan: Plan) -> bytes:
    proxies = settings.proxies
    direct = [name.strip() for name in proxies["NO_PROXY"].split(",")]
    return egress(plan.collectors, proxies["HTTPS_PROXY"], direct).encode()


def check_port(settings: Settings, plan: Plan, found: Container | None) -> None:
    """Raises PortTaken when the metrics' port belongs to another program, or to our own gateway. `found`: the observer."""
    port = plan.observe.metrics_port
    ours = found is not None and found.running and port in found.ports
    if port and (port == settings.port or not (ours or machine.port_free(port))):
        raise PortTaken(
            f"port {port} on 127.0.0.1, where the metrics should be, is taken",
            hint="stop the program that uses it, or choose another `observe: metrics_port:` in runtime/routing.yaml",
        )
