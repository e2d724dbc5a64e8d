"""The routing table: what is accepted, and that every mistake is named with its place."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from io3ops.errors import TableInvalid
from io3ops.routing.check import check
from io3ops.routing.table import parse_table, read_document, resolved

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
    _, problems = read_document(data)
    assert any(words in p.message for p in problems), problems


def test_a_byte_order_mark_and_crlf_are_accepted(root: Path) -> None:
    """Editors on Windows write both."""
    text = (root / "runtime/routing.yaml").read_text("utf-8")
    assert parse_table(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(), "t") == parse_table(text.encode(), "t")


def test_defaults_are_written_once_and_say_where_they_come_from() -> None:
    """An entry overrides one key of a section and keeps the rest of the default."""
    text = b"""version: 1
defaults: {context: 2048, timeouts: {step: 30s, first_token: 5s}}
providers: {local: {kind: ollama}}
models: {m: {provider: local, source: {ollama: "m:1b"}}}
modes: {executor: {chain: [m], timeouts: {step: 20s}}}
"""
    mode = parse_table(text, "t").modes[0]
    assert (mode.step, mode.first_token, mode.total) == (20, 5, 0)
    document, _ = read_document(text)
    assert document is not None
    rows = {r.path: (r.value, r.origin) for r in resolved(document)}
    assert rows["models.m.context"] == ("2048", "defaults, line 2")
    assert rows["modes.executor.timeouts.step"] == ("20s", "line 5")
    assert rows["modes.executor.timeouts.first_token"] == ("5s", "defaults, line 2")
    assert rows["modes.executor.data_class"] == ("internal", "built in")


def test_warnings_do_not_stop() -> None:
    text = b"""version: 1
providers: {local: {kind: ollama}, away: {kind: openai, key: openai}}
models: {m: {provider: local, source: {ollama: "m:1b"}}, g: {provider: away, source: {external: gpt}}}
modes: {open: {chain: [m, g], data_class: public}}
"""
    table = parse_table(text, "t")
    document, _ = read_document(text)
    assert document is not None
    found = check(document, table)
    assert [p.level for p in found] == ["warning"] and "'g' is never tried" in found[0].message


def test_two_hundred_problems_are_all_reported() -> None:
    rows = "\n".join(f"  m{i}: {{provider: lcal, source: {{ollama: x}}}}" for i in range(200))
    text = f"version: 1\nproviders: {{local: {{kind: ollama}}}}\nmodels:\n{rows}\nmodes: {{a: {{chain: [m1]}}}}\n"
    with pytest.raises(TableInvalid, match="200 problems"):
        parse_table(text.encode(), "t")
