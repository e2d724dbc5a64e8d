"""The fast lane beside the full path: the same requests to the same gateway, with the lane and without it.

Which way a request went is seen at the upstream: LiteLLM's HTTP client names itself, the lane's does not.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import httpx
import pytest
import yaml
from tests.clone import PATIENCE, Clone, until
from tests.codec_compare import seen
from tests.fake_ollama import Cut, serve
from tests.fake_upstream import FakeUpstream
from tests.stacks import SharedStack

pytestmark = pytest.mark.containers

TABLE = """
version: 1
defaults: {{timeouts: {{step: 60s, first_token: 60s}}, context: 2048, cooldown: {{failures: 1000, pause: 1s}}}}
providers:
  host: {{kind: ollama, url: "http://127.0.0.1:{port}"}}
  served: {{kind: openai_compatible, url: "http://127.0.0.1:{port}/v1"}}
  endless: {{kind: ollama, url: "http://127.0.0.1:{endless}"}}
models:
  a: {{provider: host, source: {{external: a}}}}
  b: {{provider: host, source: {{external: b}}}}
  d: {{provider: served, source: {{external: d}}}}
  vec: {{provider: host, source: {{external: vec}}, capabilities: [embeddings], context: 512}}
  s: {{provider: endless, source: {{external: s}}}}
modes:
  one: {{chain: [a]}}
  two: {{chain: [a, b]}}
  shared: {{chain: [[a, b]]}}
  served: {{chain: [d]}}
  tuned: {{chain: [a], parameters: {{temperature: 0.25}}, forced: {{seed: 7}}, system_prompt: "Answer in French."}}
  lane-few: {{chain: [a], limits: {{requests_per_minute: 2}}}}
  lane-frugal: {{chain: [a], limits: {{tokens_per_minute: 9}}}}
  retried: {{chain: [a, b], retries: {{server_error: 2}}}}
  one-timed: {{chain: [a], timeouts: {{step: 1500ms, first_token: 1s}}}}
  two-timed: {{chain: [a, b], timeouts: {{steps: [1500ms, 60s], first_token: 1s}}}}
  served-timed: {{chain: [d], timeouts: {{step: 1500ms, first_token: 1s}}}}
  retried-timed: {{chain: [a, b], timeouts: {{steps: [1500ms, 60s], first_token: 1s}}, retries: {{server_error: 2}}}}
  crowded: {{chain: [a], timeouts: {{step: 600s, first_token: 600s, total: 600s}}}}
  embed: {{chain: [vec]}}
  endless: {{chain: [s]}}
  counted: {{chain: [s], limits: {{tokens_per_minute: 12}}}}
  counted2: {{chain: [s], limits: {{tokens_per_minute: 12}}}}
  over: {{chain: [a], fallbacks: {{context_overflow: served}}}}
  cooled: {{chain: [a, b], cooldown: {{failures: 1, pause: 20s}}}}
"""
CONTROL = ("/usr/bin/python3", "-I", "-S", "/opt/io3ops/io3ops_gateway/scripts/control.py")


class Watched(FakeUpstream):
    """Remembers by which way each call came: `lane` or `full`."""

    def __init__(self, models: tuple[str, ...]) -> None:
        super().__init__(models)
        self.ways: list[str] = []
        self.kept: bytes | None = None
        self.headers: dict[str, str] = {}

    def seen(self, method: str, path: str, body: bytes, headers: Any) -> Any:
        before = len(self.calls)
        answer = self.answer(method, path, body)
        if len(self.calls) > before:
            self.ways.append("full" if headers.get("User-Agent") else "lane")
            if self.kept is not None:
                return 200, self.kept, self.headers
        return answer

    def reset(self, **behaviours: str) -> None:
        super().reset(**behaviours)
        self.ways.clear()
        self.kept, self.headers = None, {}


@pytest.fixture(scope="module")
def upstream() -> Watched:
    return Watched(("a", "b", "d", "vec"))


@pytest.fixture(scope="module")
def endless() -> Endless:
    return Endless()


@pytest.fixture(scope="module")
def clone(shared: SharedStack, upstream: Watched, endless: Endless) -> Iterator[Clone]:
    with serve(upstream.seen, headers=True) as port:
        yield shared.serve(TABLE.format(port=port, endless=endless.port))


@pytest.fixture(autouse=True)
def _well(upstream: Watched) -> None:
    upstream.reset()


def switch(clone: Clone, *, lane: bool) -> None:
    """The running gateway with the lane or without it."""
    config = yaml.safe_load((clone.path / "runtime/litellm.yaml").read_text("utf-8"))
    config["io3ops_policy"]["edge"]["lane"] = lane
    reload(clone, config)


def reload(clone: Clone, config: dict[str, Any]) -> None:
    done = subprocess.run(
        ["docker", "exec", "-i", clone.container("gateway"), *CONTROL, "reload"],
        input=yaml.safe_dump(config).encode(), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def post(clone: Clone, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    with httpx.Client(trust_env=False, timeout=PATIENCE) as client:
        given = {"Authorization": f"Bearer {clone.key()}", **headers}
        return client.post(f"http://127.0.0.1:{clone.port}/v1/{path}", json=body, headers=given)


def chat(clone: Clone, mode: str, **more: Any) -> httpx.Response:
    return post(clone, "chat/completions", {"model": mode, "messages": [{"role": "user", "content": "hello"}]} | more)


PLAIN: list[tuple[str, dict[str, Any]]] = [
    ("chat/completions", {"messages": [{"role": "user", "content": "hello"}]}),
    ("chat/completions", {"messages": [{"role": "user", "content": "hello"}], "stream": True}),
    ("chat/completions", {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5, "temperature": 0}),
    (
        "chat/completions",
        {"messages": [{"role": "user", "content": "x"}], "stream": True, "stream_options": {"include_usage": True}},
    ),
    (
        "chat/completions",
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "ü 🙂"}], "stop": "x"},
    ),
    ("completions", {"prompt": "hello", "max_tokens": 4}),
]
MODES = ("one", "two", "served", "tuned")
FAILURES = ("500", "429", "400", "401", "404", "context", "badjson", "cut", "hang")


def test_a_prompt_that_is_too_long_says_nothing_against_the_model(clone: Clone, upstream: Watched) -> None:
    """Its fallback serves it, and the lane goes on to ask the first one."""
    upstream.reset(a="context")
    assert chat(clone, "over").headers["x-io3-deployment"] == "served.1.d"
    assert upstream.ways == ["lane", "full"] and upstream.sequence() == ["a", "d"]
    upstream.reset()
    assert chat(clone, "over").headers["x-io3-deployment"] == "over.1.a" and upstream.ways == ["lane"]


def shown(answer: httpx.Response) -> dict[str, Any]:
    """What a client reads of an answer."""
    headers = {
        name: value
        for name, value in answer.headers.items()
        if name.startswith("x-io3") or name in ("content-type", "cache-control", "retry-after")
    }
    try:
        body: Any = seen(answer.content)
    except ValueError:
        body = answer.text
    return {"status": answer.status_code, "headers": headers, "body": body}


def test_both_ways_are_the_same_to_a_client_and_to_the_model(clone: Clone, upstream: Watched) -> None:
    """Plain requests, answered and failing in every way: same status, fields and headers, and the same calls at the upstream."""
    found: dict[bool, list[Any]] = {}
    ways: dict[bool, list[str]] = {True: [], False: []}
    for lane in (True, False):
        switch(clone, lane=lane)
        found[lane] = []
        for mode in MODES:
            for path, body in PLAIN:
                if path == "completions" and mode == "served":
                    continue
                upstream.reset()
                answer = post(clone, path, {"model": mode} | body)
                found[lane].append((mode, path, body, "ok", shown(answer), list(upstream.calls)))
                ways[lane] += upstream.ways
        for more in ({}, {"encoding_format": "base64"}):
            upstream.reset()
            answer = post(clone, "embeddings", {"model": "embed", "input": ["a", "b"]} | more)
            vectors = [entry["embedding"] for entry in answer.json()["data"]]
            assert all(isinstance(vector, str if more else list) for vector in vectors), vectors
            found[lane].append(("embed", "embeddings", more, "ok", shown(answer), list(upstream.calls)))
            ways[lane] += upstream.ways
    assert set(ways[True]) == {"lane"} and set(ways[False]) == {"full"}
    for fast, full in zip(found[True], found[False], strict=True):
        assert fast == full


def test_a_failure_in_the_lane_is_a_failure_of_that_attempt(clone: Clone, upstream: Watched) -> None:
    """LiteLLM is handed what the lane saw: nobody is asked twice for it, and chains, retries and errors are as without the lane."""
    found: dict[bool, list[Any]] = {}
    for lane in (True, False):
        found[lane] = []
        switch(clone, lane=lane)
        for failure in FAILURES:
            # Modes with short times where they are what ends it; elsewhere a busy machine must not end anything.
            modes = [f"{mode}-timed" if failure == "hang" else mode for mode in ("one", "two", "served", "retried")]
            for more in ({}, {"stream": True}) if failure not in ("cut", "hang") else ({},):
                for mode in modes:
                    upstream.reset(a=failure, d=failure)
                    answer = shown(chat(clone, mode, **more))
                    if answer["status"] >= 400:
                        # Times and addresses of sockets stand in some messages.
                        answer["body"] = answer["body"]["error"].get("type")
                    found[lane].append((mode, failure, more, answer, upstream.sequence()))
                if failure in ("401", "404", "429"):
                    # LiteLLM leaves such a one out at once; a generation of its own knows nothing of that. A new one takes seconds to
                    # start, so the modes share it: each has deployments of its own.
                    switch(clone, lane=lane)
                # Served on LiteLLM's way it is healthy again, and the lane is open.
                upstream.reset()
                for mode in modes:
                    until(f"{mode} is healthy again", lambda: chat(clone, mode).status_code == 200)  # noqa: B023
    for fast, full in zip(found[True], found[False], strict=True):
        assert fast == full


def test_after_a_failure_litellm_serves_until_it_has_been_answered_there(clone: Clone, upstream: Watched) -> None:
    switch(clone, lane=True)
    upstream.reset(a="500")
    assert chat(clone, "one").status_code == 500
    assert upstream.ways == ["lane"], "the replay asked nobody"
    assert chat(clone, "one").status_code == 500
    assert upstream.ways == ["lane", "full"]
    upstream.reset()
    until("it is answered", lambda: chat(clone, "one").status_code == 200)
    upstream.reset()
    assert chat(clone, "one").status_code == 200 and upstream.ways == ["lane"]


@pytest.mark.parametrize(
    ("mode", "more", "headers"),
    [
        ("shared", {}, {}),
        ("one", {"logprobs": True, "n": 2}, {}),
        ("one", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}]}, {}),
        ("one", {"guided_regex": "x"}, {}),
    ],
)  # fmt: skip
def test_what_is_unusual_goes_to_litellm(
    clone: Clone, upstream: Watched, mode: str, more: dict[str, Any], headers: dict[str, str]
) -> None:
    switch(clone, lane=True)
    body = {"model": mode, "messages": [{"role": "user", "content": "hello"}]} | more
    post(clone, "chat/completions", body, **headers)
    assert upstream.ways == ["full"]


def test_limits_count_in_the_lane(clone: Clone, upstream: Watched) -> None:
    switch(clone, lane=True)
    assert [chat(clone, "lane-few").status_code for _ in range(3)] == [200, 200, 429]
    assert set(upstream.ways) == {"lane"} and len(upstream.ways) == 2
    until("tokens are used up", lambda: chat(clone, "lane-frugal").status_code == 429)
    assert len(upstream.ways) <= 2 + 3, "5 tokens each, and 9 a minute"


def test_a_stream_that_is_cut_says_so(clone: Clone, upstream: Watched) -> None:
    """After the first byte nothing can be tried again: the client gets an error event, and never a silent, short answer."""
    switch(clone, lane=True)
    part = {"model": "a", "created_at": "2026-01-01T00:00:00Z", "done": False}
    lines = [part | {"message": {"role": "assistant", "content": word}} for word in ("one ", "two ")]
    upstream.kept = Cut(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    answer = chat(clone, "two", stream=True)
    assert answer.status_code == 200 and upstream.ways == ["lane"]
    assert "one " in answer.text and '"code":"upstream_cut"' in answer.text and "[DONE]" not in answer.text


class Endless:
    """An Ollama whose stream goes on until its reader leaves; `left` says when that was noticed."""

    LINE = b'{"model":"s","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":"x %d"},"done":false}\n'
    WHOLE: ClassVar[dict[str, Any]] = {
        "models": [{"name": "s:latest", "digest": "d" * 64, "size": 1}], "version": "0", "model": "s", "done": True,
        "done_reason": "stop", "message": {"role": "assistant", "content": "ok"}, "prompt_eval_count": 1, "eval_count": 1,
    }  # fmt: skip

    def __init__(self) -> None:
        self.left = threading.Event()
        self.socket = socket.create_server(("0.0.0.0", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self.socket.accept()
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as reader:
            lines = iter(reader.readline, b"\r\n")
            length = sum(int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length"))
            asked = json.loads(reader.read(length) or b"{}")
            if not asked.get("stream"):
                body = json.dumps(self.WHOLE).encode()
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (len(body), body)
                )
                return
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\nconnection: close\r\n\r\n")
            try:
                for number in range(1000):
                    connection.sendall(self.LINE % number)
                    if self.left.wait(0.02):
                        return
            except OSError:
                self.left.set()


@pytest.mark.parametrize("lane", [True, False])
def test_a_client_that_leaves_ends_the_generation(clone: Clone, endless: Endless, lane: bool) -> None:
    switch(clone, lane=lane)
    endless.left.clear()
    body = {"model": "endless", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    url, headers = f"http://127.0.0.1:{clone.port}/v1/chat/completions", {"Authorization": f"Bearer {clone.key()}"}
    with (
        httpx.Client(trust_env=False, timeout=PATIENCE) as client,
        client.stream("POST", url, json=body, headers=headers) as answer,
    ):
        read = [line for line, _ in zip(answer.iter_lines(), range(7), strict=False)]
        assert len(read) == 7 and "x 0" in read[0] and not endless.left.is_set()
    assert endless.left.wait(PATIENCE), "the upstream still writes"


def test_a_crowd_waits_in_order_and_the_rest_is_told_when_to_come_back(clone: Clone, upstream: Watched) -> None:
    """500 connections at once and two workers: some run, some wait, the others get a 503 with a time; health answers all the while."""
    config = yaml.safe_load((clone.path / "runtime/litellm.yaml").read_text("utf-8"))
    config["io3ops_policy"]["edge"] |= {"workers": 2, "parallel": 40, "queue": 80, "queue_timeout": 600}
    reload(clone, config)
    upstream.reset(a="hang")
    body = {"model": "crowded", "messages": [{"role": "user", "content": "hello"}]}
    url, headers = f"http://127.0.0.1:{clone.port}", {"Authorization": f"Bearer {clone.key()}"}

    async def crowd() -> tuple[dict[str, int], list[httpx.Response], list[httpx.Response]]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE, limits=limits, headers=headers) as client:
            asked = [asyncio.create_task(client.post(f"{url}/v1/chat/completions", json=body)) for _ in range(500)]
            deadline = time.monotonic() + PATIENCE
            while True:
                assert (await client.get(f"{url}/health/readiness")).status_code == 200, "health is not in the queue"
                there = await asyncio.to_thread(status, clone)
                refused = [task.result() for task in asked if task.done()]
                if there["running"] + there["waiting"] + len(refused) == 500:
                    break
                assert time.monotonic() < deadline, (there, len(refused))
            upstream.reset()
            answers = await asyncio.gather(*asked)
            return there, refused, [answer for answer in answers if answer not in refused]

    there, refused, served = asyncio.run(crowd())
    # Each worker has its own places; how many of the 500 came to which is the kernel's choice.
    assert 40 <= there["running"] <= 80 and 80 <= there["waiting"] <= 160, there
    assert {answer.status_code for answer in refused} == {503} and len(refused) >= 500 - 2 * (40 + 80)
    assert all(1 <= int(a.headers["retry-after"]) <= 601 and a.json()["error"]["code"] == "busy" for a in refused)
    assert Counter(answer.status_code for answer in served) == {200: there["running"] + there["waiting"]}


def status(clone: Clone) -> dict[str, Any]:
    done = clone.docker("exec", clone.container("gateway"), *CONTROL, "status")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("answer", ["10 MB", "wrong type", "chunks"])
def test_odd_answers_of_a_server_arrive_whole(clone: Clone, upstream: Watched, answer: str) -> None:
    switch(clone, lane=True)
    text = "x" * 10_000_000 if answer == "10 MB" else "ü🙂" * 5000
    done = {"model": "a", "created_at": "2026-01-01T00:00:00Z", "done": True, "done_reason": "stop"}
    whole = done | {"message": {"role": "assistant", "content": text}, "prompt_eval_count": 3, "eval_count": 2}
    upstream.kept = json.dumps(whole).encode()
    upstream.headers = {"Content-Type": "text/html"} if answer == "wrong type" else {}
    found = chat(clone, "one", stream=answer == "chunks")
    assert found.status_code == 200 and upstream.ways == ["lane"]
    if answer == "chunks":
        words = [json.loads(line[6:]) for line in found.text.splitlines() if line.startswith("data: {")]
        assert "".join(w["choices"][0]["delta"].get("content") or "" for w in words) == text
    else:
        assert found.json()["choices"][0]["message"]["content"] == text


def test_failures_at_the_same_time_are_each_the_first_models_own(clone: Clone, upstream: Watched) -> None:
    """Both models are at one address: what the first one said is never taken for an answer of the second."""
    switch(clone, lane=True)
    upstream.reset(a="500")
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: chat(clone, "cooled"), range(12)))
    assert [answer.status_code for answer in answers] == [200] * 12, [answer.text for answer in answers]
    assert Counter(upstream.sequence())["b"] == 12


def leave_in_the_middle(clone: Clone, endless: Endless, client: httpx.Client, mode: str) -> None:
    endless.left.clear()
    body = {"model": mode, "stream": True, "messages": [{"role": "user", "content": "hello " * 20}]}
    with client.stream("POST", f"http://127.0.0.1:{clone.port}/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200, answer.read()
        assert len([line for line, _ in zip(answer.iter_lines(), range(9), strict=False)]) == 9


@pytest.mark.parametrize("lane", [True, False])
def test_who_leaves_in_the_middle_has_taken_tokens_too(clone: Clone, endless: Endless, lane: bool) -> None:
    switch(clone, lane=lane)
    mode = "counted" if lane else "counted2"
    headers = {"Authorization": f"Bearer {clone.key()}"}
    with httpx.Client(trust_env=False, timeout=PATIENCE, headers=headers) as client:
        leave_in_the_middle(clone, endless, client, mode)
    until("the tokens count", lambda: chat(clone, mode).status_code == 429)


def test_the_next_request_of_a_connection_has_a_client_of_its_own(
    clone: Clone, upstream: Watched, endless: Endless
) -> None:
    """The one before took LiteLLM's way, and is tidied up while the next one runs."""
    switch(clone, lane=True)
    headers = {"Authorization": f"Bearer {clone.key()}"}
    for _ in range(5):
        with httpx.Client(trust_env=False, timeout=PATIENCE, headers=headers) as client:
            body = {"model": "one", "stream": True, "guided_regex": "x", "messages": [{"role": "user", "content": "x"}]}
            assert "[DONE]" in client.post(f"http://127.0.0.1:{clone.port}/v1/chat/completions", json=body).text
            leave_in_the_middle(clone, endless, client, "endless")
        assert endless.left.wait(PATIENCE), "the upstream still writes"
