"""Every word of the table that acts at run time, seen to act: one gateway, one upstream that fails on command.

Each key that is rendered has a test here that observes its effect; LiteLLM accepts many settings that it ignores.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.clone import Clone, until
from tests.fake_ollama import serve
from tests.fake_upstream import FakeUpstream
from tests.raw_http import Connection, request
from tests.stacks import SharedStack

pytestmark = pytest.mark.containers

MODELS = ("a", "b", "c", "d", "vec")
TABLE = """
version: 1
defaults: {{timeouts: {{step: 60s, first_token: 60s}}, context: 2048, cooldown: {{failures: 1000, pause: 1s}}}}
providers:
  host: {{kind: ollama, url: "http://127.0.0.1:{port}"}}
  served: {{kind: openai_compatible, url: "http://127.0.0.1:{port}/v1"}}
models:
  a: {{provider: host, source: {{external: a}}, keep_alive: 7m}}
  b: {{provider: host, source: {{external: b}}, parameters: {{temperature: 0.125, seed: 3}}}}
  c: {{provider: host, source: {{external: c}}}}
  d: {{provider: served, source: {{external: d}}}}
  vec: {{provider: host, source: {{external: vec}}, capabilities: [embeddings], context: 512}}
modes:
  steps: {{chain: [a, b, c]}}
  shares: {{chain: [{{a: 3, b: 1}}, c]}}
  retried: {{chain: [a, b], retries: {{server_error: 2, rate_limit: 1}}}}
  served: {{chain: [d, a], retries: {{server_error: 1}}}}
  timed: {{chain: [a, b], timeouts: {{steps: [2s, 60s], first_token: 2s}}}}
  streamed: {{chain: [a, b], timeouts: {{step: 60s, first_token: 1s}}}}
  hurried: {{chain: [a], retries: {{timeout: 9}}, timeouts: {{step: 700ms, first_token: 700ms, total: 1500ms}}}}
  patient: {{chain: [a, b, c], timeouts: {{steps: [700ms, 700ms, 60s], first_token: 700ms}}}}
  cooled: {{chain: [a, b], cooldown: {{failures: 2, pause: 3s}}}}
  few: {{chain: [a], limits: {{requests_per_minute: 3}}}}
  frugal: {{chain: [a], limits: {{tokens_per_minute: 9}}}}
  single: {{chain: [a], limits: {{parallel: 1}}}}
  tuned: {{chain: [a], parameters: {{temperature: 0.25, max_tokens: 77}}, forced: {{seed: 7, top_p: 0.5}}}}
  second: {{chain: [b], parameters: {{seed: 4}}}}
  told: {{chain: [a], system_prompt: "Answer in French."}}
  plain: {{chain: [a], allow: {{tools: false, images: false}}}}
  aliased: {{chain: [a], aliases: [gpt-4o-mini, "vendor/model:v1"]}}
  saved: {{chain: [a, b], fallbacks: {{error: rescue}}}}
  rescue: {{chain: [c]}}
  long: {{chain: [d], fallbacks: {{context_overflow: rescue, content_policy: told}}}}
  embed: {{chain: [vec]}}
"""


@pytest.fixture(scope="module")
def upstream() -> FakeUpstream:
    return FakeUpstream(MODELS)


@pytest.fixture(scope="module")
def clone(shared: SharedStack, upstream: FakeUpstream) -> Iterator[Clone]:
    with serve(upstream.answer) as port:
        yield shared.serve(TABLE.format(port=port))


@pytest.fixture(autouse=True)
def _well(upstream: FakeUpstream) -> None:
    upstream.reset()


def post(clone: Clone, path: str, body: dict[str, Any], timeout: float = 60) -> httpx.Response:
    with httpx.Client(trust_env=False, timeout=timeout) as client:
        headers = {"Authorization": f"Bearer {clone.key()}"}
        return client.post(f"http://127.0.0.1:{clone.port}/v1/{path}", json=body, headers=headers)


def chat(clone: Clone, mode: str, **more: Any) -> httpx.Response:
    return post(clone, "chat/completions", {"model": mode, "messages": [{"role": "user", "content": "hello"}]} | more)


def text(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def test_the_gateway_lists_the_modes_and_no_alias(clone: Clone) -> None:
    assert clone.json("health")["ok"]


def test_steps_are_tried_in_their_order(clone: Clone, upstream: FakeUpstream) -> None:
    upstream.reset(a="500", b="500")
    assert text(chat(clone, "steps")) == "from c"
    assert upstream.sequence() == ["a", "b", "c"]


def test_a_stream_moves_on_too(clone: Clone, upstream: FakeUpstream) -> None:
    upstream.reset(a="500")
    streamed = chat(clone, "steps", stream=True)
    assert streamed.status_code == 200 and "[DONE]" in streamed.text
    assert upstream.sequence() == ["a", "b"]


def test_when_all_fail_the_client_is_told(clone: Clone, upstream: FakeUpstream) -> None:
    upstream.reset(a="500", b="500", c="500")
    answer = chat(clone, "steps")
    assert answer.status_code == 500 and "told to say 500" in answer.text


def test_members_of_a_step_share_by_weight(clone: Clone, upstream: FakeUpstream) -> None:
    """80 requests at 3 : 1 give 60 and 20; four standard deviations are 15."""
    for _ in range(80):
        assert chat(clone, "shares").status_code == 200
    counts = Counter(upstream.sequence())
    assert set(counts) == {"a", "b"} and 45 <= counts["a"] <= 75, counts
    upstream.reset(a="500", b="500")
    assert text(chat(clone, "shares")) == "from c"


def test_retries_depend_on_the_kind_of_error(clone: Clone, upstream: FakeUpstream) -> None:
    for behaviour, attempts in (("500", 3), ("429", 2), ("404", 1)):
        upstream.reset(a=behaviour)
        assert text(chat(clone, "retried")) == "from b"
        assert upstream.sequence() == ["a"] * attempts + ["b"], behaviour
        clone_cooldown_is_over(clone, upstream)


def clone_cooldown_is_over(clone: Clone, upstream: FakeUpstream) -> None:
    """429 and 404 leave a deployment out at once; wait until the first one serves again."""
    upstream.reset()
    until("the first step serves again", lambda: text(chat(clone, "retried")) == "from a")


def test_the_openai_route_obeys_the_same_words(clone: Clone, upstream: FakeUpstream) -> None:
    upstream.reset(d="500")
    assert text(chat(clone, "served")) == "from a"
    assert upstream.sequence() == ["d", "d", "a"]


def test_a_slow_step_is_left_after_its_time(clone: Clone, upstream: FakeUpstream) -> None:
    """Its server hangs all the while."""
    upstream.reset(a="hang")
    started = time.monotonic()
    assert text(chat(clone, "timed")) == "from b"
    assert time.monotonic() - started > 1.9 and upstream.sequence() == ["a", "b"]
    started = time.monotonic()
    assert "[DONE]" in chat(clone, "streamed", stream=True).text
    assert 0.9 < time.monotonic() - started < 60, "a stream waits for its first token only"


def test_each_step_can_have_a_time_of_its_own(clone: Clone, upstream: FakeUpstream) -> None:
    """Two steps of 700 ms, and a last one that may take a minute and takes longer than they may."""
    upstream.reset(a="hang", b="hang", c="slow:1.5")
    started = time.monotonic()
    assert text(chat(clone, "patient")) == "from c"
    assert time.monotonic() - started > 2.8
    assert upstream.sequence() == ["a", "b", "c"]


def test_the_total_budget_ends_a_request_whatever_is_left_to_try(clone: Clone, upstream: FakeUpstream) -> None:
    """Ten tries of 700 ms would be left."""
    upstream.reset(a="hang")
    started = time.monotonic()
    answer = chat(clone, "hurried")
    assert answer.status_code == 504 and "total time" in answer.text, answer.text
    assert time.monotonic() - started > 1.3
    assert 1 <= len(upstream.sequence()) <= 3


def test_a_failing_deployment_is_left_out_and_comes_back(clone: Clone, upstream: FakeUpstream) -> None:
    upstream.reset(a="500")
    for _ in range(5):
        assert text(chat(clone, "cooled")) == "from b"
    assert Counter(upstream.sequence())["a"] == 2
    upstream.reset()
    until("it is back", lambda: text(chat(clone, "cooled")) == "from a")


def test_requests_per_minute(clone: Clone, upstream: FakeUpstream) -> None:
    """Three in all; the smoke test's own call took none of them."""
    assert [chat(clone, "few").status_code for _ in range(3)] == [200, 200, 200]
    refused = chat(clone, "few")
    assert refused.status_code == 429 and "3 requests per minute" in refused.text
    assert 1 <= int(refused.headers["retry-after"]) <= 62
    assert len(upstream.calls) == 3
    assert chat(clone, "steps").status_code == 200, "the limit is the mode's own"


def test_tokens_per_minute(clone: Clone) -> None:
    """Each answer takes 5 tokens of 9; they are counted just after it was sent."""
    assert chat(clone, "frugal").status_code == 200
    until("the tokens were counted", lambda: chat(clone, "frugal").status_code == 429)


def test_parallel_requests_and_the_slot_of_a_client_that_left(clone: Clone, upstream: FakeUpstream) -> None:
    upstream.reset(a="hang")
    first: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: first.append(chat(clone, "single")))
    thread.start()
    until("the first one runs", lambda: bool(upstream.calls))
    second = chat(clone, "single")
    assert second.status_code == 429 and "parallel" in second.text
    upstream.reset()
    thread.join()
    assert first[0].status_code == 200
    upstream.reset(a="hang")
    body = json.dumps({"model": "single", "messages": [{"role": "user", "content": "x"}]}).encode()
    with Connection(clone.port) as leaving:
        key = f"Authorization: Bearer {clone.key()}"
        leaving.send(request("POST", "/v1/chat/completions", key, "Content-Type: application/json", body=body))
        until("it runs", lambda: bool(upstream.calls))
    upstream.reset()
    until("the slot is free again", lambda: chat(clone, "single").status_code == 200)


def test_default_and_forced_parameters(clone: Clone, upstream: FakeUpstream) -> None:
    chat(clone, "tuned")
    options = upstream.calls[-1][1]["options"]
    assert (options["temperature"], options["num_predict"], options["seed"], options["top_p"]) == (0.25, 77, 7, 0.5)
    chat(clone, "tuned", temperature=0.9, seed=1, max_completion_tokens=5)
    options = upstream.calls[-1][1]["options"]
    assert (options["temperature"], options["num_predict"], options["seed"], options["top_p"]) == (0.9, 5, 7, 0.5)


def test_a_models_own_parameters_come_last(clone: Clone, upstream: FakeUpstream) -> None:
    """The request's before the mode's before the model's."""
    chat(clone, "second")
    assert (upstream.calls[-1][1]["options"]["temperature"], upstream.calls[-1][1]["options"]["seed"]) == (0.125, 4)
    chat(clone, "second", temperature=0)
    assert upstream.calls[-1][1]["options"]["temperature"] == 0


def test_the_system_prompt_stands_in_front(clone: Clone, upstream: FakeUpstream) -> None:
    chat(clone, "told")
    sent = upstream.calls[-1][1]["messages"]
    assert [(m["role"], m["content"]) for m in sent] == [("system", "Answer in French."), ("user", "hello")]
    chat(clone, "told", messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "x"}])
    assert upstream.calls[-1][1]["messages"][0]["content"] == "Answer in French.\n\nBe brief."


def test_tools_and_images_can_be_kept_out(clone: Clone, upstream: FakeUpstream) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]
    for more in ({"tools": [tool]}, {"messages": image}):
        refused = chat(clone, "plain", **more)
        assert refused.status_code == 400 and "does not accept" in refused.text
    assert not upstream.calls
    assert chat(clone, "steps", tools=[tool]).status_code == 200


def test_aliases_lead_to_their_mode(clone: Clone, upstream: FakeUpstream) -> None:
    for name in ("gpt-4o-mini", "vendor/model:v1"):
        assert text(chat(clone, name)) == "from a"
    assert chat(clone, "gpt-4o").status_code >= 400


@pytest.mark.parametrize("name", ["few.1.a", "ollama_chat/a:latest", "a:latest", "few,steps", "steps.2.b", "*", ""])
def test_nothing_but_a_mode_or_an_alias_is_served(clone: Clone, upstream: FakeUpstream, name: str) -> None:
    """A deployment's id would lead past its mode's limits, parameters and data class."""
    answer = chat(clone, name)
    assert answer.status_code == 404 and "no mode" in answer.text, answer.text
    assert post(clone, "embeddings", {"model": name, "input": "x"}).status_code == 404
    assert not upstream.calls


def test_another_mode_takes_over_when_a_chain_failed(clone: Clone, upstream: FakeUpstream) -> None:
    upstream.reset(a="500", b="500")
    assert text(chat(clone, "saved")) == "from c"
    assert upstream.sequence() == ["a", "b", "c"]


def test_context_overflow_and_refused_content_have_fallbacks_of_their_own(clone: Clone, upstream: FakeUpstream) -> None:
    upstream.reset(d="context")
    assert text(chat(clone, "long")) == "from c"
    upstream.reset(d="content")
    assert text(chat(clone, "long")) == "from a"
    upstream.reset(d="500")
    assert chat(clone, "long").status_code == 500, "a plain error has no fallback here"


def test_the_window_and_the_stay_are_the_tables_whatever_a_client_says(clone: Clone, upstream: FakeUpstream) -> None:
    for more in (
        {},
        {"num_ctx": 512, "keep_alive": "1s", "options": {"num_ctx": 256}, "timeout": 0.01, "fallbacks": ["told"]},
    ):
        assert chat(clone, "steps", **more).status_code == 200
        body = upstream.calls[-1][1]
        assert body["options"]["num_ctx"] == 2048 and body["keep_alive"] == "7m"
    assert post(clone, "embeddings", {"model": "embed", "input": "x"}).status_code == 200
    assert upstream.calls[-1][1]["options"]["num_ctx"] == 512


@pytest.mark.parametrize(
    ("mode", "fail", "status"),
    [
        ("steps", (), "500"),
        ("steps", ("a",), "500"),
        ("steps", ("a", "b", "c"), "500"),
        ("steps", ("a", "b"), "400"),
        ("retried", ("a",), "500"),
        ("retried", ("a", "b"), "500"),
        ("served", ("d",), "500"),
        ("saved", ("a", "b"), "500"),
        ("saved", ("a", "b", "c"), "500"),
        ("long", ("d",), "context"),
        ("long", ("d",), "content"),
        ("long", ("d",), "500"),
        ("cooled", ("a",), "400"),
    ],
)
def test_explain_foretells_what_the_gateway_does(
    clone: Clone, upstream: FakeUpstream, mode: str, fail: tuple[str, ...], status: str
) -> None:
    """The same faults, once computed from the plan and once played to the running gateway."""
    until(
        "the first choice serves",
        lambda: chat(clone, mode).headers.get("x-io3-deployment", "").startswith(f"{mode}.1."),
    )
    found = clone.json("explain", mode, *(f"--fail={name}" for name in fail), "--status", status)["data"]
    foretold = [a["deployment"].rsplit(".", 1)[-1] for a in found["attempts"] for _ in range(a["tries"])]
    upstream.reset(**dict.fromkeys(fail, status))
    answer = chat(clone, mode)
    assert upstream.sequence() == foretold
    if found["served"]:
        assert answer.headers["x-io3-deployment"] == found["served"][0]
    else:
        assert answer.status_code >= 400
