"""What the fast lane has seen is handed to LiteLLM as if it came from the wire."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from tests.unit.gateway.litellm_proxy.test_wire import CHAT, END, context, line

from io3ops_gateway.litellm_proxy import http_transport
from io3ops_gateway.request.attempt_outcome import AttemptOutcome
from io3ops_gateway.request.context import CURRENT


def handed(body: bytes) -> bytes:
    """A stream that the lane did not understand, as LiteLLM reads it."""
    made = context()
    made.routing.deployment = "m.1.a"
    made.routing.outcome = AttemptOutcome(url=CHAT, deployment="m.1.a", status=200, body=body)

    async def run() -> bytes:
        token = CURRENT.set(made)
        try:
            async with httpx.AsyncClient() as client:
                response = await http_transport.send(client, httpx.Request("POST", CHAT), stream=True)
                return b"".join([part async for part in response.aiter_bytes()])
        finally:
            CURRENT.reset(token)

    return asyncio.run(run())


def test_a_whole_stream_is_handed_over_whole() -> None:
    assert handed(line(END)) == line(END)


@pytest.mark.parametrize("body", [b'{"this is": no JSON', line({"done": False}), b""])
def test_a_stream_that_just_stops_is_cut_with_the_lane_as_without(body: bytes) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        handed(body)
