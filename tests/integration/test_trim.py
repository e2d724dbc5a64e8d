"""LiteLLM's internals in the real image: what is removed was there and is gone, and a name that is missing stops the start.

A new LiteLLM that renames one of them fails here, and not in front of users.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.beside import Part, answers
from tests.clone import PATIENCE, Clone

from io3ops_gateway.litellm_proxy import trim

pytestmark = pytest.mark.containers

IMPORTED = """
import json, sys
from pathlib import Path
from io3ops_gateway.errors import StartError
from io3ops_gateway.litellm_proxy import compat, startup, trim
from io3ops_gateway.policy import endpoints
from io3ops_gateway.server.launcher import OURS
startup.prepare_environment(__import__("os").environ, config=Path("/none"), key="sk-of-nobody-at-all", ca_bundle=None)
startup.import_litellm(OURS)
"""
LOOK = """
import litellm
from litellm.litellm_core_utils import litellm_logging
from litellm.llms.ollama.common_utils import OllamaModelInfo
from litellm.proxy import hooks, proxy_server
from litellm.proxy.auth.user_api_key_auth import user_api_key_auth

app = proxy_server.app

def served(router):
    for route in router.routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from served(inner)
        elif route.path in endpoints.paths({"images", "speech", "moderations"}):
            yield route.path

def look():
    return {
        "middlewares": [entry.cls.__name__ for entry in proxy_server.app.user_middleware],
        "routes": sum(len(getattr(route, "original_router", app).routes) for route in app.routes),
        "served": sorted(served(app)),
        "hooks": len(hooks.PROXY_HOOKS),
        "auth": user_api_key_auth in proxy_server.app.dependency_overrides,
        "diagnose": litellm_logging.diagnose_zero_cost.__module__,
        "priced": [OllamaModelInfo._is_static_ollama_model(name) for name in ("ollama/llama2", "Llama2", "io3ops/none:1")],
        "usage": litellm.Router._increment_deployment_usage.__module__,
        "lists": [symbol.attribute for symbol in compat.CALLBACK_LISTS if isinstance(symbol.find(), list)],
        "absent": [name for name in compat.ABSENT_MODULES if name in sys.modules],
    }

before = look()
other = trim.install("9.9.9")
untouched = look()
reason = trim.install()
print(json.dumps({"before": before, "untouched": untouched, "after": look(), "other": other, "reason": reason}))
"""
# Each name is taken away, looked for, and put back.
MISSING = """
from enum import EnumType

def taken(symbol):
    place, name = symbol._place()
    if symbol.on_instances:
        kept = {n: m for n, m in vars(place).items() if compat._names_attribute(type("x", (), {n: m}), name)}
        for method in kept:
            setattr(place, method, lambda self: None)
    elif isinstance(place, EnumType):
        # A member cannot be deleted.
        place, kept = sys.modules[symbol.module], {place.__name__: place}
        setattr(place, *kept, None)
    else:
        kept = {name: vars(place)[name]}
        delattr(place, name)
    return place, kept

def gone(symbol):
    place, kept = taken(symbol)
    try:
        compat.check((*compat.REQUIRED, *compat.TRIMMED))
    except StartError as error:
        return error.what
    finally:
        for name, member in kept.items():
            setattr(place, name, member)

compat.check((*compat.REQUIRED, *compat.TRIMMED))
answers = {s.path: gone(s) for s in (*compat.REQUIRED, *compat.TRIMMED)}
del litellm.Router._increment_deployment_usage
try:
    startup.install_patches(trimmed=True)
    stopped = ""
except StartError as error:
    stopped = f"{error.what}; {error.hint}"
print(json.dumps({"answers": answers, "stopped": stopped, "assigned": hasattr(litellm.Router, "_increment_deployment_usage")}))
"""


@pytest.fixture(scope="module")
def image(running: Clone) -> str:
    found = running.docker("inspect", "--format", "{{.Config.Image}}", running.container("gateway"))
    return found.stdout.strip()


def run(running: Clone, image: str, program: str) -> dict[str, Any]:
    """Return what a program prints last, run with the image's Python where LiteLLM has been imported."""
    python = ("--entrypoint", "/opt/gateway/bin/python")
    done = running.docker("run", "--rm", "--network", "none", *python, image, "-c", IMPORTED + program)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_everything_that_is_trimmed_was_there(running: Clone, image: str) -> None:
    found = run(running, image, LOOK)
    before, after = found["before"], found["after"]
    assert len(before["middlewares"]) > 5 and "LazyFeatureMiddleware" in before["middlewares"]
    assert after["middlewares"] == ["LazyFeatureMiddleware"]
    assert before["routes"] > 500 and after["routes"] < 200
    assert "/v1/chat/completions" in after["served"] and before["served"] == after["served"]
    assert before["hooks"] > 5 and after["hooks"] == 0
    assert not before["auth"] and after["auth"]
    assert "zero_cost_diagnostic" in before["diagnose"] and after["diagnose"] == "io3ops_gateway.litellm_proxy.trim"
    assert (before["usage"], after["usage"]) == ("litellm.router", "io3ops_gateway.litellm_proxy.trim")
    assert before["priced"] == after["priced"] == [True, True, False], "the same answers, sooner"
    assert len(after["lists"]) == 5, "the callbacks of a call"
    assert len(after["absent"]) == 3
    assert found["reason"] == ""
    # Another version is left alone, and the reason returned.
    assert "LiteLLM 9.9.9 is not" in found["other"] and found["untouched"] == before


def test_a_name_that_is_gone_stops_the_start_and_is_named(running: Clone, image: str) -> None:
    """To assign to it would do nothing, and nobody would know: LiteLLM 1.110 has no `Router._increment_deployment_usage`."""
    found = run(running, image, "import litellm\n" + MISSING)
    for path, answer in found["answers"].items():
        assert answer is not None and f"has no {path} (used to " in answer, path
    assert len(found["answers"]) > 50
    expected = f"LiteLLM {trim.VERSION} has no litellm.router.Router._increment_deployment_usage (used to "
    assert (
        found["stopped"].startswith(expected) and "build the gateway image with the locked versions" in found["stopped"]
    )
    assert not found["assigned"]


@pytest.fixture
def untrimmed(running: Clone, image: str) -> Iterator[str]:
    """The address of a gateway of the same table, with LiteLLM unchanged."""
    part = Part(
        running, "untrimmed", image, networks=[f"{running.project}_runtime", f"{running.project}_edge"], user="0", init=True, port=4000,
        mounts={running.path / "runtime": "/etc/io3ops", running.path / ".io3ops/secrets/master_key": "/run/secrets/master_key"},
        env={"IO3_TRIM": "off"}, ready=answers("/health/readiness"),
    )  # fmt: skip
    with part:
        yield part.url


def test_with_the_switch_off_an_unchanged_litellm_serves(running: Clone, untrimmed: str) -> None:
    headers = {"Authorization": f"Bearer {running.key()}"}
    body = {"model": "executor", "max_tokens": 3, "messages": [{"role": "user", "content": "hello"}]}
    with httpx.Client(trust_env=False, timeout=PATIENCE, headers=headers) as client:
        # A field that the lane does not know takes the first request to LiteLLM, too.
        for path, more in (("chat/completions", {"guided_regex": "x"}), ("messages", {})):
            answer = client.post(f"{untrimmed}/v1/{path}", json=body | more)
            assert answer.status_code == 200, answer.text
            assert answer.headers["x-io3-deployment"] == "executor.1.smollm2"
