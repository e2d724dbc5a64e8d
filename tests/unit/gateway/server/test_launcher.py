"""The start, without LiteLLM, a socket or a fork: the order of its steps, and how a failure ends it."""

from __future__ import annotations

import ast
import os
import signal
import types
from pathlib import Path
from typing import Any

import pytest

from io3ops_gateway.errors import (
    CertificateError,
    ConfigError,
    GatewayError,
    KeyFileError,
    KeyRingError,
    PortError,
    StartError,
)
from io3ops_gateway.litellm_proxy import startup
from io3ops_gateway.policy.client_keys import KeyRing
from io3ops_gateway.server import launcher, sockets, startup_checks, supervisor
from io3ops_gateway.server.worker_factory import WorkerFactory
from io3ops_gateway.settings import Settings

STEPS = ["config", "key", "certificates", "bind alone", "client keys", "environment", "import", "patches", "supervisor"]


class Started:
    """What `launcher.serve` does with its settings. `fails`: the step that raises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], fails: str = "") -> None:
        self.environment = environment
        self.fails = fails
        self.steps: list[str] = []
        self.given: dict[str, Any] = {}
        self.trim: bool | None = None
        monkeypatch.setattr(os, "environ", environment)
        monkeypatch.setattr(startup_checks, "check_config", lambda _path: self.step("config"))
        monkeypatch.setattr(startup_checks, "read_master_key", lambda _path: self.step("key") or "sk-owner")
        monkeypatch.setattr(startup_checks, "combined_ca_bundle", lambda _folder: self.step("certificates"))
        monkeypatch.setattr(sockets, "bind", self.bind)
        monkeypatch.setattr(launcher, "KeyRing", lambda *given: self.step("client keys") or KeyRing(*given))
        prepare = startup.prepare_environment
        monkeypatch.setattr(
            startup, "prepare_environment", lambda *given, **more: self.step("environment") or prepare(*given, **more)
        )
        monkeypatch.setattr(startup, "import_litellm", lambda _ours: self.step("import"))
        monkeypatch.setattr(startup, "install_patches", self.install_patches)
        monkeypatch.setattr(supervisor, "Supervisor", self.supervisor)

    def serve(self, **settings: Any) -> None:
        launcher.serve(Settings(ca_dir=Path("/nowhere"), keys_file=Path("/nowhere/keys.json"), **settings))

    def step(self, name: str) -> None:
        self.steps.append(name)
        if name == self.fails:
            raise StartError(f"{name} failed", "mend it")

    def bind(self, _host: str, _port: int, *, shared: bool) -> str:
        self.step("bind shared" if shared else "bind alone")
        return "a listener"

    def install_patches(self, *, trimmed: bool) -> bool:
        self.trim = trimmed
        self.step("patches")
        return trimmed

    def supervisor(self, **given: Any) -> Any:
        self.given = given
        return types.SimpleNamespace(run=lambda: self.step("supervisor"))

    @property
    def workers(self) -> WorkerFactory:
        found: WorkerFactory = self.given["work"].__self__
        return found


def started(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str] | None = None, **settings: Any) -> Started:
    made = Started(monkeypatch, {} if environment is None else environment)
    made.serve(**settings)
    return made


def test_cheap_checks_and_the_port_come_before_the_slow_import(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second gateway on the same port is told so at once, and does not share the port."""
    assert started(monkeypatch).steps == STEPS


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails_is_the_last(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    begun = Started(monkeypatch, {}, fails=step)
    with pytest.raises(StartError, match=f"{step} failed"):
        begun.serve()
    assert begun.steps == STEPS[: STEPS.index(step) + 1]


@pytest.mark.parametrize("trim", [True, False])
def test_the_switch_of_the_trim_reaches_the_patches_and_the_workers(
    monkeypatch: pytest.MonkeyPatch, trim: bool
) -> None:
    begun = started(monkeypatch, trim=trim)
    assert begun.trim is trim and begun.workers.trimmed is trim


@pytest.mark.parametrize(("outside", "redacted"), [({}, True), ({"LITELLM_LOG": "ERROR"}, False)])
def test_text_is_kept_out_of_the_log_unless_somebody_asks_for_it(
    monkeypatch: pytest.MonkeyPatch, outside: dict[str, str], redacted: bool
) -> None:
    assert started(monkeypatch, dict(outside)).workers.redact_log is redacted


def test_litellm_never_learns_anybodys_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets a key that is made at each start and opens no door; only the ring knows the owner's."""
    inner: list[str] = []
    for _ in range(2):
        begun = started(monkeypatch, {"LITELLM_MASTER_KEY": "sk-from-outside"})
        inner.append(begun.environment["LITELLM_MASTER_KEY"])
        assert "sk-owner" not in begun.environment.values()
        assert "sk-from-outside" not in begun.environment.values()
        owner = begun.workers.keys.find([b"sk-owner"])
        assert owner is not None and owner.name == "owner" and begun.workers.owner_key == "sk-owner"
        assert begun.workers.keys.find([inner[-1].encode()]) is None
        assert begun.workers.inner_key == inner[-1]
    assert inner[0] != inner[1] and all(len(key) >= 32 for key in inner)


def test_the_supervisor_gets_the_port_and_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = started(monkeypatch, stop_seconds=7)
    given = begun.given
    assert given["first"] == "a listener" and given["stop_seconds"] == 7
    assert given["count"]({"io3ops_policy": {"edge": {"workers": 3}}}) >= 1 and given["room"] >= 1
    assert given["load"]() == {"running": 0, "waiting": 0, "files": {"keys": "", "recording": ""}}
    begun.workers.counters.worker(5).running(1)
    given["forget"](5)
    assert given["load"]()["running"] == 0


# -- the process


def test_every_reason_has_its_own_exit_code() -> None:
    kinds: list[type[GatewayError]] = [ConfigError, KeyFileError, KeyRingError, CertificateError, PortError, StartError]
    assert len({kind.exit_code for kind in kinds}) == len(kinds)


class Ended(Exception):
    """The process would have ended."""


@pytest.mark.parametrize(("error", "code"), [(PortError("taken", "stop it"), 71), (StartError("gone", "build it"), 70), (None, 0)])  # fmt: skip
def test_a_start_that_fails_is_one_line_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: GatewayError | None, code: int
) -> None:
    def serve(_settings: Settings) -> None:
        if error is not None:
            raise error

    def leave(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(launcher, "serve", serve)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(Ended, match=str(code)):
        launcher.main()
    assert capsys.readouterr().err == (f"gateway: {error.what}; {error.hint}\n" if error else "")


def imported_at_once(module: str, source: Path) -> set[str]:
    """The modules that `module` imports while it is imported itself, and theirs; not those that a function imports later."""
    names: set[str] = set()
    waiting = [module]
    while waiting:
        path = source / (waiting.pop().replace(".", "/") + ".py")
        for node in ast.parse(path.read_text("utf-8")).body if path.exists() else ():
            found = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
            if isinstance(node, ast.ImportFrom):
                found = {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
            waiting += found - names
            names |= found
    return names


def test_a_start_that_fails_a_check_does_not_wait_for_litellm_and_the_server(root: Path) -> None:
    late = ("litellm", "uvicorn", "fastapi", "aiohttp", *launcher.OURS)
    names = imported_at_once("io3ops_gateway.server.launcher", root / "src")
    assert "io3ops_gateway.server.supervisor" in names
    assert not [name for name in names if name.startswith(late)]
    (factory, _) = launcher.OURS
    assert {"uvicorn", "aiohttp"} <= imported_at_once(factory, root / "src"), "imported before the first fork"
