"""The routing table: what is accepted, and that every mistake is named with its place."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from io3ops.errors import TableInvalid
from io3ops.routing.table import parse_table, read_table

INVALID = sorted((Path(__file__).parents[1] / "invalid").glob("*.yaml"))


@pytest.mark.parametrize("path", INVALID, ids=lambda p: p.stem)
def test_each_invalid_table_is_refused_with_the_expected_words(path: Path) -> None:
    """The first lines of a file in tests/invalid say what the error must contain."""
    data = path.read_bytes()
    expected = [line.removeprefix("# expect: ") for line in data.decode().splitlines() if line.startswith("# expect: ")]
    assert expected
    with pytest.raises(TableInvalid) as caught:
        parse_table(data, "routing.yaml")
    for words in expected:
        assert words in caught.value.details
    for line in caught.value.details.splitlines():
        assert line.startswith("routing.yaml:"), "every problem names its place"
    assert "hunter2" not in caught.value.details, "a secret pasted by mistake is not echoed"


@pytest.mark.parametrize("name", ["starter", "laptop", "workstation"])
def test_presets_are_valid_and_offer_the_same_modes(name: str) -> None:
    """An application written for one preset works with every other."""
    table = parse_table(files("io3ops.presets").joinpath(f"{name}.yaml").read_bytes(), name)
    assert [mode.name for mode in table.modes] == ["executor", "synthesizer", "governance", "embed"]
    assert all(model.download_mb and model.memory_mb for model in table.models)


def test_the_shipped_table_is_the_starter_preset(root: Path) -> None:
    """A new clone must come up without a model hub."""
    assert (root / "runtime/routing.yaml").read_bytes() == files("io3ops.presets").joinpath("starter.yaml").read_bytes()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"  \n\n", "the file is empty"),
        (b"\x00\x01\xff\xfe", "not UTF-8 text"),
        (b"\x00version: 1", "not valid YAML"),
        (b"a: " * 100_000, "not valid YAML"),
        (b"[" * 3000, "not valid YAML"),
        (b"x" * 5_000_001, "at most"),
        (b"version: 010\nproviders: {}\nmodels: {}\nmodes: {}", "must be a whole number"),
    ],
    ids=["empty", "blank", "binary", "nul", "endless", "deep", "huge", "octal"],
)
def test_bytes_that_are_no_table_give_problems_not_tracebacks(data: bytes, words: str) -> None:
    _, problems = read_table(data)
    assert any(words in p.message for p in problems), problems


def test_a_byte_order_mark_and_crlf_are_accepted(root: Path) -> None:
    """Editors on Windows write both."""
    text = (root / "runtime/routing.yaml").read_text("utf-8")
    assert parse_table(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(), "t") == parse_table(text.encode(), "t")
