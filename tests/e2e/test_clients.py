"""Real clients against the real stack: the OpenAI SDK and curl, with modes for model names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tests.clone import Clone

pytestmark = pytest.mark.containers

CHAT_MODES = ("executor", "synthesizer", "governance")
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def client(stack: Clone) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"http://127.0.0.1:{stack.port}/v1", api_key=stack.key(), max_retries=0, timeout=120
    ) as made:
        yield made


def test_the_gateway_lists_exactly_the_modes(client: openai.OpenAI) -> None:
    assert sorted(m.id for m in client.models.list()) == ["embed", "executor", "governance", "synthesizer"]


@pytest.mark.parametrize("mode", CHAT_MODES)
def test_chat(client: openai.OpenAI, mode: str) -> None:
    answer = client.chat.completions.create(
        model=mode, messages=[{"role": "user", "content": "Say hello."}], max_tokens=12
    )
    assert answer.choices[0].message.content
    assert answer.usage and answer.usage.completion_tokens > 0


def test_a_cut_answer_says_so(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="executor", messages=[{"role": "user", "content": "Count from 1 to 100."}], max_tokens=4
    )
    assert answer.choices[0].finish_reason == "length"


def test_streaming(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="executor",
            messages=[{"role": "user", "content": "Say hello."}],
            max_tokens=12,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text.strip() and len(chunks) > 2
    assert any(c.usage and c.usage.completion_tokens for c in chunks)


def test_tools(client: openai.OpenAI) -> None:
    """The offer and a finished tool round are accepted; a model this small need not choose to call."""
    messages: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
    offered = client.chat.completions.create(model="executor", messages=messages, tools=[WEATHER], max_tokens=64)
    choice = offered.choices[0]
    assert choice.message.content or choice.message.tool_calls
    for call in choice.message.tool_calls or []:
        assert call.type == "function" and json.loads(call.function.arguments) is not None
    messages += [
        {
            "role": "assistant",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "18 degrees, sunny"},
    ]
    assert (
        client.chat.completions.create(model="executor", messages=messages, tools=[WEATHER], max_tokens=32)
        .choices[0]
        .message
        is not None
    )


def test_json_schema(client: openai.OpenAI) -> None:
    """The runtime constrains the answer: even a tiny model obeys."""
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "size": {"type": "integer"}},
        "required": ["city", "size"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model="executor",
        messages=[{"role": "user", "content": "Name a city and its number of inhabitants as JSON."}],
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}},
        max_tokens=200,
        temperature=0,
    )
    found = json.loads(answer.choices[0].message.content or "")
    assert set(found) == {"city", "size"} and isinstance(found["size"], int)


def test_embeddings(client: openai.OpenAI) -> None:
    """The SDK asks for base64 by default; near texts are nearer than far ones."""
    texts = ["a cat sits on the mat", "a kitten rests on the rug", "interest rates rose by two percent"]
    data = client.embeddings.create(model="embed", input=texts).data
    cat, kitten, rates = ([*d.embedding] for d in data)
    assert len(cat) == 384

    def dot(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert dot(cat, kitten) > dot(cat, rates) + 0.2


def test_a_wrong_key_is_refused(stack: Clone) -> None:
    base = f"http://127.0.0.1:{stack.port}/v1"
    with (
        openai.OpenAI(base_url=base, api_key="sk-wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.chat.completions.create(model="executor", messages=[{"role": "user", "content": "hi"}])


@pytest.mark.parametrize(
    "headers", [(), ("-H", "Authorization: "), ("-H", "Authorization: Bearer "), ("-H", "x-api-key: sk-no")]
)
def test_a_missing_key_is_a_401_in_openais_words(stack: Clone, headers: tuple[str, ...]) -> None:
    done = stack.run("curl", "-s", "-w", " %{http_code}", *headers, f"http://127.0.0.1:{stack.port}/v1/models")
    assert done.stdout.endswith(" 401") and json.loads(done.stdout[:-4])["error"]["code"] == "invalid_api_key"


def test_plain_completions(client: openai.OpenAI) -> None:
    assert client.completions.create(model="executor", prompt="Hello", max_tokens=4).choices[0].text


def test_a_model_name_is_not_a_mode(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError):
        client.chat.completions.create(model="smollm2", messages=[{"role": "user", "content": "hi"}])


def test_no_prompt_text_in_the_containers_logs(stack: Clone, client: openai.OpenAI) -> None:
    """Served, streamed, refused and failing requests, each with a secret of its own."""
    secret = "xyzzy-canary-4711"
    client.chat.completions.create(model="executor", messages=[{"role": "user", "content": secret}], max_tokens=2)
    client.embeddings.create(model="embed", input=secret)
    for bad in ({"model": "nosuch"}, {"temperature": "hot"}, {"messages": secret}):
        body: Any = {"model": "executor", "messages": [{"role": "user", "content": secret}], "max_tokens": 2} | bad
        with pytest.raises(openai.APIStatusError):
            client.post("/chat/completions", body=body, cast_to=object)
    for service in ("gateway", "runtime"):
        done = stack.docker("logs", stack.container(service))
        assert secret not in done.stdout + done.stderr, service


def test_the_sdk_marks_a_prompt_as_docs_privacy_says(client: openai.OpenAI) -> None:
    """Header, metadata and the model's name; and two marks that contradict each other are refused."""
    asked: Any = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4}
    create = client.chat.completions.with_raw_response.create
    for more in (
        {"model": "executor", "extra_headers": {"x-io3-data-class": "internal"}},
        {"model": "executor", "metadata": {"data_class": "internal"}},
        {"model": "executor", "extra_body": {"metadata": {"tags": ["internal"]}}},
        {"model": "executor:internal"},
    ):
        found = create(**asked, **more)
        assert found.headers["x-io3-data-class-from"] == "request" and found.headers["x-io3-served"] == "local"
    assert create(model="executor", **asked).headers["x-io3-data-class-from"] == "default"
    with pytest.raises(openai.BadRequestError, match="contradict"):
        create(model="executor:internal", metadata={"data_class": "public"}, **asked)
    with pytest.raises(openai.BadRequestError, match="not a data class"):
        create(model="executor", metadata={"data_class": "secret"}, **asked)


def test_the_responses_endpoint_answers_and_keeps_nothing(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="executor", input="Say hello.", max_output_tokens=16)
    assert answer.output_text and answer.status in ("completed", "incomplete")
    with pytest.raises(openai.BadRequestError, match="keeps no conversations"):
        client.responses.create(model="executor", input="And now?", previous_response_id=answer.id)
