"""The lane against a real HTTP server: which requests it takes, what it sends, and what it learns from how they end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.local.fast_lane.model_server import (
    CHAT,
    NAME,
    OLLAMA_DONE,
    OLLAMA_WHOLE,
    STREAM,
    Answer,
    Rig,
    close,
    lane_to,
    model_server,
    ollama_line,
    silence,
    stream,
    whole,
)
from tests.unit.gateway.contexts import a_context

from io3ops_gateway.errors import Refusal
from io3ops_gateway.policy.endpoints import MESSAGES

ELSEWHERE = "http://127.0.0.1:9"


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


# -- which requests it takes


def test_a_request_that_is_not_plain_takes_the_full_path(tmp_path: Path) -> None:
    rig = Rig(ELSEWHERE, tmp_path)
    assert rig.planned()
    assert not rig.planned(CHAT | {"unheard_of": 1})
    assert not rig.planned(endpoint=MESSAGES)
    assert not rig.planned(group="other"), "a group whose first step the lane may not use"
    assert not rig.planned(override_reason="the customer agreed"), "LiteLLM's hooks write the audit log"


def test_a_prompt_is_checked_again_before_it_is_sent(tmp_path: Path) -> None:
    async def test() -> None:
        async with model_server(whole(OLLAMA_WHOLE)) as server:
            cloud = Rig(server.url, tmp_path, local=False)
            with pytest.raises(Refusal) as refused:
                await _serve(cloud, may_leave=False)
            assert refused.value.code == "stays_local"
            moved = Rig(server.url, tmp_path, url=ELSEWHERE)
            with pytest.raises(Refusal) as refused:
                await _serve(moved)
            assert refused.value.code == "unknown_address"
            assert server.received == [] and not cloud.lane._sessions and not moved.lane._sessions

    run(test)


async def _serve(rig: Rig, **decided: Any) -> None:
    context = a_context(**decided)
    planned = rig.lane.plan(context.admitted, CHAT)
    assert planned is not None
    await rig.lane.serve(*planned, context)


# -- what it sends


def test_the_server_gets_only_the_headers_that_it_needs(tmp_path: Path) -> None:
    async def test() -> None:
        async with lane_to(whole(OLLAMA_WHOLE), tmp_path) as (server, rig):
            answer = await rig.ask()
            (received,) = server.received
            assert received.line == "POST /api/chat HTTP/1.1"
            assert received.body["model"] == "a" and received.body["messages"][0]["content"] == "hello"
            assert received.headers.keys() == {"host", "content-type", "content-length", "x-request-id"}
            assert received.headers["x-request-id"] == answer.context.record.id

    run(test)


def test_an_id_that_the_client_chose_is_made_unique_for_the_server(tmp_path: Path) -> None:
    async def test() -> None:
        async with lane_to(whole(OLLAMA_WHOLE), tmp_path) as (server, rig):
            answer = await rig.ask(chosen=True)
            sent = server.received[0].headers["x-request-id"]
            assert sent != answer.context.record.id and sent.startswith(answer.context.record.id)

    run(test)


def test_a_providers_key_is_sent_to_it_alone(tmp_path: Path) -> None:
    (tmp_path / "served").write_text("sk-of-the-server\n")

    async def test() -> None:
        async with lane_to(whole(OLLAMA_WHOLE), tmp_path, key="served") as (server, rig):
            assert (await rig.ask()).served
            assert server.received[0].headers["authorization"] == "Bearer sk-of-the-server"

    run(test)


def test_without_the_providers_key_the_server_is_not_asked(tmp_path: Path) -> None:
    async def test() -> None:
        async with lane_to(whole(OLLAMA_WHOLE), tmp_path, key="served") as (server, rig):
            answer = await rig.ask()
            assert answer.served is False and answer.sent == [] and server.received == []
            assert answer.context.record.attempts == [] and answer.context.record.path == "edge"

    run(test)


def test_a_server_is_reached_through_its_proxy(tmp_path: Path) -> None:
    async def test() -> None:
        async with model_server(whole(OLLAMA_WHOLE)) as proxy:
            rig = Rig("http://models.lan:11434", tmp_path, proxy=proxy.url)
            try:
                assert (await rig.ask()).served
            finally:
                await rig.close()
            assert proxy.received[0].line == "POST http://models.lan:11434/api/chat HTTP/1.1"

    run(test)


def test_the_environments_proxy_is_no_business_of_a_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a server has one was decided at the start, from the table."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, ELSEWHERE)

    async def test() -> None:
        async with lane_to(whole(OLLAMA_WHOLE), tmp_path) as (server, rig):
            assert (await rig.ask()).served and server.received[0].line.startswith("POST /api/chat")

    run(test)


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    async def test() -> None:
        async with model_server(whole(OLLAMA_WHOLE)) as other:
            to_other = whole({}, 307, f"location: {other.url}/api/chat\r\n")
            async with lane_to(to_other, tmp_path) as (server, rig):
                answer = await rig.ask()
                assert answer.served is False and len(server.received) == 1 and other.received == []
                assert not rig.planned()

    run(test)


# -- connections


def test_a_connection_is_used_again(tmp_path: Path) -> None:
    async def test() -> None:
        async with lane_to(whole(OLLAMA_WHOLE), tmp_path) as (server, rig):
            for _ in range(3):
                assert (await rig.ask()).served
            assert [received.connection for received in server.received] == [0, 0, 0]

    run(test)


def test_internal_and_public_prompts_share_no_connection(tmp_path: Path) -> None:
    async def test() -> None:
        async with lane_to(whole(OLLAMA_WHOLE), tmp_path) as (server, rig):
            for may_leave in (False, True, False, True):
                assert (await rig.ask(may_leave=may_leave)).served
            assert [received.connection for received in server.received] == [0, 1, 0, 1]

    run(test)


def test_no_cookie_is_kept(tmp_path: Path) -> None:
    """Through a proxy, because aiohttp itself takes no cookie from an address without a name."""

    async def test() -> None:
        async with model_server(whole(OLLAMA_WHOLE, headers="set-cookie: of=someone\r\n")) as proxy:
            rig = Rig("http://models.lan:11434", tmp_path, proxy=proxy.url)
            try:
                assert (await rig.ask()).served and (await rig.ask()).served
            finally:
                await rig.close()
            assert ["cookie" in received.headers for received in proxy.received] == [False, False]

    run(test)


def test_requests_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """How many run at once is limited by `gateway: parallel:` and by the server, not by the connections."""

    async def test() -> None:
        async with (
            lane_to(stream(ollama_line("one"), then=silence), tmp_path) as (_, rig),
            rig.asking(STREAM) as (first, one),
            rig.asking(STREAM) as (second, two),
        ):
            await first.arrived.wait()
            await second.arrived.wait()
            for task in (one, two):
                task.cancel()

    run(test)


# -- how requests end


def test_a_client_that_disconnects_ends_the_models_work(tmp_path: Path) -> None:
    async def test() -> None:
        async with lane_to(stream(ollama_line("one"), then=silence), tmp_path) as (server, rig):
            async with rig.asking(STREAM) as (answer, task):
                await answer.arrived.wait()
                _leave(answer)
                with pytest.raises(TimeoutError):
                    await task
            await server.gone.wait()
            assert answer.served is None and not answer.ended, "nobody is left to tell"
            assert [attempt.error for attempt in answer.context.record.attempts] == ["stopped"]
            assert rig.planned(), "the server did nothing wrong"

    run(test)


def _leave(answer: Answer) -> None:
    """End the request's budget as `watch_disconnect` does."""
    answer.context.disconnected.set()
    answer.context.budget.reschedule(asyncio.get_running_loop().time())


def test_a_stream_says_that_the_gateway_stops(tmp_path: Path) -> None:
    async def test() -> None:
        async with lane_to(stream(ollama_line("one"), then=silence), tmp_path) as (_, rig):
            async with rig.asking(STREAM) as (answer, task):
                await answer.arrived.wait()
                answer.context.stopping = True
                answer.context.budget.reschedule(asyncio.get_running_loop().time())
                with pytest.raises(TimeoutError):
                    await task
            assert answer.ended and answer.events()[-1]["error"]["code"] == "stopping" and answer.text() == "one"
            record = answer.context.record
            assert (record.outcome, record.error, record.attempts[0].error) == ("stopping", "stopping", "stopped")

    run(test)


def test_nothing_is_said_of_a_stop_that_is_none(tmp_path: Path) -> None:
    async def test() -> None:
        async with lane_to(stream(ollama_line("one"), then=silence), tmp_path) as (_, rig):
            async with rig.asking(STREAM) as (answer, task):
                await answer.arrived.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert not answer.ended and answer.context.record.attempts[0].error == "stopped"

    run(test)


@pytest.mark.parametrize("left", [False, True])
def test_nothing_is_said_of_the_stop_where_nobody_can_read_it(left: bool, tmp_path: Path) -> None:
    """Before the first byte the edge answers with an error; and a client that has left reads nothing."""

    async def test() -> None:
        script = stream(ollama_line("one"), then=silence) if left else silence
        async with lane_to(script, tmp_path) as (server, rig):
            async with rig.asking(STREAM) as (answer, task):
                while not (answer.arrived.is_set() if left else server.received):
                    await asyncio.sleep(0.001)
                before = list(answer.sent)
                answer.context.stopping = True
                if left:
                    _leave(answer)
                answer.context.budget.reschedule(asyncio.get_running_loop().time())
                with pytest.raises(TimeoutError):
                    await task
            assert answer.sent == before and answer.context.record.outcome is None

    run(test)


# -- what counts towards the limits


def full(rig: Rig, limit: int) -> bool:
    """Whether at least so many tokens were counted for the slot."""
    try:
        rig.limiter.leave(*rig.limiter.enter(("mode m", {"tokens_per_minute": limit})))
    except Refusal:
        return True
    return False


@pytest.mark.parametrize(
    ("body", "script", "tokens"),
    [
        pytest.param(CHAT, whole(OLLAMA_WHOLE), 5, id="reported"),
        pytest.param(STREAM, stream(ollama_line("a b "), ollama_line("c"), then=close), 4, id="cut: counted here"),
    ],
)
def test_tokens_count_towards_the_limits(body: dict[str, Any], script: Any, tokens: int, tmp_path: Path) -> None:
    async def test() -> None:
        async with lane_to(script, tmp_path) as (_, rig):
            assert (await rig.ask(body, ("mode m",))).served
            assert full(rig, tokens) and not full(rig, tokens + 1)

    run(test)


def test_a_failure_before_the_first_byte_counts_nothing(tmp_path: Path) -> None:
    """The full path serves the request, and counts it."""

    async def test() -> None:
        async with lane_to(close, tmp_path) as (_, rig):
            assert (await rig.ask(CHAT, ("mode m",))).served is False
            assert not full(rig, 1)

    run(test)


# -- what it learns


def test_the_record_says_how_the_lane_served(tmp_path: Path) -> None:
    async def test() -> None:
        async with lane_to(stream(ollama_line("hi"), OLLAMA_DONE), tmp_path, window=4096) as (_, rig):
            context = (await rig.ask(STREAM)).context
            record, (attempt,) = context.record, context.record.attempts
            assert (record.path, record.stream, record.outcome) == ("lane", True, None)
            assert (record.usage.prompt, record.usage.completion, record.usage.finish_reason) == (3, 2, "stop")
            assert (attempt.status, attempt.error, attempt.timings["eval_duration"]) == (200, "", 7_000_000)
            assert attempt.ended and attempt.deployment.name == NAME
            assert (context.routing.attempts, context.routing.deployment, context.routing.local) == (1, NAME, True)
            assert context.routing.window == 4096

    run(test)


def fail(rig: Rig) -> None:
    """Have the lane see that LiteLLM passed over the deployment."""
    rig.lane.observe(observed(503, "m.2.b"))
    assert not rig.planned()


def observed(status: int, deployment: str, **routing: Any) -> Any:
    """The context of a request that the full path answered."""
    context = a_context()
    context.response.begin(status)
    context.routing.attempts, context.routing.deployment = 1, deployment
    for name, value in routing.items():
        setattr(context.routing, name, value)
    return context


@pytest.mark.parametrize("status", [200, 401, 403, 404, 408, 429, 500, 503])
def test_a_deployment_that_was_passed_over_has_failed(status: int, tmp_path: Path) -> None:
    rig = Rig(ELSEWHERE, tmp_path)
    rig.lane.observe(observed(status, "m.2.b"))
    assert not rig.planned()


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_no_model_takes_says_nothing_of_the_deployment(status: int, tmp_path: Path) -> None:
    rig = Rig(ELSEWHERE, tmp_path)
    rig.lane.observe(observed(status, NAME))
    assert rig.planned()


def test_an_over_long_prompt_that_another_model_served_says_nothing_of_the_deployment(tmp_path: Path) -> None:
    rig = Rig(ELSEWHERE, tmp_path)
    rig.lane.observe(observed(200, "m.2.b", overflowed=True))
    assert rig.planned()
    rig.lane.observe(observed(200, "m.2.b"))
    assert not rig.planned()


def test_a_deployment_that_answered_on_the_full_path_is_healthy_again(tmp_path: Path) -> None:
    rig = Rig(ELSEWHERE, tmp_path)
    fail(rig)
    rig.lane.observe(observed(200, "m.2.b", overflowed=True))
    rig.lane.observe(observed(400, NAME))
    assert not rig.planned(), "neither was an answer of this deployment's"
    rig.lane.observe(observed(200, NAME))
    assert rig.planned()


def test_a_request_that_reached_no_model_says_nothing_of_the_deployment(tmp_path: Path) -> None:
    rig = Rig(ELSEWHERE, tmp_path)
    rig.lane.observe(observed(503, "", attempts=0))
    assert rig.planned()
    other = a_context(group="other")
    other.routing.attempts = 1
    rig.lane.observe(other)
    assert rig.planned()
