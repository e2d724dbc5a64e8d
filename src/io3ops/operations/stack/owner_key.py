"""The master key: made once, random, 0600, outside git."""

from __future__ import annotations

from io3ops.adapters import files
from io3ops.errors import KeyFileUnsafe
from io3ops.settings import Settings
from io3ops_shared import digests


def fingerprint(key: str) -> str:
    """Eight digits that tell two keys apart and give nothing of them away."""
    return digests.key_id(digests.of_key(key))


def masked(key: str) -> str:
    return f"{key[:7]}…{key[-2:]} (fingerprint {fingerprint(key)})"


def ensure(settings: Settings, owner: tuple[int, int] | None) -> str:
    """The key, made now when there was none. Raises KeyFileUnsafe or NotWritable."""
    key = files.read_key(settings.key_file)
    if key is None:
        return files.new_key(settings.key_file, owner)
    files.own(settings.key_file, owner)
    return key


def rotate(settings: Settings) -> str:
    """Replace the key; the running gateway takes it at the next `io3ops up`."""
    return files.new_key(settings.key_file, files.owner(settings.key_file))


def read(settings: Settings) -> str:
    """The key. Raises KeyFileUnsafe, also when there is none yet."""
    key = files.read_key(settings.key_file)
    if key is None:
        raise KeyFileUnsafe("there is no key yet", hint="`make up` makes one")
    return key
