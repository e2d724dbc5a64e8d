"""What is read from a body of JSON. Pure."""

from typing import Any

import orjson


def parsed(data: bytes) -> dict[str, Any]:
    """A JSON object; empty, when the bytes are none."""
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
