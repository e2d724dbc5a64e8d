"""The audit log as the gateway writes it, checked with the verification of `io3ops audit`."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from io3ops.operations.privacy import audit as reader
from io3ops_gateway.policy import audit_log
from io3ops_shared import digests

ENTRY: dict[str, Any] = {
    "key": "alice",
    "mode": "open",
    "class": "internal",
    "source": "mode",
    "reason": "the customer agreed: ticket 4711 — Grüße",
    "provider": "cloud",
    "deployment": "open.2.g",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def test_written_entries_pass_verification(path: Path) -> None:
    for number in range(5):
        audit_log.append(path, ENTRY | {"reason": f"reason number {number}"})
    report = reader.verify(lines(path))
    assert report.intact and not report.torn and [e["seq"] for e in report.entries] == [1, 2, 3, 4, 5]
    first, second = report.entries[:2]
    assert first["prev"] == digests.NO_ENTRY and second["prev"] == first["hash"]
    assert {k: first[k] for k in ENTRY if k != "reason"} == {k: v for k, v in ENTRY.items() if k != "reason"}
    assert set(first) == {*ENTRY, "v", "seq", "time", "prev", "hash"}, "and nothing of a prompt"


def test_an_entrys_hash_excludes_itself() -> None:
    made = {"v": 1, "b": "ä", "a": 1}
    assert digests.of_audit_entry(made) == digests.of_audit_entry(made | {"hash": "x"})


def test_the_time_is_utc_and_each_line_is_plain(path: Path) -> None:
    audit_log.append(path, ENTRY, datetime(2026, 11, 24, 10, 0, 0, 123456, UTC))
    (line,) = lines(path)
    assert json.loads(line)["time"] == "2026-11-24T10:00:00.123Z" and line.isascii() and line.count(b"\n") == 1


@pytest.mark.parametrize("reason", ["a\nb", "a\r\nb", "a\u2028b", '"}\n{"v": 1', "\\", "é😀" * 100])
def test_a_reason_cannot_break_the_line(path: Path, reason: str) -> None:
    audit_log.append(path, ENTRY | {"reason": reason})
    audit_log.append(path, ENTRY)
    report = reader.verify(lines(path))
    assert report.intact and report.entries[0]["reason"] == reason and len(report.entries) == 2


def test_the_file_is_private_from_the_first_line_on(path: Path) -> None:
    before = os.umask(0)
    try:
        audit_log.append(path, ENTRY)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kept", [1, 30, -1])
def test_a_torn_last_line_is_removed_and_the_chain_continues(path: Path, kept: int) -> None:
    """It was never acted upon: what is not on the disk does not leave."""
    for _ in range(3):
        audit_log.append(path, ENTRY)
    whole = lines(path)
    path.write_bytes(b"".join([*whole[:2], whole[2][:kept]]))
    audit_log.append(path, ENTRY | {"reason": "after the crash"})
    report = reader.verify(lines(path))
    assert report.intact and not report.torn
    assert [e["reason"] for e in report.entries] == [ENTRY["reason"], ENTRY["reason"], "after the crash"]


def test_a_torn_only_line_is_removed(path: Path) -> None:
    path.write_bytes(b'{"v": 1, "se')
    audit_log.append(path, ENTRY)
    assert reader.verify(lines(path)).intact and len(lines(path)) == 1


@pytest.mark.parametrize("content", [b"hello\n", b"[]\n", b"{}\n", b"\n", b'{"seq": 1}\n', b"\xff\n", b"3\n"])
def test_a_foreign_last_line_is_an_error(path: Path, content: bytes) -> None:
    """A chain that begins anew would hide what was there."""
    path.write_bytes(content)
    with pytest.raises((ValueError, KeyError, TypeError)):
        audit_log.append(path, ENTRY)
    assert path.read_bytes() == content


def test_what_was_written_is_never_changed(path: Path) -> None:
    audit_log.append(path, ENTRY)
    for _ in range(300):
        before = path.read_bytes()
        audit_log.append(path, ENTRY | {"reason": "x" * 300})
        assert path.read_bytes().startswith(before)
    assert path.stat().st_size > audit_log.TAIL
    assert reader.verify(lines(path)).intact and len(lines(path)) == 301


def test_concurrent_writers_make_one_chain(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: audit_log.append(path, ENTRY | {"reason": f"reason {number}"}), range(80)))
    report = reader.verify(lines(path))
    assert report.intact and sorted(e["reason"] for e in report.entries) == sorted(f"reason {n}" for n in range(80))


def test_an_entry_is_synced_before_append_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(path.read_bytes()))
    audit_log.append(path, ENTRY)
    assert synced == [path.read_bytes()] and synced[0].endswith(b"\n")


@pytest.mark.parametrize("call", ["write", "fsync", "open"])
def test_a_failed_sync_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OSError, match="No space"):
        audit_log.append(path, ENTRY)


def test_a_partial_write_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk takes what fits, without an error. The next entry would cut this one off as never acted upon."""
    audit_log.append(path, ENTRY)
    before, whole = path.read_bytes(), os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: whole(descriptor, data[:50]))
        with pytest.raises(OSError, match="No space left"):
            audit_log.append(path, ENTRY)
    assert path.read_bytes() == before, "and nothing of it stays"
    audit_log.append(path, ENTRY)
    assert reader.verify(lines(path)).intact
