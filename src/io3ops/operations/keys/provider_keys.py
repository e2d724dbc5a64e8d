"""The providers' API keys: one private file each, set from stdin or a hidden prompt, and never shown."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from io3ops.adapters import files
from io3ops.errors import NameInvalid, SecretInvalid
from io3ops.operations.stack.project import gateway_user
from io3ops.routing import formats
from io3ops.routing.problems import did_you_mean, looks_secret
from io3ops.routing.table import Provider, build, read_document
from io3ops.settings import Settings
from io3ops.tools import Tools

LONGEST = 4096


@dataclass(frozen=True, kw_only=True)
class User:
    """A provider of the table that names the secret."""

    provider: str
    enabled: bool
    kind: str


@dataclass(frozen=True, kw_only=True)
class ProviderKey:
    """state: present, missing, unsafe (open to others), unusable. `why` for the last two."""

    name: str
    state: str
    why: str
    used_by: tuple[User, ...]


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """`table` says whether the routing table could be read, so that an unused name is really one."""

    keys: tuple[ProviderKey, ...]
    table: bool


# -- pure


def unusable(value: str) -> str:
    """What is wrong with an API key, '' when nothing is; never any part of it."""
    if not value:
        return "it is empty"
    if len(value) > LONGEST:
        return f"it is longer than {LONGEST} characters"
    if "\n" in value or "\r" in value:
        return "it has more than one line"
    if not value.isascii():
        return "it has characters outside ASCII"
    # It becomes part of an HTTP header.
    return "it has a space or a control character" if re.search(r"[^\x21-\x7e]", value) else ""


def one_line(data: bytes) -> str:
    """The value in what was piped in: without its one line end. Raises SecretInvalid."""
    # latin-1 maps every byte to a character, so that what is not ASCII is seen as such.
    value = data.decode("latin-1")
    value = value.removesuffix("\n").removesuffix("\r") if value.endswith("\n") else value
    if why := unusable(value):
        raise SecretInvalid(
            f"this is no API key: {why}",
            hint="pipe the key alone, or run the command in a terminal; nothing was changed",
        )
    return value


def check_name(name: str) -> None:
    """Raises NameInvalid."""
    if why := formats.secret_name(name):
        raise NameInvalid(why, hint="`io3ops secrets` lists the names that the table's providers use")


def users(providers: Iterable[Provider], name: str) -> tuple[User, ...]:
    return tuple(User(provider=p.name, enabled=p.enabled, kind=p.kind) for p in providers if p.key == name)


def after_set(name: str, value: str, used_by: Iterable[User], known: Iterable[str]) -> tuple[str, ...]:
    """What to tell about a new value."""
    found = tuple(used_by)
    if not found:
        near = did_you_mean(name, known)
        return (f"no provider of the table uses {name!r} yet{near}",)
    on = [u.provider for u in found if u.enabled]
    notes = [
        f"run `io3ops up` so that the gateway takes it for {', '.join(on)}"
        if on
        else f"{', '.join(u.provider for u in found)} uses it and is not enabled: `enabled: true` in runtime/routing.yaml"
    ]
    if any(u.kind == "bedrock" for u in found) and ":" not in value:
        notes.append("warning: a bedrock provider needs ACCESS_KEY_ID:SECRET, and this has no ':'")
    return tuple(notes)


def after_remove(name: str, used_by: Iterable[User]) -> str:
    found = tuple(used_by)
    on = [u.provider for u in found if u.enabled]
    if on:
        return f"{', '.join(on)} will stop answering: run `io3ops up` so that the gateway forgets the key"
    return (
        f"{', '.join(u.provider for u in found)} used it, and is not enabled"
        if found
        else f"no provider of the table uses {name!r}"
    )


def text(found: Secrets) -> str:
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
    """The table's providers, also of a table with problems: keys are often set while it is being written. None: unreadable."""
    data = files.read_bytes(settings.table)
    document, _ = read_document(data or b"")
    return None if document is None else build(document).providers


def listing(settings: Settings) -> Secrets:
    """Every key that a provider names or that is stored. Raises SecretInvalid."""
    table = providers(settings)
    folder = settings.provider_keys
    stored = _names(folder)
    named = {p.key for p in table or () if p.key}
    keys = []
    for name in sorted(named | stored):
        state, why = _state(folder / name) if name in stored else ("missing", f"io3ops secrets set {name}")
        if formats.secret_name(name):
            state, why = "unusable", "no provider can use a name like this: remove the file"
        keys.append(ProviderKey(name=_printable(name), state=state, why=why, used_by=users(table or (), name)))
    return Secrets(keys=tuple(keys), table=table is not None)


def put(tools: Tools, name: str, value: str) -> tuple[str, ...]:
    """Store a value; what to tell about it. Raises NameInvalid, SecretInvalid, NotWritable."""
    check_name(name)
    if why := unusable(value):
        raise SecretInvalid(f"this is no API key: {why}", hint="nothing was changed")
    settings = tools.settings
    path = settings.provider_keys / name
    owner = gateway_user(tools, path)
    files.private_folder(path.parent.parent, None)
    files.private_folder(path.parent, owner)
    files.write_atomic(path, value.encode("ascii"), 0o600, owner)
    table = providers(settings)
    if table is None:
        return ("runtime/routing.yaml cannot be read, so who uses it is not known: `io3ops render-config --check`",)
    return after_set(name, value, users(table, name), {p.key for p in table if p.key})


def remove(settings: Settings, name: str) -> str:
    """Remove a value; what to tell about it. Raises NameInvalid, SecretInvalid."""
    check_name(name)
    stored = _names(settings.provider_keys)
    if name not in stored:
        raise NameInvalid(
            f"no key is stored as {name!r}{did_you_mean(name, [n for n in stored if not looks_secret(n)])}",
            hint="`io3ops secrets` lists them",
        )
    try:
        (settings.provider_keys / name).unlink()
    except OSError as error:
        raise SecretInvalid(
            f"{settings.provider_keys / name} cannot be removed: {error.strerror}", hint="correct its permissions"
        ) from None
    return after_remove(name, users(providers(settings) or (), name))


def _names(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise SecretInvalid(f"{folder} cannot be read: {error.strerror}", hint="correct its permissions") from None


def _state(path: Path) -> tuple[str, str]:
    """(state, why). The content is looked at, because the gateway would find out only with a request."""
    try:
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode):
            return "unusable", "not a plain file"
        if mode & 0o077:
            return "unsafe", f"mode {mode & 0o777:04o}, others may know it: make a new key at the provider, set it here"
        data = path.read_bytes()
    except OSError as error:
        return "unusable", f"cannot be read: {error.strerror}"
    try:
        one_line(data)
    except SecretInvalid as error:
        return "unusable", error.message.partition(": ")[2]
    return "present", ""


def _printable(name: str) -> str:
    # A file name is anybody's text, and one that is a pasted key must not be repeated.
    return "[a key?]" if looks_secret(name) else "".join(c if c.isprintable() else "?" for c in name)
