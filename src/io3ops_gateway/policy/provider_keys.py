"""The keys of cloud providers: one file each, read when a call needs it, never kept in the environment or the config.

Touches one folder, read-only. A new key acts at once; a missing one leaves its provider out.
"""

import os
from pathlib import Path

from io3ops_shared.names import SECRET_NAME


class ProviderKeys:
    """The files of a folder, by name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, tuple[tuple[int, int, int], str]] = {}

    def get(self, name: str) -> str:
        """The key called `name`, or '' when there is none."""
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
        """The same bytes without any key that was used: a provider may repeat it in its error."""
        for _, value in self._seen.values():
            for part in value.split(":"):
                if len(part) >= 8 and part.encode() in data:
                    data = data.replace(part.encode(), b"*" * len(part))
        return data
