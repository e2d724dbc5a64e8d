"""The services that a table with `observe:` adds to the stack: the observer, and the outlet to a collector."""

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
    """Return the Compose files, in their order."""
    known = [
        ("compose/observe.yaml", plan.observe.on),
        ("compose/observe-metrics.yaml", bool(plan.observe.metrics_port)),
    ]
    return tuple(name for name, chosen in [*known, ("compose/observe-otlp.yaml", bool(plan.collector))] if chosen)


def services(plan: Plan) -> tuple[str, ...]:
    """Return the services, in the order in which they start."""
    return (*(("outlet",) if plan.collector else ()), *(("observer",) if plan.observe.on else ()))


def variables(settings: Settings, plan: Plan) -> dict[str, str]:
    """Return the variables for Compose."""
    values = {}
    if plan.observe.metrics_port:
        values["IO3OPS_METRICS_PORT"] = str(plan.observe.metrics_port)
    if plan.collector:
        values["IO3OPS_OTLP_URL"] = plan.collector
        values["IO3OPS_OUTLET_DIGEST"] = hashlib.sha256(_outlet_rules(settings, plan)).hexdigest()[:16]
    return values


def label_files(plan: Plan) -> dict[str, bytes]:
    """Return the files that the observer mounts: the names that it may use as labels."""
    return {"words.json": words(plan).encode()} if plan.observe.on else {}


def outlet_files(settings: Settings, plan: Plan) -> dict[str, bytes]:
    """Return the files that the outlet mounts: its rules."""
    return {"egress.conf": _outlet_rules(settings, plan)} if plan.collector else {}


def _outlet_rules(settings: Settings, plan: Plan) -> bytes:
    proxies = settings.proxies
    direct = [name.strip() for name in proxies["NO_PROXY"].split(",")]
    return egress(plan.collectors, proxies["HTTPS_PROXY"], direct).encode()


def check_port(settings: Settings, plan: Plan, observer: Container | None) -> None:
    """Raise PortTaken when another program, or our own gateway, uses the port for metrics."""
    port = plan.observe.metrics_port
    ours = observer is not None and observer.running and port in observer.ports
    if port and (port == settings.port or not (ours or machine.port_free(port))):
        raise PortTaken(
            f"another program uses port {port} on 127.0.0.1, which the table reserves for metrics",
            hint="stop that program, or choose another `observe: metrics_port:` in runtime/routing.yaml",
        )
