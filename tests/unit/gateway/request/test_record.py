"""The request record, its line in the request log, and text that must never be in one."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from io3ops_gateway.request import error_responses, record
from io3ops_gateway.request.record import Caller, Capture, Decision, RequestRecord, Timing
from io3ops_gateway.request.usage import Usage
from io3ops_gateway.request_log import content_capture
from io3ops_gateway.request_log import entry as request_line
from io3ops_gateway.request_log import recorder as request_recorder
from io3ops_gateway.request_log.recorder import RequestRecorder
from io3ops_shared.policy import Deployment, ModePolicy
from io3ops_shared.request_log.schema import Outcome, RequestPath

HERE = Deployment(name="m.1.a", provider="local", local=True, url="http://runtime:11434", window=4096, model="a")
AWAY = Deployment(name="m.2.g", provider="openai", local=False, url="https://x", model="g")


def a_request(usage: Usage | None = None, decision: Decision | None = None, **more: Any) -> RequestRecord:
    timing = Timing(1_700_000_000.25, 10.0, ended=10.5)
    return RequestRecord("id-1", timing, usage=usage or Usage(), decision=decision or Decision(), **more)


def test_the_documents_examples_match_the_written_lines(root: Path) -> None:
    """Field by field, in the same order: the document is the schema."""
    text = (root / "docs" / "request-log.md").read_text()
    first, second, third = (json.loads(found) for found in re.findall(r"```json\n(.*)\n```", text))
    chat = RequestRecord(
        first["id"],
        Timing(1795544643.123, 0.0, body=0.0002, first=0.0312, ended=0.5124),
        Caller("OpenAI/Python 1.99.9", "owner", "9f86d081"),
        Decision("chat", "executor", "internal", "default"),
        Usage(prompt=31, completion=47, finish_reason="stop"),
        path=RequestPath.LANE,
        stream=True,
        status=200,
        bytes_in=212,
        bytes_out=9210,
    )
    place = Deployment(name="executor.1.smollm2", provider="local", local=True, url="x", window=4096, model="smollm2")
    timings = {"load_duration": 11_100_000, "prompt_eval_duration": 18_200_000, "eval_duration": 479_000_000}
    chat.attempts = [record.Attempt(place, 0.0006, 0.5121, 200, timings={**timings, "total_duration": 510_000_000})]
    assert list(request_line.line(chat)) == list(first)
    assert request_line.line(chat) == first | {"time": request_line.line(chat)["time"]}
    assert request_line.line(chat)["attempts"][0] == first["attempts"][0]
    assert len(orjson.dumps(request_line.line(chat))) < 600
    known = set(re.findall(r"^\| `([a-z_0-9]+)`|, `([a-z_0-9]+)`(?=[^|]*\|)", text, re.MULTILINE))
    words = {word for pair in known for word in pair if word} | set(re.findall(r"`([a-z_]+)`", text))
    for example in (first, second, third):
        assert example.keys() - {"gen_ai"} <= words
        for attempt in example.get("attempts", ()):
            assert attempt.keys() <= words


def test_a_fallback_to_the_cloud() -> None:
    found = a_request(Usage(prompt=20, completion=12, cost=0.0000312), status=200, path=RequestPath.FULL)
    found.attempts = [record.Attempt(HERE, 10.0, 10.1, 0, "ConnectError"), record.Attempt(AWAY, 10.2, 10.4, 200)]
    found.timing.first = 10.3
    line = request_line.line(found)
    assert line["attempts"] == [
        {"deployment": "m.1.a", "at": 0.0, "ms": 100.0, "error": "ConnectError"},
        {"deployment": "m.2.g", "provider": "openai", "cloud": True, "at": 200.0, "ms": 200.0},
    ]
    assert line["cost_usd"] == 0.0000312 and line["tokens_per_second"] == 40.0
    assert "window" not in line and line["gen_ai"]["response"] == {"model": "g"}


def test_an_unfinished_response_has_no_finish_reason() -> None:
    """LiteLLM says one before anybody knows that the client has left."""
    found = a_request(Usage(completion=3, finish_reason="stop"), status=200, outcome=Outcome.CLIENT_LEFT)
    assert request_line.line(found)["gen_ai"] == {"usage": {"output_tokens": 3}}


def test_unknown_fields_are_left_out() -> None:
    assert request_line.line(a_request(status=404)) == {
        "v": 1, "time": "2023-11-14T22:13:20.250Z", "id": "id-1", "status": 404, "path": "edge", "ms": 500.0
    }  # fmt: skip


@pytest.mark.parametrize(("agent", "name"), [
    (b"OpenAI/Python 1.99.9", "OpenAI/Python 1.99.9"), (b"curl/8.14.1", "curl 8.14.1"), (b"Mozilla/5.0 (X11; Linux)", "Mozilla 5.0"),
    (b"python-httpx/0.28.1", "python-httpx 0.28.1"), (b"Bun/v1.2", "Bun 1.2"), (b"", "other"), (b"sk-A8x2kQ9", "other"),
    (b"\x1b[31m/1.0", "other"), (b"a" * 100_000, "other"), (b"x\n/1", "other"), (b"name/1.2-SECRETWORD", "name 1.2"),
])  # fmt: skip
def test_a_client_is_a_product_and_a_version(agent: bytes, name: str) -> None:
    assert record.new_record([(b"user-agent", agent)]).caller.client == name


@given(st.binary(max_size=200))
def test_only_a_safe_id_is_taken_from_the_client(value: bytes) -> None:
    found = record.new_record([(b"x-request-id", value)]).id
    assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", found)
    if found.encode() != value:
        assert re.fullmatch(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}", found)


def test_ids_sort_by_time_and_differ() -> None:
    made = [record.new_id(1_700_000_000 + n / 1000) for n in range(100)]
    assert made == sorted(made) and len({record.new_id(5.0) for _ in range(1000)}) == 1000


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_clock_gives_a_valid_time(seconds: float) -> None:
    assert re.fullmatch(r"-?\d+-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", request_line.timestamp(seconds))


@pytest.mark.parametrize("told", ["a secret", "x" * 41, 7, None, ["stop"], "stop\n", "\x1b[1m", "hunter", "Stop"])
def test_only_a_known_finish_reason_is_kept(told: object) -> None:
    """A server may say a word of the prompt."""
    usage = Usage()
    usage.finish(told)
    assert usage.finish_reason == ""
    usage.finish("tool_calls")
    usage.finish(told)
    assert usage.finish_reason == "tool_calls"


@pytest.mark.parametrize("told", [True, 10**30, 1 << 53, -1, 1.5, "3", None])
def test_an_invalid_token_count_is_ignored(told: object) -> None:
    """LiteLLM reads numbers of any size, and a line with one that does not fit could not be written."""
    found = a_request(status=200)
    found.usage.count(told, told)
    found.usage.count_cached(told)
    assert (found.usage.prompt, found.usage.completion, found.usage.cached) == (None, None, None)
    orjson.dumps(request_line.line(found))


def test_usage_of_an_attempt_is_not_reported_for_the_next_one() -> None:
    """A local model answered, its answer was of no use (it had read less than was sent), and a cloud served: LiteLLM tells of that one."""
    found = a_request(status=200)
    found.attempt(HERE)
    found.usage.count(4096, 12)
    found.usage.finish("length")
    found.attempt(AWAY)
    assert (found.usage.prompt, found.usage.completion, found.usage.finish_reason) == (None, None, "")
    found.usage.count(9000, 5)
    assert request_line.line(found)["gen_ai"] == {
        "response": {"model": "g"},
        "usage": {"input_tokens": 9000, "output_tokens": 5},
    }


@pytest.mark.parametrize(("message", "kind"), [
    ("litellm.BadRequestError: x", "BadRequestError"), ("litellm.litellm.Timeout: x", "Timeout"), ("litellm.MidStreamFallbackError: y", "MidStreamFallbackError"),
    ("litellm.Hunter: 2", "http_500"), ("litellm.HunterError: 2", "http_500"), ("BadRequestError", "http_500"), ("litellm.TimeoutHunter", "http_500"),
])  # fmt: skip
def test_only_a_known_class_of_error_is_logged(message: str, kind: str) -> None:
    assert error_responses.kind(orjson.dumps({"error": {"message": message}}), 500) == kind


class Keeper:
    """A recorder that wants everything, or nothing."""

    def __init__(self, wanted: bool = False) -> None:
        self.wanted = wanted
        self.asked: list[tuple[str, str, bool]] = []
        self.kept: list[Mapping[str, Any]] = []
        self.closed = False

    def wants(self, mode: str, data_class: str, allow_internal: bool) -> bool:
        self.asked.append((mode, data_class, allow_internal))
        return self.wanted

    def keep(self, entry: Mapping[str, Any]) -> bool:
        self.kept.append(entry)
        return True

    def close(self, seconds: float = 1.0) -> bool:
        self.closed = True
        return True


def test_a_full_path_request_is_written_when_litellm_has_reported() -> None:
    lines: list[bytes] = []

    async def run() -> None:
        recorder = RequestRecorder(lines.append, Keeper())
        found = a_request(status=200, path=RequestPath.FULL)
        recorder.ended(found)
        assert lines == []
        found.usage.prompt = 3
        recorder.told(found)
        recorder.told(found)

    asyncio.run(run())
    assert [json.loads(line)["gen_ai"]["usage"] for line in lines] == [{"input_tokens": 3}]


def test_the_wait_for_litellms_report_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_recorder, "LATE_SECONDS", 0.0)
    written = asyncio.Event()

    async def run() -> None:
        recorder = RequestRecorder(lambda _line: written.set(), Keeper())
        recorder.ended(a_request(status=200, path=RequestPath.FULL))
        await asyncio.wait_for(written.wait(), 5)

    asyncio.run(run())


def test_flush_writes_waiting_records() -> None:
    lines: list[bytes] = []

    async def run() -> None:
        recorder = RequestRecorder(lines.append, Keeper())
        recorder.ended(a_request(status=200, path=RequestPath.FULL))
        recorder.flush()

    asyncio.run(run())
    assert len(lines) == 1


def test_a_request_that_ends_after_the_flush_is_written_on_close() -> None:
    """A worker's loop is closed by then, and its process ends at once."""
    lines: list[bytes] = []
    waited: list[float] = []
    keeper = Keeper()
    recorder = RequestRecorder(lines.append, keeper, waited.append)

    async def run() -> None:
        recorder.flush()
        recorder.ended(a_request(status=200, path=RequestPath.FULL))

    asyncio.run(run())
    assert lines == []
    recorder.close()
    assert len(lines) == 1 and waited == [request_recorder.END_SECONDS] and keeper.closed


def test_requested_content_is_kept_and_the_line_says_so() -> None:
    lines: list[bytes] = []
    keeper = Keeper(wanted=True)
    recorder = RequestRecorder(lines.append, keeper)
    found = a_request(status=200, path=RequestPath.LANE, decision=Decision(mode="m", data_class="public"))
    recorder.admitted(found, ModePolicy(name="m", groups={}, record_internal=True), {"messages": ["hello"]})

    async def send(_: Any) -> None: ...

    async def run() -> None:
        sent = found.sent(send)
        await sent({"type": "http.response.start", "status": 200, "headers": []})
        await sent({"type": "http.response.body", "body": b"an ", "more_body": True})
        await sent({"type": "http.response.body", "body": b"answer"})

    asyncio.run(run())
    recorder.ended(found)
    assert keeper.asked == [("m", "public", True)]
    assert [(e["id"], e["request"], e["answer"]) for e in keeper.kept] == [
        ("id-1", b'{"messages":["hello"]}', b"an answer")
    ]
    line = json.loads(lines[0])
    assert line["recorded"] is True and b"hello" not in lines[0] and line["bytes_out"] == 9


def test_of_a_long_response_only_the_captured_part_is_held() -> None:
    found = a_request(capture=Capture({}))

    async def send(_: Any) -> None: ...

    async def run() -> None:
        sent = found.sent(send)
        for _ in range(64):
            await sent({"type": "http.response.body", "body": b"x" * 1_000_000, "more_body": True})

    asyncio.run(run())
    assert (
        found.capture is not None
        and content_capture.MOST_TEXT < len(found.capture.answer) <= 2_000_000
        and found.bytes_out == 64_000_000
    )


def test_a_request_that_cannot_be_serialised_still_has_its_line() -> None:
    """JSON that is read may be nested more deeply than JSON that is written."""
    lines: list[bytes] = []
    keeper = Keeper(wanted=True)
    recorder = RequestRecorder(lines.append, keeper)
    found = a_request(
        status=400, outcome=Outcome.REFUSED, error="too_deep", path=RequestPath.EDGE, decision=Decision(mode="m")
    )
    recorder.admitted(found, ModePolicy(name="m", groups={}), orjson.loads(b"[" * 500 + b"]" * 500))
    recorder.ended(found)
    assert len(lines) == 1 and not keeper.kept and "recorded" not in json.loads(lines[0])


def test_content_is_kept_also_without_a_request_log() -> None:
    keeper = Keeper(wanted=True)
    recorder = RequestRecorder(None, keeper)
    found = a_request(status=200, path=RequestPath.LANE, decision=Decision(mode="m"))
    recorder.admitted(found, ModePolicy(name="m", groups={}), {})
    recorder.ended(found)
    assert len(keeper.kept) == 1


def test_a_local_server_gets_a_unique_id() -> None:
    chosen = record.new_record([(b"x-request-id", b"mine")])
    assert chosen.id == "mine" and chosen.onward.startswith("mine-") and chosen.onward != chosen.onward
    ours = record.new_record([])
    assert ours.onward == ours.id
