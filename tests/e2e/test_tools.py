"""Tool calls end to end, with a real model that is pushed into calling.

The starter model is too small to choose a call by itself. A chat format that ends in `### Call:` makes it write one, so
that parsing, streaming and the round trip through runtime, gateway and SDK can be seen to work.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml
from tests.clone import Clone

pytestmark = pytest.mark.containers

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
QUESTION: Any = [{"role": "user", "content": "What is the weather in Paris?"}]


@pytest.fixture(scope="module")
def client(stack: Clone) -> Iterator[openai.OpenAI]:
    """The stack with one more mode, `caller`, of the same file with the pushing chat format."""
    table = stack.path / "runtime/routing.yaml"
    before = table.read_text("utf-8")
    found = yaml.safe_load(before)
    # A copy through JSON: PyYAML would write shared lists as anchors, which the table does not have.
    template = (Path(__file__).parent / "toolcall.tmpl").read_text("utf-8")
    stop = ["<|im_start|>", "<|im_end|>", "### "]
    found["models"]["caller"] = json.loads(json.dumps(found["models"]["smollm2"])) | {
        "template": template,
        "stop": stop,
    }
    found["modes"]["caller"] = {"chain": ["caller"]}
    table.write_text(yaml.safe_dump(found), "utf-8")
    try:
        done = stack.io3ops("up")
        assert done.returncode == 0, done.stderr
        with openai.OpenAI(base_url=f"http://127.0.0.1:{stack.port}/v1", api_key=stack.key(), max_retries=0) as made:
            yield made
    finally:
        table.write_text(before, "utf-8")
        assert stack.io3ops("up").returncode == 0


def test_a_call_comes_back_parsed_and_its_answer_is_taken(client: openai.OpenAI) -> None:
    first = client.chat.completions.create(
        model="caller", messages=QUESTION, tools=[WEATHER], temperature=0, max_tokens=64
    )
    choice = first.choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.tool_calls
    call = choice.message.tool_calls[0]
    assert call.type == "function" and call.function.name == "get_weather" and call.id
    assert set(json.loads(call.function.arguments)) == {"city"}
    messages: Any = [
        *QUESTION,
        choice.message,
        {"role": "tool", "tool_call_id": call.id, "content": "18 degrees, sunny"},
    ]
    second = client.chat.completions.create(
        model="caller", messages=messages, tools=[WEATHER], temperature=0, max_tokens=32
    )
    assert second.choices[0].message.content


def test_a_call_can_be_streamed(client: openai.OpenAI) -> None:
    chunks = client.chat.completions.create(
        model="caller", messages=QUESTION, tools=[WEATHER], temperature=0, max_tokens=64, stream=True
    )
    calls = [c for chunk in chunks if chunk.choices for c in chunk.choices[0].delta.tool_calls or []]
    assert "".join(c.function.name or "" for c in calls if c.function) == "get_weather"
    json.loads("".join(c.function.arguments or "" for c in calls if c.function))
