"""Every switch that keeps LiteLLM from calling out or showing more than it must."""

import logging
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from io3ops_gateway import edge, inputs, launcher, logs
from io3ops_gateway.settings import Settings


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
    launcher.prepare_environment(environment, config=Path("/c"), key="k", ca_bundle=None)
    assert environment[name] == value


def test_no_tokenizer_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set on LiteLLM itself, before its proxy is imported."""
    litellm: Any = types.ModuleType("litellm")
    server: Any = types.ModuleType("litellm.proxy.proxy_server")
    server.app = object()
    monkeypatch.setitem(sys.modules, "litellm", litellm)
    monkeypatch.setitem(sys.modules, "litellm.proxy", types.ModuleType("litellm.proxy"))
    monkeypatch.setitem(sys.modules, "litellm.proxy.proxy_server", server)
    callback: Any = types.ModuleType("io3ops_gateway.callback")
    files = types.SimpleNamespace(keys=types.SimpleNamespace(hide="hide"))
    callback.policy = types.SimpleNamespace(policy="policy", meter="meter", files=files, why="why")
    monkeypatch.setitem(sys.modules, "io3ops_gateway.callback", callback)
    wrapped: list[Any] = []
    monkeypatch.setattr(edge, "Edge", lambda *given: wrapped.append(given) or "edge")
    ring: Any = "ring"
    assert launcher.import_proxy(ring, "inner") == "edge"
    assert wrapped == [(server.app, "policy", ring, "meter", "inner", "hide", "why")], (
        "nothing reaches LiteLLM but through the edge"
    )
    assert litellm.disable_hf_tokenizer_download is True


@pytest.mark.parametrize(("outside", "withheld"), [({}, True), ({"LITELLM_LOG": "ERROR"}, False)])
def test_text_is_withheld_from_the_log_unless_someone_asks_for_it(
    monkeypatch: pytest.MonkeyPatch, outside: dict[str, str], withheld: bool
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(launcher.os, "environ", dict(outside))
    monkeypatch.setattr(inputs, "check_config", lambda _: None)
    monkeypatch.setattr(inputs, "read_master_key", lambda _: "sk-x")
    monkeypatch.setattr(launcher, "bind", lambda *_: None)
    monkeypatch.setattr(launcher, "import_proxy", lambda *_: None)
    monkeypatch.setattr(launcher, "run", lambda _app, _listener, _stop, when_ready: given.append(when_ready))
    launcher.serve(Settings(ca_dir=Path("/nowhere"), keys_file=Path("/nowhere/keys.json")))
    assert (given == [logs.withhold_text]) is withheld


def test_litellm_never_learns_anybodys_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets a word of its own, made at each start; the ring alone knows the owner's key."""
    rings: list[Any] = []
    inner: list[str] = []
    for _ in range(2):
        environment: dict[str, str] = {"LITELLM_MASTER_KEY": "sk-from-outside"}
        monkeypatch.setattr(launcher.os, "environ", environment)
        monkeypatch.setattr(inputs, "check_config", lambda _: None)
        monkeypatch.setattr(inputs, "read_master_key", lambda _: "sk-owner")
        monkeypatch.setattr(launcher, "bind", lambda *_: None)
        monkeypatch.setattr(launcher, "import_proxy", lambda ring, word: (rings.append(ring), inner.append(word)))
        monkeypatch.setattr(launcher, "run", lambda *_: None)
        launcher.serve(Settings(ca_dir=Path("/nowhere"), keys_file=Path("/nowhere/keys.json")))
        assert environment["LITELLM_MASTER_KEY"] == inner[-1]
        assert "sk-owner" not in environment.values()
    assert inner[0] != inner[1] and all(len(word) >= 32 for word in inner)
    assert all(ring.find([b"sk-owner"]).name == "owner" for ring in rings)
    assert all(ring.find([inner[0].encode()]) is None for ring in rings), "and it opens no door"


def test_no_request_is_logged_and_no_server_named(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    uvicorn: Any = types.ModuleType("uvicorn")
    uvicorn.Config = lambda _app, **options: given.update(options)
    uvicorn.Server = lambda _config: types.SimpleNamespace(run=lambda sockets: None)
    monkeypatch.setitem(sys.modules, "uvicorn", uvicorn)
    server: Any = types.ModuleType("io3ops_gateway.server")
    server.LimitedHttp = object()
    monkeypatch.setitem(sys.modules, "io3ops_gateway.server", server)
    listener: Any = None
    app: Any = None
    launcher.run(app, listener, 4, lambda: None)
    assert given["access_log"] is False and given["server_header"] is False
    assert given["timeout_graceful_shutdown"] == 4 and given["lifespan"] == "on"
    assert given["http"] is server.LimitedHttp and given["limit_concurrency"] <= 1000


def test_the_traceback_of_a_record_is_gone_not_only_hidden() -> None:
    before = logging.getLogRecordFactory()
    try:
        logs.withhold_text()
        try:
            raise ValueError("CANARY")
        except ValueError:
            record = logging.getLogger("x").makeRecord("x", 40, "f", 1, "%s", ("CANARY",), sys.exc_info())
        assert record.exc_info is None and record.args is None and record.stack_info is None
        assert "CANARY" not in logging.Formatter().format(record)
    finally:
        logging.setLogRecordFactory(before)
