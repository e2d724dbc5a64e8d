"""Every switch that keeps LiteLLM from calling out or showing more than it must."""

import gc
import importlib
import logging
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from io3ops_gateway.edge import app as edge
from io3ops_gateway.litellm_proxy import log_redaction, startup, trim
from io3ops_gateway.policy.client_keys import KeyRing
from io3ops_gateway.server import launcher, rollout, sockets, startup_checks, supervisor
from io3ops_gateway.settings import Settings
from io3ops_shared.policy import GatewaySettings, LogSettings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LITELLM_MODE", "PRODUCTION"),
        ("LITELLM_LOCAL_MODEL_COST_MAP", "True"),
        ("LITELLM_LOCAL_BLOG_POSTS", "True"),
        ("LITELLM_LOCAL_AUTOROUTER_PRESETS", "True"),
        ("LITELLM_LOCAL_POLICY_TEMPLATES", "True"),
        ("LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", "True"),
        ("HF_HUB_OFFLINE", "1"),
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
        ("NO_DOCS", "True"),
        ("NO_REDOC", "True"),
        ("NO_OPENAPI", "True"),
        ("DISABLE_ADMIN_UI", "True"),
        ("LITELLM_LOG", "ERROR"),
    ],
)
def test_the_switch_is_set_before_the_import(name: str, value: str) -> None:
    environment: dict[str, str] = {}
    startup.prepare_environment(environment, config=Path("/c"), key="k", ca_bundle=None)
    assert environment[name] == value


class Started:
    """What `launcher.serve` makes of its settings, without a socket, LiteLLM or a fork."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], key: str = "sk-owner") -> None:
        self.environment = environment
        self.order: list[str] = []
        self.given: dict[str, Any] = {}
        monkeypatch.setattr(os, "environ", environment)
        monkeypatch.setattr(startup_checks, "check_config", lambda _: self.order.append("config"))
        monkeypatch.setattr(startup_checks, "read_master_key", lambda _: key)
        monkeypatch.setattr(sockets, "bind", lambda *_, **shared: self.order.append(f"bind {shared}"))
        monkeypatch.setattr(launcher, "import_litellm", lambda _: self.order.append("import"))
        monkeypatch.setattr(trim, "before", lambda: self.order.append("trim") or "")
        monkeypatch.setattr(supervisor, "Supervisor", self._supervisor)
        launcher.serve(Settings(ca_dir=Path("/nowhere"), keys_file=Path("/nowhere/keys.json")))

    def _supervisor(self, **given: Any) -> Any:
        self.given = given
        return types.SimpleNamespace(run=lambda: self.order.append("run"))


def test_the_port_is_taken_before_the_slow_import_and_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second gateway on the same port is told so at once; it does not share the port."""
    assert Started(monkeypatch, {}).order == ["config", "bind {'shared': False}", "import", "trim", "run"]


def test_no_tokenizer_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set on LiteLLM itself, before its proxy is imported."""
    litellm: Any = types.ModuleType("litellm")
    litellm.token_counter = lambda **_: 1
    imported: list[str] = []

    def import_module(name: str) -> Any:
        if name != "litellm":
            assert litellm.disable_hf_tokenizer_download is True
        imported.append(name)
        return litellm

    monkeypatch.setattr(importlib, "import_module", import_module)
    startup.import_litellm(launcher.OURS)
    gc.unfreeze()
    assert imported[:2] == ["litellm", "litellm.proxy.proxy_server"]
    assert imported[-2:] == ["io3ops_gateway.server.worker", "io3ops_gateway.fast_lane.lane"], "shared by all workers"


def test_nothing_reaches_litellm_but_through_the_edge(
    monkeypatch: pytest.MonkeyPatch, worker: Any, tmp_path: Path
) -> None:
    """What a worker serves is LiteLLM's app, inside the edge, with the hooks that LiteLLM calls."""
    server: Any = types.ModuleType("litellm.proxy.proxy_server")
    server.app = object()
    callback: Any = types.ModuleType("io3ops_gateway.litellm_proxy.hooks")
    files = types.SimpleNamespace(keys=types.SimpleNamespace(hide="hide"))
    policy_: Any = types.SimpleNamespace(gateway=GatewaySettings(lane=True), log=LogSettings())
    callback.policy = types.SimpleNamespace(policy=policy_, meter="of its import", files=files, why="why", entries=[])
    lane: Any = types.ModuleType("io3ops_gateway.fast_lane.lane")
    lane.upstreams, lane.Lane = lambda *_: {"stop": 1}, lambda *given: ("lane", *given)
    monkeypatch.setitem(sys.modules, "io3ops_gateway.fast_lane.lane", lane)
    monkeypatch.setitem(sys.modules, "io3ops_gateway.fast_lane.upstreams", lane)
    monkeypatch.setitem(sys.modules, "litellm", types.ModuleType("litellm"))
    monkeypatch.setitem(sys.modules, "litellm.proxy", types.ModuleType("litellm.proxy"))
    monkeypatch.setitem(sys.modules, "litellm.proxy.proxy_server", server)
    monkeypatch.setitem(sys.modules, "io3ops_gateway.litellm_proxy.hooks", callback)
    wrapped: list[Any] = []
    monkeypatch.setattr(edge, "Edge", lambda *given, **known: wrapped.append((given, known)) or "edge")
    monkeypatch.setattr(worker, "main", lambda job, build, *_: wrapped.append(build(job)))
    started = Started(monkeypatch, {})
    job = rollout.Job(
        generation=1, index=3, config=tmp_path, digest="d1", listeners=(), channel=None, try_modes=False  # type: ignore[arg-type]  # nothing is sent
    )  # fmt: skip
    started.given["work"](job)
    ((given, known), built) = wrapped
    assert built == "edge"
    policy, backend, authenticator, limits, recorder = given
    path, limiter = backend.full_path, callback.policy.limiter
    assert (policy, backend.app, path._app, path._hide, path._why) == (policy_, server.app, server.app, "hide", "why")
    assert path._authorization == (b"authorization", f"Bearer {started.environment['LITELLM_MASTER_KEY']}".encode())
    assert authenticator.authenticate([(b"x-api-key", b"sk-owner")]).name == "owner"
    assert authenticator.authenticate(authenticator.as_owner({"headers": []})["headers"]).name == "owner"
    assert limits.rate_limiter is limiter, "the edge and LiteLLM's hooks count in the same place"
    assert backend._lane[:5] == ("lane", policy_, {"stop": 1}, files.keys, limiter)
    assert callback.policy.told == recorder.told, "what LiteLLM tells late reaches the request's line"
    limits.admission._run(1)
    assert started.given["load"]() == {"running": 1, "waiting": 0, "files": {"keys": "", "recording": ""}}
    assert known == {"config": "d1"}


@pytest.mark.parametrize(("outside", "withheld"), [({}, True), ({"LITELLM_LOG": "ERROR"}, False)])
def test_text_is_withheld_from_the_log_unless_someone_asks_for_it(
    monkeypatch: pytest.MonkeyPatch, worker: Any, outside: dict[str, str], withheld: bool
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(worker, "main", lambda _job, _build, _stop, when_ready: given.append(when_ready))
    Started(monkeypatch, dict(outside)).given["work"](types.SimpleNamespace(generation=1))
    assert (given == [log_redaction.withhold_text]) is withheld


def test_litellm_never_learns_anybodys_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets a word of its own, made at each start; the ring alone knows the owner's key."""
    rings: list[Any] = []
    inner: list[str] = []
    monkeypatch.setattr(launcher, "KeyRing", lambda *given: rings.append(KeyRing(*given)) or rings[-1])
    for _ in range(2):
        started = Started(monkeypatch, {"LITELLM_MASTER_KEY": "sk-from-outside"})
        inner.append(started.environment["LITELLM_MASTER_KEY"])
        assert "sk-owner" not in started.environment.values()
        assert "sk-from-outside" not in started.environment.values()
    assert inner[0] != inner[1] and all(len(word) >= 32 for word in inner)
    assert all(ring.find([b"sk-owner"]).name == "owner" for ring in rings) and len(rings) == 2
    assert all(ring.find([inner[0].encode()]) is None for ring in rings), "and it opens no door"


def test_no_request_is_logged_and_no_server_named(worker: Any) -> None:
    start = types.SimpleNamespace(edge=None, server=None)
    made = worker.Server(start, 4)
    given = vars(made.config)
    assert given["app"] is start and start.server is made
    assert given["access_log"] is False and given["server_header"] is False and given["log_config"] is None
    assert given["lifespan"] == "on" and given["ws"] == "none"
    assert given["http"] is sys.modules["io3ops_gateway.server.http_protocol"].LimitedHttp
    # Whoever is told that there is no time left has a moment to be told.
    assert 0 < given["timeout_graceful_shutdown"] <= 2


def test_the_traceback_of_a_record_is_gone_not_only_hidden() -> None:
    before = logging.getLogRecordFactory()
    try:
        log_redaction.withhold_text()
        try:
            raise ValueError("CANARY")
        except ValueError:
            record = logging.getLogger("x").makeRecord("x", 40, "f", 1, "%s", ("CANARY",), sys.exc_info())
        assert record.exc_info is None and record.args is None and record.stack_info is None
        assert "CANARY" not in logging.Formatter().format(record)
    finally:
        logging.setLogRecordFactory(before)
