"""Reads and checks what is mounted into the container, so that a mistake is one plain line at the start.

May touch: the configuration, the key file, the folder of certificates (all read-only), and /tmp for the
combined bundle.
"""

import os
import ssl
import tempfile
from pathlib import Path
from typing import Any

import yaml

from io3ops_gateway.errors import CertificateError, ConfigError, KeyFileError
from io3ops_shared import digests

_RENDER = "run `io3ops render-config` and start the gateway again"
_NEW_KEY = "let `io3ops up` write a new one"


def check_config(path: Path) -> dict[str, Any]:
    """The file, read and parsed; see `parse_config`.

    Raises:
        ConfigError: missing, unreadable, or what `parse_config` refuses.
    """
    # LiteLLM itself starts happily, and without any model, on a path that is not a file.
    try:
        return parse_config(path.read_bytes(), str(path))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", _RENDER) from error


def parse_config(text: bytes, name: str) -> dict[str, Any]:
    """Make sure LiteLLM will find a mapping with a list of models. What is in it is LiteLLM's to judge.

    Raises:
        ConfigError: not UTF-8, not YAML, or without models.
    """
    try:
        content = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} is not UTF-8 text", _RENDER) from error
    try:
        # The parser in C where there is one: ten times quicker.
        config = yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ConfigError(f"{name} is not valid YAML: {error.problem}{where}", _RENDER) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is not valid YAML: {str(error).splitlines()[0]}", _RENDER) from error
    except (ValueError, RecursionError) as error:
        # A date that no calendar has, or a list in a list in a list ...
        raise ConfigError(f"{name} cannot be read as YAML: {error}", _RENDER) from error
    if not isinstance(config, dict):
        raise ConfigError(f"{name} is not a mapping", _RENDER)
    models = config.get("model_list")
    if not isinstance(models, list) or not models:
        raise ConfigError(f"{name} has no model_list", _RENDER)
    return config


def held(path: Path) -> str | None:
    """The digest of a file as this container sees it, '' when it is not there, None when it cannot be read."""
    try:
        return digests.of_file(path.read_bytes())
    except FileNotFoundError:
        return ""
    except OSError:
        return None


def read_master_key(path: Path) -> str:
    """The master key, without the line end an editor leaves.

    Raises:
        KeyFileError: missing, unreadable, empty, LiteLLM's example, or not one printable word.
    """
    try:
        key = path.read_text(encoding="ascii").strip()
    except OSError as error:
        hint = f"mount it readable for user {os.getuid()}:{os.getgid()}"
        raise KeyFileError(f"the master key file {path} cannot be read: {error.strerror}", hint) from error
    except UnicodeDecodeError as error:
        raise KeyFileError(f"the master key file {path} is not plain text", _NEW_KEY) from error
    if not key:
        raise KeyFileError(f"the master key file {path} is empty", _NEW_KEY)
    if key == "sk-1234":
        raise KeyFileError(f"the master key file {path} holds the example key everybody knows", _NEW_KEY)
    if not key.isprintable() or " " in key:
        raise KeyFileError(f"the master key file {path} holds more than one word", _NEW_KEY)
    return key


def combined_ca_bundle(folder: Path, scratch: Path = Path("/tmp")) -> Path | None:
    """The system's authorities plus every *.crt and *.pem of `folder` in one new file; None without any.

    Raises:
        CertificateError: a file cannot be read, is not a PEM certificate, or `scratch` cannot be written.
    """
    try:
        extra = sorted(file for file in folder.iterdir() if file.suffix in {".crt", ".pem"})
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CertificateError(f"{folder} cannot be read: {error.strerror}", "mount it readable") from error
    if not extra:
        return None
    parts = [_pem(file) for file in extra]
    try:
        if (system := ssl.get_default_verify_paths().cafile) is not None:
            parts.insert(0, Path(system).read_bytes())
        with tempfile.NamedTemporaryFile(dir=scratch, prefix="io3ops-ca-", suffix=".pem", delete=False) as bundle:
            bundle.write(b"\n".join(parts))
    except OSError as error:
        hint = "give the container a writable /tmp"
        raise CertificateError(f"no bundle could be written to {scratch}: {error.strerror}", hint) from error
    return Path(bundle.name)


def _pem(file: Path) -> bytes:
    try:
        content = file.read_bytes()
        # The TLS library would take a broken bundle for an empty one, and each call would fail much later.
        ssl.create_default_context(cafile=file)
    except OSError as error:
        # ssl.SSLError is an OSError too, and its strerror is a riddle of OpenSSL's.
        reason = "not a PEM certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise CertificateError(f"{file} cannot be used: {reason}", "put only PEM certificates there") from error
    return content
