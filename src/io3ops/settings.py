"""Frozen settings from the environment and `.env`. The only module that reads the environment.

The environment has precedence over the hand-written part of `.env`.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from io3ops.errors import NotWritable, SettingInvalid

# io3ops itself writes these to `.env`, so there they are no settings of the user.
DERIVED = (
    "COMPOSE_FILE",
    "COMPOSE_PROJECT_NAME",
    "IO3OPS_RUNTIME_IMAGE",
    "IO3OPS_GATEWAY_IMAGE",
    "IO3OPS_EGRESS_IMAGE",
)


InstallPolicy = Literal["auto", "never"]
ImagePolicy = Literal["auto", "registry", "build"]
Gpu = Literal["auto", "none", "nvidia", "amd"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a run, and the paths that follow from the clone's root. Times in seconds."""

    root: Path
    project: str = "io3ops"
    port: int = 4000
    install_docker: InstallPolicy = "auto"
    images: ImagePolicy = "auto"
    gpu: Gpu = "auto"
    ca_dir: Path = Path("/usr/local/share/ca-certificates")
    debian_mirror: str = ""
    wait_timeout: float = 120.0
    load_timeout: float = 600.0
    docker_host: str = ""
    subnet_pool: ipaddress.IPv4Network | None = None
    environment: Mapping[str, str]

    @property
    def proxies(self) -> dict[str, str]:
        """The proxy variables, in upper or lower case; '' for each that is not set."""
        names = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
        return {name: self.environment.get(name) or self.environment.get(name.lower(), "") for name in names}

    @property
    def state(self) -> Path:
        """The folder of all state."""
        return self.root / ".io3ops"

    @property
    def cache(self) -> Path:
        """The folder of downloads, which clones share. No other user may write to it, so without a home it is in the state."""
        home = self.environment.get("HOME")
        base = self.environment.get("XDG_CACHE_HOME") or (Path(home) / ".cache" if home else None)
        return Path(base) / "io3ops" if base else self.state / "cache"

    @property
    def key_file(self) -> Path:
        """The owner's key."""
        return self.state / "secrets" / "master_key"

    @property
    def keys_file(self) -> Path:
        """Hashes of the client keys. The gateway mounts their folder."""
        return self.state / "keys" / "keys.json"

    @property
    def provider_keys(self) -> Path:
        """The folder of the providers' API keys, one file per key."""
        return self.state / "secrets" / "providers"

    @property
    def egress_folder(self) -> Path:
        """The folder of the egress proxy's rules: the hosts that the gateway may reach."""
        return self.state / "egress"

    @property
    def observer_folder(self) -> Path:
        """The folder of the names that the observer may use as labels."""
        return self.state / "observer"

    @property
    def outlet_folder(self) -> Path:
        """The folder of the outlet proxy's rules: the one collector that the observer may reach."""
        return self.state / "outlet"

    @property
    def mounted_keys(self) -> Path:
        """The folder with the keys of enabled providers only. The gateway mounts it, and not `provider_keys`."""
        return self.state / "provider_keys"

    @property
    def audit_file(self) -> Path:
        """The audit log, in which the gateway records each override of a data class."""
        return self.state / "audit" / "audit.jsonl"

    @property
    def logs(self) -> Path:
        """The folder of the request log, which the gateway writes."""
        return self.state / "logs"

    @property
    def content(self) -> Path:
        """The folder of recorded prompts and answers (`io3ops record`), which only the gateway writes."""
        return self.state / "content"

    @property
    def recording(self) -> Path:
        """The folder of the file that asks the gateway to record content, which it only reads."""
        return self.state / "recording"

    @property
    def audit_head(self) -> Path:
        """The last audit entry that `io3ops audit` verified. The gateway cannot reach it."""
        return self.state / "audit-head.json"

    @property
    def table(self) -> Path:
        """The routing table."""
        return self.root / "runtime" / "routing.yaml"

    @property
    def litellm(self) -> Path:
        """The rendered configuration of the gateway."""
        return self.root / "runtime" / "litellm.yaml"

    @property
    def schema(self) -> Path:
        """The routing table's JSON Schema."""
        return self.root / "runtime" / "routing.schema.json"

    @property
    def picture(self) -> Path:
        """The page with the routing picture."""
        return self.root / "docs" / "routing.md"

    @property
    def env_file(self) -> Path:
        """The variables for Compose, and the user's own lines."""
        return self.root / ".env"

    @property
    def base_url(self) -> str:
        """The OpenAI-compatible endpoint, without a trailing slash."""
        return f"http://127.0.0.1:{self.port}/v1"


CHOICES: dict[str, tuple[str, ...]] = {
    "IO3OPS_INSTALL_DOCKER": get_args(InstallPolicy),
    "IO3OPS_IMAGES": get_args(ImagePolicy),
    "IO3OPS_GPU": get_args(Gpu),
}


def read_settings(environment: Mapping[str, str], root: Path, env_file: Mapping[str, str]) -> Settings:
    """Return the settings of a run. `env_file`: the user's own lines of `.env`.

    Raises SettingInvalid, which names the variable, its value and the allowed values.
    """
    merged = {k: v for k, v in env_file.items() if k not in DERIVED} | dict(environment)

    def text(name: str, default: str) -> str:
        value = merged.get(name, "").strip() or default
        allowed = CHOICES.get(name)
        if allowed and value not in allowed:
            raise SettingInvalid(
                f"{name}={value!r} is not one of {', '.join(allowed)}", hint=f"correct or unset {name}"
            )
        return value

    project = text("IO3OPS_PROJECT", "io3ops")
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", project):
        raise SettingInvalid(
            f"IO3OPS_PROJECT={project!r} is not a valid name of a Compose project",
            hint="use lower-case letters, digits, '-' and '_', and begin with a letter or digit",
        )
    return Settings(
        root=root,
        project=project,
        port=_number(text("IO3OPS_PORT", "4000"), "IO3OPS_PORT", 1, 65535),
        install_docker=cast("InstallPolicy", text("IO3OPS_INSTALL_DOCKER", "auto")),
        images=cast("ImagePolicy", text("IO3OPS_IMAGES", "auto")),
        gpu=cast("Gpu", text("IO3OPS_GPU", "auto")),
        ca_dir=Path(text("IO3OPS_CA_DIR", "/usr/local/share/ca-certificates")),
        debian_mirror=text("IO3OPS_DEBIAN_MIRROR", ""),
        wait_timeout=float(_number(text("IO3OPS_WAIT_TIMEOUT", "120"), "IO3OPS_WAIT_TIMEOUT", 1, 3600)),
        load_timeout=float(_number(text("IO3OPS_LOAD_TIMEOUT", "600"), "IO3OPS_LOAD_TIMEOUT", 1, 86400)),
        docker_host=text("DOCKER_HOST", ""),
        subnet_pool=_subnet(text("IO3OPS_SUBNET_POOL", "")),
        environment=dict(environment),
    )


def _number(value: str, name: str, low: int, high: int) -> int:
    if not value.isdecimal() or not low <= int(value) <= high:
        raise SettingInvalid(
            f"{name}={value!r} is not a whole number from {low} to {high}", hint=f"correct or unset {name}"
        )
    return int(value)


def _subnet(value: str) -> ipaddress.IPv4Network | None:
    if not value:
        return None
    try:
        found = ipaddress.IPv4Network(value)
    except ValueError:
        found = None
    if found is None or not 8 <= found.prefixlen <= 28:
        raise SettingInvalid(
            f"IO3OPS_SUBNET_POOL={value!r} is not an IPv4 network from /8 to /28",
            hint="correct it, e.g. IO3OPS_SUBNET_POOL=10.99.0.0/24, or unset it",
        )
    return found


def find_root(environment: Mapping[str, str], start: Path) -> Path:
    """Return the clone: IO3OPS_ROOT, else the nearest folder at or above `start` that contains compose.yaml and runtime/.

    Raises NotWritable when there is none.
    """
    explicit = environment.get("IO3OPS_ROOT", "").strip()
    if explicit:
        return Path(explicit).resolve()
    for folder in (start, *start.parents):
        if (folder / "compose.yaml").is_file() and (folder / "runtime").is_dir():
            return folder
    source = Path(__file__).resolve().parents[2]
    if (source / "compose.yaml").is_file():
        return source
    raise NotWritable(
        f"there is no io3ops clone at or above {start}",
        hint="change into the clone, or set IO3OPS_ROOT to it",
    )


def process_environment() -> Mapping[str, str]:
    """Return a copy of this process's environment."""
    return dict(os.environ)
