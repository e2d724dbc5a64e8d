"""Reads the keys of providers, one file each, when a call needs them; they are never in the environment or the config.

Touches one folder, read-only. A new key takes effect at once; a provider without its key is skipped.
"""

import os
from pathlib import Path
from urllib.parse import quote

from io3ops_shared.names import SECRET_NAME

# A shorter part of a key is not masked: such a word may stand in any text.
SHORTEST = 8


class ProviderKeys:
    """Reads the keys in `folder` by their files' names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, tuple[tuple[int, int, int], str]] = {}
        # Every key that was used since the start. `hide` masks replaced keys too, because a call may have begun with one.
        self._masked: set[bytes] = set()

    def get(self, name: str) -> str:
        """Return the key called `name`, '' when there is none."""
        if not SECRET_NAME.fullmatch(name):
            return ""
        path = self._folder / name
        try:
            status = os.stat(path)
            stamp = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
            known = self._seen.get(name)
            if known and known[0] == stamp:
                return known[1]
            value = path.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            return ""
        self._seen[name] = (stamp, value)
        self._masked.update(_spellings(value))
        return value

    def hide(self, data: bytes) -> bytes:
        """Return `data` with every key that was used masked: a provider may repeat one in its error. The length stays the same.

        A key is only seen when it is whole, so pass a whole response or a whole event of a stream.
        """
        # A key may be a part of another one.
        for spelling in sorted((s for s in self._masked if s in data), key=len, reverse=True):
            data = data.replace(spelling, b"*" * len(spelling))
        return data


def _spellings(value: str) -> set[bytes]:
    """Return the forms in which a response may repeat a key: as it is, in a URL, and in JSON that escapes slashes, also within JSON."""
    words = [part for part in value.split(":") if len(part) >= SHORTEST]
    forms = [(w, quote(w), quote(w, safe=""), w.replace("/", "\\/"), w.replace("/", "\\\\/")) for w in words]
    return {form.encode() for spelled in forms for form in spelled}
