"""Who may call: the owner's key, and the keys that `io3ops keys` made. Touches one file, read again when it changes.

Keys are random words of 256 bits, so their plain SHA-256 gives nothing away and a slow hash would only cost time.
"""

import hmac
import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from io3ops_gateway.errors import KeyRingError
from io3ops_shared import digests
from io3ops_shared.names import DATA_CLASSES, LIMITS, OWNER


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientKey:
    """One key. `modes` None: all. `data_class` '': it says nothing."""

    name: str
    digest: str
    data_class: str = ""
    modes: frozenset[str] | None = None
    limits: Mapping[str, int] = field(default_factory=dict)


class KeyRing:
    """The owner's key and the named ones. A file that breaks while the gateway runs shuts every named key out."""

    def __init__(self, master: str, path: Path) -> None:
        """Raises KeyRingError when the file is there and cannot be read."""
        self._path = path
        self._owner = ClientKey(name=OWNER, digest=digests.of_key(master))
        self._seen: tuple[int, int, int, int] | None = None
        self._keys = self._load(self._stamp())

    def find(self, given: Iterable[bytes]) -> ClientKey | None:
        """The key of a request, or None. `given`: what stands in the headers in which clients send keys; several that
        differ are none."""
        words = {value.strip() for value in given}
        if len(words) != 1:
            return None
        digest = digests.of_key(words.pop())
        found = None
        # Always all of them, each in constant time: how long it takes tells nothing about what was close.
        for key in self._current():
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found

    def _current(self) -> tuple[ClientKey, ...]:
        try:
            stamp = self._stamp()
            if stamp != self._seen:
                self._keys = self._load(stamp)
        except KeyRingError as error:
            if self._keys != (self._owner,):
                print(f"gateway: {error}; until then only the owner's key is taken", file=sys.stderr, flush=True)
            self._keys, self._seen = (self._owner,), None
        return self._keys

    def _stamp(self) -> tuple[int, int, int, int] | None:
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise KeyRingError(
                f"{self._path} cannot be read: {error.strerror}", "correct its owner and mode"
            ) from error
        # A restored file may have the old time and size; the time of its change cannot be set.
        return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size

    def _load(self, stamp: tuple[int, int, int, int] | None) -> tuple[ClientKey, ...]:
        found = [self._owner]
        if stamp is not None:
            try:
                listed = json.loads(self._path.read_bytes())
                if type(listed["version"]) is not int or listed["version"] != 1:
                    raise ValueError("another version")
                keys = [(_key(name, entry), entry) for name, entry in listed["keys"].items()]
                found += [key for key, entry in keys if "revoked" not in entry]
            except OSError as error:
                raise KeyRingError(f"{self._path} cannot be read: {error.strerror}", "correct its owner") from error
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise KeyRingError(
                    f"{self._path} cannot be read: {error}", "`io3ops keys` says what is wrong"
                ) from error
        self._seen = stamp
        return tuple(found)


def _key(name: str, entry: Mapping[str, object]) -> ClientKey:
    """A key of the file. What is not understood must not be a key without limits, so it is an error."""
    digest, data_class = entry["sha256"], entry.get("data_class", "")
    modes, limits, revoked = entry.get("modes"), entry.get("limits", {}), entry.get("revoked", "never")
    unknown = entry.keys() - {"sha256", "created", "data_class", "modes", "limits", "revoked"}
    if name == OWNER or unknown or not isinstance(digest, str) or not digests.SHA256.fullmatch(digest):
        raise ValueError(f"the entry of {name!r} is not a key")
    if (
        data_class not in ("", *DATA_CLASSES)
        or not isinstance(limits, dict)
        or not isinstance(revoked, str)
        or not revoked
    ):
        raise ValueError(f"the entry of {name!r} is not a key")
    if modes is not None and not (isinstance(modes, list) and all(isinstance(mode, str) for mode in modes)):
        raise ValueError(f"the modes of {name!r} are not modes")
    if any(word not in LIMITS or type(value) is not int or value < 1 for word, value in limits.items()):
        raise ValueError(f"the limits of {name!r} are not limits")
    return ClientKey(
        name=name,
        digest=digest,
        data_class=str(data_class),
        modes=None if modes is None else frozenset(modes),
        limits=limits,
    )
