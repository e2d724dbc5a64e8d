"""The two HTTP clients against servers that answer on command: errors have their layer, and no proxy is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from tests.fake_ollama import FakeOllama, serve

from io3ops.adapters.gateway_http import GatewayHttp
from io3ops.adapters.ollama_api import OllamaApi
from io3ops.errors import DiskFull, GatewayError, RuntimeRefused, RuntimeUnreachable


@contextmanager
def ollama(port: int) -> Iterator[OllamaApi]:
    """The client, closed at the end: an open socket in a finished test is an error of its own."""
    with closing(OllamaApi(f"http://127.0.0.1:{port}", "the runtime at x")) as it:
        yield it


@contextmanager
def gateway_at(port: int) -> Iterator[GatewayHttp]:
    it = GatewayHttp(f"http://127.0.0.1:{port}/v1", "sk-x")
    try:
        yield it
    finally:
        it.close()


@pytest.fixture(autouse=True)
def _dead_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


def test_the_runtime_is_asked_without_a_proxy_and_a_remote_model_is_seen() -> None:
    entries = [
        {"name": "here:1", "digest": "d", "size": 5},
        {"name": "there:1", "remote_host": "https://ollama.example:443", "remote_model": "there"},
        {"name": "also:1", "remote_model": "also"},
    ]
    with serve(lambda _m, _p, _b: (200, {"models": entries})) as port, ollama(port) as api:
        found = api.installed()
    assert [(m.name, m.remote) for m in found] == [("here:1", False), ("there:1", True), ("also:1", True)]


@pytest.mark.parametrize(
    ("text", "kind"), [("write /models: no space left on device", DiskFull), ("something else", RuntimeRefused)]
)
def test_a_full_disk_is_told_from_other_refusals(text: str, kind: type[Exception]) -> None:
    with serve(lambda _m, _p, _b: (500, {"error": text})) as port, ollama(port) as api, pytest.raises(kind):
        api.load("m", embeddings=False, context=1, keep_alive="1m")


def test_a_runtime_that_is_not_there_is_named() -> None:
    with ollama(9) as api, pytest.raises(RuntimeUnreachable, match="the runtime at x"):
        api.version()


@pytest.mark.parametrize("embeddings", [False, True])
def test_a_model_is_loaded_with_the_window_that_the_gateway_asks_for(embeddings: bool) -> None:
    seen: list[dict[str, object]] = []

    def answer(method: str, path: str, body: bytes) -> tuple[int, dict[str, object]]:
        seen.append(json.loads(body))
        return FakeOllama(()).answer(method, path, body)

    with serve(answer) as port, ollama(port) as api:
        api.load("m", embeddings=embeddings, context=777, keep_alive="3m")
    assert (seen[0]["options"], seen[0]["keep_alive"]) == ({"num_ctx": 777}, "3m")
    # Otherwise the gateway's first request would load it once more; `/api/embed` has no such word.
    assert embeddings or seen[0]["shift"] is False


def test_the_gateway_is_asked_without_a_proxy() -> None:
    with serve(lambda _m, _p, _b: (200, {"data": [{"id": "b"}, {"id": "a"}]})) as port, gateway_at(port) as it:
        assert it.modes() == ("a", "b")


def test_an_error_of_the_gateway_is_one_line_with_a_hint() -> None:
    with (
        serve(lambda _m, _p, _b: (401, {"error": {"message": "wrong\n key"}})) as port,
        gateway_at(port) as it,
        pytest.raises(GatewayError, match="HTTP 401: wrong key") as caught,
    ):
        it.modes()
    assert "make up" in caught.value.hint


def test_an_answer_without_text_or_with_zeros_is_no_answer() -> None:
    empty = {
        "choices": [{"message": {"content": " "}}],
        "usage": {"completion_tokens": 0},
        "data": [{"embedding": [0.0, 0.0]}],
    }
    with serve(lambda _m, _p, _b: (200, empty)) as port, gateway_at(port) as it:
        with pytest.raises(GatewayError, match="answered without text"):
            it.chat("m", "p", data_class="internal", max_tokens=1, timeout=5)
        with pytest.raises(GatewayError, match="empty vector"):
            it.embed("m", "p", data_class="internal", timeout=5)


@pytest.mark.parametrize("answer", [{"error": "Unexpected endpoint"}, b"<html>", {"models": [{}]}])
def test_another_server_is_not_taken_for_an_ollama(answer: object) -> None:
    """LM Studio answers 200 to every path."""
    with serve(lambda _m, _p, _b: (200, answer)) as port, ollama(port) as api:
        for ask in (api.version, api.installed, api.loaded):
            with pytest.raises(RuntimeRefused, match="this server is not an Ollama"):
                ask()
