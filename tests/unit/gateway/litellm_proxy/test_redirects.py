"""No HTTP client of the gateway's process follows a redirect."""

from __future__ import annotations

import asyncio
from types import ModuleType

import httpx
import pytest

from io3ops_gateway.litellm_proxy import redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("follow", [True, False])
def test_no_redirect_is_followed_by_any_client(litellm: dict[str, ModuleType], status: int, follow: bool) -> None:
    """A local server that answers with a cloud's address would take the prompt along."""
    redirects.install()
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(status, headers={"location": "https://evil.example/"})

    async def scene() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer), follow_redirects=follow) as client:
            await client.post("http://runtime:11434/api/chat", json={})

    with pytest.raises(httpx.RemoteProtocolError, match="redirect"):
        asyncio.run(scene())
    with (
        httpx.Client(transport=httpx.MockTransport(answer), follow_redirects=follow) as client,
        pytest.raises(httpx.RemoteProtocolError, match="redirect"),
    ):
        client.post("http://runtime:11434/api/chat", json={})
    assert asked == ["http://runtime:11434/api/chat"] * 2
