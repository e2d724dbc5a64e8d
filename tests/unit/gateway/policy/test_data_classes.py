"""The data class of a request: every place that may set it, and internal wins."""

from __future__ import annotations

import itertools
from typing import Any
from urllib.parse import quote

import pytest

from io3ops_gateway.errors import Refusal
from io3ops_gateway.policy.data_classes import Decision, decide, mark, metadata

Headers = list[tuple[bytes, bytes]]

# (headers, body) with a mark in each place that is documented for some client.
PLACES: dict[str, Any] = {
    "header": lambda c: ([(b"x-io3-data-class", c.encode())], {}),
    "tags header": lambda c: ([(b"x-litellm-tags", f"a, {c}".encode())], {}),
    "tags header, in words": lambda c: ([(b"x-litellm-tags", f"data_class:{c},b".encode())], {}),
    "body": lambda c: ([], {"data_class": c}),
    "tags": lambda c: ([], {"tags": ["team-a", c]}),
    "tags, in words": lambda c: ([], {"tags": [f"data_class:{c}"]}),
    "tags, in words with a space": lambda c: ([], {"tags": [f"Data_Class: {c}"]}),
    "one tag": lambda c: ([], {"tags": c}),
    "metadata": lambda c: ([], {"metadata": {"data_class": c}}),
    "metadata tags": lambda c: ([], {"metadata": {"tags": [c]}}),
    "litellm_metadata": lambda c: ([], {"litellm_metadata": {"data_class": c}}),
    "litellm_metadata tags": lambda c: ([], {"litellm_metadata": {"tags": [f"data_class:{c}"]}}),
    "extra_body": lambda c: ([], {"extra_body": {"data_class": c}}),
    "extra_body metadata": lambda c: ([], {"extra_body": {"metadata": {"data_class": c}}}),
    "extra_body tags": lambda c: ([], {"extra_body": {"tags": [c]}}),
}


def said(place: str, data_class: str) -> tuple[Headers, dict[str, Any]]:
    headers, body = PLACES[place](data_class)
    return headers, body


@pytest.mark.parametrize("data_class", ["internal", "public"])
@pytest.mark.parametrize("place", PLACES)
def test_every_place_of_a_mark_is_read(place: str, data_class: str) -> None:
    headers, body = said(place, data_class)
    # A tag may make a prompt internal, and never public: applications tag things `public` for reasons of their own.
    expected = "" if "tag" in place and data_class == "public" else data_class
    assert mark(headers, body) == expected
    assert mark([*headers, (b"accept", b"*/*")], {"model": "m", **body}) == expected


@pytest.mark.parametrize("place", [place for place in PLACES if "tag" not in place])
def test_a_public_tag_takes_nothing_from_a_public_mark(place: str) -> None:
    headers, body = said(place, "public")
    assert mark([*headers, (b"x-litellm-tags", b"public")], body) == "public"


SLIPS = [
    "dataClass", "DataClass", "DATA_CLASS", "data-class", "Data-Class", "dataclass", "data class", "data.class", "data_class ", "_data_class",
    "io3_data_class", "x-io3-data-class", "X-IO3-Data-Class", "x_io3ops_data_class", "litellm_data_class", "\uff44ata_class",
    "data_clas", "data_classs", "dta_class", "data_calss", "data_klass",
]  # fmt: skip


@pytest.mark.parametrize("name", SLIPS)
def test_a_misspelt_mark_is_refused(name: str) -> None:
    """Silently unread, it would let the table's default decide where the prompt goes."""
    bodies: list[dict[str, Any]] = [
        {name: "internal"},
        {"metadata": {name: "internal"}},
        {"litellm_metadata": {name: "public"}},
        {"extra_body": {"metadata": {name: "internal"}}},
        {"options": {"a": [{name: "internal"}]}},
        {"messages": [{"role": "user", "content": "x", name: "internal"}]},
    ]
    for body in bodies:
        with pytest.raises(Refusal) as caught:
            mark([], body)
        assert (caught.value.status, caught.value.code) == (400, "unread_mark") and repr(name) in caught.value.message
    with pytest.raises(Refusal) as caught:
        mark([], {}, query=f"a=1&{quote(name)}=internal".encode())
    assert caught.value.code == "unread_mark"


@pytest.mark.parametrize(
    "name",
    [
        "x-io3ops-data-class", "x_io3_data_class", "x-io3_data-class", "x-data-class", "x-dataclass", "data-class", "data_class", "io3-data-class",
        "x-io3-dataclass", "x-io3-data-clas", "x-data-clas", "x-iii-data-class", "x-litellm-data-class", "x-io3ops-override", "x_io3_override",
        "x_litellm_tags", "x-litellm-tag", "x-litellmtags",
    ],
)  # fmt: skip
def test_a_misspelt_header_is_refused(name: str) -> None:
    with pytest.raises(Refusal) as caught:
        mark([(b"accept", b"*/*"), (name.encode(), b"internal")], {})
    assert (caught.value.status, caught.value.code) == (400, "unknown_header") and name in caught.value.message


@pytest.mark.parametrize(
    "name", ["Metadata", "METADATA", "meta_data", "litellm-metadata", "litellmMetadata", "extraBody", "extra-body", "Tags", "TAGS", "overrideReason"]
)  # fmt: skip
def test_a_misspelt_metadata_field_is_refused(name: str) -> None:
    for body in ({name: {"data_class": "internal"}}, {"extra_body": {name: {"data_class": "internal"}}}):
        with pytest.raises(Refusal) as caught:
            mark([], body)
        assert (caught.value.status, caught.value.code) == (400, "unread_mark")


@pytest.mark.parametrize(
    "body",
    [
        {"met-a-data": {"data_class": "internal"}},
        {"options": {"data_class": "internal"}},
        {"metadata": {"user": {"data_class": "internal"}}},
        {"extra_body": {"extra_headers": {"x-io3-data-class": "internal"}}},
        {"extra_headers": {"x-io3-data-class": "internal"}},
        {"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": "y", "data_class": "internal"}]},
        {"messages": [{"role": "user", "content": "x", "metadata": {"data_class": "internal"}}]},
        {"input": [{"role": "user", "content": "x", "data_class": "internal"}]},
    ],
)
def test_a_mark_where_nothing_reads_it_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        mark([], body)
    assert (caught.value.status, caught.value.code) == (400, "unread_mark")


@pytest.mark.parametrize("tag", ["data_class=internal", "data-class:internal", "dataClass: internal", "DATA_CLASS = internal", "dataclass:public", "data class:internal"])  # fmt: skip
def test_a_tag_that_was_meant_as_a_mark_is_refused(tag: str) -> None:
    for headers, body in (
        ([], {"tags": [tag]}),
        ([], {"metadata": {"tags": ["a", tag]}}),
        ([(b"x-litellm-tags", tag.encode())], {}),
    ):
        with pytest.raises(Refusal) as caught:
            mark(headers, body)
        assert (caught.value.status, caught.value.code) == (400, "unread_mark")


def test_lookalikes_of_a_mark_in_the_prompt_are_accepted() -> None:
    schema = {"type": "object", "properties": {"data_class": {"type": "string"}, "dataClass": {}, "metadata": {}}}
    body = {
        "model": "m",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "data-class: internal", "data_class": "x"}]},
            {"role": "assistant", "content": None, "tool_calls": [{"function": {"arguments": {"data_class": "x"}}}]},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}},
        "metadata": {"class": "economy", "data": "x", "classification": "x", "database_class": "x", "tag": "x", "user_id": "1"},
        "options": {"num_ctx": 1},
        "tags": ["data", "class:first", "env=prod", "dataset:x"],
        "user": "data_class",
    }  # fmt: skip
    headers = [
        (b"user-agent", b"dataclass"),
        (b"x-stainless-lang", b"python"),
        (b"x-request-id", b"1"),
        (b"x-api-key", b"k"),
    ]
    assert mark(headers, body, query=b"api-version=2024-01-01&beta=true") == ""


@pytest.mark.parametrize("written", ["INTERNAL", " Internal ", "internal\t"])
@pytest.mark.parametrize("place", PLACES)
def test_case_and_spaces_do_not_hide_a_mark(place: str, written: str) -> None:
    assert mark(*said(place, written)) == "internal"


def test_a_suffix_is_a_mark_and_no_mark_is_empty() -> None:
    assert mark([], {}, "internal") == "internal" and mark([], {}, "public") == "public"
    assert mark([], {"metadata": {}, "tags": [], "extra_body": None, "data_class": None}) == ""
    assert mark([(b"tags", b"public"), (b"user-agent", b"internal,public")], {}) == ""
    assert mark([(b"x-litellm-tags", b"a,,b")], {"tags": ["team-internal", "internal-1", "publicity"]}) == ""


def together(one: str, other: str) -> tuple[Headers, dict[str, Any], str] | None:
    """A request with one place that says internal and another that says public; None when they are the same place."""
    headers: Headers = []
    body: dict[str, Any] = {}
    suffix = ""
    for place, data_class in ((one, "internal"), (other, "public")):
        if place == "suffix":
            suffix = data_class
            continue
        more, fields = said(place, data_class)
        headers += more
        for name, value in fields.items():
            inner = body.get(name, {})
            if not isinstance(value, dict) or not isinstance(inner, dict) or set(inner) & set(value):
                if name in body:
                    return None
                body[name] = value
            else:
                body[name] = inner | value
    return headers, body, suffix


PAIRS = [pair for pair in itertools.permutations([*PLACES, "suffix"], 2) if together(*pair)]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_two_places_that_contradict_each_other_are_refused(one: str, other: str) -> None:
    found = together(one, other)
    assert found is not None and len(PAIRS) > 200
    with pytest.raises(Refusal) as caught:
        mark(*found)
    assert (caught.value.status, caught.value.code) == (400, "contradictory_data_class")


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([(b"x-io3-data-class", b"internal"), (b"x-io3-data-class", b"public")], {}),
        ([(b"x-litellm-tags", b"internal,public")], {}),
        ([(b"x-litellm-tags", b"internal"), (b"x-litellm-tags", b"public")], {}),
        ([], {"tags": ["internal", "data_class:public"]}),
    ],
)
def test_one_place_that_contradicts_itself_is_refused(headers: Headers, body: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        mark(headers, body)
    assert (caught.value.status, caught.value.code) == (400, "contradictory_data_class")


@pytest.mark.parametrize(
    "word", ["secret", "", " ", "intern", "internal,public", "interna\u0131", "\uff49nternal", "none", "x" * 5000]
)
@pytest.mark.parametrize("place", ["body", "metadata", "litellm_metadata", "extra_body", "extra_body metadata", "tags, in words"])  # fmt: skip
def test_an_unknown_class_in_the_body_is_refused(place: str, word: str) -> None:
    """Silently unmarked would mean: possibly public."""
    with pytest.raises(Refusal) as caught:
        mark(*said(place, word))
    assert (caught.value.status, caught.value.code) == (400, "unknown_data_class")
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("value", [b"secret", b"", b"internal, internal", b"internal\xa0;", b"\xff", b"internal\0"])
def test_an_unknown_class_in_the_header_is_refused(value: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        mark([(b"x-io3-data-class", value)], {})
    assert caught.value.code == "unknown_data_class"


@pytest.mark.parametrize("value", [1, 0, True, False, ["internal"], [], {"internal": 1}, {}, 1.5])
@pytest.mark.parametrize("place", ["data_class", "metadata", "litellm_metadata", "extra_body"])
def test_a_mark_that_is_not_text_is_refused(place: str, value: object) -> None:
    body = {"data_class": value} if place == "data_class" else {place: {"data_class": value}}
    with pytest.raises(Refusal) as caught:
        mark([], body)
    assert caught.value.code == "unknown_data_class"


@pytest.mark.parametrize("value", ["internal", '{"data_class": "internal"}', ["internal"], [], 1, True, False, "", 0])
@pytest.mark.parametrize("place", ["metadata", "litellm_metadata", "extra_body"])
def test_malformed_metadata_is_refused(place: str, value: object) -> None:
    for body in ({place: value}, {"extra_body": {place: value}}):
        with pytest.raises(Refusal) as caught:
            mark([], body)
        assert (caught.value.status, caught.value.code) == (400, "bad_metadata")


@pytest.mark.parametrize("tags", [[1], [None], [["internal"]], [{"data_class": "internal"}], 1, True, {"internal": 1}])
def test_malformed_tags_are_refused(tags: object) -> None:
    for body in ({"tags": tags}, {"metadata": {"tags": tags}}):
        with pytest.raises(Refusal) as caught:
            mark([], body)
        assert caught.value.code == "bad_metadata"


@pytest.mark.parametrize("depth", [3, 4, 900])
def test_a_mark_nested_too_deeply_is_refused(depth: int) -> None:
    body: dict[str, Any] = {"metadata": {"data_class": "internal"}}
    assert mark([], {"extra_body": body}) == "internal"
    for _ in range(depth):
        body = {"extra_body": body}
    with pytest.raises(Refusal) as caught:
        mark([], body)
    assert (caught.value.status, caught.value.code) == (400, "bad_metadata")


def test_tags_in_one_text_are_read_like_the_header() -> None:
    assert mark([], {"tags": "team-a,internal"}) == "internal"


@pytest.mark.parametrize(
    ("mode", "key", "request_", "default"),
    list(itertools.product(*[["", "internal", "public"]] * 3, ["internal", "public"])),
)
def test_internal_wins_from_any_source(mode: str, key: str, request_: str, default: str) -> None:
    """The whole truth table: 54 rows."""
    found = decide(mode, key, request_, default)
    everybody = {mode, key, request_}
    if "internal" in everybody:
        assert found.data_class == "internal" and found.source != "default"
    elif "public" in everybody:
        assert found.data_class == "public" and found.source != "default"
    else:
        assert found == Decision(default, "default")
    if found.source != "default":
        assert {"mode": mode, "key": key, "request": request_}[found.source] == found.data_class


def test_metadata_is_read_from_every_field_that_sdks_use() -> None:
    for body in (
        {"metadata": {"n": "v"}},
        {"litellm_metadata": {"n": "v"}},
        {"extra_body": {"metadata": {"n": "v"}}},
        {"extra_body": {"n": "v"}},
    ):
        assert metadata(body, "n") == "v"
    assert metadata({"n": "v", "metadata": {"n": None}}, "n") is None
