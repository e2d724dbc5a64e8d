"""The gateway's settings, read once from the environment. Touches nothing else.

IO3_CONFIG           LiteLLM's configuration        /etc/io3ops/litellm.yaml
IO3_MASTER_KEY_FILE  file that holds the master key /run/secrets/master_key
IO3_KEYS_FILE        client keys, hashed            /run/keys/keys.json
IO3_PROVIDER_KEYS    folder of cloud providers' keys /run/provider_keys
IO3_AUDIT_DIR        folder of the audit log        /run/audit
IO3_LOG_DIR          folder of the request log      /run/logs
IO3_CONTENT_DIR      folder of recorded content     /run/content
IO3_RECORDING        requests of `io3ops record`    /run/recording/recording.json
IO3_CA_DIR           extra certificate authorities  /etc/io3ops/ca
IO3_HOST, IO3_PORT   address to listen on           0.0.0.0, 4000
IO3_STOP_SECONDS     time for running requests      4
IO3_CONTROL          socket for commands            /tmp/io3ops-control.sock
IO3_TRIM             off: LiteLLM unchanged         on
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from io3ops_gateway.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Where the gateway finds its files and where it listens; the defaults are those of the image."""

    config: Path = Path("/etc/io3ops/litellm.yaml")
    master_key_file: Path = Path("/run/secrets/master_key")
    keys_file: Path = Path("/run/keys/keys.json")
    provider_keys: Path = Path("/run/provider_keys")
    audit_dir: Path = Path("/run/audit")
    log_dir: Path = Path("/run/logs")
    recording: Path = Path("/run/recording/recording.json")
    content_dir: Path = Path("/run/content")
    ca_dir: Path = Path("/etc/io3ops/ca")
    host: str = "0.0.0.0"
    port: int = 4000
    stop_seconds: int = 4
    trim: bool = True
    control: Path = Path("/tmp/io3ops-control.sock")


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Read the settings from IO3_* variables; an empty value counts as not set.

    Raises:
        ConfigError: a number is malformed or out of range.
    """
    default = Settings()
    return Settings(
        config=Path(environment.get("IO3_CONFIG") or default.config),
        master_key_file=Path(environment.get("IO3_MASTER_KEY_FILE") or default.master_key_file),
        keys_file=Path(environment.get("IO3_KEYS_FILE") or default.keys_file),
        provider_keys=Path(environment.get("IO3_PROVIDER_KEYS") or default.provider_keys),
        audit_dir=Path(environment.get("IO3_AUDIT_DIR") or default.audit_dir),
        log_dir=Path(environment.get("IO3_LOG_DIR") or default.log_dir),
        content_dir=Path(environment.get("IO3_CONTENT_DIR") or default.content_dir),
        recording=Path(environment.get("IO3_RECORDING") or default.recording),
        ca_dir=Path(environment.get("IO3_CA_DIR") or default.ca_dir),
        host=environment.get("IO3_HOST") or default.host,
        port=_number(environment, "IO3_PORT", default.port, highest=65535),
        control=Path(environment.get("IO3_CONTROL") or default.control),
        trim=environment.get("IO3_TRIM", "on") != "off",
        stop_seconds=_number(environment, "IO3_STOP_SECONDS", default.stop_seconds, highest=3600),
    )


def _number(environment: Mapping[str, str], name: str, default: int, *, highest: int) -> int:
    text = environment.get(name) or str(default)
    # `isdecimal` alone accepts the digits of other scripts, too.
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= highest):
        raise ConfigError(f"{name} is {text!r}", f"set it to a whole number from 1 to {highest}")
    return int(text)
