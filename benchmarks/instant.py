"""Runs in a container: an upstream that answers at once, so that what is measured is the gateway."""

import asyncio
import json
from typing import Any

import uvicorn

CHAT = json.dumps(
    {
        "id": "x", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello " * 20}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 20, "total_tokens": 23},
    }
).encode()  # fmt: skip


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(CHAT)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": CHAT})


if __name__ == "__main__":
    asyncio.run(
        uvicorn.Server(uvicorn.Config(app, host="0.0.0.0", port=8000, access_log=False, lifespan="off")).serve()
    )
