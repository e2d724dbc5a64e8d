"""Reads the keys of providers, one file each, when a call needs them; they are never in the environment or the config.

Touches one folder, read-only. A new key takes effect at once; a provider without its key is skipped.
"""

import os
from pathlib import Path

from io3ops_shared.names import SECRET_NAME


class ProviderKeys:
    """Reads the keys in `folder` by their files' names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, tuple[tuple[int, int, int], str]] = {}

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
        return value

    def hide(self, data: bytes) -> bytes:
        """Return `data` with every key that was used masked: a provider may repeat one in its error."""
        for _, value in self._seen.values():
            for part in value.split(":"):
                if len(part) >= 8 and part.encode() in data:
                    data = data.replace(part.encode(), b"*" * len(part))
        return data
