"""Throw-away containers for measurements: one network that leads nowhere, images made where they are missing.

Everything carries one label and is removed at the end, however the run ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from io3ops.adapters import files
from io3ops.console import Console, Mode
from io3ops.operations.stack import build_images, images
from io3ops.routing.load import parse_table
from io3ops.routing.plan import Plan, make_plan
from io3ops.routing.render import render
from io3ops.settings import read_settings
from io3ops.tools import Tools, make_tools

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / "benchmarks"
OTHERS = BENCH / "others"
PYTHON = "/opt/gateway/bin/python"
PORTKEY = "1.15.2"
LABEL = "io3ops.bench"


class NotAvailable(Exception):
    """A part of the comparison that cannot be had on this machine, and why."""


class DockerFailed(RuntimeError):
    """A docker command that must not fail did; what it said."""


def docker(*argv: str, text: str | None = None) -> str:
    done = subprocess.run(["docker", *argv], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DockerFailed(f"docker {' '.join(argv)} failed: {done.stderr or done.stdout}")
    return done.stdout.strip()


@dataclass(frozen=True, kw_only=True)
class Cores:
    """One core for each server under test, the others for the load and the upstream."""

    tested: str
    others: str

    @classmethod
    def of_this_engine(cls) -> Cores:
        count = int(docker("info", "--format", "{{.NCPU}}"))
        if count == 1:
            return cls(tested="0", others="0")
        return cls(tested=str(count - 1), others="0" if count == 2 else f"0-{count - 2}")


class Lab:
    """The containers of one run, by the name that they have on their network."""

    def __init__(self, gateway: str) -> None:
        self.gateway = gateway
        self.name = f"io3ops-bench-{secrets.token_hex(3)}"
        self.key = f"sk-bench-{secrets.token_hex(16)}"
        self.cores = Cores.of_this_engine()
        self._scratch = tempfile.TemporaryDirectory()
        self.folder = Path(self._scratch.name)

    def __enter__(self) -> Lab:
        # The containers' user is another one than ours.
        self.folder.chmod(0o755)
        self.write("key", self.key)
        docker("network", "create", "--internal", "--label", f"{LABEL}={self.name}", self.name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        label = ["--filter", f"label={LABEL}={self.name}"]
        for container in docker("ps", "-aq", *label).split():
            docker("rm", "-f", "-v", container)
        # Ollama's container is another stack's: it leaves the network, and that stack removes it.
        shown = json.loads(docker("network", "inspect", self.name))[0]["Containers"]
        for container in shown:
            docker("network", "disconnect", "-f", self.name, container)
        docker("network", "rm", self.name)
        self._scratch.cleanup()

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, "utf-8")

    def start(self, part: str, image: str, *options: str, command: tuple[str, ...] = (), cpus: str = "") -> None:
        """A container. Without the image's own health check: it would be load on some and not on others."""
        argv = ["run", "-d", "--name", f"{self.name}-{part}", "--label", f"{LABEL}={self.name}", "--no-healthcheck"]
        argv += ["--network", self.name, "--network-alias", part, "--cpuset-cpus", cpus or self.cores.tested]
        argv += ["-v", f"{BENCH}:/bench:ro", "-v", f"{self.folder}:/lab:ro", "--user", "10001:10001"]
        docker(*argv, *options, image, *command)

    def start_harness(self) -> None:
        """The instant upstream, and the container that sends the load."""
        python = ["--entrypoint", PYTHON]
        self.start("upstream", self.gateway, *python, command=("/bench/instant.py",), cpus=self.cores.others)
        # A name that is not there yet is then refused at once, instead of being asked for outside.
        argv = [*python, "--dns", "127.0.0.1"]
        self.start(
            "load", self.gateway, *argv, command=("-c", "import time; time.sleep(86400)"), cpus=self.cores.others
        )

    def start_ours(self, part: str = "ours") -> None:
        """Our gateway with the file of that name."""
        argv = ["-e", "IO3_MASTER_KEY_FILE=/lab/key", "-e", f"IO3_CONFIG=/lab/{part}.yaml"]
        self.start(part, self.gateway, *argv)

    def ask_load(self, **job: Any) -> dict[str, Any]:
        """One job of load.py; see there."""
        found: dict[str, Any] = json.loads(
            docker("exec", "-i", f"{self.name}-load", PYTHON, "/bench/load.py", text=json.dumps(job)).splitlines()[-1]
        )
        return found

    def usage(self, part: str) -> dict[str, Any]:
        """Bytes that a container's processes hold, and seconds of a core that they have used.

        From a container of its own that sees their process namespace: theirs may not look at other users' processes.
        """
        argv = ["run", "--rm", "-i", "--pid", f"container:{self.name}-{part}", "--network", "none", "--user", "0:0"]
        argv += ["--label", f"{LABEL}={self.name}", "--cap-drop", "ALL", "--cap-add", "SYS_PTRACE", "--no-healthcheck"]
        argv += ["--cpuset-cpus", self.cores.others, "-v", f"{BENCH}:/bench:ro", "--entrypoint", PYTHON, self.gateway]
        found: dict[str, Any] = json.loads(docker(*argv, "/bench/load.py", text=json.dumps({"do": "usage"})))
        return found

    @contextlib.contextmanager
    def timed_start(self, part: str, target: dict[str, Any]) -> Iterator[dict[str, float]]:
        """Start a container inside; afterwards `seconds` is the time from its start to its first answer."""
        argv = ["docker", "exec", "-i", f"{self.name}-load", PYTHON, "/bench/load.py"]
        found: dict[str, float] = {}
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as polling:
            assert polling.stdin and polling.stdout and polling.stderr
            polling.stdin.write(json.dumps({"do": "ready", "target": target}))
            polling.stdin.close()
            polling.stdout.readline()
            yield found
            answer, why = polling.stdout.read(), polling.stderr.read()
        if polling.returncode:
            raise NotAvailable(f"{why.strip()}\n{self.tail(part)}")
        started = docker("inspect", "--format", "{{.State.StartedAt}}", f"{self.name}-{part}")
        found["seconds"] = json.loads(answer)["at"] - _seconds_of(started)

    def tail(self, part: str) -> str:
        done = subprocess.run(
            ["docker", "logs", "--tail", "15", f"{self.name}-{part}"], capture_output=True, text=True, check=False
        )
        return (done.stdout + done.stderr).strip()


def _seconds_of(stamp: str) -> float:
    """The engine's time stamps have nine digits of a second; Python reads six."""
    import datetime

    day, _, fraction = stamp.rstrip("Z").partition(".")
    return datetime.datetime.fromisoformat(f"{day}+00:00").timestamp() + float(f"0.{fraction or 0}")


def tools() -> Tools:
    return make_tools(read_settings(dict(os.environ), ROOT, {}))


def gateway_image(its: Tools) -> str:
    """The gateway's image, made of this tree as it is; built when it is not there."""
    decided = images.decide(its, runs_runtime=False)
    if decided.missing:
        with Console(Mode.PLAIN).step("images", "the gateway's is not built yet") as step:
            build_images.build(its, decided, step)
    return decided.gateway.tag


def other_image(its: Tools, target: str) -> str:
    """An image of others/Dockerfile. Raises NotAvailable when it is not there and cannot be built."""
    content = (OTHERS / "Dockerfile").read_bytes() + PORTKEY.encode()
    tag = f"io3ops/bench-{target}:{hashlib.sha256(content).hexdigest()[:12]}"
    if its.engine.image_id(tag) is not None:
        return tag
    print(f"building {tag}", file=sys.stderr, flush=True)
    local = (build_images.BASE_FROM_REGISTRY, build_images.BASE_FROM_PACKAGES)
    base = next((base for base in local if its.engine.image_id(base)), build_images.BASE_FROM_REGISTRY)
    builder = docker("context", "show") or "default"
    argv = ["buildx", "--builder", builder, "build", "--progress=plain", "--load", "--provenance=false", "--tag", tag]
    argv += ["--file", str(OTHERS / "Dockerfile"), "--target", target, "--build-arg", f"BASE={base}"]
    argv += ["--build-arg", f"PORTKEY={PORTKEY}", "--build-context", f"gateway={ROOT / 'images/gateway'}"]
    if its.settings.debian_mirror:
        argv += ["--build-arg", f"DEBIAN_MIRROR={its.settings.debian_mirror}"]
        argv += ["--build-arg", f"DEBIAN_SECURITY_MIRROR={its.settings.debian_mirror.rstrip('/')}-security"]
    proxies = [name for pair in its.settings.proxies for name in (pair, pair.lower())]
    for name in (*proxies, "NPM_CONFIG_REGISTRY"):
        if its.settings.environment.get(name):
            argv += ["--build-arg", name]
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "extra_ca.pem"
        bundle.write_bytes(b"\n".join(files.ca_certificates(its.settings.ca_dir).values()))
        argv += ["--secret", f"id=extra_ca,src={bundle}", str(OTHERS)]
        done = subprocess.run(["docker", *argv], capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-8:])
        raise NotAvailable(f"the image could not be built; are Debian's and npm's packages reachable?\n{last}")
    return tag


@contextlib.contextmanager
def real_ollama(lab: Lab) -> Iterator[Plan]:
    """A stack of its own with the starter models; its Ollama joins the lab's network. Yields the stack's plan.

    Raises NotAvailable when it cannot be had.
    """
    with tempfile.TemporaryDirectory() as scratch:
        # .env, key and models belong to the clone, so it is another one.
        copy = Path(scratch) / "clone"
        subprocess.run(["git", "clone", "--quiet", "--shared", str(ROOT), str(copy)], check=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("IO3OPS_", "COMPOSE_"))}
        env = kept | {"IO3OPS_PROJECT": lab.name, "IO3OPS_PORT": str(_free_port()), "IO3OPS_ROOT": str(copy)}

        def io3ops(*args: str) -> subprocess.CompletedProcess[str]:
            argv = [sys.executable, "-m", "io3ops", *args]
            return subprocess.run(argv, env=env, cwd=copy, capture_output=True, text=True, check=False)

        try:
            done = io3ops("up")
            if done.returncode:
                raise NotAvailable(f"`io3ops up` failed: {done.stderr[-2000:]}")
            labels = ["-f", f"label=com.docker.compose.project={lab.name}"]
            runtime = docker("ps", "-q", *labels, "-f", "label=com.docker.compose.service=runtime")
            docker("network", "connect", "--alias", "ollama", lab.name, runtime)
            try:
                table = copy / "runtime/routing.yaml"
                yield make_plan(parse_table(table.read_bytes(), "routing.yaml"))
            finally:
                docker("network", "disconnect", "-f", lab.name, runtime)
        finally:
            io3ops("down", "--purge", "--yes")


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model at a server: its name there, what it is for, and its window where Ollama holds it."""

    name: str
    task: str
    context: int = 4096


INSTANT = {"chat": Model(name="m", task="chat"), "embed": Model(name="e", task="embeddings")}


def routing_table(real: dict[str, Model]) -> bytes:
    """A table whose modes reach the instant upstream and, where there is one, Ollama: by OpenAI's and by its own protocol."""
    providers: dict[str, Any] = {}
    models: dict[str, Any] = {}
    modes: dict[str, Any] = {}
    servers = {"up": ("http://upstream:8000", INSTANT)} | ({"real": ("http://ollama:11434", real)} if real else {})
    for server, (url, held) in servers.items():
        providers[f"{server}-openai"] = {"kind": "openai_compatible", "url": f"{url}/v1", "locality": "local"}
        providers[f"{server}-ollama"] = {"kind": "ollama", "url": url, "locality": "local"}
        for kind in ("openai", "ollama"):
            for short, model in held.items():
                name = f"{server}-{kind}-{short}"
                models[name] = {"provider": f"{server}-{kind}", "source": {"external": model.name}}
                models[name] |= {"capabilities": [model.task], "context": model.context}
                modes[name] = {"chain": [name]}
    # The gateway answers to names that it was told of only.
    hosts = {"hosts": ["ours", "full"]}
    return yaml.safe_dump(
        {"version": 1, "gateway": hosts, "providers": providers, "models": models, "modes": modes}
    ).encode()


def rendered(table: bytes) -> str:
    return render(make_plan(parse_table(table, "table")))


def sleep_until_quiet() -> None:
    """After a load: connections are closed and background work ends before the next one is measured."""
    time.sleep(0.3)
