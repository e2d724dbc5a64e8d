"""Authentication: which key a request has, and what it may use."""

from __future__ import annotations

import pytest
from tests.unit.gateway.edge.house import POLICY, House


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/models", "/v1/models/near", "/models"])
@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"Bearer sk-wrong")],
        [(b"authorization", b"Bearer sk-gone")],
        [(b"authorization", b"Bearer sk-inside")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"sk-owner")],
        [(b"authorization", b"Basic sk-owner")],
        [(b"authorization", b"Bearersk-owner")],
        [(b"authorization", b"Digest sk-owner")],
        [(b"authorization", b"Bearer sk-owner"), (b"x-api-key", b"sk-alice")],
        [(b"authorization", b"Basic eDp5"), (b"x-api-key", b"sk-owner")],
        [(b"authorization", b"Bearer sk-owner"), (b"authorization", b"Bearer sk-wrong")],
        [(b"x-goog-api-key", b"sk-owner")],
        [(b"cookie", b"token=sk-owner")],
        [(b"proxy-authorization", b"Bearer sk-owner")],
    ],
)
def test_without_exactly_one_valid_key_nothing_is_served(
    house: House, path: str, headers: list[tuple[bytes, bytes]]
) -> None:
    method = "GET" if "models" in path else "POST"
    found = house.ask(path, method=method, key=None, headers=headers, query_string=b"api_key=sk-owner&key=sk-owner")
    assert (found.status, found.code) == (401, "invalid_api_key")
    assert found.body["error"]["type"] == "authentication_error" and found.body["error"]["message"]
    assert (found.body.get("type") == "error") is (path == "/v1/messages"), "Anthropic's shape for Anthropic's clients"
    assert b"sk-" not in found.data and house.inner.scopes == []


@pytest.mark.parametrize(
    "header",
    [
        (b"authorization", b"Bearer sk-owner"),
        (b"authorization", b"bearer sk-owner "),
        (b"x-api-key", b"sk-owner"),
        (b"api-key", b"sk-owner"),
    ],
)
def test_a_key_is_read_from_every_header_that_sdks_use(house: House, header: tuple[bytes, bytes]) -> None:
    assert house.ask(key=None, headers=[header]).status == 200


def test_the_body_of_an_unauthenticated_client_is_not_read(house: House) -> None:
    found = house.ask(key="wrong", chunks=[{"type": "http.request", "body": b"{", "more_body": True}] * 3)
    assert found.status == 401


def test_a_key_may_use_only_its_modes(house: House) -> None:
    assert house.chat("near", key="narrow").status == 200
    assert house.chat("near:internal", key="narrow").status == 200
    assert house.chat("claude:latest", key="narrow").status == 200
    for model in ("open", "gpt-4o", "open:internal"):
        found = house.chat(model, key="narrow")
        assert (found.status, found.code) == (403, "mode_not_allowed")
    assert len(house.inner.scopes) == 3


def test_a_key_lists_only_its_modes(house: House) -> None:
    assert house.ask("/v1/models", method="GET").status == house.ask("/v1/models/near", method="GET").status == 200
    every = house.ask("/v1/models", method="GET").body
    assert [m["id"] for m in every["data"]] == list(POLICY.modes) and every["object"] == "list"
    assert {m["owned_by"] for m in every["data"]} == {"io3ops"}
    assert [m["id"] for m in house.ask("/models", method="GET", key="narrow").body["data"]] == ["near", "one"]
    assert house.ask("/v1/models/near", method="GET", key="narrow").body["id"] == "near"
    for path in (
        "/v1/models/open",
        "/v1/models/",
        "/v1/models/near/",
        "/models/open:public",
        "/v1/models/" + "x" * 9999,
    ):
        found = house.ask(path, method="GET", key="narrow")
        assert (found.status, found.code) == (404, "model_not_found") and len(found.data) < 500
    assert house.inner.scopes == []


def test_a_models_path_has_exactly_one_spelling(house: House) -> None:
    for path in ("/v1/models/x/models/near", "/v1/models//models/near"):
        assert house.ask(path, method="GET").status == 404


@pytest.mark.parametrize("path", ["/v1/models", "/models", "/v1/models/near"])
def test_the_list_of_models_is_read_only(house: House, path: str) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "HEAD"):
        assert house.ask(path, method=method).status == 404


def test_limits_of_a_key_and_of_a_mode_apply(house: House) -> None:
    assert house.chat("near", key="few").status == 200
    house.now += 20
    found = house.chat("open", key="few")
    assert (found.status, found.code, found.body["error"]["type"]) == (429, "limit", "rate_limit_error")
    assert 41 <= int(found.headers["retry-after"]) <= 42
    assert house.chat("near", key="alice").status == 200
    house.now += 41
    assert house.chat("near", key="few").status == 200
