"""The gateway's processes in the real image: changed, killed, starved and stopped under load; nobody loses a request for it.

`test_supervisor` tries the parent alone and far more of its ways to fail.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import yaml
from docker.types import Ulimit
from tests.beside import Part, Ready
from tests.clone import PATIENCE, Clone, until
from tests.fake_ollama import serve
from tests.fake_upstream import FakeUpstream
from tests.raw_http import Connection, request
from tests.stacks import SharedStack

pytestmark = pytest.mark.containers

TABLE = """
version: 1
providers:
  host: {{kind: ollama, url: "http://127.0.0.1:{port}"}}
models:
  a: {{provider: host, source: {{external: a}}}}
  b: {{provider: host, source: {{external: b}}}}
  s: {{provider: host, source: {{external: s}}}}
  vec: {{provider: host, source: {{external: vec}}, capabilities: [embeddings], context: 512}}
modes:
  executor: {{chain: [a]}}
  story: {{chain: [s]}}
  embed: {{chain: [vec]}}
"""
CONTROL = ("/usr/bin/python3", "-I", "-S", "/opt/io3ops/io3ops_gateway/scripts/control.py")
FINISHES = '"finish_reason":"stop"'


@pytest.fixture(scope="module")
def upstream() -> Iterator[FakeUpstream]:
    yield FakeUpstream(("a", "b", "s", "vec"))


@pytest.fixture(scope="module")
def clone(shared: SharedStack, upstream: FakeUpstream) -> Iterator[Clone]:
    with serve(upstream.answer) as port:
        yield shared.serve(TABLE.format(port=port))


@pytest.fixture(autouse=True)
def _as_told(upstream: FakeUpstream, clone: Clone) -> Iterator[None]:
    """Every test finds a gateway that serves the table, and leaves one."""
    upstream.reset(s="drip:0.4")
    yield
    upstream.reset()
    said = reload(clone, rendered(clone))
    assert said["ok"], said
    assert ask(clone, "executor") == "from a"


# -- commands


def rendered(clone: Clone) -> str:
    return (clone.path / "runtime/litellm.yaml").read_text("utf-8")


def changed(text: str, change: Callable[[Any], Any]) -> str:
    """The rendered file with a change that no table makes."""
    found = yaml.safe_load(text)
    change(found)
    return yaml.safe_dump(found, sort_keys=False)


def with_workers(text: str, count: int) -> str:
    return changed(text, lambda found: found["io3ops_policy"]["door"].update(workers=count))


def control(clone: Clone, *words: str, stdin: str = "") -> dict[str, Any]:
    done = subprocess.run(
        ["docker", "exec", "-i", clone.container("gateway"), *CONTROL, *words],
        input=stdin, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode in (0, 1) and done.stdout, done
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["ok"] is (done.returncode == 0)
    return said


def reload(clone: Clone, text: str, *words: str) -> dict[str, Any]:
    return control(clone, "reload", *words, stdin=text)


def workers(clone: Clone, state: str = "serving") -> list[int]:
    return [w["pid"] for w in control(clone, "status")["workers"] if w["state"] == state]


def kill(clone: Clone, pid: int, signal: str = "KILL") -> None:
    """From inside, where it has this number. The image has no `kill`."""
    script = f"import os, signal; os.kill({pid}, signal.SIG{signal})"
    done = clone.docker("exec", clone.container("gateway"), "/usr/bin/python3", "-I", "-S", "-c", script)
    assert done.returncode == 0, done.stderr


def inspect(clone: Clone, what: str) -> str:
    return clone.docker("inspect", "-f", what, clone.container("gateway")).stdout.strip()


def health(clone: Clone) -> str:
    return inspect(clone, "{{.State.Health.Status}}")


# -- clients


class Failed(Exception):
    """What a client got in place of its answer."""


class Client:
    """One client, with its own connection; `keeps` it from request to request, as long as the gateway does."""

    def __init__(self, clone: Clone, *, keeps: bool = True) -> None:
        self.port, self.keeps = clone.port, keeps
        self.headers = {"Authorization": f"Bearer {clone.key()}", "Content-Type": "application/json"}
        self.connection: http.client.HTTPConnection | None = None

    def post(self, path: str, body: dict[str, Any]) -> http.client.HTTPResponse:
        if self.connection is None:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        self.connection.request("POST", f"/v1/{path}", json.dumps(body), self.headers)
        return self.connection.getresponse()

    def ask(self, mode: str, *, stream: bool = False) -> str:
        """The whole text; raises when it is not whole."""
        try:
            if mode == "embed":
                return str(self._json(self.post("embeddings", {"model": mode, "input": "x"}))["data"][0]["embedding"])
            body = {"model": mode, "messages": [{"role": "user", "content": "x"}], "stream": stream}
            answer = self.post("chat/completions", body)
            if not stream:
                return str(self._json(answer)["choices"][0]["message"]["content"])
            text = answer.read().decode()
            if answer.status != 200 or not text.endswith("data: [DONE]\n\n") or FINISHES not in text.replace(" ", ""):
                raise Failed(f"{answer.status}: a cut stream: ...{text[-200:]!r}")
            parts = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
            return "".join(p["choices"][0]["delta"].get("content") or "" for p in parts if p["choices"])
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Failed(repr(error)) from error
        finally:
            if not self.keeps:
                self.close()

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
        self.connection = None

    @staticmethod
    def _json(answer: http.client.HTTPResponse) -> Any:
        data = answer.read()
        if answer.status != 200:
            raise Failed(f"{answer.status}: {data[:300]!r}")
        return json.loads(data)


def ask(clone: Clone, mode: str) -> str:
    return Client(clone, keeps=False).ask(mode)


class Load:
    """Clients of every kind, for as long as the block runs."""

    KINDS = (
        ("executor", False, True), ("executor", False, False), ("story", True, True), ("story", True, False), ("embed", False, True),
        ("embed", False, False),
    )  # fmt: skip

    def __init__(self, clone: Clone) -> None:
        self.clone = clone
        self.served: Counter[str] = Counter()
        self.failed: list[str] = []
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=kind) for kind in self.KINDS]

    def _ask(self, mode: str, stream: bool, keeps: bool) -> None:
        client = Client(self.clone, keeps=keeps)
        while not self._done.is_set():
            try:
                text = client.ask(mode, stream=stream)
            except Failed as error:
                self.failed.append(f"{mode} {keeps=}: {error}")
            else:
                self.served[f"{mode} {keeps=}"] += 1
                wanted = {"executor": ("from a", "from b"), "story": ("from s on on on on",), "embed": ("[0.1, 0.2]",)}
                if text not in wanted[mode]:
                    self.failed.append(f"{mode}: {text!r}")
            # As a client thinks: without it they would take the whole machine, and prove no more.
            self._done.wait(0.2)
        client.close()

    def more(self, count: int) -> None:
        """Wait until each kind was served so many times more."""
        before = self.served.copy()
        until(
            f"each kind is served {count} times more",
            lambda: all(self.served[f"{m} {keeps=}"] - before[f"{m} {keeps=}"] >= count for m, _, keeps in self.KINDS),
        )

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        self.more(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()


class Stream(threading.Thread):
    """One long stream in the background: `begun` after its first bytes, `text` at the end."""

    def __init__(self, clone: Clone, mode: str = "story") -> None:
        super().__init__()
        self.client, self.mode = Client(clone), mode
        self.begun = threading.Event()
        self.text = ""
        self.start()
        assert self.begun.wait(PATIENCE), "no stream began"

    def run(self) -> None:
        body = {"model": self.mode, "messages": [{"role": "user", "content": "x"}], "stream": True}
        answer = self.client.post("chat/completions", body)
        try:
            while part := answer.read1(65_536):
                self.text += part.decode()
                self.begun.set()
        except (OSError, http.client.HTTPException) as error:
            self.text += f" CUT {error!r}"
        self.client.close()

    def whole(self) -> bool:
        self.join(PATIENCE)
        return self.text.endswith("data: [DONE]\n\n") and " on" in self.text and "error" not in self.text


# -- changes


def test_fifty_changes_under_load_lose_no_request(clone: Clone) -> None:
    """Clients that keep their connection and clients that do not, whole answers, streams and vectors: 0 failures."""
    texts = [rendered(clone), rendered(clone).replace("ollama_chat/a", "ollama_chat/b")]
    assert texts[0] != texts[1]
    before = inspect(clone, "{{.Id}} {{.RestartCount}} {{.State.Pid}}")
    first = control(clone, "status")["generation"]
    with Load(clone) as load:
        for number in range(1, 51):
            said = reload(clone, texts[number % 2], *(["--try-modes"] if number % 10 == 0 else []))
            assert said["ok"], said
            # Whoever asked may rely on it at once.
            assert ask(clone, "executor") == ("from b" if number % 2 else "from a")
        load.more(1)
    assert not load.failed, load.failed[:5]
    assert control(clone, "status")["generation"] == first + 50
    assert inspect(clone, "{{.Id}} {{.RestartCount}} {{.State.Pid}}") == before
    until("the old ones have ended", lambda: len(control(clone, "status")["workers"]) == 1)


def test_io3ops_apply_under_load_loses_no_request(clone: Clone) -> None:
    before = inspect(clone, "{{.Id}} {{.RestartCount}} {{.State.Pid}}")
    table = (clone.path / "runtime/routing.yaml").read_text("utf-8")
    with Load(clone) as load:
        for old, new, mode, text in (
            ("chain: [a]", "chain: [b]", "executor", "from b"),
            ("chain: [b]", "chain: [b]}\n  added: {chain: [a]", "added", "from a"),
            ("chain: [b]}\n  added: {chain: [a]", "chain: [a]", "executor", "from a"),
        ):
            clone.edit_table(old, new)
            done = clone.io3ops("apply", "--json")
            assert done.returncode == 0 and json.loads(done.stdout)["data"]["changed"], done.stdout + done.stderr
            assert ask(clone, mode) == text
            assert "handed" in done.stderr or "smoke" in done.stderr
        load.more(1)
    assert not load.failed, load.failed[:5]
    assert inspect(clone, "{{.Id}} {{.RestartCount}} {{.State.Pid}}") == before, "the container was not touched"
    assert (clone.path / "runtime/routing.yaml").read_text("utf-8") == table


def test_a_change_that_does_not_work_is_noticed_by_nobody(clone: Clone, upstream: FakeUpstream) -> None:
    text = rendered(clone)
    before = control(clone, "status")

    def no_callbacks(found: Any) -> None:
        found["litellm_settings"]["callbacks"] = []

    def unknown_model(found: Any) -> None:
        found["model_list"][0]["litellm_params"]["model"] = "nosuchprovider/a"

    def no_policy(found: Any) -> None:
        del found["io3ops_policy"]

    with Load(clone) as load:
        for broken, words in (
            ("model_list: [", "not valid YAML"),
            ("model_list: []", "no model_list"),
            (changed(text, no_callbacks), "hooks"),
            (changed(text, unknown_model), "executor.1.a"),
            (changed(text, no_policy), "no policy, or one of another version"),
        ):
            said = reload(clone, broken)
            assert said["ok"] is False and words in said["what"], said
        upstream.reset(b="500", s="drip:0.4")
        said = reload(clone, text.replace("ollama_chat/a", "ollama_chat/b"), "--try-modes")
        assert said["ok"] is False and "mode executor: HTTP 500" in said["what"], said
        load.more(1)
    assert not load.failed, load.failed[:5]
    after = control(clone, "status")
    assert (after["generation"], after["config"]) == (before["generation"], before["config"])
    assert len(after["workers"]) == 1


def without_story(found: Any) -> None:
    found["model_list"] = [entry for entry in found["model_list"] if entry["model_name"] != "story"]
    del found["io3ops_policy"]["modes"]["story"]
    found["io3ops_policy"]["deployments"].pop("story.1.s")


def test_apply_puts_right_what_serves_and_is_not_the_tables(clone: Clone) -> None:
    """It had asked the old workers on a connection that it keeps, and asks the new ones then."""
    before = inspect(clone, "{{.Id}} {{.RestartCount}} {{.State.Pid}}")
    assert reload(clone, changed(rendered(clone), without_story))["ok"]
    done = clone.io3ops("apply", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["data"]["changed"], done.stdout + done.stderr
    assert ask(clone, "story").startswith("from s")
    assert inspect(clone, "{{.Id}} {{.RestartCount}} {{.State.Pid}}") == before


def test_a_stream_of_a_mode_that_is_taken_away_is_finished(clone: Clone, upstream: FakeUpstream) -> None:
    upstream.reset(s="drip:2")
    kept = Client(clone)
    kept.ask("executor")
    stream = Stream(clone)
    said = reload(clone, changed(rendered(clone), without_story))
    assert said["ok"], said
    with pytest.raises(Failed, match="404"):
        ask(clone, "story")
    assert kept.ask("executor") == "from a", "an idle connection is good for one more request"
    assert kept.connection and kept.connection.sock is None, "which then closes it in good order"
    assert stream.whole(), stream.text[-300:]


# -- ends that nobody asked for


def test_one_worker_of_two_is_killed(clone: Clone) -> None:
    said = reload(clone, with_workers(rendered(clone), 2))
    assert said["ok"], said
    pair = workers(clone)
    assert len(pair) == 2
    with Load(clone) as load:
        kill(clone, pair[0])
        until("another has taken its place", lambda: len(workers(clone)) == 2 and pair[0] not in workers(clone))
        load.more(3)
    # Each client may have had one request there.
    assert len(load.failed) <= len(Load.KINDS), load.failed
    assert pair[1] in workers(clone) and inspect(clone, "{{.RestartCount}}") == "0"


def test_the_only_worker_is_killed_and_who_comes_then_is_served(clone: Clone) -> None:
    (pid,) = workers(clone)
    kill(clone, pid, "STOP")
    with ExitStack() as clients:
        waiting = []
        body = json.dumps({"model": "executor", "messages": [{"role": "user", "content": "x"}]}).encode()
        for _ in range(20):
            waiting.append(clients.enter_context(Connection(clone.port, PATIENCE)))
            waiting[-1].send(request("POST", "/v1/chat/completions", f"Authorization: Bearer {clone.key()}", "Content-Type: application/json", body=body))  # fmt: skip
        kill(clone, pid)
        answers = [connection.answer() for connection in waiting]
    # Docker's own proxy had connected for them; none of them was accepted by the one that ended.
    assert [answer and answer.status for answer in answers] == [200] * 20


def test_idle_connections_without_number_do_not_end_it(clone: Clone) -> None:
    """All of the file descriptors of a worker are taken: the health check says so, and when they close it serves again."""
    limit = 200
    image = inspect(clone, "{{.Config.Image}}")
    mounts = json.loads(clone.docker("inspect", "-f", "{{json .Mounts}}", clone.container("gateway")).stdout)
    part = Part(
        clone, "starved", image, networks=["bridge"], port=4000, mounts={m["Source"]: m["Destination"] for m in mounts}, read_only=True,
        user=inspect(clone, "{{.Config.User}}"), env={"IO3_CA_DIR": "/run/ca"}, ulimits=[Ulimit(name="nofile", soft=limit, hard=limit)],
        healthcheck={"interval": 1_000_000_000, "retries": 1}, ready=Ready("is healthy", lambda part: part.health() == "healthy"),
    )  # fmt: skip
    with part.with_tmpfs_mount("/tmp"):
        idle = []
        try:
            for _ in range(limit + 50):
                idle.append(socket.create_connection(("127.0.0.1", part.published), 5))
                # Half a head: it is not closed as one that says nothing, and not answered.
                idle[-1].sendall(b"GET /health HTTP/1.1\r\n")
            until("the health check says so", lambda: part.health() == "unhealthy")
        finally:
            for connection in idle:
                connection.close()
        until("it is healthy again", lambda: part.health() == "healthy")
        assert exchange_health(part.published) == 200
        state = part.state()
        assert (state["RestartCount"], state["State"]["Running"]) == (0, True)
        status = clone.docker("exec", part.name, *CONTROL, "status")
        assert json.loads(status.stdout)["workers"][0]["seconds"] > 1, "by the same worker"


def exchange_health(port: int) -> int:
    with Connection(port) as connection:
        connection.send(request("GET", "/health/readiness"))
        answer = connection.answer()
    return answer.status if answer else 0


def test_the_parent_is_killed_and_the_container_starts_anew(clone: Clone) -> None:
    """From outside, because the first process of a container cannot be killed from inside."""
    before = inspect(clone, "{{.State.Pid}}")
    count = int(inspect(clone, "{{.RestartCount}}"))
    # The engine takes `docker kill` for a wish that it stays ended; this is an end that nobody asked for.
    done = clone.run("docker", "run", "--rm", "--privileged", "--pid", "host", "--user", "0", "--entrypoint", "/usr/bin/python3", inspect(clone, "{{.Config.Image}}"), "-c", f"import os; os.kill({before}, 9)")  # fmt: skip
    assert done.returncode == 0, done.stderr
    until("it was started anew", lambda: int(inspect(clone, "{{.RestartCount}}")) == count + 1)
    until("it is healthy", lambda: health(clone) == "healthy")
    assert inspect(clone, "{{.State.Pid}}") != before and ask(clone, "executor") == "from a"


def test_the_end_of_the_container_lets_short_streams_finish_and_tells_long_ones(
    clone: Clone, upstream: FakeUpstream
) -> None:
    upstream.reset(s="drip:30", b="drip:1.5")
    text = rendered(clone).replace("ollama_chat/a", "ollama_chat/b")
    assert reload(clone, text)["ok"]
    short, long = Stream(clone, "executor"), Stream(clone)
    done = clone.docker("stop", clone.container("gateway"))
    assert done.returncode == 0
    assert short.whole(), short.text[-300:]
    long.join(PATIENCE)
    events = [json.loads(line[6:]) for line in long.text.splitlines() if line.startswith("data: {")]
    assert events[-1]["error"]["code"] == "stopping" and "CUT" not in long.text, long.text[-300:]
    assert inspect(clone, "{{.State.ExitCode}} {{.State.OOMKilled}}") == "0 false", "within its time, not killed"
    assert clone.docker("start", clone.container("gateway")).returncode == 0
    until("it is healthy", lambda: health(clone) == "healthy")
