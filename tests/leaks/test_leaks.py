"""The promise, tried: an internal prompt is served locally or refused, whatever fails and whatever the client sends.

The same requests are sent to the gateway and to LiteLLM as it comes. The clouds must see nothing of the first, and much of the
second: a check that cannot fail is no check. docs/privacy.md publishes both counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.clone import PATIENCE, until
from tests.leaks.cases import BODIES, CLOUD, OTHERS, Case, cases, chat, needle
from tests.leaks.rig import SECRETS, Rig

pytestmark = pytest.mark.containers


@pytest.fixture(scope="module")
def stock(rig: Rig) -> Iterator[Rig]:
    rig.start_stock()
    yield rig


def published(root: Path, what: str) -> int:
    """A count in docs/privacy.md: the first number of the line that begins with `what`."""
    line = next(
        line for line in (root / "docs/privacy.md").read_text("utf-8").splitlines() if line.startswith(f"| {what}")
    )
    return int(re.findall(r"\d+", line.replace(",", ""))[0])


def post(rig: Rig, path: str, body: Any, key: str = "owner", **headers: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {rig.keys[key]}"} | {name.replace("_", "-"): v for name, v in headers.items()}
    return httpx.post(rig.gateway + path, json=body, headers=headers, trust_env=False, timeout=PATIENCE)


def _is_served(rig: Rig, case: Case) -> bool:
    return rig.play(rig.gateway, [case])[case.name] == 200


@pytest.mark.parametrize("lane", [False, True])
def test_no_internal_prompt_reaches_a_cloud(rig: Rig, root: Path, lane: bool) -> None:
    """Through LiteLLM alone, and as it is shipped: plain requests past it, the others and every failure through it."""
    rig.switch(lane=lane)
    tried = cases()
    rig.cloud.forget()
    statuses = rig.play(rig.gateway, tried)
    # They are not simply all refused at the door: where a local model answers, it does. The table gives it a second, and a busy machine
    # may need more: what it missed is sent again, one after another.
    for case in tried:
        if case.served and statuses[case.name] != 200:
            until(f"{case.name}: it is served", partial(_is_served, rig, case))
    hits = rig.cloud.hits([case.needle for case in tried])
    leaked = [case.name for case in tried if hits[case.needle]]
    assert not leaked, f"{len(leaked)} of {len(tried)} leaked: {leaked[:20]}"
    # Nothing at all came: not even a contact without the prompt.
    assert not rig.cloud.recorded(), [entry.get("host") or entry for entry in rig.cloud.recorded()[:5]]
    assert len([case for case in tried if case.served]) >= 39
    assert len(tried) == published(root, "requests tried"), "docs/privacy.md names another number of requests"


def test_the_same_requests_leak_without_the_policy(stock: Rig, root: Path) -> None:
    tried = cases()
    stock.cloud.forget()
    stock.play(stock.stock, tried)
    hits = stock.cloud.hits([case.needle for case in tried])
    leaked = [case.name for case in tried if hits[case.needle]]
    # Some depend on a moment (which member of a step is drawn), so the published count is a round number below.
    assert len(leaked) >= published(root, "leaked by LiteLLM as it comes"), len(leaked)
    for kind in ("failure", "mark", "trick", "embeddings", "other", "place", "model", "link"):
        assert any(name.startswith(kind) for name in leaked), f"no case of the kind {kind!r} can see a leak"


def _every_route(rig: Rig) -> list[Case]:
    found = []
    for method, path in rig.routes():
        for name in ("cloudy", "mix-o-500"):
            mine = needle()
            filled = re.sub(r"\{[^}]*\}", mine, re.sub(r"\{(model|model_name|deployment_id|engine)[^}]*\}", name, path))
            body = chat(name, mine) | {
                "input": mine,
                "prompt": mine,
                "query": mine,
                "documents": [mine],
                "contents": [{"parts": [{"text": mine}]}],
                "text": mine,
            }
            headers = {"x-io3-data-class": "internal", "x-needle": mine}
            found.append(
                Case(
                    name=f"{method} {filled}",
                    path=filled,
                    body=body,
                    needle=mine,
                    method=method,
                    headers=headers,
                    query=f"?q={mine}",
                )
            )
    return found


PREFIXED = ("/chat/completions", "/completions", "/embeddings", "/responses", "/moderations")
SERVED_PATHS = {prefix + path for prefix in ("", "/v1") for path in PREFIXED}
OPEN = {
    "/v1/messages",
    "/v1/images/generations",
    "/v1/audio/speech",
    "/v1/models",
    "/models",
    "/health",
    "/health/liveliness",
    "/health/liveness",
    "/health/readiness",
}


def test_every_route_of_litellm_is_absent_or_held_to_the_policy(stock: Rig, root: Path) -> None:
    tried = _every_route(stock)
    assert len(tried) > 1500
    stock.cloud.forget()
    statuses = stock.play(stock.gateway, tried)
    hits = stock.cloud.hits([case.needle for case in tried])
    assert not [case.name for case in tried if hits[case.needle]] and not stock.cloud.recorded()
    for case in tried:
        # What is listed under these two is our own answer.
        if case.path not in SERVED_PATHS | OPEN and not case.path.startswith(("/models/", "/v1/models/")):
            assert statuses[case.name] in (404, 405), f"{case.name}: {statuses[case.name]}"
    assert len(tried) // 2 == published(root, "routes tried"), len(tried) // 2
    # The same against LiteLLM as it comes.
    stock.cloud.forget()
    once = [case for case in tried[::2] if "shutdown" not in case.path]
    stock.play(stock.stock, once, seconds=5)
    hits = stock.cloud.hits([case.needle for case in once])
    leaked = [case.name for case in once if hits[case.needle]]
    assert len(leaked) >= published(root, "routes that leaked in LiteLLM"), len(leaked)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", sorted(BODIES))
@pytest.mark.parametrize(("model", "behind"), [("gpt", {}), ("claude", {"gpt-4o-mini": "500"}), ("gem", {"gpt-4o-mini": "429", "claude-3-5-haiku-latest": "500"})])  # fmt: skip
def test_public_prompts_reach_the_cloud(rig: Rig, path: str, stream: bool, model: str, behind: dict[str, str]) -> None:
    """Past a failing local model, and past failing clouds; each provider with its own key."""
    rig.cloud.forget()
    rig.cloud.put(behind)
    mine = needle()
    answer = post(rig, path, BODIES[path]("mix-o-500", mine) | {"stream": stream}, x_io3_data_class="public")
    rig.cloud.put({})
    assert answer.status_code == 200, answer.text
    assert "from cloud" in answer.text.replace('"', "") or "cloud" in answer.text
    assert answer.headers["x-io3-served"] == "cloud" and answer.headers["x-io3-data-class"] == "public"
    assert (
        answer.headers["x-io3-deployment"].endswith(f".{model}")
        and answer.headers["x-io3-data-class-from"] == "request"
    )
    assert int(answer.headers["x-io3-attempts"]) == 2 + len(behind)
    assert rig.cloud.hits([mine])[mine] >= 1
    requests = [entry for entry in rig.cloud.recorded() if entry["kind"] == "request"]
    sent = {
        value
        for entry in requests
        for name, value in entry["headers"]
        if name.lower() in ("authorization", "x-api-key", "x-goog-api-key")
    }
    assert {value.removeprefix("Bearer ") for value in sent} <= set(SECRETS.values())
    assert SECRETS[CLOUD[model]] in {value.removeprefix("Bearer ") for value in sent}


@pytest.mark.parametrize(("path", "mode", "build"), OTHERS)
def test_endpoints_that_the_table_adds_serve_public_prompts(rig: Rig, path: str, mode: str, build: Any) -> None:
    mine = needle()
    answer = post(rig, path, build(mode, mine), key="open")
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-io3-served"] == "cloud" and rig.cloud.hits([mine])[mine] >= 1
    assert post(rig, path, build("mix-o-ok", mine), key="open").status_code == 400, "a chat model is not asked"


def test_explain_foretells_the_way_of_a_public_prompt(rig: Rig) -> None:
    down: dict[str, str] = {}
    for fail in ((), ("gpt",), ("gpt", "claude")):
        rig.cloud.put(down)
        failing = [f"--fail={name}" for name in ("o-500", *fail)]
        done = rig.io3ops("explain", "mix-o-500", "--data-class", "public", *failing, "--json")
        found = json.loads(done.stdout)["data"]
        answer = post(rig, "/v1/chat/completions", chat("mix-o-500", "hello"), key="open")
        assert found["served"] == [answer.headers["x-io3-deployment"]] and found["data_class"] == "public"
        assert len(found["attempts"]) == int(answer.headers["x-io3-attempts"])
        down |= {"gpt-4o-mini": "500"} if not down else {"claude-3-5-haiku-latest": "500"}
    rig.cloud.put({})


def test_a_cloud_that_fails_falls_back_to_a_local_model(rig: Rig) -> None:
    rig.cloud.put({"gpt-4o-mini": "500"})
    answer = post(rig, "/v1/chat/completions", chat("back", "hello"))
    rig.cloud.put({})
    assert answer.status_code == 200 and answer.headers["x-io3-served"] == "local", answer.text
    assert answer.headers["x-io3-deployment"] == "back.2.o-ok"


def test_tools_work_at_every_cloud(rig: Rig) -> None:
    tool = {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
    }
    for behind in ({}, {"gpt-4o-mini": "500"}, {"gpt-4o-mini": "500", "claude-3-5-haiku-latest": "500"}):
        rig.cloud.put({"*": "tools"} | behind)
        answer = post(rig, "/v1/chat/completions", chat("cloudy", "weather?", tools=[tool]), key="open")
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "weather"
    rig.cloud.put({})


def test_a_disabled_provider_receives_nothing_even_with_its_key_there(rig: Rig) -> None:
    rig.cloud.forget()
    answer = post(rig, "/v1/chat/completions", chat("disabled", "hello"))
    assert answer.status_code == 200 and answer.headers["x-io3-deployment"] == "disabled.2.o-ok"
    assert not rig.cloud.recorded()
    assert rig.clone.docker("exec", rig.clone.container("gateway"), "ls", "/run/provider_keys").stdout.split() == [
        "anthropic",
        "gemini",
        "openai",
    ]


def test_a_mode_without_a_local_model_refuses_an_internal_prompt(rig: Rig) -> None:
    answer = post(rig, "/v1/chat/completions", chat("cloudy", "hello"))
    assert answer.status_code == 403 and answer.json()["error"]["code"] == "stays_local"


def test_a_provider_whose_key_is_taken_away_is_left_out_at_once(rig: Rig) -> None:
    """Enabled without a key does nothing; and a new key needs no restart."""
    handed = rig.clone.path / ".io3ops/provider_keys"
    kept = (handed / "openai").read_bytes()
    (handed / "openai").unlink()
    try:
        answer = post(rig, "/v1/chat/completions", chat("cloudy", "hello"), key="open")
        assert answer.status_code == 200 and answer.headers["x-io3-deployment"] == "cloudy.2.claude", answer.text
    finally:
        (handed / "openai").write_bytes(kept)
    assert (
        post(rig, "/v1/chat/completions", chat("cloudy", "hello"), key="open").headers["x-io3-deployment"]
        == "cloudy.1.gpt"
    )


def test_a_key_that_a_provider_repeats_is_taken_out_of_the_answer(rig: Rig) -> None:
    rig.cloud.put({"*": "401"})
    for path in BODIES:
        answer = post(rig, path, BODIES[path]("cloudy", "hello"), key="open")
        assert answer.status_code >= 400
        assert not any(secret in answer.text for secret in SECRETS.values()), answer.text
    rig.cloud.put({})


def test_an_override_sends_one_prompt_out_and_is_written_down(rig: Rig) -> None:
    log = rig.clone.path / ".io3ops/audit/audit.jsonl"
    before = log.read_text().count("\n") if log.exists() else 0
    mine = needle()
    reason = "the customer agreed in ticket 4711"
    answer = post(rig, "/v1/chat/completions", chat("strict", mine), key="alice", x_io3_override=reason)
    assert answer.status_code == 200 and answer.headers["x-io3-served"] == "cloud", answer.text
    assert answer.headers["x-io3-override"] == "audited" and answer.headers["x-io3-data-class"] == "internal"
    assert rig.cloud.hits([mine])[mine] >= 1
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(entries) == before + 1
    found = entries[-1]
    assert (found["key"], found["mode"], found["class"], found["source"]) == ("alice", "strict", "internal", "mode")
    assert (found["reason"], found["provider"], found["deployment"]) == (reason, "openai", "strict.2.gpt")
    assert mine not in log.read_text()
    done = rig.io3ops("audit")
    assert done.returncode == 0 and "ticket 4711" in done.stdout, done.stdout + done.stderr
    # The next request of the same key is internal again.
    other = needle()
    assert post(rig, "/v1/chat/completions", chat("strict", other), key="alice").status_code >= 400
    assert rig.cloud.hits([other])[other] == 0


@pytest.mark.parametrize(
    ("key", "mode", "reason", "status"),
    [
        ("bob", "strict", "the customer agreed in ticket 4711", 403),
        ("alice", "mix-o-429", "the customer agreed in ticket 4711", 403),
        ("alice", "strict", "please", 400),
        ("alice", "strict", "a reason with \x01 in the middle", 400),
    ],
)
def test_an_override_needs_a_right_and_a_reason(rig: Rig, key: str, mode: str, reason: str, status: int) -> None:
    mine = needle()
    answer = post(rig, "/v1/chat/completions", chat(mode, mine) | {"metadata": {"override_reason": reason}}, key=key)
    assert answer.status_code == status, answer.text
    assert rig.cloud.hits([mine])[mine] == 0


def test_an_override_that_cannot_be_written_down_does_not_happen(rig: Rig) -> None:
    folder = rig.clone.path / ".io3ops/audit"
    log = folder / "audit.jsonl"
    kept = log.read_bytes() if log.exists() else b""
    log.unlink(missing_ok=True)
    log.mkdir()
    mine = needle()
    try:
        answer = post(
            rig,
            "/v1/chat/completions",
            chat("strict", mine),
            key="alice",
            x_io3_override="the customer agreed in ticket 4711",
        )
        assert answer.status_code == 503 and "audit" in answer.text, answer.text
    finally:
        log.rmdir()
        log.write_bytes(kept)
        log.chmod(0o666)
    assert rig.cloud.hits([mine])[mine] == 0


def test_isolation_is_verified_from_inside_with_the_cloud_enabled(rig: Rig) -> None:
    done = rig.io3ops("verify-isolation", "--json")
    findings = {f["about"]: f for f in json.loads(done.stdout)["data"]["findings"]}
    assert done.returncode == 0, findings
    assert findings["egress: only the table"]["state"] == "ok"
    assert "api.openai.com:443" in findings["gateway: may reach"]["detail"]
    assert "api.mistral.ai" not in findings["gateway: may reach"]["detail"]
    assert {f["state"] for a, f in findings.items() if a.endswith("no visible key")} == {"ok"}


def test_no_key_stands_where_a_person_or_a_program_may_read_it(rig: Rig) -> None:
    """Environment, arguments, labels, logs, the rendered file, `.env`: of every process and container."""
    rig.cloud.put({})
    assert post(rig, "/v1/chat/completions", chat("cloudy", "hello"), key="open").status_code == 200
    texts = [
        (rig.clone.path / name).read_text("utf-8") for name in ("runtime/litellm.yaml", "runtime/routing.yaml", ".env")
    ]
    for service in ("gateway", "egress"):
        container = rig.clone.container(service)
        logs = rig.clone.docker("logs", container)
        texts += [rig.clone.docker("inspect", container).stdout, logs.stdout + logs.stderr]
        code = "import glob; print([open(p, 'rb').read() for n in ('environ', 'cmdline') for p in glob.glob('/proc/[0-9]*/' + n)])"
        if service == "gateway":
            texts.append(rig.clone.docker("exec", container, "python3", "-c", code).stdout)
    for secret in [*SECRETS.values(), *rig.keys.values()]:
        assert not [text for text in texts if secret in text], secret[:12]
