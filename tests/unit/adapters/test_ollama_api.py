"""The runtime's API through the `ollama` package: progress, the models it lists, and errors by layer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from io3ops.adapters.ollama_api import OllamaApi
from io3ops.errors import DiskFull, FetchFailed, Io3opsError, RuntimeRefused, RuntimeUnreachable

Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Handler], OllamaApi]]:
    """Make an API whose calls a handler answers, through the transport that both clients share."""
    opened: list[OllamaApi] = []

    def make(handler: Handler) -> OllamaApi:
        monkeypatch.setattr(httpx, "HTTPTransport", lambda **_: httpx.MockTransport(handler))
        opened.append(OllamaApi("http://runtime:11434", "the runtime at x"))
        return opened[-1]

    yield make
    for api in opened:
        api.close()


def lines(*events: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, content="".join(json.dumps(event) + "\n" for event in events))


def test_a_pull_reports_the_bytes_of_all_layers(runtime: Callable[[Handler], OllamaApi]) -> None:
    events = lines(
        {"status": "pulling manifest"},
        {"status": "pulling", "digest": "sha256:a", "total": 10},
        {"status": "pulling", "digest": "sha256:a", "total": 10, "completed": 4},
        {"status": "pulling", "digest": "sha256:b", "total": 5, "completed": 5},
        {"status": "success"},
    )
    progress: list[tuple[int, int]] = []
    runtime(lambda _: events).pull("m:1", lambda done, total: progress.append((done, total)))
    assert progress == [(0, 10), (4, 10), (9, 15)]


@pytest.mark.parametrize(
    ("text", "kind", "hint"),
    [
        ("lookup registry: no such host", FetchFailed, "needs no library"),
        ("max retries exceeded: no space left on device", DiskFull, "free some space"),
        ("file does not exist", FetchFailed, "io3ops logs runtime"),
    ],
)
def test_a_pull_that_fails_halfway_says_what_to_do(
    runtime: Callable[[Handler], OllamaApi], text: str, kind: type[Io3opsError], hint: str
) -> None:
    """Ollama answers 200 and reports the failure as a later line."""
    api = runtime(lambda _: lines({"status": "pulling manifest"}, {"error": text}))
    with pytest.raises(kind) as caught:
        api.pull("m:1", lambda _done, _total: None)
    assert type(caught.value) is kind and hint in caught.value.hint


def test_create_sends_files_template_stop_and_window(runtime: Callable[[Handler], OllamaApi], tmp_path: Path) -> None:
    weights = tmp_path / "w"
    weights.write_bytes(b"GGUF1234")
    blobs: list[tuple[str, bytes]] = []
    created: dict[str, Any] = {}

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.startswith("/api/blobs/"):
            blobs.append((request.url.path, request.read()))
            return httpx.Response(201)
        created.update(json.loads(request.read()))
        return lines({"status": "success"})

    progress: list[tuple[int, int]] = []
    runtime(handler).create(
        "io3ops/m:1",
        {"model.gguf": weights},
        template="{{ .Prompt }}",
        stop=("<end>",),
        context=512,
        on_progress=lambda done, total: progress.append((done, total)),
    )
    assert [content for _, content in blobs] == [b"GGUF1234"] and progress == [(8, 8)]
    assert created["files"] == {"model.gguf": blobs[0][0].rsplit("/", 1)[-1]}
    assert created["parameters"] == {"num_ctx": 512, "stop": ["<end>"]} and created["template"] == "{{ .Prompt }}"


def test_create_without_a_template_keeps_that_of_the_file(
    runtime: Callable[[Handler], OllamaApi], tmp_path: Path
) -> None:
    created: dict[str, Any] = {}

    def handler(request: httpx.Request) -> httpx.Response:
        created.update(json.loads(request.read()))
        return lines({"status": "success"})

    runtime(handler).create("m", {}, template="", stop=(), context=512, on_progress=lambda _done, _total: None)
    assert "template" not in created and created["parameters"] == {"num_ctx": 512}


def test_loaded_models_have_sizes_a_window_and_a_time(runtime: Callable[[Handler], OllamaApi]) -> None:
    entry = {"name": "m:1", "size": 9, "size_vram": 3, "context_length": 512, "expires_at": "2318-01-01T00:00:00.5Z"}
    api = runtime(lambda _: httpx.Response(200, json={"models": [entry, {"name": "old:1"}]}))
    new, old = api.loaded()
    assert (new.name, new.memory, new.vram, new.context) == ("m:1", 9, 3, 512)
    assert new.until == "2318-01-01T00:00:00.500000+00:00"
    assert (old.memory, old.vram, old.context, old.until) == (0, 0, 0, "")


def test_weights_are_the_file_that_the_modelfile_names(runtime: Callable[[Handler], OllamaApi]) -> None:
    shown = {"modelfile": "# a comment\nFROM /models/blobs/sha256-1\nTEMPLATE x", "details": {}, "model_info": {}}
    assert runtime(lambda _: httpx.Response(200, json=shown)).weights("m:1") == "/models/blobs/sha256-1"


def test_the_egress_proxys_own_refusal_means_that_the_runtime_is_unreachable(
    runtime: Callable[[Handler], OllamaApi],
) -> None:
    api = runtime(lambda _: httpx.Response(503, text="egress: 10.0.0.9:11434 does not answer"))
    for ask in (api.version, api.installed, api.loaded):
        with pytest.raises(RuntimeUnreachable, match=r"10\.0\.0\.9:11434 does not answer"):
            ask()


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (httpx.ConnectError("[Errno 111] Connection refused"), RuntimeUnreachable, "connection refused"),
        (httpx.ReadError(""), RuntimeUnreachable, "connection lost"),
        (httpx.ReadTimeout("x"), RuntimeRefused, "timed out"),
    ],
)
def test_a_broken_connection_is_described_in_plain_words(
    runtime: Callable[[Handler], OllamaApi], error: Exception, kind: type[Io3opsError], words: str
) -> None:
    """Both clients, and no class name of a library."""

    def handler(_: httpx.Request) -> httpx.Response:
        raise error

    api = runtime(handler)
    for ask in (api.version, api.loaded, lambda: api.delete("m")):
        with pytest.raises(kind) as caught:
            ask()
        assert words in caught.value.message and "Error" not in caught.value.message


def test_closing_closes_the_connections_of_both_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []

    class Transport(httpx.MockTransport):
        def close(self) -> None:
            closed.append("transport")

    made = [Transport(lambda _: httpx.Response(200, json={"version": "1", "models": []}))]
    monkeypatch.setattr(httpx, "HTTPTransport", lambda **_: made.pop())
    with closing(OllamaApi("http://runtime:11434", "the runtime at x")) as api:
        assert (api.version(), api.loaded()) == ("1", ()), "both use the one transport"
    assert closed == ["transport"]


def test_only_the_public_interface_of_the_package_is_used(root: Path) -> None:
    text = (root / "src/io3ops/adapters/ollama_api.py").read_text("utf-8")
    assert "_client" not in text and "._request" not in text
