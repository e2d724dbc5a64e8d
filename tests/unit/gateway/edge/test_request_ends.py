"""Every end of a request: its slot comes back, and at most one response is sent."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.gateway.edge.house import PNG, Answer, House

from io3ops_gateway.asgi import Message, Receive, Send
from io3ops_gateway.request.context import CURRENT


def test_the_slot_comes_back_after_an_answer_and_after_a_refusal(house: House) -> None:
    for _ in range(3):
        assert house.chat("one").status == 200
        assert house.chat("one", tags=[1]).status == 400
        assert house.chat("one", messages=[{"content": [PNG]}]).status == 400


@pytest.mark.parametrize("error", [RuntimeError("x"), OSError("x"), ValueError("x"), asyncio.CancelledError()])
@pytest.mark.parametrize("begun", [False, True])
def test_the_slot_comes_back_when_the_app_fails(house: House, error: BaseException, begun: bool) -> None:
    async def fail(_scope: Message, _receive: Receive, send: Send) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    house.inner.does = fail
    with pytest.raises(type(error)):
        house.chat("one")
    assert CURRENT.get() is None
    house.inner.does = house.inner.answer
    assert house.chat("one").status == 200


def test_the_slot_comes_back_when_the_client_leaves(house: House) -> None:
    """The server cancels the task, or a send fails."""

    async def scene() -> None:
        entered = asyncio.Event()

        async def wait(*_: object) -> None:
            entered.set()
            await asyncio.sleep(10)

        house.inner.does = wait
        headers = [(b"host", b"localhost"), (b"x-api-key", b"sk-owner")]
        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b'{"model":"one","messages":[]}'}

        async def send(message: Message) -> None:
            sent.append(message)

        task = asyncio.create_task(house.edge(scope, receive, send))
        await entered.wait()
        second = asyncio.create_task(house.edge(scope, receive, send))
        await second
        assert Answer(sent).code == "limit", "while the first runs, there is none free"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        async def gone(_message: Message) -> None:
            raise OSError("the client is gone")

        house.inner.does = house.inner.answer
        with pytest.raises(OSError, match="the client is gone"):
            await house.edge(scope, receive, gone)

    asyncio.run(scene())
    assert house.chat("one").status == 200


def test_the_total_time_ends_a_request_that_has_not_begun_to_answer(house: House) -> None:
    async def wait(*_: object) -> None:
        await asyncio.sleep(10)

    house.inner.does = wait
    found = house.chat("short")
    assert (found.status, found.code) == (504, "out_of_time") and found.body["error"]["type"] == "timeout_error"
    house.inner.does = house.inner.answer
    assert house.chat("short").status == 200


def test_an_answer_that_has_begun_is_not_cut_by_the_total_time(house: House) -> None:
    async def slowly(_scope: Message, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(0.06)
        await send({"type": "http.response.body", "body": b"late"})

    house.inner.does = slowly
    assert house.chat("short").data == b"late"


def test_a_timeout_after_the_response_began_sends_no_second_response(house: House) -> None:
    async def break_off(_scope: Message, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise TimeoutError

    house.inner.does = break_off
    with pytest.raises(RuntimeError, match="the response was cut"):
        house.chat("one")
    house.inner.does = house.inner.answer
    assert house.chat("one").status == 200


def test_an_app_that_answers_its_own_cancellation_is_out_of_time(house: House) -> None:
    """LiteLLM makes an answer (499) of a cancelled call."""

    async def answer_late(_scope: Message, receive: Receive, send: Send) -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            await house.inner.answer({}, receive, send)

    house.inner.does = answer_late
    assert house.chat("short").status == 504


def test_no_context_outlives_its_request(house: House) -> None:
    """A server may serve the next one in the same context."""

    async def scene() -> None:
        headers = [(b"host", b"localhost"), (b"x-api-key", b"sk-owner")]
        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}

        async def receive() -> Message:
            return {"type": "http.request", "body": b'{"model":"open","messages":[]}'}

        async def send(_message: Message) -> None:
            return

        await house.edge(scope, receive, send)
        assert len(house.inner.runs) == 1 and CURRENT.get() is None

    asyncio.run(scene())


def test_an_app_that_sends_nothing_gets_no_response_made_up(house: House) -> None:
    """The server makes a 500 of it; it is not out of time."""

    async def nothing(*_: object) -> None:
        return

    house.inner.does = nothing
    with pytest.raises(AssertionError, match=r"\[\]"):
        house.chat("one")
    house.inner.does = house.inner.answer
    assert house.chat("one").status == 200


def test_refusals_have_openais_format(house: House) -> None:
    found = house.chat("other")
    assert set(found.body) == {"error"} and set(found.body["error"]) == {"message", "type", "param", "code"}
    assert found.headers["content-type"] == "application/json"
    assert int(found.headers["content-length"]) == len(found.data)
    assert "connection" not in found.headers, "the body was read: the connection may live on"
