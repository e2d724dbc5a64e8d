"""Read and check the files mounted into the container, so that a mistake is one plain line at the start.

May touch: the configuration, the key file, the folder of certificates (all read-only), and /tmp for the combined bundle.
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
    """Read the file and return what `parse_config` makes of it.

    Raises:
        ConfigError: it is missing or unreadable, or `parse_config` refuses it.
    """
    # Given a path that is not a file, LiteLLM itself starts without any model.
    try:
        return parse_config(path.read_bytes(), str(path))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", _RENDER) from error


def parse_config(text: bytes, name: str) -> dict[str, Any]:
    """Return the mapping in `text`, which must have a list of models. LiteLLM judges the models. `name`: the file's, for errors.

    Raises:
        ConfigError: it is not UTF-8, not YAML, or has no models.
    """
    try:
        content = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name} is not UTF-8 text", _RENDER) from error
    try:
        # The parser in C, where there is one, is ten times quicker.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        config = yaml.load(content, Loader=loader)  # noqa: S506  a safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ConfigError(f"{name} is not valid YAML: {error.problem}{where}", _RENDER) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{name} is not valid YAML: {str(error).splitlines()[0]}", _RENDER) from error
    except (ValueError, RecursionError) as error:
        # A date that does not exist, or deeply nested lists.
        raise ConfigError(f"{name} cannot be read as YAML: {error}", _RENDER) from error
    if not isinstance(config, dict):
        raise ConfigError(f"{name} is not a mapping", _RENDER)
    models = config.get("model_list")
    if not isinstance(models, list) or not models:
        raise ConfigError(f"{name} has no model_list", _RENDER)
    return config


def held(path: Path) -> str | None:
    """Return the digest of a file as this container sees it; "" when it is missing, None when it cannot be read."""
    try:
        return digests.of_file(path.read_bytes())
    except FileNotFoundError:
        return ""
    except OSError:
        return None


def read_master_key(path: Path) -> str:
    """Return the master key, without the line end that an editor leaves.

    Raises:
        KeyFileError: the file is missing, unreadable or empty, or holds LiteLLM's example or more than one printable word.
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
        raise KeyFileError(f"the master key file {path} holds LiteLLM's well-known example key", _NEW_KEY)
    if not key.isprintable() or " " in key:
        raise KeyFileError(f"the master key file {path} holds more than one word", _NEW_KEY)
    return key


def combined_ca_bundle(folder: Path, scratch: Path = Path("/tmp")) -> Path | None:
    """Write the system's authorities and every *.crt and *.pem of `folder` into one new file. Return it; None when there are none.

    Raises:
        CertificateError: a file cannot be read or is not a PEM certificate, or `scratch` cannot be written.
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
        # The TLS library takes a broken bundle for an empty one, so each call would fail much later.
        ssl.create_default_context(cafile=file)
    except OSError as error:
        # ssl.SSLError is an OSError too, but its strerror is of no help.
        reason = "not a PEM certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise CertificateError(f"{file} cannot be used: {reason}", "put only PEM certificates there") from error
    return content
