"""The gateway's first process, with real forks, sockets and signals; its workers are tiny (`tests.mini_gateway`).

What LiteLLM and uvicorn add is tried in `test_gateway_process`, in the real image.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.clone import ROOT, free_port, until

from io3ops_gateway.scripts import control


def _serve(gateway: Gateway, count: int, gone: int = 0) -> bool:
    """Whether so many workers serve, and `gone` is none of them."""
    return gone not in gateway.workers() and len(gateway.workers("serving")) == count


def _another_serves(gateway: Gateway, gone: int) -> bool:
    return gateway.workers("serving") not in ([], [gone])


def config(workers: Any = 1, **tests: Any) -> str:
    return yaml.safe_dump({"model_list": ["one"], "io3ops_policy": {"edge": {"workers": workers}}, "tests": tests})


class Gateway:
    """A parent with its workers, as a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.seen: set[int] = set()

    def begin(self, text: str, **numbers: float) -> None:
        """Start it; it may not serve yet."""
        (self.folder / "litellm.yaml").write_text(text)
        given = [f"{name}={value}" for name, value in numbers.items()]
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.mini_gateway", str(self.folder), str(self.port), *given],
                cwd=ROOT, env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}, stderr=log, start_new_session=True,
            )  # fmt: skip

    def serve(self, text: str, **numbers: float) -> None:
        self.begin(text, **numbers)
        until("it serves", lambda: bool(self.status_or_nothing().get("generation")) and not self.refuses())

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def ends(self, seconds: float = 10) -> int:
        """The parent's exit code."""
        assert self.process
        return self.process.wait(seconds)

    # Commands.

    def ask(self, **command: Any) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(control.ask(str(self.folder / "control.sock"), command))
        return said

    def reload(self, text: str) -> dict[str, Any]:
        return self.ask(command="reload", config=text)

    def status(self) -> dict[str, Any]:
        said = self.ask(command="status")
        self.seen |= {worker["pid"] for worker in said["workers"]}
        return said

    def status_or_nothing(self) -> dict[str, Any]:
        try:
            return self.status()
        except (OSError, ValueError):
            return {}

    def workers(self, state: str = "") -> list[int]:
        return [w["pid"] for w in self.status()["workers"] if state in ("", w["state"])]

    # Clients.

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 10)

    def hello(self) -> list[str]:
        """[the word, the worker, its generation] of whoever serves a new connection."""
        with self.connect() as connection:
            return say(connection)

    def generation(self) -> int:
        return int(self.hello()[2])

    def refuses(self) -> bool:
        try:
            self.connect().close()
        except ConnectionRefusedError:
            return True
        return False

    # What is left behind.

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def children(self) -> list[str]:
        """The parent's children; "zombie" is one whose end nobody has asked for."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                after = entry.read_text().rpartition(")")[2].split()
                if int(after[1]) == self.pid:
                    found.append("zombie" if after[0] == "Z" else "lives")
        return found

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("io3ops-generation-*.yaml"))

    def remove(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self.seen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def say(connection: socket.socket, word: bytes = b"x") -> list[str]:
    """One line there, one back; AssertionError when it does not come."""
    connection.sendall(word + b"\n")
    answer = b""
    while not answer.endswith(b"\n"):
        part = connection.recv(4096)
        assert part, f"cut after {answer!r}"
        answer += part
    return answer.decode().split()


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Crowd:
    """Clients that open a new connection for each line, for as long as the block runs."""

    def __init__(self, gateway: Gateway, clients: int = 4) -> None:
        self.gateway = gateway
        self.served: Counter[str] = Counter()
        self.failed: list[str] = []
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def _ask(self) -> None:
        while not self._done.is_set():
            try:
                word = self.gateway.hello()[0]
            except (OSError, AssertionError) as error:
                self.failed.append(repr(error))
            else:
                self.served[word] += 1

    def more(self, count: int) -> None:
        """Wait until so many more were served."""
        aim = self.served.total() + count
        until(f"{aim} are served", lambda: self.served.total() >= aim or bool(self.failed))

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        self.more(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    made = Gateway(tmp_path)
    yield made
    made.remove()


# -- the start


def test_nobody_is_served_before_all_workers_are_ready(gateway: Gateway, tmp_path: Path) -> None:
    gateway.begin(config(2, wait={1: str(tmp_path / "go")}))
    until("one is ready", lambda: [w["state"] for w in gateway.status_or_nothing().get("workers", [])] == ["ready", "starting"])  # fmt: skip
    assert gateway.refuses() and gateway.status()["generation"] == 0
    (tmp_path / "go").touch()
    until("both serve", lambda: len(gateway.workers("serving")) == 2 and not gateway.refuses())
    assert gateway.hello()[0] == "hello"
    assert gateway.status()["generation"] == 1


@pytest.mark.parametrize(
    ("start", "code", "words"),
    [
        ("fail", 78, "LiteLLM did not start: no; mend it"),
        ("exit", 70, "ended with exit code 3 while it started"),
        ("kill", 70, "was ended by signal Killed while it started"),
        ("raise", 70, "ended with exit code 70 while it started"),
        ("hang", 70, "it was not ready within 0.5 s"),
    ],
)
def test_a_first_start_that_fails_ends_with_the_workers_reason(
    gateway: Gateway, start: str, code: int, words: str
) -> None:
    gateway.begin(config(2, start=start), START_SECONDS=0.5)
    assert gateway.ends() == code
    assert words in gateway.log and gateway.refuses()
    assert gateway.files() == [] and not (gateway.folder / "control.sock").exists()
    if start == "raise":
        assert "RuntimeError: nobody expected this" in gateway.log


def test_a_second_gateway_does_not_share_the_port(gateway: Gateway, tmp_path: Path) -> None:
    gateway.serve(config())
    (tmp_path / "second").mkdir()
    second = Gateway(tmp_path / "second")
    second.port = gateway.port
    second.begin(config())
    try:
        assert second.ends() != 0 and "Address already in use" in second.log
    finally:
        second.remove()
    assert gateway.hello()[0] == "hello"


# -- a new configuration


def test_a_reload_switches_without_a_failed_connection(gateway: Gateway) -> None:
    gateway.serve(config(word="old"))
    with Crowd(gateway) as crowd:
        for number in range(10):
            said = gateway.reload(config(word=f"w{number}"))
            assert said["ok"] and said["generation"] == number + 2, said
            assert gateway.hello()[0] == f"w{number}", "who asked is told when the new one serves, and nobody else"
            crowd.more(30)
    assert not crowd.failed and crowd.served.total() > 300
    assert set(crowd.served) == {"old", *(f"w{n}" for n in range(10))}


def test_whoever_is_connected_is_served_to_the_end(gateway: Gateway) -> None:
    gateway.serve(config(word="old"))
    with gateway.connect() as held:
        assert say(held)[0] == "old"
        old = gateway.workers("serving")
        assert gateway.reload(config(word="new"))["ok"]
        assert gateway.workers("finishing") == old and gateway.hello()[0] == "new"
        assert say(held)[0] == "old", "a connection stays where it is"
        assert len(gateway.files()) == 2
    until("the old one has ended", lambda: gateway.workers("finishing") == [])
    assert gateway.files() == ["io3ops-generation-2.yaml"]


def test_who_asked_is_told_when_nobody_meets_the_old_one_any_more(gateway: Gateway, tmp_path: Path) -> None:
    gateway.serve(config(word="old", tardy=f"{tmp_path}/leave"))
    said: list[dict[str, Any]] = []
    asking = threading.Thread(target=lambda: said.append(gateway.reload(config(word="new"))))
    asking.start()
    until("the new one serves", lambda: {w["state"] for w in gateway.status()["workers"]} == {"serving", "leaving"})
    asking.join(0.2)
    assert not said, "the old one accepts too"
    (tmp_path / "leave").touch()
    asking.join()
    assert said[0]["ok"] and {gateway.hello()[0] for _ in range(50)} == {"new"}


def test_a_worker_that_does_not_say_that_it_left_is_not_waited_for_longer(gateway: Gateway) -> None:
    gateway.serve(config(word="old", mute=True), LEAVE_SECONDS=0.5)
    with gateway.connect() as held:
        say(held)
        said = gateway.reload(config(word="new"))
        assert said["ok"] and sorted(w["state"] for w in said["workers"]) == ["finishing", "serving"]
        assert say(held)[0] == "old", "it is not ended for that"


def test_workers_that_come_and_go_with_a_reload_lose_nobody(gateway: Gateway) -> None:
    """With fewer of them each takes several of the queues, so that none is left with people in it."""
    gateway.serve(config(1))
    with Crowd(gateway) as crowd:
        for count in (3, 1, 2, 5, 1, 4, 2):
            assert gateway.reload(config(count, word=f"w{count}"))["ok"]
            until(f"{count} serve", partial(_serve, gateway, count))
            crowd.more(60)
    assert not crowd.failed
    spread = Counter(gateway.hello()[1] for _ in range(100))
    assert set(map(int, spread)) == set(gateway.workers("serving")), "the kernel gives each of them some"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not valid YAML"),
        ("", "not a mapping"),
        ("just words", "not a mapping"),
        ("model_list: []", "no model_list"),
        ("model_list: [a]", "cannot be used: KeyError: 'io3ops_policy'"),
        (config("many"), "cannot be used: TypeError"),
        ("model_list: [2026-99-99]", "cannot be read as YAML: month must be"),
        ("model_list: [\udcff]", "not UTF-8 text"),
        ('model_list: ["\\ud800"]', "not valid YAML"),
        ("\0", "not valid YAML"),
        ("- " * 5000, "not a mapping"),
        (config(start="fail"), "LiteLLM did not start: no"),
        (config(2, start="fail"), "LiteLLM did not start: no"),
        (config(start="exit"), "ended with exit code 3 while it started"),
        (config(3, start="exit"), "ended with exit code 3 while it started"),
        (config(start="kill"), "signal Killed while it started"),
        (config(start="hang"), "it was not ready within 1 s"),
        (config(2, wait={2: "/nowhere"}), "it was not ready within 1 s"),
        (config(70), "too many workers"),
    ],
)
def test_a_configuration_that_fails_is_not_taken(gateway: Gateway, text: str, words: str) -> None:
    """The one before serves on, as if nothing had been; whoever asked is told why."""
    gateway.serve(config(word="old"), START_SECONDS=1)
    before = gateway.status()
    with Crowd(gateway, 2) as crowd:
        said = gateway.reload(text)
        crowd.more(5)
    assert said["ok"] is False and words in said["what"], said
    assert not crowd.failed and set(crowd.served) == {"old"}
    until("nothing is left of it", lambda: len(gateway.workers()) == 1 and gateway.files() == ["io3ops-generation-1.yaml"])  # fmt: skip
    after = gateway.status()
    assert (after["generation"], after["config"], after["workers"][0]["pid"]) == (
        before["generation"],
        before["config"],
        before["workers"][0]["pid"],
    )
    assert words in gateway.log and gateway.children() == ["lives"]
    assert gateway.reload(config(word="new"))["ok"] and gateway.hello()[0] == "new", "and the next is taken"


def test_a_file_that_is_no_text_at_all_is_refused(gateway: Gateway) -> None:
    gateway.serve(config())
    for what in (None, 5, True, ["a"], {"a": 1}):
        assert gateway.ask(command="reload", config=what)["ok"] is False
    assert gateway.generation() == 1


def test_the_second_of_two_changes_at_once_is_told_so(gateway: Gateway, tmp_path: Path) -> None:
    gateway.serve(config())
    first: list[dict[str, Any]] = []
    asking = threading.Thread(target=lambda: first.append(gateway.reload(config(word="a", wait={1: f"{tmp_path}/go"}))))
    asking.start()
    until("the first is under way", lambda: len(gateway.workers()) == 2)
    second = gateway.reload(config(word="b"))
    assert second == {"ok": False, "what": "another change is under way", "hint": "try again in a moment"}
    (tmp_path / "go").touch()
    asking.join()
    assert first[0]["ok"] and gateway.hello()[0] == "a"


def test_a_change_whose_asker_left_is_made_all_the_same(gateway: Gateway, tmp_path: Path) -> None:
    gateway.serve(config())
    with socket.socket(socket.AF_UNIX) as asker:
        asker.connect(str(tmp_path / "control.sock"))
        text = config(word="new", wait={1: f"{tmp_path}/go"})
        asker.sendall(json.dumps({"command": "reload", "config": text}).encode() + b"\n")
        until("it is under way", lambda: len(gateway.workers()) == 2)
    (tmp_path / "go").touch()
    until("it serves", lambda: gateway.hello()[0] == "new")


def test_no_change_is_begun_for_which_there_is_no_memory(gateway: Gateway) -> None:
    """Workers that finish long answers hold memory: one too many, and the kernel would end one that serves."""
    gateway.serve(config(), room=3)
    held = []
    for _ in range(2):
        held.append(gateway.connect())
        assert say(held[-1])
        assert gateway.reload(config())["ok"]
    refused = gateway.reload(config())
    assert not refused["ok"] and "there is memory for no more" in refused["what"] and "answers" in refused["hint"]
    for connection in held:
        connection.close()
    until("there is room again", lambda: gateway.reload(config())["ok"])


def test_sighup_reads_the_file_again(gateway: Gateway, tmp_path: Path) -> None:
    gateway.serve(config(word="old"))
    (tmp_path / "litellm.yaml").write_text(config(word="new"))
    os.kill(gateway.pid, signal.SIGHUP)
    until("the new one serves", lambda: gateway.hello()[0] == "new")
    (tmp_path / "litellm.yaml").unlink()
    os.kill(gateway.pid, signal.SIGHUP)
    until("that is said", lambda: "No such file" in gateway.log)
    assert gateway.hello()[0] == "new"


def test_nothing_is_left_of_fifty_changes(gateway: Gateway) -> None:
    gateway.serve(config(2))
    assert gateway.reload(config(2))["ok"] and gateway.reload(config(2, start="exit"))["ok"] is False
    until("the first have ended", lambda: len(gateway.workers()) == 2)
    before = gateway.descriptors()
    for number in range(50):
        said = gateway.reload(config(2, start=("ok", "ok", "fail", "exit", "ok")[number % 5]))
        assert said["ok"] is (number % 5 not in (2, 3)), said
    until("the last have ended", lambda: len(gateway.workers()) == 2)
    assert gateway.descriptors() == before and len(gateway.files()) == 1
    assert gateway.children() == ["lives", "lives"], "no zombie, and nobody forgotten"
    # A worker has its own: as many as one of the first generation.
    worker = gateway.workers()[0]
    assert len(list(Path(f"/proc/{worker}/fd").iterdir())) < before


def test_a_place_in_the_meter_is_given_back(gateway: Gateway, tmp_path: Path) -> None:
    gateway.serve(config())
    gateway.reload(config(2))
    until("the first has ended", lambda: len(gateway.workers()) == 2)
    assert (tmp_path / "forgotten").read_text() == "0\n"
    gateway.reload(config())
    until("they have ended", lambda: len(gateway.workers()) == 1)
    assert sorted((tmp_path / "forgotten").read_text().split()) == ["0", "1", "2"]


# -- workers that end


def test_a_worker_that_is_killed_is_replaced_and_who_waits_is_served(gateway: Gateway) -> None:
    gateway.serve(config(word="w"))
    (pid,) = gateway.workers("serving")
    os.kill(pid, signal.SIGSTOP)
    waiting = [gateway.connect() for _ in range(50)]
    for connection in waiting:
        connection.sendall(b"x\n")
    os.kill(pid, signal.SIGKILL)
    answers = {connection.recv(100).decode().split()[1] for connection in waiting}
    assert answers == set(map(str, gateway.workers("serving"))) and str(pid) not in answers
    for connection in waiting:
        connection.close()
    assert "was ended by signal Killed; another takes its place" in gateway.log
    assert gateway.status()["running"] == 1, "what the killed one ran is not counted any more"
    assert gateway.status()["generation"] == 1, "with the same configuration"


def test_the_replacement_serves_what_was_tried_not_what_is_on_the_disk_by_then(
    gateway: Gateway, tmp_path: Path
) -> None:
    gateway.serve(config(word="tried"))
    (tmp_path / "litellm.yaml").write_text("broken: [")
    (pid,) = gateway.workers()
    os.kill(pid, signal.SIGKILL)
    until("another serves", lambda: gateway.hello()[0] == "tried")
    assert gateway.workers() != [pid]


def test_one_of_two_that_is_killed_costs_its_own_connections_only(gateway: Gateway) -> None:
    gateway.serve(config(2))
    with Crowd(gateway) as crowd:
        for _ in range(3):
            victim = gateway.workers("serving")[0]
            os.kill(victim, signal.SIGKILL)
            until("two serve", partial(_serve, gateway, 2, victim))
            crowd.more(20)
    # Who was being answered: at most each client once for each.
    assert len(crowd.failed) <= 12 and all("cut" in f or "Reset" in f for f in crowd.failed), crowd.failed


@pytest.mark.parametrize(("start", "words"), [("end", "ended with exit code 4"), ("fail", "ended with exit code 78")])
def test_workers_that_end_again_and_again_end_the_container(gateway: Gateway, start: str, words: str) -> None:
    gateway.serve(config(start2=start))
    os.kill(gateway.workers()[0], signal.SIGKILL)
    assert gateway.ends() == 70
    assert f"workers end again and again: the last one {words}" in gateway.log
    assert gateway.log.count("another takes its place") == 4


def test_a_worker_that_has_served_for_a_while_gives_new_lives(gateway: Gateway) -> None:
    gateway.serve(config(), STABLE_SECONDS=0)
    for _ in range(8):
        (pid,) = gateway.workers("serving")
        os.kill(pid, signal.SIGKILL)
        until("another serves", partial(_another_serves, gateway, pid))
    assert gateway.hello()[0] == "hello"


def test_a_replacement_that_hangs_is_replaced_too(gateway: Gateway) -> None:
    """Nobody would serve its queue, for ever."""
    gateway.serve(config(start2="hang"), START_SECONDS=0.3)
    os.kill(gateway.workers()[0], signal.SIGKILL)
    assert gateway.ends() == 70 and gateway.log.count("was ended by signal Killed; another takes its place") == 4


def test_a_change_while_a_place_is_being_taken(gateway: Gateway, tmp_path: Path) -> None:
    """Whoever was to take it serves nobody: it does not wait for a word that never comes."""
    gateway.serve(config(2, word="old", start2="hang"))
    os.kill(gateway.workers()[0], signal.SIGKILL)
    until("another starts", lambda: len(gateway.workers("starting")) == 1)
    assert gateway.reload(config(2, word="new"))["ok"]
    until("only the new ones are left", lambda: len(gateway.workers("serving")) == len(gateway.workers()) == 2)
    assert gateway.hello()[0] == "new" and len(gateway.files()) == 1


# -- the end


def test_sigterm_ends_all_in_good_order(gateway: Gateway) -> None:
    gateway.serve(config(3))
    pids = gateway.workers()
    os.kill(gateway.pid, signal.SIGTERM)
    assert gateway.ends() == 0
    assert not any(map(lives, pids)) and gateway.refuses()
    assert gateway.files() == [] and not (gateway.folder / "control.sock").exists()


def test_a_worker_that_hangs_at_the_end_is_killed(gateway: Gateway) -> None:
    gateway.serve(config(2, deaf=True), stop=0.5)
    pids = gateway.workers()
    os.kill(gateway.pid, signal.SIGTERM)
    os.kill(gateway.pid, signal.SIGTERM)
    assert gateway.ends() == 0 and not any(map(lives, pids))


@pytest.mark.parametrize("when", ["first", "next"])
def test_sigterm_during_a_start_does_not_wait_for_it(gateway: Gateway, when: str) -> None:
    if when == "first":
        gateway.begin(config(start="hang"), stop=30)
        until("it starts", lambda: len(gateway.status_or_nothing().get("workers", [])) == 1)
    else:
        gateway.serve(config(), stop=30)
        threading.Thread(target=lambda: gateway.status_or_nothing() and _quietly(gateway, config(start="hang"))).start()
        until("it starts", lambda: len(gateway.workers("starting")) == 1)
    pids = gateway.workers()
    os.kill(gateway.pid, signal.SIGTERM)
    assert gateway.ends() == 0 and not any(map(lives, pids)) and gateway.files() == []


def _quietly(gateway: Gateway, text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        gateway.reload(text)


def test_workers_notice_that_their_parent_was_killed(gateway: Gateway, tmp_path: Path) -> None:
    """Also those that start: nobody may hold the port when the container starts anew."""
    gateway.serve(config(2))
    threading.Thread(target=_quietly, args=(gateway, config(wait={2: f"{tmp_path}/go"}))).start()
    until("another starts", lambda: len(gateway.workers()) == 3)
    pids = gateway.workers()
    os.kill(gateway.pid, signal.SIGKILL)
    (tmp_path / "go").touch()
    until("all have ended", lambda: not any(map(lives, pids)))
    assert gateway.refuses()


# -- commands


def test_only_the_owner_may_command(gateway: Gateway, tmp_path: Path) -> None:
    gateway.serve(config())
    assert stat.S_IMODE((tmp_path / "control.sock").stat().st_mode) == 0o600
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in gateway.files()} == {0o600}


def test_the_status_says_who_serves_what(gateway: Gateway) -> None:
    gateway.serve(config(2))
    said = gateway.status()
    assert set(said) == {"ok", "generation", "config", "workers", "running", "waiting"} and said["ok"] is True
    assert (said["running"], said["waiting"]) == (2, 0)
    assert [set(w) for w in said["workers"]] == [{"generation", "slot", "pid", "state", "seconds"}] * 2
    assert [w["slot"] for w in said["workers"]] == [0, 1] and len(said["config"]) == 16


@pytest.mark.parametrize(
    "data",
    [b"\n", b"{}\n", b"[]\n", b"null\n", b'"command"\n', b"5\n", b"\xff\xfe\n", b'{"command": null}\n', b'{"command": ["reload"]}\n',
     b'{"command": "reload"}\n', b'{"command": "reload", "config": null, "try_modes": {}}\n', b'{"command": "stop"}\n',
     b'{"command": "status"}\n{"command": "status"}\n', b"GET / HTTP/1.1\r\n\r\n", b"[" * 200_000 + b"\n", b"x" * 5_000_000 + b"\n"],
)  # fmt: skip
def test_garbage_is_answered_and_does_no_harm(gateway: Gateway, tmp_path: Path, data: bytes) -> None:
    gateway.serve(config())
    with socket.socket(socket.AF_UNIX) as asker:
        asker.settimeout(10)
        asker.connect(str(tmp_path / "control.sock"))
        asker.sendall(data)
        answer = b""
        while part := asker.recv(65_536):
            answer += part
    assert json.loads(answer)["ok"] is False
    assert gateway.status()["generation"] == gateway.generation() == 1


def test_half_and_endless_commands_are_not_waited_for(gateway: Gateway, tmp_path: Path) -> None:
    gateway.serve(config(), COMMAND_SECONDS=0.3, COMMAND_BYTES=100_000)
    before = gateway.descriptors()

    def asker(data: bytes, *, end: bool = False) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.connect(str(tmp_path / "control.sock"))
        made.settimeout(10)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            made.sendall(data)
        if end:
            made.close()
        return made

    for _ in range(20):
        asker(b'{"command"', end=True)
        asker(b"", end=True)
    # More than may wait in the queue, and than are served at a time.
    silent = [asker(b'{"command"') for _ in range(8)]
    huge = asker(b"x" * 1_000_000)
    assert gateway.status()["ok"], "others are answered meanwhile"
    for left in (*silent, huge):
        with contextlib.suppress(ConnectionResetError):
            assert left.recv(100) == b""
        left.close()
    until("nothing is left of them", lambda: gateway.descriptors() == before)


def test_an_asker_that_does_not_read_does_not_stop_the_gateway(gateway: Gateway, tmp_path: Path) -> None:
    gateway.serve(config())
    with contextlib.ExitStack() as askers:
        for _ in range(5):
            asker = askers.enter_context(socket.socket(socket.AF_UNIX))
            asker.connect(str(tmp_path / "control.sock"))
            asker.sendall(b'{"command": "status"}\n')
        assert gateway.status()["ok"] and gateway.hello()[0] == "hello"


def test_the_command_of_the_container(gateway: Gateway, tmp_path: Path) -> None:
    """`control.py` as `io3ops apply` runs it: without any package of ours, from a file."""

    def run(*words: str, stdin: bytes = b"", path: str = f"{tmp_path}/control.sock") -> tuple[int, bytes, bytes]:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(ROOT / "src/io3ops_gateway/scripts/control.py"), *words],
            input=stdin, capture_output=True, timeout=30, env={"IO3_CONTROL": path},
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    gateway.serve(config())
    code, out, _ = run("status")
    assert code == 0 and json.loads(out)["generation"] == 1
    code, out, _ = run("reload", stdin=config(word="grüße").encode())
    assert code == 0 and json.loads(out)["ok"] and gateway.hello()[0] == "grüße"
    code, out, _ = run("reload", "--try-modes", stdin=b"\xff\xfe")
    assert code == 1 and "not UTF-8" in json.loads(out)["what"]
    assert gateway.hello()[0] == "grüße"
    for words in ((), ("stop",), ("reload", "now"), ("status", "--try-modes")):
        code, out, err = run(*words)
        assert code == 64 and not out and b"usage" in err
    code, out, err = run("status", path=f"{tmp_path}/nobody.sock")
    assert code == 69 and not out and b"does not reply" in err


def test_a_place_for_the_socket_that_cannot_be_written_is_a_plain_reason(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "control.sock").mkdir()
    gateway.begin(config())
    assert gateway.ends() == 70 and "control socket" in gateway.log and "Traceback" not in gateway.log
