"""The control file of `io3ops record`, which host and gateway read strictly."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from io3ops_shared.recording_file import LONGEST, RecordedMode, parse, render


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.floats(0, 1e12) | st.integers(0, 10**12), max_size=4))
def test_what_is_written_is_read_back(modes: dict[str, float]) -> None:
    assert parse(render(modes)) == {mode: RecordedMode(until) for mode, until in modes.items()}


@given(st.binary(max_size=60) | st.builds(lambda until: json.dumps({"version": 1, "modes": {"a": {"until": until}}}).encode(), st.none() | st.booleans() | st.text() | st.floats() | st.integers()))  # fmt: skip
def test_anything_else_is_a_value_error(data: bytes) -> None:
    try:
        found = parse(data)
    except ValueError:
        return
    assert all(type(mode.until) in (int, float) for mode in found.values())


def test_a_number_too_large_for_a_float_is_refused() -> None:
    with pytest.raises(ValueError, match="io3ops record"):
        parse(b'{"version": 1, "modes": {"a": {"until": 1' + b"0" * 400 + b"}}}")


def test_a_mode_is_recorded_until_its_time_and_never_longer_than_a_day() -> None:
    now = 1000.0
    assert [RecordedMode(now + more).active(now) for more in (-1, 0, 1, LONGEST, LONGEST + 1)] == [
        False, False, True, True, False,
    ]  # fmt: skip
