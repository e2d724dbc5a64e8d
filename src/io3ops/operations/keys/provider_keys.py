"""`io3ops secrets`: stores, lists and removes the providers' API keys, each in a private file. Their values are never shown."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from io3ops.adapters import files
from io3ops.errors import NameInvalid, SecretInvalid
from io3ops.operations.stack.ownership import gateway_user
from io3ops.routing import formats
from io3ops.routing.language import ProviderKind
from io3ops.routing.problems import did_you_mean, looks_secret
from io3ops.routing.table import Provider, build, read_document
from io3ops.settings import Settings
from io3ops.tools import Tools

LONGEST = 4096


@dataclass(frozen=True, kw_only=True)
class User:
    """A provider of the table that uses a key."""

    provider: str
    enabled: bool
    kind: ProviderKind


class State(StrEnum):
    """The state of a key's file. UNSAFE: other users may read it."""

    PRESENT = "present"
    MISSING = "missing"
    UNSAFE = "unsafe"
    UNUSABLE = "unusable"


@dataclass(frozen=True, kw_only=True)
class ProviderKey:
    """One key. `why` explains every state but PRESENT, or says what to do."""

    name: str
    state: State
    why: str
    used_by: tuple[User, ...]


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """Every key, and whether the routing table could be read: only then it is known that a key is unused."""

    keys: tuple[ProviderKey, ...]
    table: bool


# -- pure


def unusable(value: str) -> str:
    """Return what is wrong with an API key, '' when nothing is. Never contains a part of it."""
    if not value:
        return "it is empty"
    if len(value) > LONGEST:
        return f"it is longer than {LONGEST} characters"
    if "\n" in value or "\r" in value:
        return "it has more than one line"
    if not value.isascii():
        return "it contains characters outside ASCII"
    # The key becomes part of an HTTP header.
    return "it contains a space or a control character" if re.search(r"[^\x21-\x7e]", value) else ""


def one_line(data: bytes) -> str:
    """Return the value that was piped in, without its line end. Raises SecretInvalid."""
    # latin-1 maps every byte to a character, so the check sees bytes outside ASCII.
    value = data.decode("latin-1")
    value = value.removesuffix("\n").removesuffix("\r") if value.endswith("\n") else value
    if why := unusable(value):
        raise SecretInvalid(
            f"this is not an API key: {why}",
            hint="pipe the key alone, or run the command in a terminal; nothing was changed",
        )
    return value


def check_name(name: str) -> None:
    """Raise NameInvalid unless the name can be that of a secret."""
    if why := formats.secret_name(name):
        raise NameInvalid(why, hint="`io3ops secrets` lists the names that the table uses")


def users(providers: Iterable[Provider], name: str) -> tuple[User, ...]:
    """Return the providers that use a key."""
    return tuple(User(provider=p.name, enabled=p.enabled, kind=p.kind) for p in providers if p.key == name)


def after_set(name: str, value: str, used_by: Iterable[User], known: Iterable[str]) -> tuple[str, ...]:
    """Return the remarks about a new value: what to do next, and what looks wrong."""
    providers = tuple(used_by)
    if not providers:
        near = did_you_mean(name, known)
        return (f"no provider of the table uses {name!r} yet{near}",)
    enabled = [u.provider for u in providers if u.enabled]
    names = ", ".join(u.provider for u in providers)
    notes = [
        f"run `io3ops up`, so that the gateway uses it for {', '.join(enabled)}"
        if enabled
        else f"it belongs to {names}, which the table does not enable: set `enabled: true` in runtime/routing.yaml"
    ]
    if any(u.kind == "bedrock" for u in providers) and ":" not in value:
        notes.append("warning: a bedrock provider needs ACCESS_KEY_ID:SECRET, but this value contains no ':'")
    return tuple(notes)


def after_remove(name: str, used_by: Iterable[User]) -> str:
    """Return the remark about a removed value."""
    providers = tuple(used_by)
    enabled = [u.provider for u in providers if u.enabled]
    if enabled:
        return f"{', '.join(enabled)} will stop answering: run `io3ops up`, so that the gateway forgets the key"
    if providers:
        return f"{', '.join(u.provider for u in providers)} used it, but the table does not enable that"
    return f"no provider of the table uses {name!r}"


def text(found: Secrets) -> str:
    """Render the keys for people."""
    rows = []
    for key in found.keys:
        uses = ", ".join(f"{u.provider} ({'enabled' if u.enabled else 'disabled'})" for u in key.used_by)
        unknown = "no provider uses it" if found.table else "the table cannot be read"
        rows.append((key.name, key.state, uses or unknown, key.why))
    if not rows:
        return "no provider of the table needs a key, and none is stored"
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{cell:<{w}}" for cell, w in zip(row, wide, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


# -- on the disk


def providers(settings: Settings) -> tuple[Provider, ...] | None:
    """Return the table's providers, even when the table has problems: users set keys while they write it. None: unreadable."""
    data = files.read_bytes(settings.table)
    document, _ = read_document(data or b"")
    return None if document is None else build(document).providers


def listing(settings: Settings) -> Secrets:
    """Return every key that a provider names or that is stored. Raises SecretInvalid."""
    table = providers(settings)
    folder = settings.provider_keys
    stored = _names(folder)
    named = {p.key for p in table or () if p.key}
    keys = []
    for name in sorted(named | stored):
        state, why = _state(folder / name) if name in stored else (State.MISSING, f"io3ops secrets set {name}")
        if formats.secret_name(name):
            state, why = State.UNUSABLE, "invalid name for a secret: remove the file"
        keys.append(ProviderKey(name=_printable(name), state=state, why=why, used_by=users(table or (), name)))
    return Secrets(keys=tuple(keys), table=table is not None)


def put(tools: Tools, name: str, value: str) -> tuple[str, ...]:
    """Store a value and return the remarks about it. Raises NameInvalid, SecretInvalid or NotWritable."""
    check_name(name)
    if why := unusable(value):
        raise SecretInvalid(f"this is not an API key: {why}", hint="enter the key again; nothing was changed")
    settings = tools.settings
    path = settings.provider_keys / name
    owner = gateway_user(tools, path)
    files.private_folder(path.parent.parent, None)
    files.private_folder(path.parent, owner)
    files.write_atomic(path, value.encode("ascii"), 0o600, owner)
    table = providers(settings)
    if table is None:
        return ("runtime/routing.yaml cannot be read (`io3ops render-config --check`), so its providers are unknown",)
    return after_set(name, value, users(table, name), {p.key for p in table if p.key})


def remove(settings: Settings, name: str) -> str:
    """Remove a value and return the remark about it. Raises NameInvalid or SecretInvalid."""
    check_name(name)
    stored = _names(settings.provider_keys)
    if name not in stored:
        raise NameInvalid(
            f"no key named {name!r} is stored{did_you_mean(name, [n for n in stored if not looks_secret(n)])}",
            hint="`io3ops secrets` lists the keys",
        )
    try:
        (settings.provider_keys / name).unlink()
    except OSError as error:
        raise SecretInvalid(
            f"{settings.provider_keys / name} cannot be removed: {error.strerror}",
            hint="correct the folder's owner or permissions",
        ) from None
    return after_remove(name, users(providers(settings) or (), name))


def _names(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise SecretInvalid(
            f"{folder} cannot be read: {error.strerror}", hint="correct its owner or permissions"
        ) from None


def _state(path: Path) -> tuple[State, str]:
    """Return (state, why). Reads the content too: else a faulty key would show only at the first request."""
    try:
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode):
            return State.UNUSABLE, "not a regular file"
        if mode & 0o077:
            return (
                State.UNSAFE,
                f"mode {mode & 0o777:04o}, so others may know it: make a new key at the provider and set it here",
            )
        data = path.read_bytes()
    except OSError as error:
        return State.UNUSABLE, f"cannot be read: {error.strerror}"
    try:
        one_line(data)
    except SecretInvalid as error:
        return State.UNUSABLE, error.message.partition(": ")[2]
    return State.PRESENT, ""


def _printable(name: str) -> str:
    # A file may have any name, even that of a pasted key, which must not be repeated.
    return "[a key?]" if looks_secret(name) else "".join(c if c.isprintable() else "?" for c in name)
