"""The log of overrides: a complete chain passes, and every kind of change is detected and named."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from io3ops.operations.privacy import audit
from io3ops.operations.privacy.audit import Head
from io3ops_shared import digests
from io3ops_shared.digests import NO_ENTRY


def entry(seq: int, prev: str, **change: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "v": 1,
        "seq": seq,
        "time": f"2026-11-24T10:00:{seq:02d}.123Z",
        "key": "alice",
        "mode": "synthesizer",
        "class": "internal",
        "source": "default",
        "reason": f"reason {seq} ä",
        "provider": "openai",
        "deployment": "synthesizer.2.big",
        "prev": prev,
    } | change
    return made | {"hash": digests.of_audit_entry(made)}


def log(count: int, **change: Any) -> list[bytes]:
    lines, prev = [], NO_ENTRY
    for seq in range(1, count + 1):
        made = entry(seq, prev, **change)
        lines.append(json.dumps(made).encode() + b"\n")
        prev = made["hash"]
    return lines


def test_the_hash_of_an_entry_is_fixed_by_contract() -> None:
    made = entry(1, NO_ENTRY)
    bare = {k: v for k, v in made.items() if k != "hash"}
    text = json.dumps(bare, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    assert made["hash"] == hashlib.sha256(text.encode()).hexdigest() == digests.of_audit_entry(made)
    # A fixed value, so that host and gateway cannot change the hash together.
    assert digests.of_audit_entry({"b": 1, "a": "ä"}) == hashlib.sha256(b'{"a":"\\u00e4","b":1}').hexdigest()


def test_a_complete_log_passes_and_reports_its_last_entry() -> None:
    report = audit.verify(log(12))
    assert report.intact and len(report.entries) == 12 and not report.torn
    last = json.loads(log(12)[-1])["hash"]
    assert report.head == Head(seq=12, hash=last)
    assert audit.text(report).splitlines()[-1] == f"12 entries, chain intact, last hash {last[:12]}…"
    assert audit.text(audit.verify(log(1))).splitlines()[-1].startswith("1 entry, ")


def test_a_missing_log_is_no_fault() -> None:
    report = audit.verify([])
    assert report.intact and report.head is None and audit.text(report) == "no override was ever used"


@pytest.mark.parametrize("field", ["time", "key", "mode", "class", "source", "reason", "provider", "deployment"])
def test_a_changed_field_is_detected(field: str) -> None:
    lines = log(5)
    changed = json.loads(lines[2]) | {field: "other"}
    lines[2] = json.dumps(changed).encode() + b"\n"
    report = audit.verify(lines)
    assert (report.line, len(report.entries)) == (3, 2) and "hash is wrong" in report.problem
    assert "chain broken after 2 entries: line 3: " in audit.text(report)


def test_a_recomputed_hash_breaks_the_next_entry() -> None:
    lines = log(5)
    lines[2] = json.dumps(entry(3, json.loads(lines[1])["hash"], reason="other")).encode() + b"\n"
    report = audit.verify(lines)
    assert report.line == 4 and "does not follow" in report.problem


@pytest.mark.parametrize(
    ("order", "bad"), [((1, 2, 3, 4), 1), ((0, 2, 3, 4), 2), ((0, 1, 1, 2), 3), ((1, 0, 2, 3), 1), ((0, 1, 3, 2), 3)]
)
def test_lost_repeated_and_swapped_lines_are_detected(order: tuple[int, ...], bad: int) -> None:
    lines = log(5)
    report = audit.verify([lines[i] for i in order])
    assert report.line == bad and "expected" in report.problem


def test_the_first_entry_must_not_follow_another() -> None:
    report = audit.verify([json.dumps(entry(1, "1" * 64)).encode() + b"\n"])
    assert report.line == 1 and "does not follow" in report.problem


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"\n", "not a JSON object"),
        (b"[]\n", "not a JSON object"),
        (b"{\n", "not a JSON object"),
        (b"\xff\n", "not a JSON object"),
        (b"[" * 100_000 + b"\n", "not a JSON object"),
        (b'{"v": 1, "seq": 1, "seq": 1}\n', "not a JSON object"),
        (b'{"v": true, "seq": 1}\n', "whole numbers"),
        (b'{"v": 1, "seq": 1.0}\n', "whole numbers"),
        (b'{"v": 2, "seq": 1}\n', "version 2"),
        (b'{"v": 1, "seq": 1}\n', "'time' is missing"),
        (json.dumps(entry(1, NO_ENTRY, reason=None)).encode() + b"\n", "'reason' is missing"),
    ],
)
def test_an_invalid_line_is_named_with_its_fault(line: bytes, words: str) -> None:
    report = audit.verify([line, *log(2)])
    assert report.line == 1 and words in report.problem and not report.entries


def test_an_incomplete_last_line_is_reported_and_does_not_count() -> None:
    lines = log(3)
    for cut in (1, 20, len(lines[2]) - 1):
        report = audit.verify([*lines[:2], lines[2][:cut]])
        assert report.intact and report.torn and len(report.entries) == 2
        assert "the last line is incomplete" in audit.text(report) and "2 entries, chain intact" in audit.text(report)


def test_a_log_passes_if_it_grew_or_stayed_the_same() -> None:
    assert audit.verify(log(3), audit.verify(log(3)).head).intact
    assert audit.verify(log(5), audit.verify(log(3)).head).intact


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_lines_cut_off_at_the_end_are_detected(kept: int) -> None:
    report = audit.verify(log(3)[:kept], Head(seq=3, hash=json.loads(log(3)[2])["hash"]))
    assert not report.intact and "it had 3 entries when it was last verified" in report.problem and report.line == 0
    assert "chain broken" in audit.text(report) and "no override" not in audit.text(report)


def test_a_verified_line_that_is_incomplete_now_counts_as_cut_off() -> None:
    lines = log(3)
    report = audit.verify([*lines[:2], lines[2][:-1]], audit.verify(lines).head)
    assert not report.intact and report.torn


def test_a_log_with_recomputed_hashes_is_detected() -> None:
    report = audit.verify(log(5, reason="nothing happened"), audit.verify(log(3)).head)
    assert report.line == 3 and "rewritten" in report.problem


def test_last_limits_what_is_shown_but_not_what_is_verified() -> None:
    lines = log(5)
    shown = audit.text(audit.verify(lines), 2)
    assert "reason 4" in shown and "reason 5" in shown and "reason 3" not in shown and "5 entries" in shown
    assert [e["seq"] for e in audit.verify(lines).data(2)["entries"]] == [4, 5]
    assert len(audit.verify(lines).data(None)["entries"]) == 5
    lines[0] = lines[0].replace(b"alice", b"bobby")
    assert not audit.verify(lines).intact


@pytest.mark.parametrize("field", ["time", "key", "mode", "class", "source", "provider", "reason"])
def test_an_entry_cannot_control_the_terminal(field: str) -> None:
    wild = "a\x1b[2J\r\n\u202eb\u0085\ud800ä"
    shown = audit.text(audit.verify(log(1, **{field: wild})))
    assert all(c.isprintable() for c in shown.replace("\n", "")) and len(shown.splitlines()) == 4
    assert r"a\x1b[2J\r\n\u202eb\x85\ud800ä" in shown


@pytest.mark.parametrize(
    "data", [b"", b"x", b"[]", b"{}", b"3", b'{"seq": 0, "hash": "a"}', b'{"seq": true, "hash": "a"}', b"\xff"]
)
def test_an_invalid_stored_entry_is_ignored(data: bytes) -> None:
    assert audit.parse_head(data) is None
    assert audit.parse_head(b'{"seq": 3, "hash": "ab"}') == Head(seq=3, hash="ab")
