"""What is taken out of LiteLLM, in the real image: it is there before, it is gone after, and LiteLLM serves with it and without.

A new LiteLLM that calls one of these things otherwise fails here, and not in front of users.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.clone import Clone, until

pytestmark = pytest.mark.containers

LOOK = """
import json, sys
from pathlib import Path
from io3ops_gateway.litellm_proxy import startup, trim
from io3ops_gateway.policy import endpoints
from io3ops_gateway.server.launcher import OURS
startup.prepare_environment(__import__("os").environ, config=Path("/none"), key="sk-of-nobody-at-all", ca_bundle=None)
startup.import_litellm(OURS)
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
        "lists": [name for name in trim.LISTS if isinstance(getattr(litellm, name, None), list)],
        "absent": [name for name in trim.ABSENT if name in sys.modules],
    }

before = look()
other = trim.before("9.9.9")
untouched = look()
said = trim.before()
print(json.dumps({"before": before, "untouched": untouched, "after": look(), "other": other, "said": said}))
"""


@pytest.fixture(scope="module")
def image(running: Clone) -> str:
    found = running.docker("inspect", "--format", "{{.Config.Image}}", running.container("gateway"))
    return found.stdout.strip()


def test_everything_that_is_trimmed_was_there(running: Clone, image: str) -> None:
    done = running.docker(
        "run", "--rm", "--network", "none", "--entrypoint", "/opt/gateway/bin/python", image, "-c", LOOK
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
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
    assert len(after["lists"]) == 5, "who is told of a call"
    assert len(after["absent"]) == 3
    assert found["said"] == ""


def test_another_litellm_is_left_alone_and_said_to_be(running: Clone, image: str) -> None:
    done = running.docker(
        "run", "--rm", "--network", "none", "--entrypoint", "/opt/gateway/bin/python", image, "-c", LOOK
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert "LiteLLM 9.9.9 is not" in found["other"] and found["untouched"] == found["before"]


@pytest.fixture
def untrimmed(running: Clone, image: str) -> Iterator[str]:
    """The address of a gateway of the same table with LiteLLM as it comes."""
    name = f"{running.project}-untrimmed"
    folder = Path(running.path)
    argv = ["docker", "run", "-d", "--init", "--name", name, "--network", f"{running.project}_runtime", "--user", "0"]
    argv += [
        "-v",
        f"{folder}/runtime:/etc/io3ops:ro",
        "-v",
        f"{folder}/.io3ops/secrets/master_key:/run/secrets/master_key:ro",
    ]
    subprocess.run([*argv, "-e", "IO3_TRIM=off", image], check=True, capture_output=True)
    try:
        shown = running.docker(
            "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name
        ).stdout.strip()
        address = f"http://{shown}:4000"

        def ready() -> bool:
            try:
                return (
                    httpx.get(f"{address}/health/readiness", headers={"Host": "localhost"}, trust_env=False).status_code
                    == 200
                )
            except httpx.TransportError:
                return False

        until("it is ready", ready, 60)
        yield address
    finally:
        running.docker("rm", "-f", name)


def test_with_the_switch_off_litellm_serves_as_it_comes(running: Clone, untrimmed: str) -> None:
    headers = {"Host": "localhost", "Authorization": f"Bearer {running.key()}"}
    body = {"model": "executor", "max_tokens": 3, "messages": [{"role": "user", "content": "hello"}]}
    with httpx.Client(trust_env=False, timeout=60, headers=headers) as client:
        # A field that is not plain takes the first past the lane, too.
        for path, more in (("chat/completions", {"guided_regex": "x"}), ("messages", {})):
            answer = client.post(f"{untrimmed}/v1/{path}", json=body | more)
            assert answer.status_code == 200, answer.text
            assert answer.headers["x-io3-deployment"] == "executor.1.smollm2"
