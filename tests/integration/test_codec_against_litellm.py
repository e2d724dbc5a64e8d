"""The codec beside LiteLLM's own code: the same request down both ways, to the same prepared answer.

A real gateway on the full path; what it sends to the upstream and what it answers is what the codec must send and answer.
Where the two differ on purpose, a test says so. The codec's own part is checked for every case in tests/unit/gateway/codec/test_codec.py too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests import codec_cases, codec_cases_openai
from tests.clone import PATIENCE, Clone, until
from tests.codec_cases import CALL, NAMED, STREAM, Case, Targets, call, last, part, user
from tests.codec_cases_openai import X
from tests.codec_compare import said, seen
from tests.fake_ollama import serve
from tests.fake_upstream import FakeUpstream
from tests.stacks import SharedStack

pytestmark = pytest.mark.containers

# Without the lane: it would compare the codec with itself.
TABLE = """
version: 1
gateway: {{lane: false}}
defaults: {{timeouts: {{step: 20s, first_token: 10s}}, context: 2048, cooldown: {{failures: 1000, pause: 1s}}}}
providers:
  host: {{kind: ollama, url: "http://127.0.0.1:{port}"}}
  served: {{kind: openai_compatible, url: "http://127.0.0.1:{port}/v1"}}
models:
  a: {{provider: host, source: {{external: a}}, keep_alive: 7m}}
  b: {{provider: host, source: {{external: b}}, parameters: {{temperature: 0.125, seed: 3}}}}
  d: {{provider: served, source: {{external: d}}}}
  e: {{provider: served, source: {{external: e}}, parameters: {{temperature: 0.25, max_tokens: 9}}}}
  vec: {{provider: host, source: {{external: vec}}, capabilities: [embeddings], context: 512}}
  vec2: {{provider: served, source: {{external: vec2}}, capabilities: [embeddings]}}
modes:
  oll: {{chain: [a]}}
  tuned: {{chain: [b]}}
  oai: {{chain: [d]}}
  oaituned: {{chain: [e]}}
  embed: {{chain: [vec]}}
  embed2: {{chain: [vec2]}}
"""
VECTOR = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
    "usage": {"prompt_tokens": 1, "total_tokens": 1},
}
CHAT: dict[str, Any] = {"model": "oll", "messages": [user()]}


class Upstream:
    """Answers what it was told to, else something good, and keeps what it was asked."""

    def __init__(self) -> None:
        self.data: bytes | None = None
        self.calls: list[tuple[str, Any]] = []
        self._good = FakeUpstream(("a", "b", "d", "e", "vec", "vec2"))

    def answer(self, method: str, path: str, body: bytes) -> Any:
        if self.data is None or method != "POST":
            return (200, VECTOR) if path == "/v1/embeddings" else self._good.answer(method, path, body)
        self.calls.append((path, json.loads(body)))
        kind = "text/event-stream" if self.data.startswith(b"data:") else "application/json"
        return 200, self.data, {"Content-Type": kind}


class Both:
    """A gateway and its upstream."""

    def __init__(self, clone: Clone, upstream: Upstream) -> None:
        self.upstream = upstream
        self.targets = Targets("http://upstream")
        headers = {"Authorization": f"Bearer {clone.key()}"}
        self.client = httpx.Client(
            trust_env=False, timeout=PATIENCE, headers=headers, base_url=f"http://127.0.0.1:{clone.port}/v1/"
        )

    def full(self, case: Case) -> httpx.Response:
        """The answer of LiteLLM; after an error the deployment may be left out for a second."""
        self.upstream.data = case.data
        found: list[httpx.Response] = []

        def served() -> bool:
            self.upstream.calls.clear()
            found.append(self.client.post(case.path, json=case.body))
            return "can be tried now" not in found[-1].text

        until("a model can be tried", served)
        return found[-1]


@pytest.fixture(scope="module")
def both(shared: SharedStack) -> Iterator[Both]:
    upstream = Upstream()
    with serve(upstream.answer) as port:
        pair = Both(shared.serve(TABLE.format(port=port)), upstream)
        with pair.client:
            yield pair


def name(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", [*codec_cases.ollama(), *codec_cases_openai.openai()], ids=name)
def test_both_ways_are_one(both: Both, case: Case) -> None:
    """The same call upstream and, for what the codec understands, the same answer."""
    full = both.full(case)
    own = call(case, both.targets)
    assert own is not None, "not plain"
    path, body = both.upstream.calls[0]
    assert own.path == f"http://upstream{path}"
    assert json.loads(own.body) == body
    answer = said(own, case.data)
    if case.full:
        assert answer is None
    else:
        assert full.status_code == 200 and answer is not None, full.text
        assert seen(answer) == seen(full.content)


# -- where they differ on purpose: LiteLLM's side of it (the codec's is in tests/unit/gateway/codec/test_codec.py). Should one of these fail
# after an update, LiteLLM has changed, and the codec may follow.


def streamed(both: Both, data: bytes, body: dict[str, Any] = CHAT) -> list[Any]:
    answer = both.full(Case("", "chat/completions", body | STREAM, data))
    assert answer.status_code == 200
    found: list[Any] = seen(answer.content)
    return found


def text(chunks: list[Any]) -> str:
    return "".join(
        c["choices"][0]["delta"].get("content", "") for c in chunks if isinstance(c, dict) and "choices" in c
    )


def test_two_tools_in_two_chunks_have_one_index(both: Both) -> None:
    chunks = streamed(both, part(tool_calls=[CALL]) + part(tool_calls=[NAMED]) + last())
    assert [c["choices"][0]["delta"]["tool_calls"][0]["index"] for c in chunks[:2]] == [0, 0]


def test_a_tool_without_arguments_has_no_id(both: Both) -> None:
    bare = {"function": {"name": "f", "arguments": {}}}
    assert "id" not in streamed(both, part(tool_calls=[bare]) + last())[0]["choices"][0]["delta"]["tool_calls"][0]


@pytest.mark.parametrize("lost", ["[DONE]", "a\x85b", "a\u2028b"])
def test_some_texts_are_lost(both: Both, lost: str) -> None:
    assert text(streamed(both, part("x") + part(lost) + last())) == "x"


@pytest.mark.parametrize(("body", "data"), [(CHAT, part("x")), (CHAT | {"model": "oai"}, X)])
def test_a_closed_connection_is_no_good_end(both: Both, body: dict[str, Any], data: bytes) -> None:
    """LiteLLM by itself would call it `stop`: `http_observer` tells it."""
    chunks = streamed(both, data, body)
    assert text(chunks) == "x" and chunks[-1]["error"]["code"] and "data: [DONE]" not in chunks


@pytest.mark.parametrize(
    ("data", "code", "kind"),
    [
        (part("x") + b'{"error":"boo"}\n', "400", None),
        (part("x") + part(5), "500", None),
        (part("abc") * 101, "500", "internal_server_error"),
    ],
)
def test_an_error_in_a_stream(both: Both, data: bytes, code: str, kind: str | None) -> None:
    """The same event but for the message, which names LiteLLM's classes; nothing comes after it."""
    error = streamed(both, data)[-1]
    assert error["error"] | {"message": ""} == {"message": "", "type": kind, "param": None, "code": code}
    own = call(Case("", "chat/completions", CHAT | STREAM, data), both.targets)
    assert own is not None
    answer = said(own, data)
    assert answer and seen(answer)[-1]["error"] | {"message": ""} == error["error"] | {"message": ""}
