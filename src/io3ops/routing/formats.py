"""Formats of the texts in a routing table: names, URLs, tags, paths. Pure.

Each check returns what is wrong with a value, or '' when nothing is.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from io3ops.routing.problems import looks_secret
from io3ops_shared.digests import SHA256
from io3ops_shared.names import NAME, SECRET_NAME

LONGEST_PROMPT = 20_000


def quoted(value: str) -> str:
    """Return a value in quotes, shortened to 60 characters."""
    return repr(value if len(value) <= 60 else value[:57] + "…")


def name(value: str) -> str:
    """Check the name of a provider, model, mode or client key."""
    if NAME.fullmatch(value):
        return ""
    return f"{quoted(value)} is not a valid name; use lower-case letters, digits, '.', '_' and '-'"


def alias(value: str) -> str:
    """Check a model name that clients send: looser than our own names, but without characters that LiteLLM parses."""
    if value.endswith((":internal", ":public")):
        return f"{quoted(value)} must not end with ':internal' or ':public', which mark a request's data class"
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}", value):
        return ""
    return f"{quoted(value)} is not a valid alias; use letters, digits and '.', '_', ':', '/', '-'"


def secret_name(value: str) -> str:
    """Check the name of a secret. A value that may be a key is never repeated."""
    if looks_secret(value):
        return "this looks like an API key; write the name of a secret here, and keep the key itself out of every file"
    if SECRET_NAME.fullmatch(value):
        return ""
    return f"{quoted(value)} is not a valid name of a secret, such as openai"


def url(value: str) -> str:
    """Check an address: http or https, without credentials, query or fragment."""
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        return f"not a URL: {error}"
    if parts.username or parts.password or "@" in value:
        return "a URL must not contain a user name or password"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or re.search(r"[\s{}$`'\"\\]", value):
        return f"{quoted(value)} must look like http://host:11434"
    if parts.query or parts.fragment:
        return f"{quoted(value)} must not have a query or fragment"
    return ""


def api_version(value: str) -> str:
    """Check a version of Azure's API."""
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?|preview|latest|v1", value):
        return ""
    return f"{quoted(value)} is not an Azure API version such as 2024-10-21"


def region(value: str) -> str:
    """Check the name of an AWS region, which becomes part of a host name."""
    if re.fullmatch(r"[a-z]{2}(-[a-z]+){1,3}-[0-9]", value):
        return ""
    return f"{quoted(value)} is not an AWS region such as eu-central-1"


def host(value: str) -> str:
    """Check a name as the Host header carries it, without the port."""
    if re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*", value):
        return ""
    return f"{quoted(value)} is not a host name; write it in lower case, without scheme and port"


def origin(value: str) -> str:
    """Check a web origin as the Origin header carries it."""
    if re.fullmatch(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?", value):
        return ""
    return f"{quoted(value)} is not an origin such as http://localhost:3000 (no path, no '*')"


def tag(value: str) -> str:
    """Check a model's name at its provider."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,254}", value):
        return ""
    return f"{quoted(value)} is not a model name such as qwen3:4b"


def is_cloud_tag(value: str) -> bool:
    """Return whether Ollama would serve this model from its own cloud."""
    return bool(re.search(r"[:-]cloud$", value.rsplit("/", 1)[-1]))


def pin(value: str) -> str:
    """Check a pinned package."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.+!-]*", value):
        return ""
    return f"{quoted(value)} must be pinned, as in package==1.2.3"


def sha256(value: str) -> str:
    """Check a hash."""
    return "" if SHA256.fullmatch(value) else "must be 64 lower-case hexadecimal digits"


def inner_path(value: str) -> str:
    """Check a path that must stay inside its folder."""
    if all(part not in ("", ".", "..") for part in value.rstrip("/").split("/")):
        return ""
    return f"{quoted(value)} must be a relative path without '..'"


def gguf(value: str) -> str:
    """Check the place of a model file: a URL, or a path in the clone."""
    return url(value) if value.startswith(("http://", "https://")) else inner_path(value)


def prompt(value: str) -> str:
    """Check a system prompt or a chat template."""
    if not value.strip():
        return "must not be empty"
    return "" if len(value) <= LONGEST_PROMPT else f"must not be longer than {LONGEST_PROMPT} characters"
