"""Embeddings reach each client in the format that it asked for, whatever the server sent."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.codec_cases import Case, Targets, call

from io3ops_gateway.policy.embedding_formats import formatted

TARGETS = Targets("http://upstream")
VECTOR = [0.5, -1.25, 3.0]
BASE64 = base64.b64encode(struct.pack("<3f", *VECTOR)).decode()
OLLAMA = json.dumps({"model": "vec", "embeddings": [VECTOR], "prompt_eval_count": 2}).encode()


def openai(vector: object) -> bytes:
    entry = {"object": "embedding", "index": 0, "embedding": vector}
    usage = {"prompt_tokens": 2, "total_tokens": 2}
    return json.dumps({"object": "list", "data": [entry], "model": "d", "usage": usage}).encode()


@pytest.mark.parametrize("upstream", [OLLAMA, openai(VECTOR), openai(BASE64)], ids=["ollama", "list", "base64"])
@pytest.mark.parametrize(("wanted", "expected"), [("base64", BASE64), ("float", VECTOR), (None, VECTOR)])
def test_a_client_gets_the_format_that_it_asked_for(upstream: bytes, wanted: str | None, expected: object) -> None:
    """openai-node asks for base64 by default, and reads a list of numbers as zeros."""
    body: dict[str, Any] = {"model": "embed" if upstream is OLLAMA else "embed2", "input": "x"}
    asked = call(Case("", "embeddings", body | ({"encoding_format": wanted} if wanted else {}), b""), TARGETS)
    assert asked is not None
    answer = asked.answer(upstream)
    assert answer is not None and json.loads(answer)["data"] == [
        {"object": "embedding", "index": 0, "embedding": expected}
    ]


@pytest.mark.parametrize("entry", [None, [1], {}, {"embedding": 1}, {"embedding": ["a"]}, {"embedding": "no base64!"}, {"embedding": "AAA="}, {"embedding": [1e300]}])  # fmt: skip
def test_a_vector_in_neither_format_is_not_recognised(entry: object) -> None:
    assert formatted([entry], "base64") is None
    if entry not in ({"embedding": ["a"]}, {"embedding": [1e300]}):
        assert formatted([entry], None) is None


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=20))
def test_base64_holds_the_same_numbers(vector: list[float]) -> None:
    written = formatted([{"index": 3, "embedding": vector}], "base64")
    assert written is not None and written[0]["index"] == 3
    assert struct.unpack(f"<{len(vector)}f", base64.b64decode(written[0]["embedding"])) == tuple(vector)
    assert formatted(written, "float") == [{"index": 3, "embedding": vector}]
