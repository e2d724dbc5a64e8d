"""Frozen settings from (environment, project root). The only reader of the environment.

A setting is looked up in the process environment first, then in the hand-written part of `.env`.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from io3ops.errors import NotWritable, SettingInvalid

# Written by io3ops, so never a setting of the user's: reading them back would make yesterday's
# derived value look like today's wish.
DERIVED = (
    "COMPOSE_FILE",
    "COMPOSE_PROJECT_NAME",
    "IO3OPS_RUNTIME_IMAGE",
    "IO3OPS_GATEWAY_IMAGE",
    "IO3OPS_EGRESS_IMAGE",
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything the environment may say. Times in seconds."""

    root: Path
    project: str = "io3ops"
    port: int = 4000
    install_docker: str = "auto"
    images: str = "auto"
    gpu: str = "auto"
    ca_dir: Path = Path("/usr/local/share/ca-certificates")
    debian_mirror: str = ""
    wait_timeout: float = 120.0
    load_timeout: float = 600.0
    docker_host: str = ""
    subnet_pool: ipaddress.IPv4Network | None = None
    environment: Mapping[str, str]

    @property
    def proxies(self) -> dict[str, str]:
        """The usual proxy variables, whichever case they were written in; '' where there is none."""
        names = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
        return {name: self.environment.get(name) or self.environment.get(name.lower(), "") for name in names}

    @property
    def state(self) -> Path:
        return self.root / ".io3ops"

    @property
    def key_file(self) -> Path:
        return self.state / "secrets" / "master_key"

    @property
    def keys_file(self) -> Path:
        """Client keys, hashed; in a folder of its own, which the gateway sees."""
        return self.state / "keys" / "keys.json"

    @property
    def provider_keys(self) -> Path:
        """The folder of the providers' API keys, one file each."""
        return self.state / "secrets" / "providers"

    @property
    def egress_folder(self) -> Path:
        """The list of what the gateway may reach outside, for the proxy that is its only way out."""
        return self.state / "egress"

    @property
    def observer_folder(self) -> Path:
        """The table's names, for the observer."""
        return self.state / "observer"

    @property
    def outlet_folder(self) -> Path:
        """The one host and port that the observer may reach, for the proxy that is its only way out."""
        return self.state / "outlet"

    @property
    def handed_keys(self) -> Path:
        """The folder with the keys of the enabled providers: all that the gateway sees of `provider_keys`."""
        return self.state / "provider_keys"

    @property
    def audit_file(self) -> Path:
        """What the gateway writes when a prompt leaves by an explicit override."""
        return self.state / "audit" / "audit.jsonl"

    @property
    def logs(self) -> Path:
        """The folder of the request log (`requests.jsonl` and older files), which the gateway writes."""
        return self.state / "logs"

    @property
    def content(self) -> Path:
        """The folder of the prompts and answers that `io3ops record` asked for; nobody but the gateway writes it."""
        return self.state / "content"

    @property
    def recording(self) -> Path:
        """The folder of the file that asks the gateway to keep content for a while; the gateway only reads it."""
        return self.state / "recording"

    @property
    def audit_head(self) -> Path:
        """The last entry that `io3ops audit` verified; out of the gateway's reach."""
        return self.state / "audit-head.json"

    @property
    def table(self) -> Path:
        return self.root / "runtime" / "routing.yaml"

    @property
    def litellm(self) -> Path:
        return self.root / "runtime" / "litellm.yaml"

    @property
    def schema(self) -> Path:
        return self.root / "runtime" / "routing.schema.json"

    @property
    def picture(self) -> Path:
        return self.root / "docs" / "routing.md"

    @property
    def env_file(self) -> Path:
        return self.root / ".env"

    @property
    def base_url(self) -> str:
        """The OpenAI-compatible endpoint, without a trailing slash."""
        return f"http://127.0.0.1:{self.port}/v1"


CHOICES = {
    "IO3OPS_INSTALL_DOCKER": ("auto", "never"),
    "IO3OPS_IMAGES": ("auto", "registry", "build"),
    "IO3OPS_GPU": ("auto", "none", "nvidia", "amd"),
}


def read_settings(environment: Mapping[str, str], root: Path, env_file: Mapping[str, str]) -> Settings:
    """Settings for one run. `env_file`: the user's own lines of `.env`.

    Raises SettingInvalid naming the variable, its value and what is allowed.
    """
    merged = {k: v for k, v in env_file.items() if k not in DERIVED} | dict(environment)

    def text(name: str, default: str) -> str:
        value = merged.get(name, "").strip() or default
        allowed = CHOICES.get(name)
        if allowed and value not in allowed:
            raise SettingInvalid(
                f"{name}={value!r} is not one of {', '.join(allowed)}", hint=f"unset {name} or correct it"
            )
        return value

    project = text("IO3OPS_PROJECT", "io3ops")
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", project):
        raise SettingInvalid(
            f"IO3OPS_PROJECT={project!r} is not a Compose project name",
            hint="use lower-case letters, digits, '-' and '_', beginning with a letter or digit",
        )
    return Settings(
        root=root,
        project=project,
        port=_number(text("IO3OPS_PORT", "4000"), "IO3OPS_PORT", 1, 65535),
        install_docker=text("IO3OPS_INSTALL_DOCKER", "auto"),
        images=text("IO3OPS_IMAGES", "auto"),
        gpu=text("IO3OPS_GPU", "auto"),
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
            f"{name}={value!r} is not a whole number from {low} to {high}", hint=f"unset {name} or correct it"
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
            hint="write e.g. IO3OPS_SUBNET_POOL=10.99.0.0/24, or unset it",
        )
    return found


def find_root(environment: Mapping[str, str], start: Path) -> Path:
    """The clone: IO3OPS_ROOT, else the nearest folder at or above `start` that holds compose.yaml and runtime/.

    Raises NotWritable when there is none: nothing could be read or written.
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
        f"no io3ops clone at or above {start}",
        hint="cd into the clone, or set IO3OPS_ROOT to it",
    )


def process_environment() -> Mapping[str, str]:
    """The environment of this process, read once."""
    return dict(os.environ)
