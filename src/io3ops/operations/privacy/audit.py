"""`io3ops audit`: shows and verifies the gateway's log of prompts that left by an explicit override.

Every entry contains the hash of the previous one, and we store the last verified entry where the gateway cannot reach it. This
reveals a changed, inserted or lost line, even when all later hashes were computed again.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from io3ops.adapters import files
from io3ops.errors import CheckFailed, NotWritable
from io3ops.settings import Settings
from io3ops_shared import digests

TEXTS = ("time", "key", "mode", "class", "source", "reason", "provider", "deployment", "prev", "hash")


@dataclass(frozen=True, kw_only=True)
class Head:
    """The last entry of an earlier verification."""

    seq: int
    hash: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """The verified log.

    `entries`: those before the first faulty line. `problem`: '' when the chain is intact. `line`: the faulty line, counted from
    1; 0 when the problem concerns no single line. `torn`: the last line is incomplete, as after a crash.
    """

    entries: tuple[dict[str, Any], ...] = ()
    problem: str = ""
    line: int = 0
    torn: bool = False

    @property
    def intact(self) -> bool:
        """Whether the chain has no problem."""
        return not self.problem

    @property
    def head(self) -> Head | None:
        """The last verified entry, None for an empty log."""
        return Head(seq=self.entries[-1]["seq"], hash=self.entries[-1]["hash"]) if self.entries else None

    def data(self, last: int | None) -> dict[str, Any]:
        """Return the report for programs, with the last entries only if `last` is set."""
        head = self.head
        return {
            "count": len(self.entries),
            "intact": self.intact,
            "torn": self.torn,
            "last_hash": head.hash if head else "",
            "problem": {"line": self.line, "why": self.problem} if self.problem else None,
            "entries": list(_newest(self.entries, last)),
        }


# -- pure


def verify(lines: Iterable[bytes], head: Head | None = None) -> Report:
    """Verify every line (with its line end) against the previous one, and the log against the last verified entry."""
    entries: list[dict[str, Any]] = []
    previous, torn = digests.NO_ENTRY, False
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            torn = True
            break
        entry, why = _read(line)
        if not why:
            why = _wrong(entry, number, previous, head)
        if why:
            return Report(entries=tuple(entries), problem=why, line=number)
        entries.append(entry)
        previous = entry["hash"]
    if head and len(entries) < head.seq:
        why = f"it had {_entries(head.seq)} when it was last verified, and has {len(entries)} now: its end was cut off, or it is another file"
        return Report(entries=tuple(entries), problem=why, torn=torn)
    return Report(entries=tuple(entries), torn=torn)


def text(report: Report, last: int | None = None) -> str:
    """Render the entries for people, then one line about the chain."""
    shown = _newest(report.entries, last)
    rows = [("time", "key", "mode", "class (source)", "provider", "reason")]
    for entry in shown:
        cells = ("time", "key", "mode", "class", "provider", "reason")
        row = {name: escaped(entry[name]) for name in cells}
        row["class"] += f" ({escaped(entry['source'])})"
        rows.append((row["time"], row["key"], row["mode"], row["class"], row["provider"], row["reason"]))
    lines = []
    if shown:
        wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(f"{c:<{w}}" for c, w in zip(row, wide, strict=True)).rstrip() for row in rows] + [""]
    if report.torn:
        lines.append("the last line is incomplete, as after a crash; it does not count")
    head = report.head
    if report.problem:
        place = f"line {report.line}: " if report.line else ""
        lines.append(f"chain broken after {_entries(len(report.entries))}: {place}{report.problem}")
    elif head is None:
        lines.append("no override was ever used")
    else:
        lines.append(f"{_entries(len(report.entries))}, chain intact, last hash {head.hash[:12]}…")
    return "\n".join(lines)


def escaped(value: str) -> str:
    """Return a client's text without control characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)


def _read(line: bytes) -> tuple[dict[str, Any], str]:
    """Return (entry, ''), or ({}, what is wrong with the line itself)."""
    try:
        entry = json.loads(line.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return {}, "not a JSON object"
    if not isinstance(entry, dict):
        return {}, "not a JSON object"
    if type(entry.get("v")) is not int or type(entry.get("seq")) is not int:
        return {}, "`v` and `seq` must be whole numbers"
    if entry["v"] != 1:
        return {}, f"unsupported version {entry['v']}; this release reads version 1"
    wrong = [name for name in TEXTS if not isinstance(entry.get(name), str)]
    return ({}, f"{wrong[0]!r} is missing or not text") if wrong else (entry, "")


def _wrong(entry: dict[str, Any], number: int, previous: str, head: Head | None) -> str:
    if entry["seq"] != number:
        return f"found entry {entry['seq']}, expected {number}: lines are missing, repeated or out of order"
    if entry["prev"] != previous:
        return "it does not follow the previous entry, which was changed or replaced"
    if entry["hash"] != digests.of_audit_entry(entry):
        return "its hash is wrong: it was changed"
    if head and number == head.seq and entry["hash"] != head.hash:
        return "it differs from the entry that was last verified here: the log was rewritten"
    return ""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Python's json keeps the last of two equal keys, but another reader may keep the first.
    unique = dict(pairs)
    if len(unique) < len(pairs):
        raise ValueError
    return unique


def _newest(entries: tuple[dict[str, Any], ...], last: int | None) -> tuple[dict[str, Any], ...]:
    return entries[-last:] if last else entries


def _entries(count: int) -> str:
    return f"{count:,} {'entry' if count == 1 else 'entries'}"


def parse_head(data: bytes) -> Head | None:
    """Return the stored entry, None when the data is none."""
    try:
        found = json.loads(data)
        seq, value = found["seq"], found["hash"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return Head(seq=seq, hash=value) if type(seq) is int and seq > 0 and isinstance(value, str) else None


# -- on the disk


def audit(settings: Settings) -> tuple[Report, str]:
    """Verify the log and store its last entry; return the report, and a warning when the entry could not be stored.

    Raises CheckFailed when the log or the stored entry cannot be read.
    """
    stored = files.read_bytes(settings.audit_head, CheckFailed)
    head = None if stored is None else parse_head(stored)
    if stored is not None and head is None:
        raise CheckFailed(
            f"{settings.audit_head}, which stores the last verified entry, was changed",
            hint="find out why; without the file `io3ops audit` starts again, and cannot detect lost entries of the past",
        )
    report = verify(io.BytesIO(files.read_bytes(settings.audit_file, CheckFailed) or b""), head)
    if report.intact and report.head and report.head != head:
        line = json.dumps({"seq": report.head.seq, "hash": report.head.hash}) + "\n"
        try:
            files.write_atomic(settings.audit_head, line.encode(), 0o600)
        except NotWritable as error:
            return report, f"warning: the last verified entry could not be stored: {error.message}"
    return report, ""
