"""Client keys beside the owner's: made, listed, revoked. Only their hashes are kept; the gateway reads the same file."""

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
from io3ops.operations.stack.project import gateway_user
from io3ops.operations.table import config
from io3ops.routing import formats
from io3ops.routing.problems import did_you_mean, looks_secret, scrub
from io3ops.settings import Settings
from io3ops.tools import Tools
from io3ops_shared import digests
from io3ops_shared.names import DATA_CLASSES, LIMITS, OWNER

_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"


@dataclass(frozen=True, kw_only=True)
class ClientKey:
    """What the file holds of one key. `data_class` '': it says nothing; `modes` (): all; `revoked` '': valid."""

    name: str
    sha256: str
    created: str
    data_class: str = ""
    modes: tuple[str, ...] = ()
    limits: tuple[tuple[str, int], ...] = ()
    revoked: str = ""

    @property
    def fingerprint(self) -> str:
        return digests.key_id(self.sha256)

    def row(self) -> dict[str, Any]:
        """For reports: without the hash, which nobody needs."""
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
    """The keys in `data`. Raises KeysFileInvalid: what is not understood must neither be obeyed nor overwritten."""
    try:
        document = json.loads(data, object_pairs_hook=_once)
        if not isinstance(document, dict) or set(document) != {"version", "keys"}:
            raise ValueError("it must hold `version` and `keys`, and nothing else")
        if document["version"] != 1 or isinstance(document["version"], bool):
            raise ValueError(f"version {document['version']!r} is not known to this io3ops")
        if not isinstance(document["keys"], dict):
            raise ValueError("`keys` must be a mapping of names")
        found = {name: _entry(name, value) for name, value in document["keys"].items()}
        if len({key.sha256 for key in found.values()}) < len(found):
            raise ValueError("two names have the same `sha256`")
    except (ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else scrub(str(error))
        raise KeysFileInvalid(
            f"{path} is not a file of client keys: {why}",
            hint="correct it, or move it away and make new keys (`io3ops keys add`); it was left as it is",
        ) from None
    return found


def render(keys: Mapping[str, ClientKey]) -> bytes:
    entries = {}
    for key in keys.values():
        entry: dict[str, Any] = {"sha256": key.sha256, "created": key.created}
        optional = {"data_class": key.data_class, "modes": list(key.modes), "limits": dict(key.limits)}
        entries[key.name] = entry | {k: v for k, v in (optional | {"revoked": key.revoked}).items() if v}
    return (json.dumps({"version": 1, "keys": entries}, indent=1) + "\n").encode()


def refusal(name: str, keys: Iterable[str]) -> str:
    """Why a new key cannot have this name, '' when it can."""
    if looks_secret(name):
        return "this looks like a key itself; a name is e.g. `alice`"
    if wrong := formats.name(name):
        return wrong
    if name == OWNER:
        return f"{OWNER!r} is the master key (`io3ops key`)"
    # Also for a revoked one: an audit entry must always mean the same client.
    return f"there is a key {name!r} already, or was; a name is never used twice" if name in keys else ""


def text(keys: Iterable[ClientKey]) -> str:
    rows = [("name", "fingerprint", "class", "modes", "limits", "created", "revoked")]
    words = {"requests_per_minute": "requests/min", "tokens_per_minute": "tokens/min", "parallel": "at once"}
    for key in keys:
        limits = ", ".join(f"{value:,} {words[name]}" for name, value in key.limits)
        rows.append(
            (key.name, key.fingerprint, key.data_class, ", ".join(key.modes) or "all", limits, key.created, key.revoked)
        )
    if len(rows) == 1:
        return "there is no client key besides the owner's; `io3ops keys add NAME` makes one"
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{cell or '-':<{w}}" for cell, w in zip(row, wide, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # json keeps the last of two equal keys, and a rewrite would lose the first.
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands in it twice")
    return found


def _entry(name: str, value: Any) -> ClientKey:
    def need(good: bool, what: str) -> None:
        if not good:
            raise ValueError(f"{formats.quoted(name)}: {what}")

    need(not formats.name(name) and name != OWNER, "cannot be a name")
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
    # An empty list could be read as every mode.
    need(isinstance(modes, list) and (bool(modes) or "modes" not in value), "`modes` must name at least one")
    need(all(isinstance(m, str) and not formats.name(m) for m in modes), "`modes` holds what cannot be a mode")
    limits = value.get("limits", {})
    need(isinstance(limits, dict) and set(limits) <= set(LIMITS), f"`limits` may hold {', '.join(LIMITS)}")
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
    """Every key by name. Raises KeysFileInvalid."""
    data = files.read_bytes(settings.keys_file, KeysFileInvalid)
    return {} if data is None else parse(data, str(settings.keys_file.relative_to(settings.root)))


def add(
    tools: Tools, name: str, *, data_class: str = "", modes: Iterable[str] = (), limits: Mapping[str, int] | None = None
) -> tuple[ClientKey, str]:
    """Make a key: what is kept of it, and the key itself, which is not kept.

    Raises NameInvalid, KeysFileInvalid, NotWritable; TableInvalid when `modes` cannot be held against the table.
    """
    settings = tools.settings
    wanted = tuple(dict.fromkeys(modes))
    known = config.load(settings).plan.modes if wanted else ()
    for mode in wanted:
        if mode not in known:
            raise NameInvalid(
                f"there is no mode {mode!r}{did_you_mean(mode, known)}", hint="`io3ops routes` lists them"
            )
    with files.exclusive(settings.state / "keys.lock"):
        keys = load(settings)
        if why := refusal(name, keys):
            raise NameInvalid(why, hint="choose another name; `io3ops keys` lists those that are taken")
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
    """End a key: its entry, and False when it had been revoked before. Raises NameInvalid, KeysFileInvalid, NotWritable."""
    if name == OWNER:
        raise NameInvalid("the owner's key is not revoked but replaced", hint="`io3ops key --rotate`, then `io3ops up`")
    with files.exclusive(tools.settings.state / "keys.lock"):
        keys = load(tools.settings)
        if name not in keys:
            raise NameInvalid(
                f"there is no client key {scrub(repr(name))}{did_you_mean(name, keys)}", hint="`io3ops keys` lists them"
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
