"""What may happen to the request log of the real gateway: folders that fail, crowds, ends of every kind, and content that is recorded."""

from __future__ import annotations

import asyncio
import json
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.beside import Part
from tests.clone import PATIENCE, until
from tests.integration.request_log import SECRET, Bench
from tests.raw_http import Connection

pytestmark = pytest.mark.containers

FILE = "requests.jsonl"
# Not plain: LiteLLM serves it.
FULL = {"guided_regex": "x"}


@pytest.fixture(autouse=True)
def _well(bench: Bench) -> Iterator[None]:
    bench.upstream.told()
    yield
    bench.upstream.told()


class Small(Bench):
    """A gateway of its own, whose log is in a folder of a file system of 64 kB."""

    def __init__(self, bench: Bench, parts: ExitStack) -> None:
        super().__init__(bench.clone, bench.upstream, bench.gone)
        told = json.loads(self.clone.docker("inspect", self.clone.container("gateway")).stdout)[0]
        networks = sorted(told["NetworkSettings"]["Networks"], key=lambda name: not name.endswith("_edge"))
        mounts = {m["Source"]: m["Destination"] for m in told["Mounts"] if m["Destination"] != "/run/logs"}
        env = dict(value.split("=", 1) for value in told["Config"]["Env"]) | {"IO3_LOG_DIR": "/run/logs/here"}
        part = Part(
            self.clone, "small", told["Config"]["Image"], networks=networks, port=4000, mounts=mounts, env=env, init=True, read_only=True,
            user=told["Config"]["User"], cap_drop=["ALL"], mem_limit="1g",
        )  # fmt: skip
        part.with_tmpfs_mount("/tmp", "mode=1777").with_tmpfs_mount("/run/logs", "size=64k,mode=1777")
        self.part = parts.enter_context(part)
        self.container, self.port = self.part.name, self.part.published

    def ready(self) -> bool:
        return self.part.health() == "healthy"

    def inside(self, script: str) -> str:
        start = (
            "import os, pathlib; here = '/run/logs/here'; file = here + '/requests.jsonl'; other = '/run/logs/other'\n"
        )
        start += "def remove(): pathlib.Path(file).unlink(missing_ok=True)\n"
        done = self.clone.docker("exec", self.container, "/usr/bin/python3", "-I", "-S", "-c", start + script)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def said(self) -> list[str]:
        """What stands on its stderr about the log."""
        return [line for line in self.clone.docker("logs", self.container).stderr.splitlines() if "request log" in line]

    def answers(self) -> str:
        """One request is answered as ever; its id."""
        name = self.new()
        with Connection(self.port, PATIENCE) as client:
            client.send(self.head("chat/completions", name, self.body("one")))
            answer = client.answer()
        assert answer and answer.status == 200 and answer.headers["x-request-id"] == name and b"from a" in answer.body
        return name

    def whole(self) -> set[str]:
        """The ids of all lines that are whole."""
        found = set()
        for line in self.inside("print(pathlib.Path(file).read_text() if os.path.isfile(file) else 0)").splitlines():
            try:
                found.add(json.loads(line)["id"])
            except (ValueError, TypeError):
                continue
        return found


@pytest.fixture(scope="module", autouse=True)
def small(bench: Bench) -> Iterator[Small]:
    # It starts while the first tests run.
    with ExitStack() as parts:
        yield Small(bench, parts)


# -- what is recorded


def test_only_what_was_asked_for_is_recorded(bench: Bench) -> None:
    control, content = (
        bench.clone.path / ".io3ops/recording/recording.json",
        bench.clone.path / ".io3ops/content/content.jsonl",
    )
    public = {"metadata": {"data_class": "public"}}
    until_then = {"until": time.time() + 600}
    control.write_text(json.dumps({"version": 1, "modes": {"one": until_then, "kept": until_then}}), "utf-8")
    asked: dict[str, dict[str, Any]] = {}

    def ask(mode: str, **more: Any) -> dict[str, Any]:
        _, line = bench.ask(mode, **more)
        asked[line["id"]] = line
        return line

    until("the wish is read", lambda: "recorded" in ask("one", **public))
    for more in ({}, {"stream": True}, FULL, FULL | {"stream": True}):
        assert ask("one", **public, **more)["recorded"] is True
        assert "recorded" not in ask("two", **public, **more) and "recorded" not in ask("one", **more)
        assert ask("kept", **more)["recorded"] is True, "the table allows it of internal prompts too"
    control.unlink()
    until("it is over", lambda: "recorded" not in ask("one", **public))
    entries = [json.loads(line) for line in content.read_text("utf-8").splitlines()]
    assert {entry["id"] for entry in entries} == {name for name, line in asked.items() if line.get("recorded")}
    assert {(entry["mode"], entry["data_class"]) for entry in entries} == {("one", "public"), ("kept", "internal")}
    assert all(
        SECRET in entry["request"] and ("from a" in entry["answer"] or "w1 " in entry["answer"]) for entry in entries
    )
    assert stat.S_IMODE(content.stat().st_mode) == 0o600
    assert SECRET not in (bench.folder / FILE).read_text("utf-8")
    content.unlink()


# -- folders


@pytest.mark.parametrize(
    ("fault", "mend", "why"),
    [
        ("", "os.mkdir(here)", "No such file or directory"),
        ("os.rename(here, other)", "os.rename(other, here)", "No such file or directory"),
        ("os.rename(here, other); os.symlink(other, here)", "os.unlink(here); os.rename(other, here)", "Not a directory"),
        ("remove(); os.chmod(here, 0o500)", "os.chmod(here, 0o700)", "Permission denied"),
        ("full = open(other, 'wb', 0)\ntry:\n while full.write(b'x' * 100): pass\nexcept OSError: pass", "os.unlink(other)", "No space left on device"),
        ("pathlib.Path(other).write_text('mine'); remove(); os.symlink(other, file)", "os.unlink(file); assert pathlib.Path(other).read_text() == 'mine'; os.unlink(other)", "it is not a regular file"),
        ("remove(); os.mkdir(file)", "os.rmdir(file)", "it is not a regular file"),
        ("remove(); os.mkfifo(file)", "os.unlink(file)", "it is not a regular file"),
    ],
    ids=["never there", "removed", "folder is a symlink", "read-only", "full", "symlink", "directory", "FIFO"],
)  # fmt: skip
def test_a_folder_that_fails_fails_no_answer(small: Small, fault: str, mend: str, why: str) -> None:
    until("it is healthy", small.ready)
    # It is said once a minute by each worker; this is a new one.
    small.switch(lane=True)
    before = len(small.said())
    small.inside(fault)
    lost = {small.answers()}
    if why.startswith("No space"):
        # A page of it may still have been free.
        def full() -> bool:
            lost.add(small.answers())
            return len(small.said()) > before

        until("it is full", full)
    lost |= {small.answers() for _ in range(3)}
    (said,) = small.said()[before:]
    assert said.startswith(f"gateway: the request log cannot be written: {why}; ") and SECRET not in said
    small.inside(mend)
    until("it is written again", lambda: bool({small.answers()} & small.whole()))
    assert [line for line in small.said()[before + 1 :] if "is written again; " in line], small.said()[before:]
    assert small.inside("print(oct(os.stat(file).st_mode & 0o777), end='')") == "0o600"


# -- crowds


def test_many_at_once_by_three_workers_are_as_many_lines(bench: Bench) -> None:
    bench.switch(lane=True, workers=3, parallel=256, queue=256, queue_timeout=30)
    url, headers = f"http://127.0.0.1:{bench.port}/v1/chat/completions", {"Authorization": f"Bearer {bench.key}"}
    before = len(bench.lines())

    async def crowd() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE, limits=limits, headers=headers) as client:
            bodies = [json.loads(bench.body("one", **(FULL if n % 5 == 0 else {}))) for n in range(200)]
            return await asyncio.gather(*(client.post(url, json=body) for body in bodies))

    answers = asyncio.run(crowd())
    assert {answer.status_code for answer in answers} == {200}
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert len(ids) == 200
    until("all lines are there", lambda: len(bench.lines()) >= before + 200)
    lines = bench.lines()[before:]
    assert len(lines) == 200 and {line["id"] for line in lines} == ids
    assert {line["path"] for line in lines} == {"lane", "full"}


# -- ends


def whole_lines(file: Path) -> list[dict[str, Any]]:
    """All lines but a last one that was never finished."""
    return [json.loads(line) for line in file.read_bytes().split(b"\n")[:-1]]


def test_a_gateway_that_is_killed_loses_no_line_of_what_it_had_answered(bench: Bench) -> None:
    done: list[tuple[str, float]] = []
    fulls: list[float] = []
    # LiteLLM tells late, and a line waits half a second for it; on a busy machine that is seconds.
    late = 5
    over = threading.Event()

    def ask(more: dict[str, Any]) -> None:
        while not over.is_set():
            name = bench.new()
            try:
                with Connection(bench.port, PATIENCE) as client:
                    client.send(bench.head("chat/completions", name, bench.body("one", **more)))
                    if (answer := client.answer()) and answer.status == 200 and b"from a" in answer.body:
                        told = time.monotonic() + late * bool(more)
                        done.append((name, told))
                        if more:
                            fulls.append(told)
            except OSError:
                continue

    clients = [threading.Thread(target=ask, args=(FULL if n == 0 else {},)) for n in range(6)]
    for client in clients:
        client.start()
    until("there is a load of both kinds", lambda: len(done) > 200 and bool(fulls) and fulls[0] < time.monotonic())
    moment = time.monotonic()
    assert bench.clone.docker("kill", bench.clone.container("gateway")).returncode == 0
    over.set()
    for client in clients:
        client.join(PATIENCE)
    found = {line["id"] for file in bench.folder.glob("requests*.jsonl") for line in whole_lines(file)}
    missing = [name for name, when in done if when < moment and name not in found]
    assert not missing, (len(missing), len(done))
    # Half a line, as a kill may leave it: what comes next does not stand behind it.
    with (bench.folder / FILE).open("ab") as file:
        file.write(b'{"v":1,"time":"2026-')
    assert bench.clone.docker("start", bench.clone.container("gateway")).returncode == 0
    healthy = "{{.State.Health.Status}}"
    until("it is healthy", lambda: bench.clone.docker("inspect", "-f", healthy, bench.clone.container("gateway")).stdout.strip() == "healthy")  # fmt: skip
    name = bench.new()
    with Connection(bench.port) as connection:
        connection.send(bench.head("chat/completions", name, bench.body("one")))
        assert (answer := connection.answer()) and answer.status == 200
    until("its line is there", lambda: name.encode() in (bench.folder / FILE).read_bytes())
    torn, last = (bench.folder / FILE).read_bytes().splitlines()[-2:]
    assert torn == b'{"v":1,"time":"2026-' and json.loads(last)["id"] == name
    (bench.folder / FILE).unlink()


def test_the_end_of_the_gateway_is_told_and_written(bench: Bench) -> None:
    """Streams both ways, and one that has got nothing yet."""
    cases: list[dict[str, Any]] = [{"stream": True}, FULL | {"stream": True}, {}, FULL]
    names, clients = [bench.new() for _ in cases], [Connection(bench.port, PATIENCE) for _ in cases]
    bench.upstream.told(a="endless", b="silent")
    for name, client, more in zip(names, clients, cases, strict=True):
        client.send(bench.head("chat/completions", name, bench.body("one" if "stream" in more else "two", **more)))
        bench.upstream.told(a="endless" if "stream" in more else "silent")
        if "stream" in more:
            assert client._until(b"w3")
        else:
            assert bench.upstream.busy.wait(PATIENCE)
    assert bench.clone.docker("stop", bench.clone.container("gateway")).returncode == 0
    for name, client, more in zip(names, clients, cases, strict=True):
        if "stream" in more:
            assert client._until(b'"stopping"'), "a stream that just ends"
        else:
            answer = client.answer()
            assert answer and answer.status == 503 and answer.error["code"] == "stopping"
            assert answer.headers["x-request-id"] == name
        line = bench.line(name)
        path = "full" if "guided_regex" in more else "lane"
        assert (line["outcome"], line["status"], line["error"], line["path"]) == ("stopping", 200 if "stream" in more else 503, "stopping", path)  # fmt: skip
        assert line["attempts"][-1]["error"] == "stopped"
        client.__exit__()
