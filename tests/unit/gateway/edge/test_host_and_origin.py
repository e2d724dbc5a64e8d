"""Which Host names and web origins are served."""

from __future__ import annotations

import pytest
from tests.unit.gateway.edge.house import House

# -- the host


@pytest.mark.parametrize(
    "host",
    [b"localhost", b"localhost:4000", b"LOCALHOST:80", b"127.0.0.1", b"127.0.0.1:65535", b"[::1]", b"[::1]:4000", b"gateway:4000",
     b"host.docker.internal:4000", b"box.lan", b"box.lan:4000", b"Box.Lan"],
)  # fmt: skip
def test_local_and_configured_host_names_are_accepted(house: House, host: bytes) -> None:
    assert house.ask(host=host).status == 200
    assert house.ask("/health", method="GET", host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [b"evil.example", b"evil.example:4000", b"localhost.evil.example", b"127.0.0.1.nip.io", b"localhost.", b"localhost:",
     b"localhost:x", b"localhost:4000:4000", b"localhost:-1", b":4000", b"", b" localhost", b"::1", b"::1:4000", b"[::1", b"::1]",
     b"[localhost]", b"[localhost]:4000", b"[::1]evil:4000", b"[::2]", b"0.0.0.0", b"127.0.0.2", b"127.1", b"2130706433", b"10.0.0.5:4000",
     b"evil@localhost", b"localhost@evil", b"localhost/", b"localhost#.evil", b"xbox.lan", b"box.lan.evil", b"loc\xe0lhost",
     b"localhost,evil.example", b"localhost evil.example", b"[", b"]", b"[]", b"[]:1", b"localhost:\xb2"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/health", "/v1/models", "/nothing"])
def test_any_other_host_name_is_refused_first(house: House, host: bytes, path: str) -> None:
    """DNS rebinding: a web page's own name that points here."""
    for method in ("GET", "POST", "OPTIONS"):
        found = house.ask(path, method=method, host=host)
        assert (found.status, found.code) == (421, "wrong_host")
    assert house.inner.scopes == []


def test_a_missing_or_repeated_host_header_is_refused(house: House) -> None:
    assert house.ask(host=None).code == "wrong_host"
    assert house.ask(headers=[(b"host", b"localhost")]).code == "wrong_host"
    assert house.ask(headers=[(b"host", b"evil.example")]).code == "wrong_host"


# -- web pages


@pytest.mark.parametrize(
    "origin",
    [b"http://evil.example", b"null", b"", b"http://localhost:4000", b"http://localhost", b"http://localhost:30000", b"https://localhost:3000",
     b"http://localhost:3000/", b"HTTP://LOCALHOST:3000", b"http://localhost:3000.evil.example", b"http://evil@localhost:3000",
     b"http://localhost:3000 http://evil", b"*", b"http://127.0.0.1:3000", b"http://localhost:3000\xff"],
)  # fmt: skip
@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/health"), ("OPTIONS", "/v1/models")])  # fmt: skip
def test_a_web_page_that_is_not_allowed_is_refused(house: House, origin: bytes, method: str, path: str) -> None:
    found = house.ask(path, method=method, headers=[(b"origin", origin)])
    assert (found.status, found.code) == (403, "wrong_origin")
    assert not any(name.startswith("access-control") for name in found.headers)
    assert house.inner.scopes == []


def test_an_allowed_page_may_read_answers_and_refusals(house: House) -> None:
    page = [(b"origin", b"http://localhost:3000")]
    for found in (
        house.ask(headers=page),
        house.ask(key="wrong", headers=page),
        house.ask("/v1/models", method="GET", headers=page),
    ):
        assert found.headers["access-control-allow-origin"] == "http://localhost:3000"
        assert found.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in found.headers
    assert "access-control-allow-origin" not in house.ask().headers, "LiteLLM's own `*` does not get out"


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/chat/completions", "/v1/models", "/models", "/v1/moderations"]
)
def test_a_preflight_needs_no_key_and_reaches_no_model(house: House, path: str) -> None:
    asked = [
        (b"origin", b"http://localhost:3000"),
        (b"access-control-request-headers", b"authorization,x-io3-data-class"),
    ]
    found = house.ask(path, b"", method="OPTIONS", key=None, headers=asked)
    assert (found.status, found.data) == (204, b"") and "content-type" not in found.headers
    assert found.headers["access-control-allow-headers"] == "authorization,x-io3-data-class"
    assert "POST" in found.headers["access-control-allow-methods"]
    assert house.inner.scopes == []


def test_a_preflight_without_an_origin_or_for_an_unknown_path_is_not_found(house: House) -> None:
    assert house.ask(method="OPTIONS").status == 404
    page = [(b"origin", b"http://localhost:3000")]
    assert house.ask("/v1/files", method="OPTIONS", headers=page).status == 404
