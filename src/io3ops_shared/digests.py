"""Digests that one side writes and another compares. Pure."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

SHA256 = re.compile("[0-9a-f]{64}")
# `prev` of the audit log's first entry.
NO_ENTRY = "0" * 64


def of_key(key: str | bytes) -> str:
    """Return the digest under which a client key is kept.

    Keys are 256 random bits, so a plain SHA-256 gives nothing away and a slow hash would only cost time.
    """
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).hexdigest()


def key_id(digest: str) -> str:
    """Return the short name of a key for logs and reports: enough to tell two keys apart."""
    return digest[:8]


def of_config(text: str | bytes) -> str:
    """Return the name of a rendered configuration: the gateway reports the one that it serves, and the host compares."""
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()[:16]


def of_file(data: bytes) -> str:
    """Return the digest of a mounted file: the host compares its own with that of the gateway, to see a replaced mount."""
    return hashlib.sha256(data).hexdigest()


def of_audit_entry(entry: Mapping[str, Any]) -> str:
    """Return the hash that closes an entry of the audit log: over every field but `hash` itself."""
    bare = {name: value for name, value in entry.items() if name != "hash"}
    text = json.dumps(bare, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
