"""The section `io3ops_policy` of litellm.yaml: the host renders it, the gateway reads it. Types and their written form; pure.

The gateway checks strictly what it reads, and decides: see `io3ops_gateway.policy`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from io3ops_shared.names import TRUNCATIONS

SECTION = "io3ops_policy"
VERSION = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class ModePolicy:
    """One mode. `data_class` '': the mode sets none; `task`: what its models are for; `groups`: LiteLLM's model group for each data
    class; `total`: seconds for all attempts together; `limits`: positive numbers by name, none when absent; `truncation`: what
    happens to a prompt longer than the window."""

    name: str
    data_class: str = ""
    task: str = "chat"
    groups: Mapping[str, str]
    total: float = 600.0
    limits: Mapping[str, int] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    forced: Mapping[str, Any] = field(default_factory=dict)
    system_prompt: str = ""
    denied: tuple[str, ...] = ()
    truncation: str = TRUNCATIONS[0]
    record_internal: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """One deployment. `model`: its name in the table; `window` in tokens, 0 when unknown; `key`: name of the file with the provider's
    key; `first_token`: seconds, for providers whose streams LiteLLM does not limit."""

    name: str
    provider: str
    local: bool
    url: str
    kind: str = ""
    model: str = ""
    window: int = 0
    key: str = ""
    first_token: float = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class GatewaySettings:
    """What clients may send: Host names and web origins besides this machine's, bytes of a body. How the gateway serves them: with the
    fast `lane` or without, `workers` processes (0: as many as the machine suits), `parallel` requests at once in each, and a
    `queue` that a request leaves after `queue_timeout` seconds."""

    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    max_body: int = 32_000_000
    lane: bool = True
    workers: int = 0
    parallel: int = 256
    queue: int = 256
    queue_timeout: float = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class LogSettings:
    """The request log: whether it is written, and how much of it is kept."""

    requests: bool = True
    keep_days: int = 30
    budget_mb: int = 1000
    rotate_mb: int = 50


def mode_entry(mode: ModePolicy) -> dict[str, Any]:
    """Return what the section says of a mode: what differs from the default, and always its groups and its total."""
    usual = ModePolicy(name=mode.name, groups={})
    found = {name: value for name, value in asdict(mode).items() if name != "name"}
    kept = ("groups", "total")
    entry = {name: value for name, value in found.items() if name in kept or value != getattr(usual, name)}
    return entry | ({"denied": list(mode.denied)} if mode.denied else {})


def deployment_entry(deployment: Deployment) -> dict[str, Any]:
    """Return what the section says of a deployment: `first_token` belongs to `key`, and neither is written without a key."""
    entry = asdict(deployment)
    if not deployment.window:
        del entry["window"]
    if not deployment.key:
        del entry["key"], entry["first_token"]
    return entry


def gateway_entry(gateway: GatewaySettings) -> dict[str, Any]:
    """Return what the section says of the gateway's settings, in YAML's types; whole seconds without a decimal point."""
    seconds = gateway.queue_timeout
    found = asdict(gateway) | {"queue_timeout": int(seconds) if seconds == int(seconds) else seconds}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
