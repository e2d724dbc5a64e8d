"""The measuring program: what it reads from a response, and the order of its requests. No connection is made."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from time import perf_counter
from typing import Any

import pytest
from aiohttp import ClientError

from io3ops_gateway.scripts import measure


class Reply:
    def __init__(self, *lines: object, status: int = 200) -> None:
        self.status = status
        self.headers = {"x-io3-deployment": "executor.1.a"}
        self._lines = [line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines]

    @property
    async def content(self) -> AsyncIterator[bytes]:
        for line in self._lines:
            yield line

    async def read(self) -> bytes:
        return b"".join(self._lines)

    async def text(self) -> str:
        return (await self.read()).decode()

    async def __aenter__(self) -> Reply:
        return self

    async def __aexit__(self, *_: object) -> None:
        return


class Session:
    """Answers every request in the same way, and keeps the requests."""

    def __init__(self, reply: Any) -> None:
        self.reply = reply
        self.asked: list[tuple[str, dict[str, str], str | None]] = []

    def post(self, url: str, *, data: bytes, headers: dict[str, str], proxy: str | None) -> Reply:
        self.asked.append((url, headers, proxy))
        if isinstance(self.reply, Exception):
            raise self.reply
        assert json.loads(data)
        reply: Reply = self.reply() if callable(self.reply) else self.reply
        return reply


def way(*, stream: bool = False, name: str = "direct") -> dict[str, Any]:
    return {"url": f"http://{name}", "body": {"stream": stream}, "headers": {"h": "1"}, "proxy": ""}


def ask(reply: Any, **kind: Any) -> dict[str, Any]:
    session: Any = Session(reply)
    return asyncio.run(measure.ask(session, way(**kind)))


OLLAMA = (
    {"message": {"role": "assistant", "content": ""}, "done": False},
    {"message": {"content": "A light"}, "done": False},
    {"message": {"content": ""}, "done": True, "eval_count": 32, "prompt_eval_count": 9},
)
OPENAI = (
    b'data: {"choices": [{"delta": {"role": "assistant", "content": ""}}]}\n',
    b"\n",
    b'data: {"choices": [{"delta": {"content": "A light"}}]}\n',
    b'data: {"choices": [], "usage": {"completion_tokens": 32, "prompt_tokens": 9}}\n',
    b"data: [DONE]\n",
)


@pytest.mark.parametrize("lines", [OLLAMA, OPENAI])
def test_a_stream_is_read_in_both_formats(lines: tuple[Any, ...]) -> None:
    found = ask(Reply(*lines), stream=True)
    assert found["tokens"] == 32 and 0 < found["first"] <= found["seconds"] and found["error"] == ""
    assert found["served"] == "executor.1.a"


@pytest.mark.parametrize(
    ("answer", "tokens"),
    [
        ({"message": {"content": "x"}, "eval_count": 5, "prompt_eval_count": 9}, 5),
        ({"choices": [{"message": {"content": "x"}}], "usage": {"completion_tokens": 5, "prompt_tokens": 9}}, 5),
        ({"embeddings": [[0.1]], "prompt_eval_count": 9}, 9),
        ({"data": [{"embedding": [0.1]}], "usage": {"prompt_tokens": 9, "completion_tokens": 0}}, 9),
        ({"data": []}, 0),
    ],
)
def test_a_whole_response_reports_its_tokens(answer: dict[str, Any], tokens: int) -> None:
    found = ask(Reply(answer))
    assert found["tokens"] == tokens and found["first"] == 0 and found["seconds"] > 0


@pytest.mark.parametrize(
    ("delta", "text"),
    [
        ({"content": ""}, False),
        ({"reasoning_content": "hm"}, True),
        ({"role": "assistant"}, False),
        ({"content": "a"}, True),
    ],
)
def test_reasoning_is_a_first_token_too(delta: dict[str, str], text: bool) -> None:
    assert measure.has_text({"choices": [{"delta": delta}]}) is text
    assert measure.has_text({"message": {"thinking": "hm"}}) and not measure.has_text({"choices": []})


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(b"the gateway\nis busy", status=503), "HTTP 503: the gateway is busy"),
        (ClientError("Cannot connect"), "Cannot connect"),
        (TimeoutError(), "TimeoutError"),
        (Reply(b"<html>"), "Expecting value"),
        (Reply(OLLAMA[1], {"error": "out of memory"}), "the response broke off: out of memory"),
    ],
)
def test_a_failure_is_reported_and_never_raised(reply: Any, words: str) -> None:
    assert words in ask(reply, stream=True)["error"]


def test_a_response_without_a_token_is_a_failure() -> None:
    assert "no text" in ask(Reply({"message": {"content": ""}, "done": True}))["error"]


CASE = {"mode": "m", "what": "chat", "each": 2, "number": 3, "ways": {"direct": way(), "gateway": way(name="gateway")}}


def run(session: Any, **of: Any) -> int:
    limits = {"at_once": 1, "count": 3, "end": 1e12, "expected": 0.0} | of
    return asyncio.run(measure.rounds(session, CASE, **limits))[0]


def test_the_ways_take_turns_in_alternating_order(capsys: pytest.CaptureFixture[str]) -> None:
    session: Any = Session(lambda: Reply(*OLLAMA[2:]))
    assert run(session) == 3
    assert [url.removeprefix("http://") for url, *_ in session.asked] == [
        "direct", "gateway", "gateway", "direct", "direct", "gateway",
    ]  # fmt: skip
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    samples = [(s["case"], s["way"], s["round"]) for s in said if s["kind"] == "sample"]
    assert samples[:3] == [(3, "direct", 0), (3, "gateway", 0), (3, "gateway", 1)]


def test_a_burst_has_many_clients_with_several_requests_each() -> None:
    session: Any = Session(lambda: Reply(*OLLAMA[2:]))
    assert run(session, at_once=4, count=1) == 1
    assert len(session.asked) == 2 * 4 * 2


def test_no_round_is_begun_without_time_for_it() -> None:
    session: Any = Session(lambda: Reply(*OLLAMA[2:]))
    assert run(session, end=perf_counter() + 60, expected=61.0) == 0 and session.asked == []


def test_all_cases_are_measured_one_at_a_time_and_then_concurrently() -> None:
    session: Any = Session(lambda: Reply(*OLLAMA[2:]))
    job = {"rounds": 3, "bursts": 1, "parallel": 4, "seconds": 60}
    cases = [CASE, CASE | {"number": 4}]
    assert asyncio.run(measure.all_cases(session, cases, job, perf_counter())) is True
    assert len(session.asked) == 2 * (3 * 2 + 4 * 2 * 2)


def test_one_client_measures_no_bursts() -> None:
    session: Any = Session(lambda: Reply(*OLLAMA[2:]))
    job = {"rounds": 3, "bursts": 3, "parallel": 1, "seconds": 60}
    assert asyncio.run(measure.all_cases(session, [CASE], job, perf_counter())) is True
    assert len(session.asked) == 3 * 2


def test_each_case_has_one_round_even_without_time() -> None:
    session: Any = Session(lambda: Reply(*OLLAMA[2:]))
    job = {"rounds": 3, "bursts": 3, "parallel": 4, "seconds": 1e-9}
    cases = [CASE, CASE | {"number": 4}]
    assert asyncio.run(measure.all_cases(session, cases, job, perf_counter())) is False
    assert len(session.asked) == 2 * 2


def test_a_way_that_does_not_answer_is_not_measured_nor_a_case_without_its_gateway() -> None:
    class Picky(Session):
        def post(self, url: str, **rest: Any) -> Reply:
            return Reply(*OLLAMA[2:]) if self.reply in url else Reply(b"no", status=502)

    job = {"cases": [{"mode": "m", "what": "chat", "ways": {"direct": way(), "gateway": way(name="gateway")}}]}
    gateway: Any = Picky("gateway")
    direct: Any = Picky("direct")
    (ready,) = asyncio.run(measure.warm(gateway, job))
    assert list(ready["ways"]) == ["gateway"] and ready["number"] == 0
    assert asyncio.run(measure.warm(direct, job)) == []
