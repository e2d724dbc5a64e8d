"""The routing table: valid ones are accepted, and every mistake is reported with its place."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import get_args

import pytest

from io3ops.errors import TableInvalid
from io3ops.routing import language
from io3ops.routing.check import check
from io3ops.routing.load import parse_table
from io3ops.routing.plan import make_plan
from io3ops.routing.problems import Severity
from io3ops.routing.table import read_document, resolved
from io3ops_shared import names

INVALID = sorted((Path(__file__).parents[2] / "invalid").glob("*.yaml"))


@pytest.mark.parametrize("path", INVALID, ids=lambda p: p.stem)
def test_each_invalid_table_is_refused_with_the_expected_words(path: Path) -> None:
    """The first lines of each file in tests/invalid contain the expected words."""
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
        (b"x" * 5_000_001, "5000001 bytes; the limit is 5000000"),
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


def test_inherited_values_name_their_line_in_defaults() -> None:
    """An entry overrides one key of a section and keeps the rest of the default."""
    text = b"""version: 1
defaults: {context: 2048, timeouts: {step: 30s, first_token: 5s}}
providers: {local: {kind: ollama}}
models: {m: {provider: local, source: {ollama: "m:1b"}}}
modes: {executor: {chain: [m], timeouts: {step: 20s}}}
"""
    mode = parse_table(text, "t").modes[0]
    assert (mode.step_times[0], mode.first_token, mode.total) == (20, 5, 0)
    document, _ = read_document(text)
    assert document is not None
    rows = {r.path: (r.value, r.origin) for r in resolved(document)}
    assert rows["models.m.context"] == ("2048", "defaults, line 2")
    assert rows["modes.executor.timeouts.step"] == ("20s", "line 5")
    assert rows["modes.executor.timeouts.first_token"] == ("5s", "defaults, line 2")
    assert rows["defaults.data_class"] == ("internal", "built in")
    assert "modes.executor.data_class" not in rows, "a mode that says no class says nothing"


@pytest.mark.parametrize(
    ("defaults", "expected"),
    [("", ("internal", "built in")), ("defaults: {data_class: public}", ("public", "line 2"))],
)
def test_only_the_table_can_make_unmarked_prompts_public(defaults: str, expected: tuple[str, str]) -> None:
    text = f"""version: 1
{defaults}
providers: {{local: {{kind: ollama}}}}
models: {{m: {{provider: local, source: {{ollama: "m:1b"}}}}}}
modes: {{executor: {{chain: [m]}}}}
""".encode()
    assert parse_table(text, "t").data_class == expected[0]
    document, _ = read_document(text)
    assert document is not None
    assert {r.path: (r.value, r.origin) for r in resolved(document)}["defaults.data_class"] == expected


@pytest.mark.parametrize("chain", ["[[]]", "[{}]", "[m, []]", "[[], m]"])
def test_an_empty_step_is_a_problem(chain: str) -> None:
    text = f"""version: 1
providers: {{local: {{kind: ollama}}}}
models: {{m: {{provider: local, source: {{ollama: "m:1b"}}}}}}
modes: {{executor: {{chain: {chain}}}}}
"""
    with pytest.raises(TableInvalid):
        parse_table(text.encode(), "t")


def test_a_warning_does_not_prevent_parsing() -> None:
    text = b"""version: 1
providers: {local: {kind: ollama}, away: {kind: openai, key: openai}}
models: {m: {provider: local, source: {ollama: "m:1b"}}, g: {provider: away, source: {external: gpt}}}
modes: {open: {chain: [m, g], data_class: public}}
"""
    table = parse_table(text, "t")
    document, _ = read_document(text)
    assert document is not None
    found = check(document, table)
    assert [p.severity for p in found] == [Severity.WARNING] and "'g' is never tried" in found[0].message


def test_two_hundred_problems_are_all_reported() -> None:
    rows = "\n".join(f"  m{i}: {{provider: lcal, source: {{ollama: x}}}}" for i in range(200))
    text = f"version: 1\nproviders: {{local: {{kind: ollama}}}}\nmodels:\n{rows}\nmodes: {{a: {{chain: [m1]}}}}\n"
    with pytest.raises(TableInvalid, match="200 problems"):
        parse_table(text.encode(), "t")


CLOUD = """version: 1
providers:
  local: {{kind: ollama}}
  cloud: {{{cloud}}}
models:
  small: {{provider: local, source: {{ollama: "small:1b"}}}}
  gpt: {{provider: cloud, source: {{external: gpt}}}}
modes:
  open: {{chain: [small, gpt], data_class: public{more}}}
"""


@pytest.mark.parametrize("flag", ["", ", enabled: false", ", enabled: true"])
def test_a_cloud_provider_is_off_until_the_table_enables_it(flag: str) -> None:
    table = parse_table(CLOUD.format(cloud="kind: openai, key: openai" + flag, more="").encode(), "t")
    cloud = table.provider("cloud")
    assert (cloud.local, cloud.enabled) == (False, "true" in flag)


@pytest.mark.parametrize(
    ("words", "local"),
    [
        ("kind: openai_compatible, url: 'http://localhost:8000/v1'", True),
        ("kind: openai_compatible, url: 'http://127.0.0.1:8000/v1'", True),
        ("kind: openai_compatible, url: 'http://10.0.0.5:8000/v1', locality: local", True),
        ("kind: openai_compatible, url: 'http://localhost.evil.example/v1', locality: local", True),
        ("kind: openai_compatible, url: 'https://localhost.evil.example/v1', locality: cloud, key: k", False),
        ("kind: openai_compatible, url: 'https://localhost:8000/v1', locality: cloud, key: k", False),
        ("kind: openai, url: 'https://localhost:8000/v1', key: k", False),
    ],
)
def test_a_provider_is_local_on_this_machine_or_if_the_table_says_so(words: str, local: bool) -> None:
    assert parse_table(CLOUD.format(cloud=words, more="").encode(), "t").provider("cloud").local is local


@pytest.mark.parametrize(
    "host", ["localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.2", "0.0.0.0", "gateway"]
)
def test_a_name_that_only_looks_like_this_machine_is_not_local(host: str) -> None:
    with pytest.raises(TableInvalid) as caught:
        parse_table(CLOUD.format(cloud=f"kind: openai_compatible, url: 'http://{host}/v1'", more="").encode(), "t")
    assert "an unknown address counts as cloud" in caught.value.details


@pytest.mark.parametrize("scheme", ["HTTP", "Http"])
def test_prompts_leave_only_over_https_however_http_is_written(scheme: str) -> None:
    cloud = f"kind: openai_compatible, url: '{scheme}://api.example.com/v1', locality: cloud, key: k, enabled: true"
    with pytest.raises(TableInvalid):
        parse_table(CLOUD.format(cloud=cloud, more="").encode(), "t")


@pytest.mark.parametrize("alias", ["gpt:internal", "open:internal", "other:public"])
def test_an_alias_cannot_end_with_a_data_class(alias: str) -> None:
    """The gateway would find the alias `gpt:internal` before it reads the suffix, and serve it as public."""
    with pytest.raises(TableInvalid):
        parse_table(CLOUD.format(cloud="kind: openai, key: k", more=f", aliases: ['{alias}']").encode(), "t")


def test_no_two_deployments_can_have_the_same_id() -> None:
    """Ids consist of names that may contain dots: mode `a` with model `1.b`, and mode `a.1` with model `b`."""
    text = b"""version: 1
providers: {local: {kind: ollama}, box: {kind: ollama, url: "http://localhost:1"}}
models: {1.b: {provider: local, source: {ollama: "a:1b"}}, b: {provider: box, source: {external: g}}}
modes: {a: {chain: [1.b]}, a.1: {chain: [b]}}
"""
    try:
        plan = make_plan(parse_table(text, "t"))
    except TableInvalid:
        return
    assert len({d.id for d in plan.deployments}) == len(plan.deployments)


def test_the_table_and_the_gateway_know_the_same_words() -> None:
    """The table declares them as literal types, the gateway as strings."""
    assert language.DATA_CLASSES == names.DATA_CLASSES
    assert get_args(language.Truncation) == names.TRUNCATIONS
