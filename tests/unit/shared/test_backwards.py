"""Lines come from the last to the first, whatever the blocks in which the file is read."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from io3ops_shared.log_files import backwards

QUICK = settings(max_examples=150, deadline=None)


@QUICK
@given(
    st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")), max_size=20),
    st.booleans(),
    st.integers(1, 30),
)
def test_lines_come_from_the_last_to_the_first_whatever_the_block(lines: list[bytes], ended: bool, block: int) -> None:
    data = b"\n".join(lines) + (b"\n" if ended else b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backwards, "BLOCK", block)
        assert list(backwards.lines(io.BytesIO(data))) == [found for found in reversed(data.split(b"\n")) if found]
        needle = b"a"
        assert list(backwards.lines(io.BytesIO(data), needle)) == [
            f for f in reversed(data.split(b"\n")) if needle in f
        ]


def test_a_line_without_an_end_costs_no_memory_and_no_other_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backwards, "BLOCK", 7)
    monkeypatch.setattr(backwards, "LONGEST_LINE", 20)
    for long in (21, 28, 60, 100):
        assert list(backwards.lines(io.BytesIO(b"first\n" + b"x" * long + b"\nlast\n"))) in (
            [b"last", b"first"],
            [b"last", b"x" * long, b"first"],
        )
    assert list(backwards.lines(io.BytesIO(b"first\n" + b"x" * 100 + b"\nlast\n"))) == [b"last", b"first"]
    assert list(backwards.lines(io.BytesIO(b"x" * 100 + b"\nlast\n"))) == [b"last"]
    assert list(backwards.lines(io.BytesIO(b"first\n" + b"x" * 100))) == [b"first"]


def test_the_last_line_may_end_before_the_file_does() -> None:
    data = b"one\ntwo\nhalf of a li"
    assert list(backwards.lines(io.BytesIO(data), end=8)) == [b"two", b"one"]
    assert list(backwards.lines(io.BytesIO(data), end=0)) == []
