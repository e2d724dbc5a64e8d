"""`io3ops keys`: makes, lists and revokes client keys. Only their hashes are stored, in a file that the gateway reads."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from io3ops.adapters import files
from io3ops.errors import KeysFileInvalid, NameInvalid
from io3ops.operations.stack.ownership import gateway_user
from io3ops.operations.table import config
from io3ops.routing import formats
from io3ops.routing.language import DataClass, Unset
from io3ops.routing.problems import did_you_mean, looks_secret, scrub
from io3ops.settings import Settings
from io3ops.tools import Tools
from io3ops_shared import digests
from io3ops_shared.names import DATA_CLASSES, LIMITS, OWNER

_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"


@dataclass(frozen=True, kw_only=True)
class ClientKey:
    """One key as stored. `data_class` '': the key does not decide; `modes` (): all; `revoked` '': the key is valid."""

    name: str
    sha256: str
    created: str
    data_class: DataClass | Unset = ""
    modes: tuple[str, ...] = ()
    limits: tuple[tuple[str, int], ...] = ()
    revoked: str = ""

    @property
    def fingerprint(self) -> str:
        """The beginning of the hash, which names the key in logs."""
        return digests.key_id(self.sha256)

    def row(self) -> dict[str, Any]:
        """Return the key for reports, without its hash."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "data_class": self.data_class,
            "modes": list(self.modes),
            "limits": dict(self.limits),
            "created": self.created,
            "revoked": self.revoked,
        }


# -- pure


def parse(data: bytes, path: str) -> dict[str, ClientKey]:
    """Return the keys in `data`. Raises KeysFileInvalid: a file that we do not understand must not be used or overwritten."""
    try:
        document = json.loads(data, object_pairs_hook=_once)
        if not isinstance(document, dict) or set(document) != {"version", "keys"}:
            raise ValueError("it must contain `version` and `keys` only")
        if document["version"] != 1 or isinstance(document["version"], bool):
            raise ValueError(f"unsupported version {document['version']!r}; this release reads version 1")
        if not isinstance(document["keys"], dict):
            raise ValueError("`keys` must be a mapping of names")
        found = {name: _entry(name, value) for name, value in document["keys"].items()}
        if len({key.sha256 for key in found.values()}) < len(found):
            raise ValueError("two names have the same `sha256`")
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else scrub(str(error))
        raise KeysFileInvalid(
            f"{path} is not a file of client keys: {why}",
            hint="correct it, or move it away and make new keys (`io3ops keys add`); the file is unchanged",
        ) from None
    return found


def render(keys: Mapping[str, ClientKey]) -> bytes:
    """Return the text of the file."""
    entries = {}
    for key in keys.values():
        entry: dict[str, Any] = {"sha256": key.sha256, "created": key.created}
        optional = {"data_class": key.data_class, "modes": list(key.modes), "limits": dict(key.limits)}
        entries[key.name] = entry | {k: v for k, v in (optional | {"revoked": key.revoked}).items() if v}
    return (json.dumps({"version": 1, "keys": entries}, indent=1) + "\n").encode()


def refusal(name: str, keys: Iterable[str]) -> str:
    """Return why a new key cannot have this name, '' when it can."""
    if looks_secret(name):
        return "this looks like a key; choose a name such as `alice`"
    if wrong := formats.name(name):
        return wrong
    if name == OWNER:
        return f"{OWNER!r} is the name of the owner's key (`io3ops key`)"
    # Names of revoked keys stay reserved: an audit entry must always mean the same client.
    return f"a key named {name!r} exists or was revoked" if name in keys else ""


def text(keys: Iterable[ClientKey]) -> str:
    """Render the keys for people."""
    rows = [("name", "fingerprint", "class", "modes", "limits", "created", "revoked")]
    words = {"requests_per_minute": "requests/min", "tokens_per_minute": "tokens/min", "parallel": "concurrent"}
    for key in keys:
        limits = ", ".join(f"{value:,} {words[name]}" for name, value in key.limits)
        rows.append(
            (key.name, key.fingerprint, key.data_class, ", ".join(key.modes) or "all", limits, key.created, key.revoked)
        )
    if len(rows) == 1:
        return "there are no client keys; `io3ops keys add NAME` makes one"
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{cell or '-':<{w}}" for cell, w in zip(row, wide, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Python's json keeps the last of two equal keys, and writing the file would lose the first.
    unique = dict(pairs)
    if len(unique) < len(pairs):
        raise ValueError("it contains a duplicate key")
    return unique


def _entry(name: str, value: Any) -> ClientKey:
    def need(good: bool, what: str) -> None:
        if not good:
            raise ValueError(f"{formats.quoted(name)}: {what}")

    need(not formats.name(name) and name != OWNER, "invalid name")
    need(isinstance(value, dict), "must be a mapping")
    unknown = sorted(set(value) - {"sha256", "created", "data_class", "modes", "limits", "revoked"})
    need(not unknown, f"unknown key {unknown[:1]}")
    for key in ("created", "revoked"):
        if key == "created" or key in value:
            need(isinstance(value.get(key), str) and bool(re.fullmatch(_TIME, value[key])), f"`{key}` must be a time")
    need(
        isinstance(value.get("sha256"), str) and bool(digests.SHA256.fullmatch(value["sha256"])),
        "`sha256` must be 64 hex digits",
    )
    if "data_class" in value:
        need(value["data_class"] in DATA_CLASSES, f"`data_class` must be {' or '.join(DATA_CLASSES)}")
    modes = value.get("modes", [])
    # An empty list could be mistaken for all modes.
    need(isinstance(modes, list) and (bool(modes) or "modes" not in value), "`modes` must name at least one")
    need(all(isinstance(m, str) and not formats.name(m) for m in modes), "`modes` contains an invalid name")
    limits = value.get("limits", {})
    need(isinstance(limits, dict) and set(limits) <= set(LIMITS), f"`limits` may contain {', '.join(LIMITS)}")
    need(all(type(n) is int and n > 0 for n in limits.values()), "`limits` must be whole numbers above 0")
    return ClientKey(
        name=name,
        sha256=value["sha256"],
        created=value["created"],
        data_class=value.get("data_class", ""),
        modes=tuple(modes),
        limits=tuple((k, limits[k]) for k in LIMITS if k in limits),
        revoked=value.get("revoked", ""),
    )


# -- on the disk


def load(settings: Settings) -> dict[str, ClientKey]:
    """Return every key by name. Raises KeysFileInvalid."""
    data = files.read_bytes(settings.keys_file, KeysFileInvalid)
    return {} if data is None else parse(data, str(settings.keys_file.relative_to(settings.root)))


def add(
    tools: Tools,
    name: str,
    *,
    data_class: DataClass | Unset = "",
    modes: Iterable[str] = (),
    limits: Mapping[str, int] | None = None,
) -> tuple[ClientKey, str]:
    """Make a key; return its stored part, and the key itself, which is stored nowhere.

    Raises NameInvalid, KeysFileInvalid or NotWritable; TableInvalid when the table, which knows the modes, has problems.
    """
    settings = tools.settings
    wanted = tuple(dict.fromkeys(modes))
    known = config.load(settings).plan.modes if wanted else ()
    for mode in wanted:
        if mode not in known:
            raise NameInvalid(
                f"unknown mode {mode!r}{did_you_mean(mode, known)}", hint="`io3ops routes` lists the modes"
            )
    with files.exclusive(settings.state / "keys.lock"):
        keys = load(settings)
        if why := refusal(name, keys):
            raise NameInvalid(why, hint="choose another name; `io3ops keys` lists the names in use")
        value = f"sk-io3-{secrets.token_urlsafe(32)}"
        made = ClientKey(
            name=name,
            sha256=digests.of_key(value),
            created=_now(),
            data_class=data_class,
            modes=wanted,
            limits=tuple((k, (limits or {})[k]) for k in LIMITS if k in (limits or {})),
        )
        _write(tools, keys | {name: made})
    return made, value


def revoke(tools: Tools, name: str) -> tuple[ClientKey, bool]:
    """Revoke a key; return its entry, and False when it was revoked before. Raises NameInvalid, KeysFileInvalid or NotWritable."""
    if name == OWNER:
        hint = "replace it: run `io3ops key --rotate`, then `io3ops up`"
        raise NameInvalid("the owner's key cannot be revoked", hint=hint)
    with files.exclusive(tools.settings.state / "keys.lock"):
        keys = load(tools.settings)
        if name not in keys:
            raise NameInvalid(
                f"unknown client key {scrub(repr(name))}{did_you_mean(name, keys)}",
                hint="`io3ops keys` lists the client keys",
            )
        if keys[name].revoked:
            return keys[name], False
        ended = replace(keys[name], revoked=_now())
        _write(tools, keys | {name: ended})
    return ended, True


def _write(tools: Tools, keys: Mapping[str, ClientKey]) -> None:
    path = tools.settings.keys_file
    owner = gateway_user(tools, path)
    files.private_folder(path.parent, owner)
    files.write_atomic(path, render(keys), 0o600, owner)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
