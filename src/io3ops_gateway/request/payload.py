"""Parses JSON bodies. Pure."""

from typing import Any

import orjson


def parsed(data: bytes) -> dict[str, Any]:
    """Return a JSON object, an empty one when `data` is not a JSON object."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
