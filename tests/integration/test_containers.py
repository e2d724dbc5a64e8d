"""What the containers may do, seen from inside and from the engine: little, and nothing towards the outside."""

from __future__ import annotations

import json
import socket
from typing import Any

import httpx
import pytest
from tests.beside import Part, prints
from tests.clone import PATIENCE, Clone, until

pytestmark = pytest.mark.containers


def inspect(clone: Clone, service: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(clone.docker("inspect", clone.container(service)).stdout)[0]
    return found


@pytest.mark.parametrize("service", ["runtime", "gateway"])
def test_containers_are_contained(running: Clone, service: str) -> None:
    found = inspect(running, service)
    host = found["HostConfig"]
    assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["Memory"] > 0 and 0 < host["PidsLimit"] <= 512 and host["Init"]
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["LogConfig"]["Config"] == {"max-file": "3", "max-size": "10m"}
    assert found["Config"]["User"].split(":")[0] not in ("", "0", "root")
    assert running.docker("exec", found["Id"], "sh", "-c", "touch /x || touch /usr/x").returncode != 0
    # What the engine itself mounts shows up as a change; nothing else may.
    mounted = ("/run", "/tmp", "/models", "/etc", "/usr/sbin/docker-init")
    changed = [line.split(maxsplit=1)[1] for line in running.docker("diff", found["Id"]).stdout.splitlines()]
    assert not [c for c in changed if not c.startswith(mounted) and not any(m.startswith(f"{c}/") for m in mounted)]


def test_only_the_gateway_is_published_and_only_on_loopback(running: Clone) -> None:
    assert inspect(running, "runtime")["NetworkSettings"]["Ports"] in ({}, {"11434/tcp": None})
    ports = inspect(running, "gateway")["NetworkSettings"]["Ports"]
    assert ports == {"4000/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(running.port)}]}


def test_the_key_is_in_no_environment_label_or_log(running: Clone) -> None:
    key = running.key()
    for service in ("runtime", "gateway"):
        assert key not in running.docker("inspect", running.container(service)).stdout
        logs = running.docker("logs", running.container(service))
        assert key not in logs.stdout + logs.stderr
    assert key not in (running.path / ".env").read_text()


def test_the_runtime_has_no_way_out(running: Clone) -> None:
    """No default route, and no answer for an outside name. The gateway's names end in its own container."""
    routes = running.docker("exec", running.container("runtime"), "cat", "/proc/net/route").stdout.splitlines()[1:]
    assert routes and not [r for r in routes if r.split()[1] == "00000000"]
    for service in ("runtime", "gateway"):
        assert running.docker("exec", running.container(service), "getent", "hosts", "example.com").returncode != 0
    assert running.docker("exec", running.container("gateway"), "getent", "hosts", "runtime").returncode == 0


def test_the_stack_starts_serves_and_answers_without_asking_anyone(clone: Clone) -> None:
    """A recorder is the only DNS server and answers every name with its own address: it hears only the controls."""
    assert clone.io3ops("up").returncode == 0
    assert clone.io3ops("down").returncode == 0
    files = ["-f", "compose.yaml", "-f", "tests/integration/recorder.yaml"]
    made = clone.docker("compose", *files, "create")
    assert made.returncode == 0, made.stderr
    image = inspect(clone, "gateway")["Config"]["Image"]
    recorder = Part(
        clone, "recorder", image, ("-u", "/recorder/recorder.py"), entrypoint="/usr/bin/python3", user="0:0",
        networks=[f"{clone.project}_runtime"], address="10.213.47.2", mounts={clone.path / "tests/integration": "/recorder"}, ready=prints("ready"),
    )  # fmt: skip
    with recorder:
        hear_only_the_controls(clone, files, recorder)


def hear_only_the_controls(clone: Clone, files: list[str], recorder: Part) -> None:
    started = clone.docker("compose", *files, "up", "-d", "--wait", "--wait-timeout", f"{PATIENCE:g}")
    assert started.returncode == 0, started.stderr
    with httpx.Client(trust_env=False, timeout=PATIENCE, base_url=f"http://127.0.0.1:{clone.port}/v1") as client:
        client.headers["Authorization"] = f"Bearer {clone.key()}"
        ask = {"model": "executor", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
        assert client.post("/chat/completions", json=ask).status_code == 200
        assert client.post("/chat/completions", json=ask | {"stream": True}).status_code == 200
        assert client.post("/embeddings", json={"model": "embed", "input": "hello"}).status_code == 200
        assert client.post("/chat/completions", json=ask | {"model": "gpt-4o"}).status_code >= 400
        assert client.get("/models").status_code == 200
    for service in ("gateway", "runtime"):
        clone.docker("exec", clone.container(service), "getent", "hosts", f"control-{service}.example")
    clone.docker(
        "exec",
        clone.container("gateway"),
        "python3",
        "-c",
        "import urllib.request as u; u.urlopen('http://control-tcp.example/', timeout=2)",
    )
    heard = recorder.said().split("\n")
    names = {line.split()[1] for line in heard if line.startswith("DNS")}
    assert names == {"control-gateway.example", "control-runtime.example", "control-tcp.example"}, heard
    assert len([line for line in heard if line.startswith("TCP")]) == 1, heard


def test_readiness_is_found_by_the_health_check_and_calls_no_model(running: Clone) -> None:
    for service in ("gateway", "runtime"):
        check = inspect(running, service)["Config"]["Healthcheck"]
        assert check["StartInterval"] <= 500_000_000, service
        assert not [w for w in check["Test"] if "curl" in w or "wget" in w]
    before = running.docker("logs", running.container("runtime"))
    calls = (before.stdout + before.stderr).count("/api/chat") + (before.stdout + before.stderr).count("/api/embed")
    assert (
        running.docker(
            "exec", running.container("gateway"), *inspect(running, "gateway")["Config"]["Healthcheck"]["Test"][1:]
        ).returncode
        == 0
    )
    assert running.docker("exec", running.container("runtime"), "ollama", "list").returncode == 0
    after = running.docker("logs", running.container("runtime"))
    assert (after.stdout + after.stderr).count("/api/chat") + (after.stdout + after.stderr).count("/api/embed") == calls


def test_a_killed_gateway_comes_back_by_itself(running: Clone) -> None:
    """restart: unless-stopped, seen to act on a process that dies."""
    container = running.container("gateway")
    before = inspect(running, "gateway")["RestartCount"]
    running.docker(
        "exec",
        container,
        "/usr/bin/python3",
        "-c",
        "import os, signal; [os.kill(int(p), 9) for p in os.listdir('/proc') if p.isdigit() and int(p) > 1 and int(p) != os.getpid()]",
    )
    until("it was restarted", lambda: inspect(running, "gateway")["RestartCount"] > before)

    def answers() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", running.port), 1):
                return (
                    httpx.get(
                        f"http://127.0.0.1:{running.port}/health/readiness", trust_env=False, timeout=2
                    ).status_code
                    == 200
                )
        except (OSError, httpx.HTTPError):
            return False

    until("it answers again", answers)
