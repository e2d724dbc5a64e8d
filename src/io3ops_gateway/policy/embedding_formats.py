"""Converts embeddings between the two formats of OpenAI's API: a list of numbers, and base64 of little-endian float32 values. Pure.

OpenAI's Node client asks for base64 by default, and would read a list of numbers as a vector of zeros. Servers that do not know
the field always return a list, so every response is converted to the format that the client asked for.
"""

import base64
import struct
from collections.abc import Sequence
from typing import Any

FORMATS = ("float", "base64")


def formatted(entries: Sequence[object], wanted: object) -> list[dict[str, Any]] | None:
    """Return the `data` of a response with every embedding in the `wanted` format (None: float); None when one is in neither format."""
    converted = []
    for entry in entries:
        if not isinstance(entry, dict):
            return None
        vector = _encoded(entry.get("embedding")) if wanted == "base64" else _decoded(entry.get("embedding"))
        if vector is None:
            return None
        converted.append({**entry, "embedding": vector})
    return converted


def _encoded(vector: object) -> str | None:
    if isinstance(vector, str):
        return vector if _decoded(vector) is not None else None
    if not isinstance(vector, list):
        return None
    try:
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
    except (struct.error, OverflowError):
        return None


def _decoded(vector: object) -> list[Any] | None:
    if isinstance(vector, list):
        return vector
    if not isinstance(vector, str):
        return None
    try:
        data = base64.b64decode(vector, validate=True)
        return list(struct.unpack(f"<{len(data) // 4}f", data))
    except (ValueError, struct.error):
        return None
