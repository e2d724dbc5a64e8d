"""The first call of each kind of provider, in the real image: everything that it needs is there before it, and nobody was called for that.

A loop that imports or prepares something serves nobody meanwhile, and no time limit holds. On a busy machine that took 24 seconds.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.clone import PATIENCE, Clone
from tests.fake_ollama import serve
from tests.fake_upstream import FakeUpstream
from tests.leaks.rig import Rig

pytestmark = pytest.mark.containers

CLOUDS = {
    "openai": "api.openai.com",
    "anthropic": "api.anthropic.com",
    "gemini": "generativelanguage.googleapis.com",
    "mistral": "api.mistral.ai",
    "openrouter": "openrouter.ai",
    "azure": "mine.openai.azure.com",
    "bedrock": "bedrock-runtime.eu-central-1.amazonaws.com",
}
MORE = {
    "azure": 'url: "https://mine.openai.azure.com", api_version: "2024-10-21", ',
    "bedrock": "region: eu-central-1, ",
}
CHAT = {
    "openai": "gpt-4o-mini",
    "anthropic": "claude-3-5-haiku-latest",
    "gemini": "gemini-2.0-flash",
    "mistral": "mistral-small-latest",
    "openrouter": "some/model",
    "azure": "gpt-4o",
    "bedrock": "anthropic.claude-3-haiku-20240307-v1:0",
}
OTHERS = {
    "embeddings": {"openai": "text-embedding-3-small", "azure": "text-embedding-3-small", "mistral": "mistral-embed"},
    "images": {"openai": "gpt-image-1", "azure": "gpt-image-1", "gemini": "imagen-3.0-generate-002"},
    "speech": {"openai": "tts-1", "azure": "tts-1"},
    "moderations": {"openai": "omni-moderation-latest", "mistral": "mistral-moderation-latest"},
}
# What a test's cloud does not answer in the dialect of its provider is rehearsed, and not called.
CALLED = ("embeddings", "speech", "moderations")
PATHS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "chat": [
        ("chat/completions", {"messages": [{"role": "user", "content": "hello"}]}),
        ("chat/completions", {"messages": [{"role": "user", "content": "hello"}], "stream": True}),
        ("messages", {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}),
        ("responses", {"input": "hello"}),
        ("completions", {"prompt": "hello"}),
    ],
    "embeddings": [("embeddings", {"input": "hello"})],
    "speech": [("audio/speech", {"input": "hello", "voice": "alloy"})],
    "moderations": [("moderations", {"input": "hello"})],
}
# Notes each module that is looked for, and whatever else takes long to make: FastAPI makes adapters of each route that it prepares.
HOOK = textwrap.dedent("""
    import os, ssl, sys

    seen = os.open("/tmp/seen", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def note(what):
        os.write(seen, f"{what}\\n".encode())

    class Finder:
        @staticmethod
        def find_spec(name, *_):
            note(f"import {name}")

    def noted(kind, method, by=""):
        made = getattr(kind, method)

        def making(*args, **options):
            if sys._getframe(1).f_globals["__name__"].startswith(by):
                note(kind.__name__)
            return made(*args, **options)

        setattr(kind, method, making)

    def in_a_worker():
        import pydantic

        noted(pydantic.TypeAdapter, "__init__", by="fastapi.")

    sys.meta_path.insert(0, Finder)
    noted(ssl.SSLContext, "__new__")
    os.register_at_fork(after_in_child=in_a_worker)
""")


def table(host: int) -> str:
    lines = [
        "version: 1",
        "providers:",
        f'  host: {{kind: ollama, url: "http://127.0.0.1:{host}"}}',
        *(f"  {kind}: {{kind: {kind}, {MORE.get(kind, '')}key: {kind}, enabled: true}}" for kind in CLOUDS),
        "models:",
        "  here: {provider: host, source: {external: here}, context: 2048}",
    ]
    everything = {"chat": CHAT} | OTHERS
    for task, models in everything.items():
        lines += [
            f'  {task}-{kind}: {{provider: {kind}, source: {{external: "{name}"}}, capabilities: [{task}]}}'
            for kind, name in models.items()
        ]
    lines += ["modes:", "  local: {chain: [here]}"]
    # Behind a local model: the first of a chain is not the only one with a first call.
    lines += [f"  chain-{kind}: {{chain: [here, chat-{kind}]}}" for kind in CHAT]
    lines += [f"  {task}-{kind}: {{chain: [{task}-{kind}]}}" for task, models in everything.items() for kind in models]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = Path(tmp_path_factory.mktemp("first"))
    secrets = {kind: f"sk-{kind}-of-the-test-0123456789" for kind in CLOUDS} | {"bedrock": "AKIAOFTHETEST:" + "s" * 40}
    upstream = FakeUpstream(("here",))
    with serve(upstream.answer) as port:
        made = Rig(Clone.make(folder), folder, upstream, clouds=tuple(CLOUDS.values()), secrets=secrets)
        hook_in(made.clone)
        try:
            made.start(table(port))
            yield made
        finally:
            made.remove()


def hook_in(clone: Clone) -> None:
    """Have the gateway's Python import `HOOK` before everything else."""
    hook = clone.path / "hook/sitecustomize.py"
    hook.parent.mkdir(mode=0o755)
    hook.write_text(HOOK, "utf-8")
    compose = clone.path / "compose.yaml"
    text = compose.read_text("utf-8")
    for line, more in (
        ("      IO3_CONFIG: /etc/io3ops/litellm.yaml\n", "      PYTHONPATH: /hook:/opt/io3ops\n"),
        (
            "      - {type: bind, source: ./runtime, target: /etc/io3ops,",
            "      - {type: bind, source: ./hook, target: /hook, read_only: true}\n",
        ),
    ):
        assert text.count(line) == 1, line
        text = text.replace(line, f"{line}{more}" if line.endswith("\n") else f"{more}{line}")
    compose.write_text(text, "utf-8")


def noted(rig: Rig) -> list[str]:
    done = rig.clone.docker("exec", rig.clone.container("gateway"), "cat", "/tmp/seen")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def ask_everything(rig: Rig) -> list[str]:
    """One call of each kind at each endpoint; what was noted meanwhile."""
    before = len(noted(rig))
    headers = {"Authorization": f"Bearer {rig.keys['open']}"}
    calls = [(f"chat-{kind}", path, body) for kind in CHAT for path, body in PATHS["chat"]]
    calls += [(f"{task}-{kind}", path, body) for task in CALLED for kind in OTHERS[task] for path, body in PATHS[task]]
    with httpx.Client(trust_env=False, timeout=PATIENCE, headers=headers) as client:
        for mode, path, body in calls:
            answer = client.post(f"{rig.gateway}/v1/{path}", json=body | {"model": mode})
            assert answer.status_code == 200, f"{mode} {path}: {answer.text}"
            assert '{"error"' not in answer.text, f"{mode} {path}: {answer.text}"
    return noted(rig)[before:]


@pytest.mark.parametrize("generation", [1, 2])
def test_a_first_call_finds_everything_ready(rig: Rig, generation: int) -> None:
    """Also in a generation that takes over from another."""
    if generation > 1:
        rig.switch(lane=True)
    assert {"import litellm", "SSLContext", "TypeAdapter"} <= set(noted(rig)), "the start was noted"
    first, second = ask_everything(rig), ask_everything(rig)
    late = Counter(first) - Counter(second)
    assert not late, f"{late.total()} things were made for a first call: {late.most_common(30)}"


def test_nobody_was_called_for_that(rig: Rig) -> None:
    """No prompt, no key and no connection leaves for a rehearsal; and there was one for each kind and task."""
    rig.cloud.forget()
    egress = rig.clone.container("egress")
    before = rig.clone.docker("logs", egress).stdout.count("CONNECT")
    rig.switch(lane=False)
    assert rig.cloud.recorded() == []
    assert rig.clone.docker("logs", egress).stdout.count("CONNECT") == before
    shown = rig.clone.docker("logs", rig.clone.container("gateway"))
    assert "first call may be slow" not in shown.stdout + shown.stderr, shown.stderr
