"""The bodies that the edge reads, and those that it refuses: content type, coding, size, time, JSON, nesting."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.gateway.edge.house import POLICY, Answer, House

from io3ops_gateway.asgi import Message
from io3ops_gateway.edge import request_checks


@pytest.mark.parametrize(
    "kind", [b"application/json", b"Application/JSON", b"application/json; charset=utf-8", b" application/json ;x"]
)
def test_json_is_accepted(house: House, kind: bytes) -> None:
    assert house.ask(headers=[(b"content-type", kind)]).status == 200


@pytest.mark.parametrize(
    "kind",
    [b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x", b"", b"application/jsonx", b"text/json",
     b"application/json, text/plain", b"application/vnd.api+json", b"text/plain; application/json"],
)  # fmt: skip
def test_content_types_of_web_forms_are_refused(house: House, kind: bytes) -> None:
    for headers in ([(b"content-type", kind)], [(b"content-type", b"application/json"), (b"content-type", kind)]):
        found = house.ask(headers=headers)
        assert (found.status, found.code) == (415, "not_json")
    assert house.inner.scopes == []


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"deflate", b"zstd", b"identity, gzip", b"x"])
def test_an_encoded_body_is_refused(house: House, coding: bytes) -> None:
    found = house.ask(headers=[(b"content-encoding", coding)])
    assert (found.status, found.code) == (415, "encoded") and house.inner.scopes == []


@pytest.mark.parametrize("coding", [b"", b"identity", b" Identity "])
def test_an_identity_encoding_is_accepted(house: House, coding: bytes) -> None:
    assert house.ask(headers=[(b"content-encoding", coding)]).status == 200


@pytest.mark.parametrize(
    "body",
    [b"", b"x", b"[]", b"null", b"1", b'"x"', b"true", b'[{"model": "near"}]', b'{"model": "near"', b'{"model": "near"}{}',
     b'{"model": NaN}', b'{"model": "\xff"}', b"\xef\xbb\xbf{}", b"{'model': 'near'}", b"model=near", b"[" * 5000, b'{"a":"\\ud800"}'],
)  # fmt: skip
def test_a_body_that_is_not_a_json_object_is_refused(house: House, body: bytes) -> None:
    found = house.ask(body=body)
    assert (found.status, found.code) == (400, "not_json") and house.inner.scopes == []
    assert found.headers["connection"] == "close", "what is left of the body must not be the next request"


def test_a_body_may_be_exactly_as_long_as_the_limit(house: House) -> None:
    def sized(size: int) -> bytes:
        frame = b'{"model":"near","messages":[],"user":"%s"}'
        return frame % (b"x" * (size - len(frame) + 2))

    limit = POLICY.gateway.max_body
    exact, over = sized(limit), sized(limit + 1)
    assert house.ask(body=exact, headers=[(b"content-length", str(limit).encode())]).status == 200
    assert house.ask(body=exact).status == 200
    for found in (
        house.ask(body=over),
        house.ask(body=b"{}", headers=[(b"content-length", str(limit + 1).encode())]),
        house.ask(chunks=[{"type": "http.request", "body": over[:limit], "more_body": True},
                          {"type": "http.request", "body": over[limit:], "more_body": True}]),
    ):  # fmt: skip
        assert (found.status, found.code) == (413, "too_large")
        assert found.headers["connection"] == "close" and "2 MB" in found.body["error"]["message"]
    assert len(house.inner.scopes) == 2


def test_an_endless_body_is_refused_at_the_limit(house: House) -> None:
    """A client that announces nothing and never stops: refused as soon as the limit is passed."""
    found = house.ask(chunks=[{"type": "http.request", "body": b" " * 500_000, "more_body": True}] * 1000)
    assert found.status == 413


def test_a_body_may_come_in_pieces(house: House) -> None:
    pieces: list[Message] = [
        {"type": "http.request", "body": bytes([c]), "more_body": True} for c in b'{"model":"near"}'
    ]
    assert house.ask(chunks=[*pieces, {"type": "http.request"}]).status == 200
    assert house.inner.bodies == [{"model": "near"}]


def test_an_incomplete_body_is_refused(house: House) -> None:
    found = house.ask(chunks=[{"type": "http.request", "body": b'{"model":"near"}', "more_body": True}])
    assert (found.status, found.code) == (400, "cut") and house.inner.scopes == []


def test_a_body_that_does_not_arrive_times_out(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_checks, "BODY_SECONDS", 0.01)

    async def receive() -> Message:
        await asyncio.sleep(10)
        return {}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"x-api-key", b"sk-owner")]
    scope = {"type": "http", "method": "POST", "path": "/v1/embeddings", "headers": headers}
    asyncio.run(house.edge(scope, receive, send))
    assert (Answer(sent).status, Answer(sent).code) == (408, "too_slow")


@pytest.mark.parametrize(
    "model", [None, 1, "", [], ["near"], "near,near", "other", "near.1.a", "open:public.1.g", "near:secret", "*"]
)
def test_an_unknown_mode_is_not_found(house: House, model: object) -> None:
    found = house.ask(body={"model": model, "messages": []})
    assert (found.status, found.code) == (404, "model_not_found")
    assert found.body["error"]["type"] == "not_found_error"
    assert house.ask(body={"messages": []}).status == 404 and house.inner.scopes == []


def nested(depth: int) -> bytes:
    return b'{"model":"open","user":"x","response_format":' + b"[" * depth + b"]" * depth + b"}"


def test_a_body_nested_as_deep_as_any_client_needs_is_served(house: House) -> None:
    for depth in (200, 253):
        assert house.ask(body=nested(depth)).status == 200


@pytest.mark.parametrize("depth", [254, 300, 900, 1020])
def test_a_body_nested_too_deep_is_refused_and_holds_no_slot(house: House, depth: int) -> None:
    body = nested(depth).replace(b"open", b"one")
    try:
        first = house.ask(body=body)
    except Exception as error:
        assert house.chat("one").status == 200, f"the slot is lost after {type(error).__name__}"
        raise
    assert first.status == 400 and house.chat("one").status == 200


def test_a_content_length_that_is_not_a_number_is_refused(house: House) -> None:
    assert house.ask(headers=[(b"content-length", b"many")]).status == 400
