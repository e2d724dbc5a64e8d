"""Chains and providers against the running gateway: who serves when the first choice fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.clone import PATIENCE, Clone
from tests.fake_ollama import FakeOllama, serve
from tests.stacks import SharedStack, own_table

pytestmark = pytest.mark.containers


@pytest.fixture
def fake() -> Iterator[FakeOllama]:
    it = FakeOllama(("ghost:1b", "vec:latest"))
    with serve(it.answer) as port:
        it.port = port
        yield it


def ask(clone: Clone, mode: str = "executor", **more: Any) -> httpx.Response:
    body = {"model": mode, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8} | more
    with httpx.Client(trust_env=False, timeout=PATIENCE) as client:
        return client.post(
            f"http://127.0.0.1:{clone.port}/v1/chat/completions",
            json=body,
            headers={"Authorization": f"Bearer {clone.key()}"},
        )


@pytest.fixture
def starter(running: Clone) -> Iterator[Clone]:
    """The stack with the starter's models, and its table to change."""
    with own_table(running):
        yield running


def test_the_second_model_of_a_chain_serves_when_the_first_fails(starter: Clone, fake: FakeOllama) -> None:
    """First choice on a (fake) Ollama of the host, second the real one in the stack."""
    clone = starter
    clone.edit_table(
        "models:\n",
        f"  host:\n    kind: ollama\n    url: http://127.0.0.1:{fake.port}\n\nmodels:\n  ghost: {{provider: host, source: {{external: 'ghost:1b'}}}}\n",
    )
    clone.edit_table(
        "Carries out one task as instructed\n    chain: [smollm2]",
        "Carries out one task as instructed\n    chain: [ghost, smollm2]",
    )
    done = clone.io3ops("up")
    assert done.returncode == 0, done.stderr
    served = ask(clone)
    assert served.headers["x-io3-deployment"] == "executor.1.ghost"
    assert served.json()["choices"][0]["message"]["content"] == "from the fake"
    for behaviour in ("error", "missing"):
        fake.behaviour = behaviour
        for _ in range(3):
            served = ask(clone)
            assert served.status_code == 200, served.text
            assert served.headers["x-io3-deployment"] == "executor.2.smollm2"
    fake.behaviour = "error"
    with (
        httpx.Client(trust_env=False, timeout=PATIENCE) as client,
        client.stream(
            "POST",
            f"http://127.0.0.1:{clone.port}/v1/chat/completions",
            json={
                "model": "executor",
                "messages": [{"role": "user", "content": "hi"}],
                "max_tokens": 8,
                "stream": True,
            },
            headers={"Authorization": f"Bearer {clone.key()}"},
        ) as streamed,
    ):
        assert streamed.headers["x-io3-deployment"] == "executor.2.smollm2"
        assert "[DONE]" in streamed.read().decode()


def test_an_external_runtime_needs_no_runtime_container(shared: SharedStack, fake: FakeOllama) -> None:
    """Every mode on the host's Ollama: the gateway runs alone against it, and a dead one is named as such."""
    clone = shared.serve(
        f"""version: 1
providers:
  host: {{kind: ollama, url: "http://localhost:{fake.port}"}}
models:
  ghost: {{provider: host, source: {{external: "ghost:1b"}}}}
  vec: {{provider: host, source: {{external: vec}}, capabilities: [embeddings]}}
modes:
  executor: {{chain: [ghost]}}
  embed: {{chain: [vec]}}
"""
    )
    assert clone.container("runtime") == ""
    health = clone.json("health", "--deep")
    assert health["ok"], health
    assert clone.json("up")["data"]["acted"] == []
    fake.behaviour = "error"
    failed = ask(clone)
    assert failed.status_code >= 500 and "told to fail" in failed.text
    assert clone.io3ops("smoke").returncode == 1


def test_an_external_runtime_that_does_not_answer_is_named(clone: Clone) -> None:
    (clone.path / "runtime/routing.yaml").write_text(
        """version: 1
providers:
  host: {kind: ollama, url: "http://localhost:9"}
models:
  ghost: {provider: host, source: {external: "ghost:1b"}}
modes:
  executor: {chain: [ghost]}
""",
        "utf-8",
    )
    done = clone.io3ops("up")
    assert done.returncode == 54, done.stderr
    assert "http://host.docker.internal:9" in done.stderr and "OLLAMA_HOST=0.0.0.0" in done.stderr
