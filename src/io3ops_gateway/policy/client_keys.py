"""Finds the client key of a request: the owner's, or one that `io3ops keys` made. Touches one file, which it reads again after a change.

Keys are random and have 256 bits, so their plain SHA-256 reveals nothing, and a slow hash would only cost time.
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
    """One client key. `modes`: None allows all. `data_class`: '' when the key sets none."""

    name: str
    digest: str
    data_class: str = ""
    modes: frozenset[str] | None = None
    limits: Mapping[str, int] = field(default_factory=dict)


class KeyRing:
    """Holds the owner's key and the named keys. While the file cannot be read, only the owner's key is valid."""

    def __init__(self, master: str, path: Path) -> None:
        """Read the file at `path`, which need not exist.

        Raises:
            KeyRingError: the file exists and cannot be read.
        """
        self._path = path
        self._owner = ClientKey(name=OWNER, digest=digests.of_key(master))
        self._seen: tuple[int, int, int, int] | None = None
        self._keys = self._load(self._stamp())

    def find(self, values: Iterable[bytes]) -> ClientKey | None:
        """Return the key of a request, None when it has none or several different ones. `values`: the values of the headers in which
        clients send keys."""
        words = {value.strip() for value in values}
        if len(words) != 1:
            return None
        digest = digests.of_key(words.pop())
        match = None
        # Compare with every key, each in constant time, so that the time taken does not tell how close a guess was.
        for key in self._current():
            if hmac.compare_digest(key.digest, digest):
                match = key
        return match

    def _current(self) -> tuple[ClientKey, ...]:
        try:
            stamp = self._stamp()
            if stamp != self._seen:
                self._keys = self._load(stamp)
        except KeyRingError as error:
            if self._keys != (self._owner,):
                print(
                    f"gateway: {error}; until it is corrected, only the owner's key is valid",
                    file=sys.stderr,
                    flush=True,
                )
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
        # A restored file may have its old mtime and size. The ctime cannot be set.
        return status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size

    def _load(self, stamp: tuple[int, int, int, int] | None) -> tuple[ClientKey, ...]:
        loaded = [self._owner]
        if stamp is not None:
            try:
                listed = json.loads(self._path.read_bytes())
                if type(listed["version"]) is not int or listed["version"] != 1:
                    raise ValueError("unsupported version")
                keys = [(_key(name, entry), entry) for name, entry in listed["keys"].items()]
                loaded += [key for key, entry in keys if "revoked" not in entry]
            except OSError as error:
                raise KeyRingError(f"{self._path} cannot be read: {error.strerror}", "correct its owner") from error
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise KeyRingError(
                    f"{self._path} cannot be read: {error}", "`io3ops keys` says what is wrong"
                ) from error
        self._seen = stamp
        return tuple(loaded)


def _key(name: str, entry: Mapping[str, object]) -> ClientKey:
    """Return the key of one entry. An unknown field is an error: it may be a limit, and the key must not be valid without it.

    Raises:
        ValueError: the entry is malformed.
    """
    digest, data_class = entry["sha256"], entry.get("data_class", "")
    modes, limits, revoked = entry.get("modes"), entry.get("limits", {}), entry.get("revoked", "never")
    unknown = entry.keys() - {"sha256", "created", "data_class", "modes", "limits", "revoked"}
    if name == OWNER or unknown or not isinstance(digest, str) or not digests.SHA256.fullmatch(digest):
        raise ValueError(f"the entry of {name!r} is malformed")
    if (
        data_class not in ("", *DATA_CLASSES)
        or not isinstance(limits, dict)
        or not isinstance(revoked, str)
        or not revoked
    ):
        raise ValueError(f"the entry of {name!r} is malformed")
    if modes is not None and not (isinstance(modes, list) and all(isinstance(mode, str) for mode in modes)):
        raise ValueError(f"the modes of {name!r} are malformed")
    if any(word not in LIMITS or type(value) is not int or value < 1 for word, value in limits.items()):
        raise ValueError(f"the limits of {name!r} are malformed")
    return ClientKey(
        name=name,
        digest=digest,
        data_class=str(data_class),
        modes=None if modes is None else frozenset(modes),
        limits=limits,
    )
