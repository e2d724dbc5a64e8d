"""Prompts around the window with a real Ollama, counted by its own tokenizer: none is cut unseen, whichever way it goes.

A server of ours beside it has a large window, or cuts without a word.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml
from tests.clone import PATIENCE, Clone
from tests.fake_ollama import serve
from tests.stacks import own_table, table_file

pytestmark = pytest.mark.containers

# Neither is the one in the table, so `up` has to load both models again.
WINDOW, VECTOR_WINDOW = 512, 200
CONTROL = ("/usr/bin/python3", "-I", "-S", "/opt/io3ops/io3ops_gateway/scripts/control.py")
WORD = " hello"


class Served:
    """OpenAI's API: `big` has room for all, `cutter` reads 100 tokens of whatever it gets, `strict` refuses as llama-server does."""

    def __init__(self) -> None:
        self.models: list[str] = []

    def answer(self, _method: str, path: str, body: bytes) -> Any:
        if not path.endswith("/chat/completions"):
            return 200, {"data": []}
        asked = json.loads(body)
        self.models.append(asked["model"])
        if asked["model"] == "strict" and len(body) > 1000:
            error = {
                "message": "request (9000 tokens) exceeds the available context size (300 tokens), try increasing it"
            }
            return 400, {"error": error | {"code": 400, "type": "exceed_context_size_error"}}
        usage = {"prompt_tokens": 100, "completion_tokens": 2, "total_tokens": 102}
        head = {"id": "x", "created": 1, "model": asked["model"]}
        if not asked.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": "served"}, "finish_reason": "stop"}
            return 200, head | {"object": "chat.completion", "choices": [choice], "usage": usage}
        head |= {"object": "chat.completion.chunk"}
        chunks = [
            head
            | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "served"}, "finish_reason": None}]},
            head | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            head | {"choices": [], "usage": usage},
        ]
        events = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
        return 200, events + b"data: [DONE]\n\n", {"Content-Type": "text/event-stream"}


@pytest.fixture(scope="module")
def served() -> Served:
    return Served()


def loads(clone: Clone) -> int:
    """How often the runtime has loaded a model."""
    return clone.docker("logs", clone.container("runtime")).stderr.count("starting llama-server")


@pytest.fixture(scope="module")
def loads_before(running: Clone) -> int:
    return loads(running)


@pytest.fixture(scope="module")
def stack(running: Clone, served: Served, loads_before: int) -> Iterator[Clone]:
    with serve(served.answer) as port, own_table(running):
        path = table_file(running)
        table = yaml.safe_load(path.read_text("utf-8"))
        table["providers"]["host"] = {"kind": "openai_compatible", "url": f"http://127.0.0.1:{port}/v1"}
        table["models"]["smollm2"]["context"] = WINDOW
        table["models"]["minilm"]["context"] = VECTOR_WINDOW
        for name, window in (("big", 100_000), ("cutter", 300), ("strict", 300)):
            table["models"][name] = {"provider": "host", "source": {"external": name}, "context": window}
        table["modes"] = {
            "plain": {"chain": ["smollm2"]},
            "cut": {"chain": ["smollm2"], "truncation": "flag"},
            "over": {"chain": ["smollm2"], "fallbacks": {"context_overflow": "roomy"}},
            "roomy": {"chain": ["big"]},
            "embed": {"chain": ["minilm"]},
            "embedcut": {"chain": ["minilm"], "truncation": "flag"},
            "unseen": {"chain": ["cutter"]},
            "seen": {"chain": ["cutter"], "truncation": "flag"},
            "unseenover": {"chain": ["cutter"], "fallbacks": {"context_overflow": "roomy"}},
            "refusing": {"chain": ["strict"]},
        }
        path.write_text(yaml.safe_dump(table, sort_keys=False), "utf-8")
        done = running.io3ops("up", timeout=1800)
        assert done.returncode == 0, done.stderr
        yield running


@pytest.fixture(scope="module", params=["lane", "full"])
def gateway(request: pytest.FixtureRequest, stack: Clone) -> Iterator[httpx.Client]:
    """The running gateway, with the lane and then without it."""
    config = yaml.safe_load((stack.path / "runtime/litellm.yaml").read_text("utf-8"))
    config["io3ops_policy"]["door"]["lane"] = request.param == "lane"
    done = subprocess.run(
        ["docker", "exec", "-i", stack.container("gateway"), *CONTROL, "reload"],
        input=yaml.safe_dump(config).encode(), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    headers = {"Authorization": f"Bearer {stack.key()}"}
    with httpx.Client(
        base_url=f"http://127.0.0.1:{stack.port}/v1/", headers=headers, trust_env=False, timeout=PATIENCE
    ) as client:
        yield client


def chat(client: httpx.Client, mode: str, words: int, *, stream: bool = False, **more: Any) -> httpx.Response:
    body: dict[str, Any] = {"model": mode, "messages": [{"role": "user", "content": WORD * words}]}
    body |= {"max_tokens": 1, "temperature": 0, "stream": stream} | more
    if stream:
        body["stream_options"] = {"include_usage": True}
    return client.post("chat/completions", json=body)


def embed(client: httpx.Client, mode: str, words: int, **more: Any) -> httpx.Response:
    return client.post("embeddings", json={"model": mode, "input": WORD * words, **more})


def read(answer: httpx.Response) -> int:
    """Tokens of the prompt that were read, as the answer says."""
    assert answer.status_code == 200, answer.text
    if not answer.text.startswith("data:"):
        return int(answer.json()["usage"]["prompt_tokens"])
    assert answer.text.endswith("data: [DONE]\n\n")
    chunks = [json.loads(line[6:]) for line in answer.text.split("\n\n") if line.startswith("data: {")]
    return next(int(c["usage"]["prompt_tokens"]) for c in chunks if c.get("usage"))


def refused(answer: httpx.Response) -> str:
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (
        400,
        "context_length_exceeded",
        "invalid_request_error",
    )
    assert "context:" in error["message"] and "hello" not in error["message"] and "LiteLLM" not in error["message"]
    assert "x-io3-truncated" not in answer.headers
    return str(error["message"])


@pytest.fixture(scope="module")
def overhead(gateway: httpx.Client) -> int:
    """Tokens of the chat format; the word is one token."""
    one, two = (read(chat(gateway, "plain", words)) for words in (1, 2))
    assert two == one + 1
    return one - 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("percent", [50, 99, 101, 200])
def test_a_chat_is_read_whole_or_refused(gateway: httpx.Client, overhead: int, percent: int, stream: bool) -> None:
    tokens = WINDOW * percent // 100
    answer = chat(gateway, "plain", tokens - overhead, stream=stream)
    if percent < 100:
        assert read(answer) == tokens and "x-io3-truncated" not in answer.headers
    else:
        assert f"{tokens} tokens" in refused(answer) and str(WINDOW) in refused(answer)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("percent", [50, 99, 101, 200])
def test_where_the_mode_allows_it_a_cut_is_flagged(
    gateway: httpx.Client, overhead: int, percent: int, stream: bool
) -> None:
    tokens = WINDOW * percent // 100
    answer = chat(gateway, "cut", tokens - overhead, stream=stream)
    found = read(answer)
    assert (found == tokens) == (percent < 100) and found < WINDOW
    assert answer.headers.get("x-io3-truncated") == (None if percent < 100 else "true")


def test_a_cut_leaves_old_messages_out_first(gateway: httpx.Client) -> None:
    messages = [{"role": r, "content": t} for r, t in (("system", "Be brief."), ("user", WORD * 600), ("user", "hi"))]
    answer = chat(gateway, "cut", 0, messages=messages)
    assert read(answer) < 50 and answer.headers["x-io3-truncated"] == "true"
    refused(chat(gateway, "cut", 0, messages=[{"role": "system", "content": WORD * 600}, messages[-1]]))


@pytest.mark.parametrize("percent", [50, 99, 101, 200])
def test_vectors_too(gateway: httpx.Client, percent: int) -> None:
    one = read(embed(gateway, "embed", 1))
    tokens = VECTOR_WINDOW * percent // 100
    words = tokens - one + 1
    if percent < 100:
        assert read(embed(gateway, "embed", words)) == tokens
    else:
        refused(embed(gateway, "embed", words))
        refused(embed(gateway, "embed", 0, input=["hello", WORD * words]))
    for answer in (embed(gateway, "embedcut", words), embed(gateway, "embed", words, truncate=True)):
        assert read(answer) == min(tokens, VECTOR_WINDOW)
        assert answer.headers.get("x-io3-truncated") == (None if percent < 100 else "true")


@pytest.mark.parametrize("stream", [False, True])
def test_the_fallback_for_long_prompts_takes_over(gateway: httpx.Client, served: Served, stream: bool) -> None:
    served.models.clear()
    assert chat(gateway, "over", 600, stream=stream).headers["x-io3-deployment"] == "roomy.1.big"
    assert served.models == ["big"]
    assert chat(gateway, "over", 5, stream=stream).headers["x-io3-deployment"] == "over.1.smollm2"


def test_refusals_do_not_count_as_failures(gateway: httpx.Client) -> None:
    """A client that sends too much must not have the model paused for others."""
    for _ in range(6):
        refused(chat(gateway, "plain", 600))
    assert read(chat(gateway, "plain", 5)) > 5


def test_an_answer_ends_at_the_window_and_the_prompt_is_kept(
    gateway: httpx.Client, overhead: int, stack: Clone
) -> None:
    """Ollama would forget the beginning and go on; and nobody's request makes it load the model anew."""
    before = loads(stack)
    answer = chat(gateway, "plain", WINDOW - 20 - overhead - 8, max_tokens=200, messages=[
        {"role": "user", "content": WORD * (WINDOW - 20 - overhead - 8) + " Tell a long story."}
    ])  # fmt: skip
    used, choice = answer.json()["usage"], answer.json()["choices"][0]
    assert used["prompt_tokens"] + used["completion_tokens"] <= WINDOW
    assert choice["finish_reason"] == "length" or used["total_tokens"] < WINDOW
    read(chat(gateway, "cut", 600))
    assert loads(stack) == before


def test_loading_ahead_is_as_the_gateway_asks(stack: Clone, loads_before: int, gateway: httpx.Client) -> None:
    """`up` has loaded both models; a `shift` of another kind would have made the first request load one again."""
    read(chat(gateway, "plain", 5))
    read(embed(gateway, "embed", 5))
    assert loads(stack) == loads_before + 2


def test_other_endpoints_say_it_in_their_words(gateway: httpx.Client) -> None:
    refused(gateway.post("completions", json={"model": "plain", "prompt": WORD * 600, "max_tokens": 1}))
    refused(gateway.post("responses", json={"model": "plain", "input": WORD * 600}))
    messages = [{"role": "user", "content": WORD * 600}]
    answer = gateway.post("messages", json={"model": "plain", "messages": messages, "max_tokens": 1})
    assert refused(answer) and answer.json()["type"] == "error"


# -- servers that have no such switch


def test_a_server_that_refuses_by_itself_is_understood(gateway: httpx.Client) -> None:
    for stream in (False, True):
        assert "9000 tokens" in refused(chat(gateway, "refusing", 9000, stream=stream))


def test_a_server_that_cuts_unseen_is_caught(gateway: httpx.Client, served: Served) -> None:
    assert "read only a part" in refused(chat(gateway, "unseen", 600))
    assert read(chat(gateway, "unseen", 150)) == 100, "what fits is nobody's business"
    answer = chat(gateway, "seen", 600)
    assert read(answer) == 100 and answer.headers["x-io3-truncated"] == "true"
    served.models.clear()
    assert chat(gateway, "unseenover", 600).headers["x-io3-deployment"] == "roomy.1.big"
    assert served.models == ["cutter", "big"]


def test_a_stream_that_was_cut_does_not_end_well(gateway: httpx.Client) -> None:
    """Only its end says how much was read."""
    events = [e for e in chat(gateway, "unseen", 600, stream=True).text.split("\n\n") if e]
    assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "context_length_exceeded"
    assert "data: [DONE]" not in events
    assert read(chat(gateway, "seen", 600, stream=True)) == 100
