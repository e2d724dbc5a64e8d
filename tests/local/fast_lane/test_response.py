"""The relay of a real HTTP response: whole and streamed, complete, broken off, unrecognised, and of a part of the prompt."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.local.fast_lane.model_server import (
    CHAT,
    COUNTS,
    NAME,
    OLLAMA_DONE,
    OLLAMA_WHOLE,
    STREAM,
    STREAM_HEAD,
    Connection,
    Rig,
    Script,
    close,
    lane_to,
    ollama_line,
    reset,
    silence,
    stream,
    whole,
)

from io3ops_gateway.codec import sse
from io3ops_gateway.fast_lane import response
from io3ops_gateway.fast_lane.response import ResponseRelay, blames_server, failed_attempt
from io3ops_gateway.request.attempt_outcome import AttemptOutcome


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


def raw(data: bytes, then: Script = close) -> Script:
    """Exactly these bytes."""

    async def script(connection: Connection) -> None:
        await connection.send(data)
        await then(connection)

    return script


async def failure(
    script: Script, body: dict[str, Any], folder: Path, word: str = "", **options: Any
) -> tuple[Rig, AttemptOutcome]:
    """The outcome of a request that the lane could not serve. `word`: the attempt's error in the log, where the outcome has no such word."""
    async with lane_to(script, folder, **options) as (server, rig):
        answer = await rig.ask(body)
        assert answer.served is False and answer.sent == [], "the full path is next, with nothing sent yet"
        assert len(server.received) == 1, "the lane asks once"
        outcome = answer.context.routing.outcome
        assert outcome is not None and outcome.deployment == NAME and outcome.url == f"{server.url}/api/chat"
        (attempt,) = answer.context.record.attempts
        status = f"http_{outcome.status}" if outcome.status >= 400 else "not_understood"
        assert (
            attempt.error == (word or (status if outcome.status else outcome.error))
            and attempt.status == outcome.status
            and attempt.ended
        )
        assert answer.context.record.outcome is None, "the request has not failed yet"
        return rig, outcome


# -- whole responses


def test_a_whole_response(tmp_path: Path) -> None:
    async def test() -> None:
        async with lane_to(whole(OLLAMA_WHOLE), tmp_path) as (_, rig):
            answer = await rig.ask()
            assert answer.served and answer.status == 200 and answer.ended
            assert answer.headers["content-type"] == "application/json"
            assert int(answer.headers["content-length"]) == len(answer.body)
            assert answer.headers["x-io3-deployment"] == NAME and answer.headers["x-io3-served"] == "local"
            found = json.loads(answer.body)
            assert found["model"] == "m" and found["choices"][0]["message"]["content"] == "hi"
            assert answer.context.record.stream is False
            assert answer.context.budget.when() is None, "the mode's total time is until the response begins"

    run(test)


def test_a_whole_response_in_many_pieces(tmp_path: Path) -> None:
    data = json.dumps(OLLAMA_WHOLE).encode()
    pieces = stream(*(data[n : n + 7] for n in range(0, len(data), 7)))

    async def test() -> None:
        async with lane_to(pieces, tmp_path) as (_, rig):
            answer = await rig.ask()
            assert answer.served and json.loads(answer.body)["choices"][0]["message"]["content"] == "hi"

    run(test)


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["whole", "stream"])
@pytest.mark.parametrize("status", [400, 401, 404, 413, 429, 500, 503])
def test_an_error_goes_to_litellm_as_it_came(status: int, body: dict[str, Any], tmp_path: Path) -> None:
    async def test() -> None:
        script = whole({"error": "no"}, status)
        rig, outcome = await failure(script, body, tmp_path)
        assert (outcome.status, outcome.content_type) == (status, "application/json")
        assert json.loads(outcome.body) == {"error": "no"}
        assert rig.planned() == (status in (400, 413)), "only some errors speak against the server"

    run(test)


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["whole", "stream"])
def test_an_errors_body_is_no_response(body: dict[str, Any], tmp_path: Path) -> None:
    """Even where it reads like one."""

    async def test() -> None:
        _, outcome = await failure(whole(OLLAMA_WHOLE, 503), body, tmp_path)
        assert outcome.status == 503 and json.loads(outcome.body) == OLLAMA_WHOLE

    run(test)


def test_a_response_is_not_unpacked(tmp_path: Path) -> None:
    """No encoding was asked for, and a small packed response could be of any size."""
    packed = gzip.compress(json.dumps(OLLAMA_WHOLE).encode())

    async def test() -> None:
        _, outcome = await failure(whole(packed, headers="content-encoding: gzip\r\n"), CHAT, tmp_path)
        assert outcome.body == packed

    run(test)


@pytest.mark.parametrize("data", [b"", b"<html>", b"[]", b'{"message": 1}', b'{"error": "odd"}'])
def test_a_whole_response_that_is_not_recognised(data: bytes, tmp_path: Path) -> None:
    async def test() -> None:
        rig, outcome = await failure(whole(data), CHAT, tmp_path)
        assert (outcome.status, outcome.body) == (200, data)
        assert not rig.planned()

    run(test)


def test_a_response_without_an_end_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response, "RESPONSE_BYTES", 1_000_000)

    async def endless(connection: Connection) -> None:
        await connection.send(STREAM_HEAD)
        while True:
            await connection.chunk(b"x" * 100_000)

    async def test() -> None:
        rig, outcome = await failure(endless, CHAT, tmp_path, "not_understood")
        assert outcome.error == "ReadError" and "longer than 1 MB" in outcome.reason and not rig.planned()

    run(test)


# -- failures before the first byte for the client


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("script", "error"),
    [
        pytest.param(close, "RemoteProtocolError", id="closed"),
        pytest.param(reset, "ReadError", id="reset"),
        pytest.param(raw(b"nonsense\r\n\r\n"), "ReadError", id="no HTTP"),
        pytest.param(raw(STREAM_HEAD + b"5\r\nhal"), "ReadError", id="closed in a chunk"),
        pytest.param(raw(STREAM_HEAD + b"ZZ\r\n", silence), "ReadError", id="malformed chunk"),
    ],
)
def test_a_broken_connection(script: Script, error: str, body: dict[str, Any], tmp_path: Path) -> None:
    async def test() -> None:
        rig, outcome = await failure(script, body, tmp_path, seconds=2.0, first=2.0)
        assert (outcome.status, outcome.error) == (0, error) and outcome.reason
        assert not rig.planned()

    run(test)


@pytest.mark.parametrize("head", [b"", STREAM_HEAD, STREAM_HEAD + b"1\r\n \r\n"], ids=["nothing", "head", "blank"])
@pytest.mark.parametrize(
    ("body", "patience"), [(CHAT, {"seconds": 0.05}), (STREAM, {"first": 0.05})], ids=["whole", "stream"]
)
def test_a_silent_server(head: bytes, body: dict[str, Any], patience: dict[str, Any], tmp_path: Path) -> None:
    """Of the two time-outs the one for this kind of request counts; the other stays at 30 s."""

    async def test() -> None:
        rig, outcome = await failure(raw(head, silence), body, tmp_path, **patience)
        assert (outcome.status, outcome.error) == (0, "ReadTimeout") and outcome.reason
        assert not rig.planned()

    run(test)


@pytest.mark.parametrize(
    ("body", "patience"), [(CHAT, {"seconds": 0.1}), (STREAM, {"first": 0.1})], ids=["whole", "stream"]
)
def test_a_server_that_sends_bytes_and_says_nothing(
    body: dict[str, Any], patience: dict[str, Any], tmp_path: Path
) -> None:
    """Here byte after byte of a chunk's header: aiohttp's own timeout starts anew with each."""

    async def drip(connection: Connection) -> None:
        await connection.send(STREAM_HEAD + b"5;")
        while True:
            await connection.send(b"x")
            await asyncio.sleep(0.01)

    async def test() -> None:
        _, outcome = await failure(drip, body, tmp_path, **patience)
        assert (outcome.status, outcome.error) == (0, "ReadTimeout")

    run(test)


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"

    async def test() -> None:
        rig = Rig(url, tmp_path)
        answer = await rig.ask()
        await rig.close()
        outcome = answer.context.routing.outcome
        assert answer.served is False and answer.sent == [] and outcome is not None
        assert (outcome.status, outcome.error) == (0, "ConnectError") and not rig.planned()

    run(test)


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (aiohttp.ConnectionTimeoutError(), "ConnectTimeout"),
        (aiohttp.SocketTimeoutError(), "ReadTimeout"),
        (TimeoutError(), "ReadTimeout"),
        (aiohttp.ServerDisconnectedError(), "RemoteProtocolError"),
        (aiohttp.ClientPayloadError("x"), "ReadError"),
        (aiohttp.ClientOSError(104, "reset"), "ReadError"),
    ],
)
def test_a_failure_has_the_name_that_litellm_knows(error: Exception, name: str) -> None:
    found = failed_attempt("http://x", NAME, error)
    assert found.error == name and found.reason and found.status == 0


def test_a_status_that_speaks_against_the_server() -> None:
    blamed = {status for status in range(200, 600) if blames_server(status)}
    assert blamed == {*range(200, 400), 401, 403, 404, 408, 429, *range(500, 600)}


# -- streams


def test_events_are_relayed_as_they_come(tmp_path: Path) -> None:
    async def test() -> None:
        heard, done = asyncio.Event(), asyncio.Event()

        async def gated(connection: Connection) -> None:
            await connection.send(STREAM_HEAD)
            await connection.chunk(ollama_line("one "))
            await heard.wait()
            await connection.chunk(ollama_line("two"))
            await connection.chunk(OLLAMA_DONE)
            # The end comes only after the client has got everything.
            await done.wait()
            await connection.chunk(b"")

        async with lane_to(gated, tmp_path) as (server, rig):
            async with rig.asking(STREAM) as (answer, task):
                await answer.arrived.wait()
                assert answer.text() == "one " and not answer.ended
                heard.set()
                while not answer.ended:
                    await asyncio.sleep(0.001)
                done.set()
                await task
            assert answer.served and answer.ended and answer.text() == "one two" and answer.events()[-1] == "[DONE]"
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.headers["x-accel-buffering"] == "no" and answer.headers["cache-control"] == "no-cache"
            assert "content-length" not in answer.headers and answer.context.budget.when() is None
            assert (await rig.ask(STREAM)).served
            assert [received.connection for received in server.received] == [0, 0], "both were read to the end"

    run(test)


def test_a_line_may_come_in_pieces(tmp_path: Path) -> None:
    data = ollama_line("üñ") + OLLAMA_DONE
    pieces = stream(*(data[n : n + 3] for n in range(0, len(data), 3)))

    async def test() -> None:
        async with lane_to(pieces, tmp_path) as (_, rig):
            answer = await rig.ask(STREAM)
            assert answer.served and answer.text() == "üñ" and answer.events()[-1] == "[DONE]"

    run(test)


@pytest.mark.parametrize("ending", [close, reset, silence], ids=["close", "reset", "silence"])
def test_a_complete_stream_may_end_as_it_likes(ending: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response, "END_SECONDS", 0.01)

    async def test() -> None:
        async with lane_to(stream(ollama_line("hi"), OLLAMA_DONE, then=ending), tmp_path) as (server, rig):
            for _ in range(2):
                answer = await rig.ask(STREAM)
                assert answer.served and answer.text() == "hi" and answer.events()[-1] == "[DONE]"
                assert answer.context.record.outcome is None and answer.context.record.attempts[0].error == ""
            assert [received.connection for received in server.received] == [0, 1], (
                "such a connection is not used again"
            )

    run(test)


@pytest.mark.parametrize("ending", [close, reset, silence], ids=["close", "reset", "silence"])
def test_a_served_stream_is_complete_with_its_finish_reason(ending: Script, tmp_path: Path) -> None:
    """Some servers send no `[DONE]` after it."""
    choice = {"index": 0, "delta": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    chunk = json.dumps(SERVED | {"object": "chat.completion.chunk", "choices": [choice]}).encode()

    async def test() -> None:
        script = stream(b"data: " + chunk + b"\n\n", then=ending)
        async with lane_to(script, tmp_path, kind="openai_compatible", first=0.1) as (_, rig):
            answer = await rig.ask(STREAM)
            assert answer.served and answer.text() == "hi" and answer.events()[-1] == "[DONE]"
            assert answer.context.record.outcome is None and rig.planned()

    run(test)


def test_a_line_without_an_end_cuts_the_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "LINE_BYTES", 1_000_000)

    async def endless(connection: Connection) -> None:
        while True:
            await connection.chunk(b"x" * 100_000)

    async def test() -> None:
        async with lane_to(stream(ollama_line("one"), then=endless), tmp_path) as (_, rig):
            answer = await rig.ask(STREAM)
            assert answer.served and answer.ended and answer.events()[-1]["error"]["code"] == "upstream_cut"
            assert answer.text() == "one" and answer.context.record.attempts[0].error == "cut" and not rig.planned()

    run(test)


@pytest.mark.parametrize(
    ("ending", "error"), [(close, "ReadError"), (reset, "ReadError"), (silence, "ReadTimeout"), (None, "cut")]
)
def test_a_stream_that_breaks_off_says_so(ending: Script | None, error: str, tmp_path: Path) -> None:
    """`None`: the server ends its response in good order, but without its last line."""

    async def test() -> None:
        async with lane_to(stream(ollama_line("one"), then=ending), tmp_path, first=0.5) as (_, rig):
            answer = await rig.ask(STREAM)
            assert answer.served and answer.ended and answer.text() == "one"
            assert answer.events()[-1]["error"]["code"] == "upstream_cut"
            assert "[DONE]" not in answer.events()
            record = answer.context.record
            assert (record.outcome, record.error) == ("cut", "upstream_cut")
            assert record.attempts[0].error == error and answer.context.routing.outcome is None
            assert not rig.planned(), "LiteLLM judges its health now"

    run(test)


def test_an_error_in_a_stream_is_the_servers_own(tmp_path: Path) -> None:
    async def test() -> None:
        script = stream(ollama_line("one"), b'{"error": "out of memory"}\n', then=silence)
        async with lane_to(script, tmp_path) as (_, rig):
            answer = await rig.ask(STREAM)
            assert answer.served and answer.ended and answer.text() == "one" and "error" in answer.events()[-1]
            record = answer.context.record
            assert (record.outcome, record.error, record.attempts[0].error) == ("cut", "upstream_error", "cut")
            assert rig.planned(), "the server speaks, so it is there"

    run(test)


def test_an_error_in_a_stream_repeats_no_key(tmp_path: Path) -> None:
    """The words of the model stay as they are: what looks like a key there is the user's own."""
    (tmp_path / "served").write_text("sk-of-the-server\n")

    async def test() -> None:
        script = stream(
            ollama_line("sk-of-the-server"), b'{"error": "wrong key sk-of-the-', b'server"}\n', then=silence
        )
        async with lane_to(script, tmp_path, key="served") as (_, rig):
            answer = await rig.ask(STREAM)
            assert answer.served and answer.text() == "sk-of-the-server"
            assert "wrong key ***" in str(answer.events()[-1]) and "of-the" not in str(answer.events()[-1])

    run(test)


@pytest.mark.parametrize(
    ("parts", "whole_body"),
    [
        pytest.param([b'{"error": "no such model"}\n'], b'{"error": "no such model"}\n', id="error"),
        pytest.param([b'{"odd"', b": 1}\n", b"more\n"], b'{"odd": 1}\nmore\n', id="unknown"),
        pytest.param([b"not JSON at all"], b"not JSON at all", id="no JSON"),
        pytest.param([], b"", id="empty"),
        pytest.param([b'{"model": "a"'], b'{"model": "a"', id="half a line"),
    ],
)
def test_a_stream_that_begins_with_something_else(
    parts: list[bytes], whole_body: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LiteLLM reads all of it from the outcome, so that its error can quote it."""
    read = asyncio.Event()

    class Told(ResponseRelay):
        async def _read(self, upstream: aiohttp.ClientResponse) -> bytes:
            part = await super()._read(upstream)
            read.set()
            return part

    async def apart(connection: Connection) -> None:
        """Send each part once the one before was read, so that no two are read as one."""
        await connection.send(STREAM_HEAD)
        for part in parts:
            read.clear()
            await connection.chunk(part)
            await read.wait()
            if b"}\n" in part:
                # From here on the relay knows that it does not recognise the stream, and reads in another way.
                read.set()
                read.clear = lambda: None  # type: ignore[method-assign]
        await connection.chunk(b"")

    monkeypatch.setattr("io3ops_gateway.fast_lane.lane.ResponseRelay", Told)

    async def test() -> None:
        rig, outcome = await failure(apart, STREAM, tmp_path)
        assert (outcome.status, outcome.content_type) == (200, "application/x-ndjson")
        assert outcome.body == whole_body and not rig.planned()

    run(test)


def test_no_more_is_read_of_an_unrecognised_stream_than_an_error_quotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(response, "UNRECOGNISED_BYTES", 1000)

    async def endless(connection: Connection) -> None:
        await connection.send(STREAM_HEAD)
        while True:
            await connection.chunk(b'{"odd": 1}\n' + b"x" * 100_000)

    async def test() -> None:
        _, outcome = await failure(endless, STREAM, tmp_path)
        assert outcome.status == 200 and 1000 <= len(outcome.body) < 10_000_000

    run(test)


def test_an_unrecognised_stream_that_goes_on_slowly_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A default argument was bound when the module was imported.
    monkeypatch.setattr(response._read_rest, "__defaults__", (0.01,))

    async def test() -> None:
        _, outcome = await failure(stream(b'{"odd": 1}\n', then=silence), STREAM, tmp_path)
        assert (outcome.status, outcome.body) == (200, b'{"odd": 1}\n')

    run(test)


# -- prompts of which the server read only a part

LONG: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "word " * 600}]}
SERVED = {"id": "x", "object": "chat.completion", "created": 1, "model": "a"}


def served(read: int, **choice: Any) -> dict[str, Any]:
    """A response of a server that says how much of the prompt it read."""
    usage = {"prompt_tokens": read, "completion_tokens": 1, "total_tokens": read + 1}
    plain = {"index": 0, "finish_reason": "stop"}
    return SERVED | {"choices": [plain | choice], "usage": usage}


def whole_served(read: int) -> Script:
    return whole(served(read, message={"role": "assistant", "content": "hi"}))


def stream_served(read: int) -> Script:
    chunk = served(read, delta={"role": "assistant", "content": "hi"}) | {"object": "chat.completion.chunk"}
    return stream(b"data: " + json.dumps(chunk).encode() + b"\n\n", b"data: [DONE]\n\n")


def test_a_whole_response_to_a_part_of_the_prompt_is_refused(tmp_path: Path) -> None:
    async def test() -> None:
        async with lane_to(whole_served(256), tmp_path, kind="openai_compatible", window=512) as (_, rig):
            answer = await rig.ask(LONG)
            outcome = answer.context.routing.outcome
            assert answer.served is False and answer.sent == [] and outcome is not None
            assert outcome.status == 400 and outcome.overlong is not None
            assert outcome.overlong.code == "context_length_exceeded" and "600" in outcome.overlong.message
            assert not answer.context.routing.truncated and rig.planned(), "the model is healthy"

    run(test)


def test_a_stream_to_a_part_of_the_prompt_ends_with_an_error(tmp_path: Path) -> None:
    async def test() -> None:
        async with lane_to(stream_served(256), tmp_path, kind="openai_compatible", window=512) as (_, rig):
            answer = await rig.ask(LONG | {"stream": True})
            assert answer.served and answer.events()[-1]["error"]["code"] == "context_length_exceeded"
            record = answer.context.record
            assert (record.outcome, record.error) == ("error", "context_length_exceeded") and rig.planned()

    run(test)


@pytest.mark.parametrize(("read", "truncated"), [(256, True), (600, False)])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_mode_may_allow_a_part_of_the_prompt(streamed: bool, read: int, truncated: bool, tmp_path: Path) -> None:
    async def test() -> None:
        script = stream_served(read) if streamed else whole_served(read)
        async with lane_to(script, tmp_path, kind="openai_compatible", window=512) as (_, rig):
            answer = await rig.ask(LONG | ({"stream": True} if streamed else {}), truncation="flag")
            assert answer.served and b"hi" in answer.body and b'"error"' not in answer.body
            assert answer.context.routing.truncated is truncated
            assert answer.context.record.usage.prompt == read

    run(test)


def test_ollamas_counts_reach_the_record_of_a_whole_response(tmp_path: Path) -> None:
    async def test() -> None:
        async with lane_to(whole(OLLAMA_WHOLE), tmp_path) as (_, rig):
            record = (await rig.ask()).context.record
            assert (record.usage.prompt, record.usage.completion) == (3, 2) and record.usage.finish_reason == "stop"
            assert record.attempts[0].timings["eval_duration"] == COUNTS["eval_duration"]

    run(test)
