"""An id on every answer of the real gateway, and a line of its log for every refusal."""

from __future__ import annotations

import re

import pytest
from tests.integration.request_log import Bench
from tests.raw_http import exchange, request

pytestmark = pytest.mark.containers

MADE = re.compile(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}")


@pytest.mark.parametrize("length", [20, 128])
def test_a_sane_id_is_the_clients(bench: Bench, length: int) -> None:
    """`ask` looks at the answer's header."""
    name = (f"A.b_c:{bench.new()}" + "x" * length)[:length]
    assert bench.ask("one", name=name)[1]["id"] == name


@pytest.mark.parametrize(
    "given", [b"\xff\xfe\x80", b"a b", b"a\tb", b'"},{"v":', b"x" * 129, b"x" * 60_000, b"", "ü".encode()]
)
def test_an_insane_id_is_replaced(bench: Bench, given: bytes) -> None:
    answer = exchange(bench.port, request("GET", "/health", b"x-request-id: " + given))
    assert answer and answer.status == 200 and MADE.fullmatch(answer.headers["x-request-id"])
    refused = exchange(bench.port, bench.head("chat/completions", given or b" ", bench.body("one"), key="wrong"))
    assert refused and MADE.fullmatch(refused.headers["x-request-id"])
    assert bench.line(refused.headers["x-request-id"])["error"] == "invalid_api_key"


@pytest.mark.parametrize("given", [b"\x1b[31m", b"\x00", b"\x7f", b"x" * 1_000_000])
def test_what_is_no_request_is_no_line(bench: Bench, given: bytes) -> None:
    before = len(bench.lines())
    answer = exchange(bench.port, request("GET", "/nothing", b"x-request-id: " + given))
    assert answer is None or answer.status in (400, 431)
    bench.ask("one")
    assert len(bench.lines()) == before + 1


def test_every_answer_has_its_id_and_every_refusal_its_line(bench: Bench) -> None:
    """Health, lists and preflights have an id and no line."""
    key, origin = f"Authorization: Bearer {bench.key}", "Origin: https://page.example"
    chat = "/v1/chat/completions"
    cases: list[tuple[int, str, bytes, str]] = [
        (200, "", request("GET", "/health"), "GET"), (200, "", request("HEAD", "/health/readiness"), "HEAD"),
        (200, "", request("GET", "/v1/models", key), "GET"), (204, "", request("OPTIONS", chat, origin), "GET"),
        (404, "not_found", request("OPTIONS", chat), "GET"), (404, "not_found", request("GET", "/v1/x"), "GET"),
        (404, "model_not_found", request("GET", "/v1/models/x", key), "GET"),
        (401, "invalid_api_key", request("GET", "/v1/models"), "GET"),
        (401, "invalid_api_key", bench.head("chat/completions", b"", b"{}", key="wrong"), "GET"),
        (403, "wrong_origin", request("GET", "/health", "Origin: https://evil.example"), "GET"),
        (404, "model_not_found", bench.head("chat/completions", b"", bench.body("x" * 900_000)), "GET"),
        (404, "model_not_found", bench.head("chat/completions", b"", bench.body("mode\n\x1b[2J")), "GET"),
        (400, "not_json", bench.head("chat/completions", b"", b"{no"), "GET"),
        (413, "too_large", request("POST", chat, key, "Content-Type: application/json", "Content-Length: 9000000"), "GET"),
        (421, "wrong_host", request("GET", "/health", host="evil.example"), "GET"),
    ]  # fmt: skip
    wrong = []
    for status, error, raw, to in cases:
        answer = exchange(bench.port, raw, to=to)
        name = answer.headers.get("x-request-id", "") if answer else ""
        line = bench.line(name) if error else {"status": answer.status if answer else 0}
        assert answer and MADE.fullmatch(name)
        if (answer.status, line["status"], line.get("error", "")) != (status, status, error) or (error and (line["outcome"], line["path"]) != ("refused", "edge")):  # fmt: skip
            wrong.append((status, error, line))
        if not error:
            assert name not in {found["id"] for found in bench.lines()}
    assert not wrong
