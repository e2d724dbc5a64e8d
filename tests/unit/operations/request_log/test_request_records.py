"""Reading the request log's files newest first, and showing a client's texts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from io3ops.errors import LogMissing
from io3ops.operations.request_log import records
from io3ops.operations.request_log.records import newest_records, shown

QUICK = settings(max_examples=150, deadline=None)


def line(number: int, **more: Any) -> bytes:
    made = {"v": 1, "time": f"2026-11-24T10:00:{number % 60:02d}.000Z", "id": f"id-{number}", "status": 200, "ms": 1.5}
    return json.dumps(made | more, separators=(",", ":")).encode()


@QUICK
@given(st.text(max_size=100), st.integers(1, 50))
@example("\x1b[2J\r\n‮\ud800", 50)
def test_shown_text_is_printable_and_short(value: str, most: int) -> None:
    made = shown(value, most)
    assert made.isprintable() and len(made) <= most
    assert made == value or not value.isprintable() or len(value) > most


def test_files_are_read_newest_first(tmp_path: Path) -> None:
    names = (
        "requests.jsonl",
        "requests-20261124T100000Z-10.jsonl",
        "requests-20261124T100000Z-9.jsonl",
        "requests-20261123T090000Z-1.jsonl",
    )
    for place, name in enumerate(names):
        first = 100 - 10 * place
        (tmp_path / name).write_bytes(b"".join(line(n) + b"\n" for n in range(first - 2, first + 1)) + b"broken\n")
    for other in ("other.jsonl", "requests-mine.jsonl"):
        (tmp_path / other).write_bytes(line(7))
    assert [r.id for r in newest_records(tmp_path)] == [
        f"id-{n}" for top in (100, 90, 80, 70) for n in (top, top - 1, top - 2)
    ]
    assert [r.id for r in newest_records(tmp_path, b"id-79")] == ["id-79"]
    assert list(newest_records(tmp_path / "nothing")) == []


def test_a_file_renamed_while_it_is_read_is_read_once(tmp_path: Path) -> None:
    current = tmp_path / "requests.jsonl"
    current.write_bytes(line(1) + b"\n" + line(2) + b"\n")
    found = newest_records(tmp_path)
    assert next(found).id == "id-2"
    current.rename(tmp_path / "requests-20261124T100000Z-1.jsonl")
    current.write_bytes(line(3) + b"\n")
    assert [r.id for r in found] == ["id-1"]


def test_the_error_names_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "requests.jsonl").mkdir()
    with pytest.raises(LogMissing, match=re.escape("requests.jsonl")):
        list(newest_records(tmp_path))


def test_the_error_names_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(LogMissing, match="Permission denied"):
        records.require(tmp_path)
