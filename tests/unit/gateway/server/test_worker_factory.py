"""What a worker is made of: the edge around LiteLLM's app, with the hooks of its configuration and the limits of all workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from io3ops_gateway.litellm_proxy import loaded, log_redaction
from io3ops_gateway.litellm_proxy.loaded import LoadedProxy
from io3ops_gateway.policy.client_keys import KeyRing
from io3ops_gateway.policy.policy import Policy
from io3ops_gateway.policy.provider_keys import ProviderKeys
from io3ops_gateway.server import worker, worker_factory
from io3ops_gateway.server.rollout import Job
from io3ops_gateway.server.worker_factory import WorkerFactory
from io3ops_gateway.settings import Settings
from io3ops_shared.policy import GatewaySettings, LogSettings, ModePolicy


class Hooks:
    """`hooks.PolicyHooks`, as far as the edge is built with it."""

    def __init__(self, folder: Path, *, lane: bool, requests: bool = True) -> None:
        modes = {"near": ModePolicy(name="near", groups={"internal": "near"})}
        log = LogSettings(requests=requests)
        self.policy = Policy(modes=modes, aliases={}, gateway=GatewaySettings(lane=lane), log=log)
        self.files: Any = type("Files", (), {"keys": ProviderKeys(folder)})
        self.entries: list[Any] = []
        self.limiter: Any = None
        self.told: Any = None

    def why(self, group: str) -> str:
        return f"why {group}"


async def app(*_given: Any) -> None: ...


def a_job(folder: Path, generation: int = 1) -> Job:
    channel: Any = None
    config = folder / "its-own.yaml"
    return Job(
        generation=generation, index=3, config=config, digest="d1", listeners=(), channel=channel, try_modes=False
    )


def a_factory(folder: Path, *, redact_log: bool = True) -> WorkerFactory:
    return WorkerFactory(
        settings=Settings(config=folder / "first.yaml", log_dir=folder, content_dir=folder, stop_seconds=7),
        keys=KeyRing("sk-owner", folder / "keys.json"),
        owner_key="sk-owner",
        inner_key="sk-inside",
        redact_log=redact_log,
        trimmed=True,
    )


@pytest.fixture
def hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hooks:
    made: Any = Hooks(tmp_path, lane=True)

    def load(settings: Settings, *, trimmed: bool) -> LoadedProxy:
        assert settings.config == tmp_path / "its-own.yaml" and settings.log_dir == tmp_path and trimmed
        return LoadedProxy(app, made, trimmed=trimmed)

    monkeypatch.setattr(loaded, "load", load)
    found: Hooks = made
    return found


def test_nothing_reaches_litellm_but_through_the_edge(tmp_path: Path, hooks: Hooks) -> None:
    """A worker serves LiteLLM's app inside the edge, with the hooks of its own generation's configuration."""
    service = a_factory(tmp_path).build(a_job(tmp_path))
    edge: Any = service.edge
    path = edge._backend.full_path
    assert service.proxy.hooks is hooks and edge.policy is hooks.policy
    assert (edge._backend.app, path._app) == (app, app)
    assert path._authorization == (b"authorization", b"Bearer sk-inside")
    assert path._hide == hooks.files.keys.hide and path._why == hooks.why
    assert edge._authenticator.authenticate([(b"x-api-key", b"sk-owner")]).name == "owner"
    assert edge._authenticator.authenticate(edge._authenticator.as_owner({"headers": []})["headers"]).name == "owner"
    assert edge._backend._lane is not None


def test_the_edge_the_lane_and_litellms_hooks_count_in_the_same_place(tmp_path: Path, hooks: Hooks) -> None:
    factory = a_factory(tmp_path)
    edge: Any = factory.build(a_job(tmp_path)).edge
    assert edge._limits.rate_limiter is hooks.limiter is edge._backend._lane._limiter
    edge._limits.admission._run(1)
    assert factory.load() == {"running": 1, "waiting": 0, "files": {"keys": "", "recording": ""}}
    factory.forget(3)
    assert factory.load()["running"] == 0


def test_what_litellm_reports_late_reaches_the_requests_line(tmp_path: Path, hooks: Hooks) -> None:
    edge: Any = a_factory(tmp_path).build(a_job(tmp_path)).edge
    assert hooks.told == edge._recorder.told


def test_a_table_that_switches_the_lane_off_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks: Any = Hooks(tmp_path, lane=False)
    monkeypatch.setattr(loaded, "load", lambda *_, **__: LoadedProxy(app, hooks, trimmed=False))
    edge: Any = a_factory(tmp_path).build(a_job(tmp_path)).edge
    assert edge._backend._lane is None


@pytest.mark.parametrize("kept", [True, False])
def test_a_table_can_switch_the_request_log_off(tmp_path: Path, kept: bool) -> None:
    recorder: Any = worker_factory.build_recorder(
        LogSettings(requests=kept), Settings(log_dir=tmp_path, content_dir=tmp_path), lambda _count: None
    )
    assert (recorder._write is not None) is kept
    recorder.close()


# -- the log


class Run:
    """What a worker is run with, and when the log was redacted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.redacted: list[str] = []
        self.given: list[Any] = []
        monkeypatch.setattr(log_redaction, "install", lambda: self.redacted.append("now"))
        monkeypatch.setattr(worker, "main", lambda *given: self.given.extend(given))


@pytest.mark.parametrize("redact", [True, False])
def test_the_first_generations_log_is_redacted_before_its_first_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redact: bool
) -> None:
    """A start that fails is read in the log, so it keeps its text until then."""
    run = Run(monkeypatch)
    job = a_job(tmp_path)
    factory = a_factory(tmp_path, redact_log=redact)
    factory.work(job)
    given, build, seconds, when_ready = run.given
    assert given is job and build == factory.build and seconds == 7
    assert run.redacted == []
    when_ready()
    assert run.redacted == (["now"] if redact else [])


@pytest.mark.parametrize("redact", [True, False])
def test_a_later_generations_log_is_redacted_from_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redact: bool
) -> None:
    run = Run(monkeypatch)
    a_factory(tmp_path, redact_log=redact).work(a_job(tmp_path, generation=2))
    assert run.redacted == (["now"] if redact else [])
    run.given[3]()
    assert run.redacted == (["now"] if redact else []), "once"
