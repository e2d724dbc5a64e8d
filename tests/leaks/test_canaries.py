"""A thousand secrets go through a real stack, in every place where a client may put one; afterwards none stands anywhere but in the answers.

Most requests go to an upstream of the test's own, which repeats what it was sent wherever it can; some to the real models. What is searched:
every file of the clone, the containers' logs as the engine keeps them, their memory disks and what they changed, the volumes, the engine's own log.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import secrets
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import file_digest
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.clone import Clone, free_port, until
from tests.fake_ollama import Cut, serve
from tests.leaks.canaries import Canaries

pytestmark = pytest.mark.containers

SECRETS = 1000
AT_ONCE = 32
ENGINE_LOGS = ("/var/log/dockerd.log", "/var/log/docker.log", "/var/log/upstart/docker.log")
# What the upstream does with what it was sent; by the name of its model.
BEHAVIOURS = (
    "ok", "error500", "error400", "error401", "error429", "plain", "slow", "cut", "reason", "badjson", "model", "late", "named", "html",
)  # fmt: skip


def table(port: int, dead: int) -> str:
    """Modes for each behaviour, over both kinds of local servers; `down`: nobody listens there."""
    lines = [
        f'  host: {{kind: ollama, url: "http://127.0.0.1:{port}"}}',
        f'  served: {{kind: openai_compatible, url: "http://127.0.0.1:{port}/v1"}}',
        f'  dead: {{kind: openai_compatible, url: "http://127.0.0.1:{dead}/v1"}}',
    ]
    models, modes = [], ["  d-down: {chain: [d-down]}", "  d-back: {chain: [d-down, o-ok]}"]
    for kind, provider in (("o", "host"), ("s", "served")):
        for behaviour in BEHAVIOURS:
            name = f"{kind}-{behaviour}"
            models.append(
                f"  {name}: {{provider: {provider}, source: {{external: {name}}}, capabilities: [chat, tools, vision]}}"
            )
            modes.append(f"  {name}: {{chain: [{name}]}}")
    models.append("  d-down: {provider: dead, source: {external: d-down}, capabilities: [chat]}")
    models.append("  o-vec: {provider: host, source: {external: o-vec}, capabilities: [embeddings]}")
    modes.append("  o-vec: {chain: [o-vec]}")
    parts = {"providers": lines, "models": models, "modes": modes}
    return json.dumps({name: "\n".join(found) + "\n" for name, found in parts.items()})


@dataclass
class Echo:
    """The upstream: `seen` counts the calls. It repeats the prompt in errors, names, reasons, headers and pieces of answers, unless it is `good`."""

    reasons: Iterator[str]
    seen: int = 0
    good: bool = True

    def answer(self, _method: str, path: str, body: bytes, _headers: Any) -> Any:
        if path == "/api/version":
            return 200, {"version": "0.0.0-fake"}
        asked = json.loads(body or b"{}")
        model = asked.get("model", "").removesuffix(":latest")
        if path in ("/api/tags", "/api/ps"):
            names = [f"o-{b}" for b in BEHAVIOURS] + ["o-vec"]
            return 200, {
                "models": [{"name": f"{n}:latest", "digest": "d" * 64, "size": 1, "context_length": 0} for n in names]
            }
        if path == "/api/embed":
            return 200, {"model": model, "embeddings": [[0.1, 0.2]], "prompt_eval_count": 1}
        self.seen += 1
        kind = "ok" if self.good else model.partition("-")[2]
        told = body.decode()[:4000]
        if kind.startswith("error"):
            word = next(self.reasons)
            # As LiteLLM's own words begin, and as a code: what a log may take for a class of errors.
            error = {"message": f"litellm.{word.capitalize()}: cannot serve {told}", "type": word, "code": word}
            return int(kind.removeprefix("error")), {"error": error if path.startswith("/v1") else error["message"]}
        if kind in ("plain", "html"):
            return 500, f"<p>{told}</p>".encode(), {"Content-Type": f"text/{kind}", "X-Echo": ascii(told[:200])}
        if kind == "badjson":
            return 200, b'{"message": ' + body
        if kind == "slow":
            threading.Event().wait(3.6)
        return self._good(path, model, kind, asked, told)

    def _good(self, path: str, model: str, kind: str, asked: dict[str, Any], told: str) -> Any:
        word = next(self.reasons) if kind in ("reason", "model", "named") else ""
        name = word if kind == "model" else model
        reason = word if kind == "reason" else "stop"
        if path.startswith("/v1"):
            message = {"role": "assistant", "content": told}
            choice = {"index": 0, "finish_reason": reason, "logprobs": None}
            whole = {"id": word or "x", "object": "chat.completion", "created": 1, "model": name, "system_fingerprint": word,
                     "choices": [choice | {"message": message}], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}  # fmt: skip
            parts = [
                whole | {"object": "chat.completion.chunk", "choices": [choice | {"delta": d, "finish_reason": r}]}
                for d, r in ((message, None), ({}, reason))
            ]
            error: Any = {"error": {"message": told, "type": word, "code": told}}
            lines = [b"data: " + json.dumps(p).encode() + b"\n\n" for p in parts] + [b"data: [DONE]\n\n"]
            broken = b"data: " + json.dumps(error).encode() + b"\n\n"
        else:
            end = {"model": name, "created_at": "2026-01-01T00:00:00Z", "done": True, "done_reason": reason, "prompt_eval_count": 3,
                   "eval_count": 2, "total_duration": 1, "eval_duration": 1, "named": word}  # fmt: skip
            whole = end | {"message": {"role": "assistant", "content": told}}
            parts = [whole | {"done": False}, end | {"message": {"role": "assistant", "content": ""}}]
            lines = [json.dumps(part).encode() + b"\n" for part in parts]
            broken = json.dumps({"error": told}).encode() + b"\n"
        if not asked.get("stream"):
            data = json.dumps(whole).encode()
            return 200, Cut(data[:-20]) if kind in ("cut", "late") else data
        if kind == "late":
            return 200, iter([lines[0], broken])
        data = b"".join(lines)
        return 200, Cut(data[: len(lines[0])]) if kind == "cut" else iter(lines)


@dataclass(frozen=True, kw_only=True)
class Sent:
    """One request; `body` as it is. `leaves`: the client does not wait for its answer."""

    body: bytes
    path: str = "/v1/chat/completions"
    headers: dict[str, str] = field(default_factory=dict)
    method: str = "POST"
    leaves: bool = False
    raw: bytes = b""


@dataclass
class Rig:
    """The stack, what was sent through it, and how it was answered."""

    clone: Clone
    echo: Echo
    canaries: Canaries
    statuses: list[int] = field(default_factory=list)

    def send(self, request: Sent) -> int:
        """The status; 0: none came."""
        if request.raw:
            return self._raw(request.raw)
        connection = http.client.HTTPConnection("127.0.0.1", self.clone.port, timeout=60)
        try:
            defaults = {"Authorization": f"Bearer {self.clone.key()}", "Content-Type": "application/json"}
            connection.request(request.method, request.path, request.body, defaults | request.headers)
            if request.leaves:
                # Long enough to be read, and less than the slow upstream takes.
                threading.Event().wait(0.5)
                return 0
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def _raw(self, data: bytes) -> int:
        with socket.create_connection(("127.0.0.1", self.clone.port), 10) as connection:
            connection.sendall(data)
            connection.settimeout(2)
            try:
                return int([*connection.recv(64).split(b" "), b"", b""][1] or 0)
            except (OSError, ValueError):
                return 0

    def containers(self) -> dict[str, dict[str, Any]]:
        """Every container of this stack, by its service."""
        ids = self.clone.docker("ps", "-aq", "-f", f"label=com.docker.compose.project={self.clone.project}").stdout
        found = json.loads(self.clone.docker("inspect", *ids.split()).stdout)
        return {entry["Config"]["Labels"]["com.docker.compose.service"]: entry for entry in found}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    canaries = Canaries(os.environ.get("IO3_CANARY_SEED") or secrets.token_hex(8))
    words = cycle([canaries.new("the upstream's own word", word=True) for _ in range(50)])
    echo = Echo(words)
    clone = Clone.make(tmp_path_factory.mktemp("canaries"))
    with serve(echo.answer, headers=True) as port:
        parts = json.loads(table(port, free_port()))
        clone.edit_table(
            "version: 1\n", "version: 1\ndefaults: {timeouts: {step: 3s, first_token: 3s}, cooldown: {failures: 1000, pause: 1s}}\n"
        )  # fmt: skip
        for name, lines in parts.items():
            clone.edit_table(f"\n{name}:\n", f"\n{name}:\n{lines}")
        try:
            done = clone.io3ops("up", timeout=1800)
            # Its last step calls every mode; nobody listens where `d-down` is.
            assert done.returncode == 1 and "d-down" in done.stdout + done.stderr, done.stdout + done.stderr
            echo.good = False
            yield Rig(clone, echo, canaries)
        finally:
            clone.remove()


def requests(c: Canaries) -> Iterator[Sent]:
    """Endless: each place in turn, at the next mode, streamed or not; and with a second secret where it changes nothing."""
    modes = cycle([f"{kind}-{b}" for b in BEHAVIOURS for kind in "os"] + ["d-down", "d-back", "executor"])
    streams = cycle([False, True, False])
    more = cycle(["cookie", "x-foo", "referer", "user-agent", "x-forwarded-for", "x-litellm-tags", "traceparent"])
    while True:
        for place, build in PLACES.items():
            mode = next(modes)
            where = f"{place}, {mode}"
            body = {"model": mode, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
            found = build(c.new(where), {**body, **({"stream": True} if next(streams) else {})})
            sent = found if isinstance(found, Sent) else Sent(body=json.dumps(found).encode())
            name = next(more)
            yield replace(sent, headers={name: c.new(f"{name}, {where}")} | sent.headers)


TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {}}},
}


def _said(content: Any, role: str = "user", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} | more, {"role": "user", "content": "x"}]}


def _called(n: str) -> dict[str, Any]:
    call = {"id": f"call_{n}", "type": "function", "function": {"name": "f", "arguments": json.dumps({"a": n})}}
    told = [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": n},
    ]
    return {"messages": [{"role": "user", "content": "x"}, *told], "tools": [TOOL]}  # fmt: skip


def _header(name: str, value: str = "{}") -> Callable[[str, dict[str, Any]], Sent]:
    return lambda n, b: Sent(body=json.dumps(b).encode(), headers={name: value.format(n)})


def _at(path: str, build: Callable[[str, dict[str, Any]], dict[str, Any]]) -> Callable[[str, dict[str, Any]], Sent]:
    return lambda n, b: Sent(path=path, body=json.dumps(build(n, b)).encode())


def _image(n: str) -> list[dict[str, Any]]:
    return [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(n.encode()).decode()}}
    ]


def _head(n: str, line: bytes) -> Sent:
    """What is no HTTP, or only nearly: uvicorn's parser ends it."""
    return Sent(body=b"", raw=line.replace(b"{}", n.encode()))


PLACES: dict[str, Callable[[str, dict[str, Any]], Sent | dict[str, Any]]] = {
    "a prompt": lambda n, b: b | _said(f"my password is {n}, keep it"),
    "a prompt with odd signs": lambda n, b: b | _said(f'"\\\n\x00é{n}\u2028</script>%s {{}}'),
    "the system prompt": lambda n, b: b | _said(n, "system"),
    "an earlier answer": lambda n, b: b | _said(n, "assistant"),
    "a name": lambda n, b: b | _said("x", name=n),
    "a part": lambda n, b: b | _said([{"type": "text", "text": n}]),
    "a tool": lambda n, b: b | {"tools": [{"type": "function", "function": TOOL["function"] | {"name": n[:60], "description": n}}]},
    "arguments and result of a tool": lambda n, b: b | _called(n),
    "a schema": lambda n, b: b | {"response_format": {"type": "json_schema", "json_schema": {"name": n[:60], "schema": {"type": "object", "title": n}}}},
    "an image": lambda n, b: b | _said(_image(n)),
    "an image's link": lambda n, b: b | _said([{"type": "image_url", "image_url": {"url": f"https://example.com/{n}.png"}}]),
    "user": lambda n, b: b | {"user": n},
    "stop": lambda n, b: b | {"stop": [n]},
    "metadata": lambda n, b: b | {"metadata": {"note": n, n: "x", "tags": [n]}},
    "an override": lambda n, b: b | {"metadata": {"override_reason": f"because of {n}"}},
    "an unknown field": lambda n, b: b | {n: n, "extra_body": {n: n}},
    "a field of another kind": lambda n, b: b | {"temperature": n, "max_tokens": n},
    "messages of another kind": lambda n, b: b | {"messages": n},
    "a role": lambda n, b: b | _said("x", n),
    "the model": lambda n, b: b | {"model": n},
    "the model's mark": lambda n, b: b | {"model": f"{b['model']}:{n}"},
    "the model, nested": lambda n, b: b | {"model": {"name": n}},
    "two marks": lambda n, b: b | {"tags": [n, "internal"], "metadata": {"data_class": n}},
    "what the full path serves": lambda n, b: b | _said(n) | {"n": 2, "logit_bias": {"1": 1}},
    "a prompt of many kilobytes": lambda n, b: b | _said(f"{'x ' * 5000}{n}{' y' * 5000}"),
    "a deep body": lambda n, b: Sent(body=json.dumps(b).encode()[:-1] + b', "tools": ' + b"[" * 600 + json.dumps(n).encode() + b"]" * 600 + b"}"),
    "broken JSON": lambda n, b: Sent(body=json.dumps(b | _said(n)).encode()[:-2]),
    "no JSON": lambda n, b: Sent(body=n.encode()),
    "a list": lambda n, b: Sent(body=json.dumps([n]).encode()),
    "no UTF-8": lambda n, b: Sent(body=b'{"model": "executor", "x": "\xff' + n.encode() + b'"}'),
    "an answer that its client does not wait for": lambda n, b: Sent(body=json.dumps(b | _said(n) | {"model": "o-slow"}).encode(), leaves=True),
    "a text completion": _at("/v1/completions", lambda n, b: {"model": b["model"], "prompt": n, "suffix": n, "max_tokens": 1}),
    "a response": _at("/v1/responses", lambda n, b: {"model": b["model"], "input": n, "instructions": n, "max_output_tokens": 16}),
    "a message": _at("/v1/messages", lambda n, b: b | {"system": n, "stop_sequences": [n]} | _said([{"type": "text", "text": n}])),
    "embeddings": _at("/v1/embeddings", lambda n, b: {"model": "o-vec", "input": [n, n]}),
    "real embeddings": _at("/v1/embeddings", lambda n, b: {"model": "embed", "input": n, "user": n}),
    "a wrong endpoint": _at("/v1/embeddings", lambda n, b: b | {"input": n}),
    "a real answer": lambda n, b: b | _said(f"repeat {n}") | {"model": "executor"},
    "a real answer, the full path": _at("/v1/messages", lambda n, b: {"model": "executor", "max_tokens": 1} | _said(n)),
    "a path": lambda n, b: Sent(path=f"/v1/{n}", body=json.dumps(b).encode()),
    "a path with signs": lambda n, b: Sent(path="/v1/chat/" + quote(f"{n}/../ä", safe=""), body=b"{}"),
    "a model's path": lambda n, b: Sent(path=f"/v1/models/{n}", body=b"", method="GET"),
    "a query": lambda n, b: Sent(path=f"/v1/chat/completions?key={n}", body=json.dumps(b).encode()),
    "a method": lambda n, b: Sent(method=n[:30].upper().replace("-", "X"), body=b"{}"),
    "no HTTP": lambda n, b: _head(n, b"{}\r\n\r\n"),
    "a broken head": lambda n, b: _head(n, b"POST /v1/{} HTTP/1.1\r\nx y{}: {}\r\n\r\n"),
    "a broken chunk": lambda n, b: _head(n, b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n{}\r\n"),
    "another host": _header("host", "{}.example"),
    "an origin": _header("origin", "https://{}.example"),
    "a wrong key": _header("authorization", "Bearer sk-{}"),
    "a password": _header("authorization", "Basic {}"),
    "another key": _header("x-api-key"),
    "a cookie": _header("cookie", "session={}"),
    "a user agent": _header("user-agent", "sk-1{} (secret)"),
    "a user agent's comment": _header("user-agent", "OpenAI/Python 1.99.9 ({})"),
    "a user agent without a version": _header("user-agent", "{}"),
    "a referer": _header("referer", "https://example.com/{}"),
    "a header": _header("x-foo"),
    "an id with a blank": _header("x-request-id", "a {}"),
    "LiteLLM's id": _header("x-litellm-call-id"),
    "a trace": _header("traceparent", "00-{}-01"),
    "an account": _header("openai-organization"),
    "a forwarded address": _header("x-forwarded-for"),
    "a data class": _header("x-io3-data-class"),
    "an override's header": _header("x-io3-override", "because of {}"),
    "a version": _header("anthropic-version"),
    "a kind of content": _header("content-type", "application/{}"),
    "a language": _header("accept-language"),
}  # fmt: skip


def search(rig: Rig, canaries: Canaries) -> dict[str, str]:
    """Place -> what was found there. Raises AssertionError when a place that must be there cannot be read."""
    found: dict[str, str] = {}

    def look(name: str, data: bytes) -> None:
        hits = list(canaries.found(data))
        if hits:
            found[name] = hits[0]

    def walk(folder: Path, name: str) -> None:
        for path in folder.rglob("*"):
            look(f"{name}: the name of {path}", path.name.encode())
            if path.is_file() and not path.is_symlink() and not _pristine(path):
                look(f"{name}: {path}", path.read_bytes())

    walk(rig.clone.path, "the clone")
    for service, inspected in rig.containers().items():
        look(f"{service}: docker inspect", json.dumps(inspected).encode())
        logs = subprocess.run(["docker", "logs", inspected["Id"]], capture_output=True, check=True)
        look(f"{service}: docker logs", logs.stdout + logs.stderr)
        folder = Path(inspected["LogPath"]).parent
        if os.access(folder, os.R_OK):
            walk(folder, f"{service}: the engine's files of it")
        upper = Path(inspected["GraphDriver"]["Data"].get("UpperDir", "/nonexistent"))
        if os.access(upper, os.R_OK):
            walk(upper, f"{service}: what it changed")
        if inspected["State"]["Running"]:
            argv = [
                "docker",
                "exec",
                inspected["Id"],
                "tar",
                "-c",
                "--ignore-failed-read",
                "/tmp",
                "/dev/shm",
                "/dev/mqueue",
            ]
            files = subprocess.run(argv, capture_output=True, check=False)
            assert len(files.stdout) >= 1024, files.stderr
            look(f"{service}: its memory disks", files.stdout)
    volumes = rig.clone.docker(
        "volume", "ls", "-q", "-f", f"label=com.docker.compose.project={rig.clone.project}"
    ).stdout.split()
    for volume in json.loads(rig.clone.docker("volume", "inspect", *volumes).stdout):
        if os.access(volume["Mountpoint"], os.R_OK):
            walk(Path(volume["Mountpoint"]), f"volume {volume['Name']}")
    for name in ENGINE_LOGS:
        if os.access(name, os.R_OK):
            look(name, Path(name).read_bytes())
    return found


def _pristine(path: Path) -> bool:
    """A model's blob that is what its name says: nothing was added to it."""
    if not path.name.startswith("sha256-"):
        return False
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest() == path.name.removeprefix("sha256-")


def lines(rig: Rig) -> list[dict[str, Any]]:
    log = rig.clone.path / ".io3ops/logs/requests.jsonl"
    return [json.loads(line) for line in log.read_text("utf-8").splitlines()]


def test_no_secret_is_left_anywhere(rig: Rig) -> None:
    before = len(lines(rig))
    made = requests(rig.canaries)
    batch = [next(made) for _ in range(SECRETS // 2)]
    big = rig.canaries.new("a body that is too large").encode()
    head = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99000000\r\nauthorization: Bearer %b\r\n\r\n{"
    batch.append(Sent(body=b"", raw=head % rig.clone.key().encode() + big))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        rig.statuses = list(pool.map(rig.send, batch))
    assert len(rig.canaries.made) > SECRETS
    # They went everywhere: served and refused, by models and by the door, through the lane and through LiteLLM.
    assert {200, 400, 401, 403, 404, 413, 415, 500} <= set(rig.statuses), sorted(set(rig.statuses))
    assert rig.statuses.count(200) > 60 and rig.echo.seen > 150, (rig.statuses.count(200), rig.echo.seen)
    until("every request is a line", lambda: len(lines(rig)) - before > len(batch) * 0.85)
    written = lines(rig)[before:]
    counts = {path: sum(line["path"] == path for line in written) for path in ("lane", "full", "edge")}
    assert min(counts.values()) > 30, counts
    assert {"client_left", "refused", "error"} <= {line.get("outcome") for line in written}
    found = search(rig, rig.canaries)
    assert not found, f"seed {rig.canaries.seed}: {json.dumps(found, indent=1)}"


def test_the_search_finds_what_is_there(rig: Rig) -> None:
    """A check that cannot fail is no check: secrets that do stand in each kind of place, found by the same search."""
    planted = Canaries(rig.canaries.seed + "planted")
    gateway = rig.containers()["gateway"]["Id"]
    # An id that a client chose in a sane shape is written on purpose.
    assert rig.send(Sent(body=b"{}", headers={"x-request-id": planted.new("the request log")})) in (400, 404)
    hidden = base64.b64encode(f"x{planted.new('a memory disk')}".encode()).decode()
    script = f"echo {planted.new('a container log')} >/proc/1/fd/2; echo {hidden} >/tmp/planted"
    assert rig.clone.docker("exec", gateway, "sh", "-c", script).returncode == 0
    until("the engine has the line", lambda: planted.head in rig.clone.docker("logs", gateway).stderr)
    found = " ".join(search(rig, planted))
    for place in (".io3ops/logs/requests.jsonl", "gateway: docker logs", "gateway: its memory disks"):
        assert place in found, found
    rig.clone.docker("exec", gateway, "rm", "/tmp/planted")


LIMITS = "for p in /proc/[0-9]*; do grep 'core file' $p/limits 2>/dev/null; done"
WORKERS = "for p in /proc/[0-9]*; do [ \"$(cut -d' ' -f4 $p/stat)\" = {} ] && echo ${{p#/proc/}}; done; true"


def test_a_process_that_is_killed_leaves_no_core(rig: Rig) -> None:
    """Neither where the engine's host puts one, nor in the folder in which it ran."""
    containers = rig.containers()
    assert {"gateway", "runtime", "egress"} <= containers.keys()
    for service, inspected in containers.items():
        limits = rig.clone.docker("exec", inspected["Id"], "sh", "-c", LIMITS).stdout.splitlines()
        assert limits and {tuple(line.split()[4:6]) for line in limits} == {("0", "0")}, (service, limits)
    kept = requests(rig.canaries)
    real = json.dumps({"model": "executor", "prompt": rig.canaries.new("a model's process"), "max_tokens": 1}).encode()
    for number in ("SEGV", "ABRT"):
        assert rig.send(next(kept)) != 0
        before = _workers(rig, containers["gateway"]["Id"])
        assert before
        rig.clone.docker("exec", containers["gateway"]["Id"], "sh", "-c", f"kill -{number} {before[0]}")
        until("another worker serves", partial(_another_worker, rig, containers["gateway"]["Id"], before))
        until("it answers", lambda: rig.send(Sent(body=b"{}")) == 404)
        assert rig.send(Sent(path="/v1/completions", body=real)) == 200
        # And what runs the models: Ollama's children.
        models = _workers(rig, containers["runtime"]["Id"])
        assert models
        rig.clone.docker(
            "exec", containers["runtime"]["Id"], "sh", "-c", f"kill -{number} {' '.join(map(str, models))}"
        )
        until("the model is loaded again", lambda: rig.send(Sent(path="/v1/completions", body=real)) == 200)
    tidy = {s: rig.clone.docker("exec", c["Id"], "find", "/tmp", "/dev/shm").stdout for s, c in containers.items()}
    cores = [
        line for listed in tidy.values() for line in listed.splitlines() if line.rsplit("/", 1)[-1].startswith("core")
    ]
    assert not cores, tidy
    found = search(rig, rig.canaries)
    assert not found, f"seed {rig.canaries.seed}: {json.dumps(found, indent=1)}"


def _another_worker(rig: Rig, container: str, before: list[int]) -> bool:
    return _workers(rig, container)[-1:] > before[:1]


def _workers(rig: Rig, container: str) -> list[int]:
    """The gateway's parent, or Ollama, is the child of `init`; its children do the work."""
    parent = rig.clone.docker("exec", container, "sh", "-c", WORKERS.format(1)).stdout.split()
    listed = rig.clone.docker("exec", container, "sh", "-c", WORKERS.format(parent[0])).stdout if parent else ""
    return sorted(int(pid) for pid in listed.split())
