"""The observer's settings, read once from the environment. Touches nothing else.

IO3_LOGS     folder of the request log, read-only     /run/logs
IO3_WORDS    the table's names                        /run/observer/words.json
IO3_CA_DIR   extra certificate authorities            /run/ca
IO3_PORT     port of /metrics and /health             9464
IO3_OTLP_URL collector, without /v1/traces            unset: no traces
IO3_PROXY    proxy for the collector                  unset: none
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Paths of the observer's files, its port, and the address for traces."""

    logs: Path = Path("/run/logs")
    words: Path = Path("/run/observer/words.json")
    ca_dir: Path = Path("/run/ca")
    port: int = 9464
    otlp_url: str = ""
    proxy: str = ""


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Return the settings from IO3_* variables; an empty value counts as unset. Raises ValueError for a port that is not a number."""
    default = Settings()
    return Settings(
        logs=Path(environment.get("IO3_LOGS") or default.logs),
        words=Path(environment.get("IO3_WORDS") or default.words),
        ca_dir=Path(environment.get("IO3_CA_DIR") or default.ca_dir),
        port=int(environment.get("IO3_PORT") or default.port),
        otlp_url=environment.get("IO3_OTLP_URL", ""),
        proxy=environment.get("IO3_PROXY", ""),
    )
