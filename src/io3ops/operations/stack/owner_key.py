"""The owner's key (LiteLLM's master key): random, made once, in a file with mode 0600 that git ignores."""

from __future__ import annotations

from io3ops.adapters import files
from io3ops.errors import KeyFileUnsafe
from io3ops.settings import Settings
from io3ops_shared import digests


def fingerprint(key: str) -> str:
    """Return eight digits that distinguish keys and reveal nothing about them."""
    return digests.key_id(digests.of_key(key))


def masked(key: str) -> str:
    """Return the beginning, the end and the fingerprint of a key, for people."""
    return f"{key[:7]}…{key[-2:]} (fingerprint {fingerprint(key)})"


def ensure(settings: Settings, owner: tuple[int, int] | None) -> str:
    """Return the key; make one when there is none. Raises KeyFileUnsafe or NotWritable."""
    key = files.read_key(settings.key_file)
    if key is None:
        return files.new_key(settings.key_file, owner)
    files.own(settings.key_file, owner)
    return key


def rotate(settings: Settings) -> str:
    """Replace the key and return the new one. The running gateway uses it after the next `io3ops up`."""
    return files.new_key(settings.key_file, files.owner(settings.key_file))


def read(settings: Settings) -> str:
    """Return the key. Raises KeyFileUnsafe, also when there is none yet."""
    key = files.read_key(settings.key_file)
    if key is None:
        raise KeyFileUnsafe("there is no key yet", hint="`make up` makes one")
    return key
