"""The request log of the real gateway: one line for each request, with the lane and without it.

Ids are in `test_request_ids`; what may happen to the log itself is in `test_request_log_faults`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.clone import PATIENCE, until
from tests.integration.request_log import SECRET, Bench
from tests.raw_http import Answer, Connection

pytestmark = pytest.mark.containers

# By hand: they vary, and `test_every_line_is_sane` looks at them.
VARIES = (
    "v",
    "time",
    "ms",
    "body_ms",
    "queue_ms",
    "first_ms",
    "bytes_in",
    "bytes_out",
    "at",
    "id",
    "tokens_per_second",
)
# Of a request: whole answers, and streams.
BOTH: tuple[dict[str, Any], ...] = ({}, {"stream": True})
USUAL = {"data_class": "internal", "key": "owner", "client": "pytest 9.1"}
TIMES = {"load_ms": 5.0, "prompt_ms": 10.0, "eval_ms": 20.0, "runtime_ms": 40.0}
USED = {"input_tokens": 3, "output_tokens": 2}
MESSAGES = [{"role": "user", "content": SECRET}]


@pytest.fixture(scope="module", params=["lane", "full"])
def way(bench: Bench, request: pytest.FixtureRequest) -> str:
    """Plain requests go this way. Few places, so that a queue is soon full."""
    bench.switch(lane=request.param == "lane", parallel=3, queue=1, queue_timeout=1)
    return str(request.param)


@pytest.fixture(autouse=True)
def _well(bench: Bench) -> Iterator[None]:
    bench.upstream.told()
    yield
    bench.upstream.told()


def plain(line: dict[str, Any]) -> dict[str, Any]:
    """A line without what differs from run to run."""
    assert len(line.pop("key_id", "12345678")) == 8
    kept = {name: value for name, value in line.items() if name not in VARIES}
    if "attempts" in kept:
        kept["attempts"] = [{n: v for n, v in attempt.items() if n not in VARIES} for attempt in kept["attempts"]]
    return kept


def told(mode: str, way: str, *attempts: dict[str, Any], name: str = "chat", **more: Any) -> dict[str, Any]:
    answer = {"model": attempts[-1]["deployment"].rsplit(".", 1)[1]} | (
        {} if name == "embeddings" else {"finish_reasons": ["stop"]}
    )
    gen_ai = {"operation": {"name": name}, "response": answer, "usage": USED}
    window = 512 if mode == "embed" else 2048
    return USUAL | {"mode": mode, "status": 200, "path": way, "window": window, "gen_ai": gen_ai, "attempts": list(attempts)} | more  # fmt: skip


def tried(deployment: str, **more: Any) -> dict[str, Any]:
    times = {} if more.get("error") or deployment.endswith("d") else TIMES
    return {"deployment": deployment, "provider": "served" if deployment.endswith("d") else "host"} | times | more


def test_a_line_says_what_was_done(bench: Bench, way: str) -> None:
    stream: dict[str, Any] = {"stream": True}
    _, line = bench.ask("one")
    assert plain(line) == told("one", way, tried("one.1.a"))
    # Nobody asked for usage, and still it is known.
    answer, line = bench.ask("one", **stream)
    assert b'"usage":{' not in answer.body and plain(line) == told("one", way, tried("one.1.a"), **stream)
    answer, line = bench.ask("one", **stream, stream_options={"include_usage": True})
    assert b'"usage":{' in answer.body and plain(line) == told("one", way, tried("one.1.a"), **stream)
    _, line = bench.ask("served", **stream)
    assert plain(line) == told("served", way, tried("served.1.d"), **stream) and line["tokens_per_second"] > 0
    _, line = bench.ask("served")
    assert plain(line) == told("served", way, tried("served.1.d")) and line["tokens_per_second"] > 0
    for more in ({}, stream):
        _, line = bench.ask("one", "completions", prompt=SECRET, **more)
        assert plain(line) == told("one", way, tried("one.1.a"), name="text_completion", **more)
        _, line = bench.ask("one", "responses", input=SECRET, **more)
        assert plain(line) == told("one", "full", tried("one.1.a"), **more)
        _, line = bench.ask("one", "messages", messages=MESSAGES, max_tokens=9, **more)
        assert plain(line) == told("one", "full", tried("one.1.a"), **more)
    _, line = bench.ask("embed", "embeddings", input=SECRET, agent="OpenAI/Python 1.99.9")
    expected = told(
        "embed",
        way,
        {"deployment": "embed.1.vec", "provider": "host", "load_ms": 5.0, "runtime_ms": 40.0},
        name="embeddings",
    )
    expected["gen_ai"]["usage"] = {"input_tokens": 1, "output_tokens": 0}
    assert plain(line) == expected | {"client": "OpenAI/Python 1.99.9"}


@pytest.mark.parametrize(
    ("mode", "how", "failure"),
    [
        ("two", "500", {"status": 500, "error": "http_500"}),
        ("limited", "429", {"status": 429, "error": "http_429"}),
        ("hasty", "silent", {"error": "ReadTimeout"}),
        ("early", "early", {"error": "cut"}),
        ("retried", "500", {"status": 500, "error": "http_500"}),
        ("down", "", {"error": "ConnectError"}),
    ],
)
def test_attempts_stand_in_their_order(bench: Bench, way: str, mode: str, how: str, failure: dict[str, Any]) -> None:
    bench.upstream.told(a=how or "ok")
    more: dict[str, Any] = {"stream": True} if mode == "early" else {}
    answer, line = bench.ask(mode, **more)
    assert answer.status == 200
    first = tried(f"{mode}.1.{'g' if mode == 'down' else 'a'}", **failure)
    if mode == "down":
        first["provider"] = "gone"
    attempts = [first] * (3 if mode == "retried" else 1)
    assert plain(line) == told(mode, "full", *attempts, tried(f"{mode}.2.b"), **more)
    assert bench.upstream.asked == ["a"] * len(attempts) * (mode != "down") + ["b"], "each line of an attempt is a call"
    if mode == "hasty":
        assert line["attempts"][0]["ms"] >= 650


def test_all_failed_and_out_of_time(bench: Bench, way: str) -> None:
    bench.upstream.told(a="500", says=SECRET + "\n\x1b[31m")
    answer, line = bench.ask("failing")
    assert answer.status == 500 and SECRET.encode() in answer.body
    assert (line["outcome"], line["status"], line["error"], line["path"]) == (
        "error",
        500,
        "InternalServerError",
        "full",
    )
    assert plain(line)["attempts"] == [tried("failing.1.a", status=500, error="http_500")]
    assert "response" not in line["gen_ai"] and "usage" not in line["gen_ai"]
    bench.upstream.told(a="silent")
    answer, line = bench.ask("brief")
    assert answer.status == 504 and (line["outcome"], line["error"]) == ("timeout", "out_of_time")
    assert line["attempts"][0]["error"] == "ReadTimeout" and line["ms"] >= 950


def test_over_a_limit_and_in_a_full_queue(bench: Bench, way: str) -> None:
    mode = "log-few" if way == "lane" else "log-few2"
    answers = [bench.ask(mode) for _ in range(2)]
    assert [answer.status for answer, _ in answers] == [200, 429]
    assert (answers[1][1]["outcome"], answers[1][1]["error"]) == ("refused", "limit")
    bench.upstream.told(a="silent")
    holders = [Connection(bench.port) for _ in range(4)]
    try:
        for holder in holders:
            if holder is holders[3]:
                until("three are served", lambda: len(bench.upstream.asked) == 3)
            holder.send(bench.head("chat/completions", bench.new(), bench.body("one")))
        # One waits; how soon the worker has read it is nobody's promise.
        found: list[tuple[Answer, dict[str, Any]]] = []

        def refused_at_once() -> bool:
            found.append(bench.ask("one"))
            return bool(found[-1][1].get("queue_ms", 0) < 500)

        until("nobody else may wait", refused_at_once)
        answer, line = found[-1]
        assert answer.status == 503 and (line["outcome"], line["error"], line["status"]) == ("refused", "busy", 503)
        waited = holders[3].answer()
        assert waited and waited.status == 503 and waited.headers["x-request-id"].startswith("test-")
        line = bench.line(waited.headers["x-request-id"])
        assert 900 <= line["queue_ms"] <= line["ms"] and "attempts" not in line
    finally:
        for holder in holders:
            holder.__exit__()


@pytest.mark.parametrize("how", ["cut", "ends", "closes"])
@pytest.mark.parametrize("kind", ["", "2"])
def test_an_upstream_that_dies_in_mid_stream_is_told(bench: Bench, way: str, how: str, kind: str) -> None:
    """In JSON lines and in events; by a broken connection, and by an end in good order that comes too soon."""
    model = "d" if kind else "a"
    bench.upstream.told(**{model: how})
    answer, line = bench.ask(how + kind, stream=True)
    assert b"w2 " in answer.body and b"[DONE]" not in answer.body and b'"finish_reason":"' not in answer.body
    last = answer.body.strip().split(b"\n\n")[-1]
    assert json.loads(last.removeprefix(b"data: "))["error"]["message"]
    assert (line["outcome"], line["status"], line["path"], line["stream"]) == ("cut", 200, way, True)
    assert line["error"] == ("upstream_cut" if way == "lane" else "APIConnectionError")
    (attempt,) = line["attempts"]
    assert attempt["error"] in ("cut", "ReadError") and attempt["deployment"] == f"{how + kind}.1.{model}"
    assert "finish_reasons" not in line["gen_ai"]["response"]


@pytest.mark.parametrize(("how", "stream"), [("silent", False), ("silent", True), ("endless", True)])
@pytest.mark.parametrize("mode", ["one", "served"])
def test_a_client_that_leaves(bench: Bench, way: str, mode: str, how: str, stream: bool) -> None:
    """The runtime is told: its connection ends."""
    bench.upstream.told(a=how, d=how)
    name = bench.new()
    with Connection(bench.port) as client:
        client.send(bench.head("chat/completions", name, bench.body(mode, stream=stream)))
        assert bench.upstream.busy.wait(PATIENCE) and (how == "silent" or client._until(b"w3"))
        assert not bench.upstream.left.is_set()
    assert bench.upstream.left.wait(PATIENCE), "the runtime still generates"
    line = bench.line(name)
    assert line["outcome"] == "client_left" and line["path"] == way and line["attempts"][0]["error"] == "stopped"
    assert line.get("status", 0) == (200 if how == "endless" else 0), "what the client has got"
    assert "finish_reasons" not in line["gen_ai"].get("response", {})


def test_nothing_of_a_hostile_client_or_server_is_in_a_line(bench: Bench, way: str) -> None:
    evil = f"{SECRET}\n\x1b[31m"
    bench.upstream.told(reason=evil)
    for mode in ("one", "served"):
        for more in BOTH:
            answer, line = bench.ask(
                mode, **more, agent=f"{SECRET}/\xff 1\t(sk-12345)", user=evil, metadata={"x": evil}
            )
            assert answer.status == 200 and line["client"] == "other"
    # Here LiteLLM has no word of its own for it.
    for more in BOTH:
        for path in ("responses", "messages"):
            answer, line = bench.ask("one", path, input=SECRET, messages=MESSAGES, max_tokens=9, **more)
            assert answer.status == 200 and line["client"] == "pytest 9.1"
    bench.upstream.told(a="400", says=f"{evil} is too long")
    for stream in (False, True):
        _, line = bench.ask("one", stream=stream)
        assert line["outcome"] == "error" and line["attempts"][0]["status"] == 400
    raw = b"".join(file.read_bytes() for file in bench.folder.iterdir())
    assert SECRET.encode() not in raw and b"sk-" not in raw and b"evil" not in raw
    assert raw.isascii() and raw.replace(b"\n", b"").decode().isprintable()


def test_the_parts_of_a_request_are_its_time(bench: Bench, way: str) -> None:
    """What no part accounts for is the gateway's own time: it does not grow with the time of the model's server."""
    gaps = []
    for _ in range(5):
        # Long, because on a busy machine what no part accounts for is scheduling.
        bench.upstream.told(a="slow:2")
        _, line = bench.ask("one")
        gaps.append(gap(line))
        assert line["attempts"][0]["ms"] >= 400, line
        # Less than the server's 400 ms: its wait is in the attempt. How much less says how busy this machine is.
        if -1 < gaps[-1] < 200:
            break
    assert -1 < gaps[-1] < 200, gaps


def gap(line: dict[str, Any]) -> float:
    """What no part of a request accounts for."""
    parts = [line.get("body_ms", 0), line.get("queue_ms", 0), *(attempt["ms"] for attempt in line.get("attempts", ()))]
    return float(line["ms"] - sum(parts))


def test_every_line_is_sane(bench: Bench, way: str) -> None:
    """All that the tests before have left behind."""
    document = (bench.clone.path / "docs/request-log.md").read_text("utf-8")
    known = set(re.findall(r"`([a-z_.]+)`", " ".join(row.split("|")[1] for row in document.splitlines() if row.startswith("| `"))))  # fmt: skip
    for data in (line for file in bench.folder.glob("requests*.jsonl") for line in file.read_bytes().splitlines()):
        line = json.loads(data)
        assert len(data) < 4096 and data.startswith(b'{"v":1,') and data.rfind(b'{"v":') == 0
        assert line.keys() - {"gen_ai", "attempts"} <= known, line
        assert all(attempt.keys() <= known for attempt in line.get("attempts", ()))
        assert gap(line) > -1 and line.get("first_ms", 0) <= line["ms"], line
        ends = [0.0]
        for attempt in line.get("attempts", ()):
            assert attempt["at"] >= ends[-1] - 0.2 and attempt["at"] + attempt["ms"] <= line["ms"] + 0.2, line
            ends.append(attempt["at"] + attempt["ms"])
