"""`io3ops top`: its numbers, its tables in a small terminal, and layers that hang or fail."""

from __future__ import annotations

import io
import json
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console
from tests.clone import until

from io3ops.adapters.container_view import ContainerView, Load
from io3ops.adapters.docker_engine import Container
from io3ops.adapters.ollama_api import LoadedModel
from io3ops.cli import live
from io3ops.errors import EngineLost, GatewayError, RuntimeUnreachable
from io3ops.operations.models import models
from io3ops.operations.top import numbers as top_numbers
from io3ops.operations.top import text as top_text
from io3ops.operations.top import top as operation
from io3ops.operations.top.numbers import Ended, Failure, Layer, Model, Rate, Snapshot
from io3ops.settings import read_settings
from io3ops.tools import Tools

NOW = 1795543200.0


def request(ago: float, mode: str = "m", outcome: str = "ok", ms: float = 100, tokens: float = 0) -> Ended:
    return Ended(time=NOW - ago, mode=mode, outcome=outcome, ms=ms, tokens=tokens)


# -- numbers


def test_rates_cover_the_last_minute_by_mode_the_busiest_first() -> None:
    found = [request(i, "quick", ms=i, tokens=6) for i in range(1, 21)]
    found += [
        request(5, "slow", "error", 5000),
        request(6, "slow", "client_left", 10),
        request(7, "slow", "timeout", 9000),
    ]
    found += [request(8, "slow", "refused", 0), request(60, "old"), request(-3600, "of a clock that jumped")]
    total, modes = top_numbers.rates(found, NOW)
    assert [(r.mode, r.requests, r.failed, r.refused) for r in modes] == [("quick", 20, 0, 0), ("slow", 4, 2, 1)]
    assert (modes[0].p50, modes[0].p95, modes[0].tokens) == (10, 19, 120)
    assert (modes[1].p50, modes[1].p95) == (5000, 9000), "a refusal takes no time and would make it look quick"
    assert (total.mode, total.requests, total.failed, total.refused, total.tokens) == ("all", 24, 2, 1, 120)


def test_no_requests_have_no_percentiles() -> None:
    total, modes = top_numbers.rates([], NOW)
    assert (total.p50, total.p95, modes) == (None, None, ())
    assert top_numbers.rank([1, 2], 0.5) == 1 and top_numbers.rank([7], 0.95) == 7


def test_cpu_is_the_difference_of_two_samples() -> None:
    def load(cpu: int, machine: int) -> Load:
        return Load(cpu=cpu, machine=machine, cores=4, memory=1, limit=2)

    assert top_numbers.cpu(load(100, 1000), load(300, 1800)) == 100
    assert top_numbers.cpu(None, load(1, 1)) is None
    assert top_numbers.cpu(load(5, 5), load(5, 5)) is None
    assert top_numbers.cpu(load(500, 5), load(5, 9)) is None, "it was restarted"


# -- how it looks

EVIL = "[red]x[/red]\x1b[2J\x1b]0;t\x07\nz" * 30
SEEN = Snapshot(
    time=NOW,
    project="io3ops",
    layers=(
        Layer(name="gateway", state="running", health="healthy", cpu=12.34, memory=411_000_000, limit=1_073_741_824),
        Layer(name="runtime", state="exited"),
    ),
    models=(Model(name="io3ops/smollm2:f36a", memory=211_000_000, vram=0, until="2318-01-01T00:00:00Z"),),
    running=3,
    waiting=1,
    total=Rate(mode="all", requests=90, failed=3, refused=0, p50=512.4, p95=1900.0, tokens=1200),
    modes=(Rate(mode="executor", requests=90, failed=3, refused=0, p50=512.4, p95=1900.0, tokens=1200),),
    failures=(Failure(time=NOW, id="a" * 32, mode="executor", outcome="error", error="ConnectError"),),
)


def drawn(seen: Snapshot, width: int = 80, height: int = 24) -> list[str]:
    console = Console(
        file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None, markup=False
    )
    console.print(live.picture(seen, height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_the_text_has_every_table() -> None:
    text = top_text.text(SEEN)
    for line in (
        "gateway  running  healthy   12.3  411 MB  1.1 GB",
        "runtime  exited   -            -       -       -",
        "io3ops/smollm2:f36a  211 MB  CPU  always",
        "executor      1.50   0.05       0.00     512   1,900      20.0",
        "in flight 3, waiting 1",
    ):
        assert line in text.splitlines()
    assert "executor  error    ConnectError  …aaaaaaaa" in text


def test_the_live_view_shows_the_same_as_the_text() -> None:
    assert [line.split() for line in drawn(SEEN) if line][1:] == [
        line.split() for line in top_text.text(SEEN).splitlines() if line
    ][1:]


def test_the_unloading_time_has_a_date_only_if_it_is_far() -> None:
    assert top_text._until("", NOW) == "-" and top_text._until("0001-01-01T00:00:00Z", NOW) == "-"
    assert len(top_text._until("2026-11-24T18:26:50.098753148Z", NOW)) == len("18:26:50")
    assert len(top_text._until("2026-11-26T18:26:50.098753148+01:00", NOW)) == len("11-26 18:26:50")


def test_hostile_values_fit_a_small_terminal() -> None:
    many = replace(
        SEEN,
        project="p" * 63,
        layers=SEEN.layers * 4,
        models=tuple(replace(SEEN.models[0], name=EVIL) for _ in range(40)),
        modes=tuple(replace(SEEN.modes[0], mode=EVIL, requests=10**12) for _ in range(40)),
        failures=tuple(Failure(time=9e99, id=EVIL, mode=EVIL, outcome=EVIL, error=EVIL) for _ in range(8)),
        problems=dict.fromkeys(("containers", "gateway", "models", "requests"), "no answer for 7 s " * 20),
    )
    for width, height in ((80, 24), (200, 60), (40, 12)):
        lines = drawn(many, width, height)
        assert len(lines) <= height or height == 12, (width, height, len(lines))
        assert all(line.isprintable() and len(line) <= width for line in lines)
    assert sum("gateway" in line for line in drawn(many)) >= 1, "each table keeps some"


# -- what is asked


class Layers:
    """Stands in for `Tools`. An attribute that is an exception is raised; an event makes the call hang until it is set."""

    def __init__(self, root: Path) -> None:
        self.settings = read_settings({}, root, {})
        self.containers: Any = {"gateway": container("gateway"), "runtime": container("runtime")}
        self.status: Any = {"ok": True, "running": 3, "waiting": 1}
        self.loaded: Any = (LoadedModel(name="a", memory=5, vram=5, context=1, until="u"),)
        self.engine = SimpleNamespace(containers=lambda _project: self.give("containers"), command=lambda: "docker")
        self.control = SimpleNamespace(status=lambda *_, **__: self.give("status"))

    def give(self, name: str) -> Any:
        found = getattr(self, name)
        if isinstance(found, threading.Event):
            found.wait(20)
            return None
        if isinstance(found, Exception):
            raise found
        return found


def container(service: str, status: str = "running") -> Container:
    return Container(
        id=f"id-{service}", service=service, status=status, health="healthy", exit_code=0, restarts=0, image="i", working_dir="", oom_killed=False
    )  # fmt: skip


@pytest.fixture
def layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> Layers:
    made = Layers(tmp_path)
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime/routing.yaml").write_bytes((root / "runtime/routing.yaml").read_bytes())
    (tmp_path / ".io3ops/logs").mkdir(parents=True)

    class Api:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def __enter__(self) -> Any:
            return SimpleNamespace(loaded=lambda: made.give("loaded"))

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(models, "runtime_api", Api)
    monkeypatch.setattr(ContainerView, "load", lambda _self, _id: Load(cpu=1, machine=2, cores=1, memory=7, limit=9))
    monkeypatch.setattr(operation, "FIRST_LOOK", 0.0)
    monkeypatch.setattr(operation, "EVERY", 0.01)
    monkeypatch.setattr(operation, "MODELS_EVERY", 0.01)
    return made


def look(layers: Any, check: Any = lambda _seen: True, wait: float = 5) -> Snapshot:
    view = operation.Top(cast(Tools, layers))
    view.begin()
    try:
        view.wait(wait)
        until("it is seen", lambda: check(view.snapshot()))
        return view.snapshot()
    finally:
        view.close()


def log(layers: Layers, *records: dict[str, Any]) -> None:
    begun = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with open(layers.settings.logs / "requests.jsonl", "a") as file:
        file.writelines(json.dumps({"v": 1, "time": begun, "ms": 5} | record) + "\n" for record in records)


def test_a_snapshot_has_every_part(layers: Layers) -> None:
    log(layers, {"mode": "m"}, {"mode": "m", "outcome": "error", "error": "E", "id": "x"})
    seen = look(layers, lambda seen: seen.models and seen.running is not None)
    assert [(found.name, found.state, found.memory, found.limit) for found in seen.layers] == [
        ("gateway", "running", 7, 9), ("runtime", "running", 7, 9)
    ]  # fmt: skip
    assert (seen.running, seen.waiting) == (3, 1)
    assert seen.models == (Model(name="a", memory=5, vram=5, until="u"),)
    assert seen.total is not None and (seen.total.requests, seen.total.failed) == (2, 1)
    assert [(f.mode, f.outcome, f.error, f.id) for f in seen.failures] == [("m", "error", "E", "x")]
    assert seen.problems == {}
    json.dumps(asdict(seen))


def test_new_requests_are_counted_and_older_failures_stay(layers: Layers) -> None:
    log(layers, {"time": "2020-01-01T00:00:00Z", "outcome": "cut", "mode": "old"})
    view = operation.Top(cast(Tools, layers))
    view.begin()
    try:
        view.wait(5)
        log(layers, {"mode": "new"})
        until("it is counted", lambda: bool((total := view.snapshot().total) and total.requests == 1))
        assert [f.mode for f in view.snapshot().failures] == ["old"]
    finally:
        view.close()


def test_a_layer_that_hangs_does_not_delay_the_others(layers: Layers, monkeypatch: pytest.MonkeyPatch) -> None:
    hang = layers.status = threading.Event()
    try:
        seen = look(layers, lambda seen: bool(seen.models), wait=0.2)
        assert seen.layers and seen.running is None and seen.problems == {"gateway": "no answer yet"}
    finally:
        hang.set()


def test_a_late_answer_is_reported_and_the_last_one_stays(layers: Layers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operation, "OLD", 0.2)
    view = operation.Top(cast(Tools, layers))
    view.begin()
    hang = threading.Event()
    try:
        view.wait(5)
        layers.containers = hang
        until("it is said", lambda: "no answer for" in view.snapshot().problems.get("containers", ""))
        assert view.snapshot().layers, "what was seen last stays"
    finally:
        hang.set()
        view.close()


@pytest.mark.parametrize(
    ("name", "error", "part"),
    [
        ("containers", EngineLost("the Docker engine\x1b[2J stopped answering"), "containers"),
        ("status", GatewayError("the gateway does not answer"), "gateway"),
        ("status", ZeroDivisionError("x" * 5000), "gateway"),
        ("loaded", RuntimeUnreachable("the runtime does not answer"), "models"),
    ],
)
def test_a_layer_that_fails_is_reported_and_the_others_go_on(
    layers: Layers, name: str, error: Exception, part: str
) -> None:
    setattr(layers, name, error)
    seen = look(layers, lambda seen: part in seen.problems)
    assert list(seen.problems) == [part]
    assert seen.problems[part].isprintable() and len(seen.problems[part]) <= 200
    assert seen.total is not None
    assert bool(seen.layers) == (part != "containers")


@pytest.mark.parametrize("containers", [{}, {"gateway": container("gateway", "exited")}])
def test_a_stopped_stack_is_reported_once(layers: Layers, containers: Any) -> None:
    layers.containers = containers
    seen = look(layers)
    assert seen.problems == {"containers": "the stack does not run: make up"}
    assert "the stack does not run: make up" in top_text.text(seen)


@pytest.mark.parametrize("said", [{}, {"running": "3"}, {"running": True, "waiting": -1}, {"running": 1e9}])
def test_invalid_numbers_of_the_gateway_are_left_out(layers: Layers, said: Any) -> None:
    layers.status = said
    seen = look(layers)
    assert (seen.running, seen.waiting) == (None, None) and "in flight -, waiting -" in top_text.text(seen)
