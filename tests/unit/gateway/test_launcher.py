"""The start, without LiteLLM: what it is told, what is bound, how a failure reads."""

import asyncio
import os
import socket
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from io3ops_gateway import launcher
from io3ops_gateway.errors import (
    CertificateError,
    ConfigError,
    GatewayError,
    KeyFileError,
    KeyRingError,
    PortError,
    StartError,
)


def test_every_reason_has_its_own_exit_code() -> None:
    kinds: list[type[GatewayError]] = [ConfigError, KeyFileError, KeyRingError, CertificateError, PortError, StartError]
    assert len({kind.exit_code for kind in kinds}) == len(kinds)


def test_litellm_is_told_before_its_import_and_the_environment_wins() -> None:
    environment = {"LITELLM_LOG": "DEBUG"}
    launcher.prepare_environment(environment, config=Path("/c.yaml"), key="sk-abc", ca_bundle=None)
    assert environment["CONFIG_FILE_PATH"] == "/c.yaml"
    assert environment["LITELLM_MASTER_KEY"] == "sk-abc"
    assert environment["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
    assert environment["LITELLM_LOG"] == "DEBUG"
    assert "SSL_CERT_FILE" not in environment


def test_a_bundle_is_used_by_both_families_of_http_clients() -> None:
    environment: dict[str, str] = {}
    launcher.prepare_environment(environment, config=Path("/c"), key="k", ca_bundle=Path("/tmp/b.pem"))
    assert environment["SSL_CERT_FILE"] == environment["REQUESTS_CA_BUNDLE"] == "/tmp/b.pem"


@pytest.mark.parametrize(
    ("number", "reason"), [(98, "Address already in use"), (99, "Cannot assign requested address"), (13, "denied")]
)
def test_an_address_that_cannot_be_bound_is_a_plain_error(
    monkeypatch: pytest.MonkeyPatch, number: int, reason: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(PortError, match=rf"cannot listen on 127\.0\.0\.1:4000: .*{reason}"):
        launcher.bind("127.0.0.1", 4000)


def _start(*answers: launcher.Message) -> tuple[launcher._StartWatch, list[launcher.Message], list[str]]:
    async def app(_scope: launcher.Message, _receive: launcher.Receive, send: launcher.Send) -> None:
        for answer in answers:
            await send(answer)

    async def receive() -> launcher.Message:
        return {"type": "lifespan.startup"}

    sent: list[launcher.Message] = []

    async def send(message: launcher.Message) -> None:
        sent.append(message)

    ready: list[str] = []
    watch = launcher._StartWatch(app, lambda: ready.append("ready"))
    asyncio.run(watch({"type": "lifespan"}, receive, send))
    return watch, sent, ready


def test_a_failed_start_keeps_the_last_line_of_its_traceback() -> None:
    failed = {"type": "lifespan.startup.failed", "message": "Traceback:\n  File x\nImportError: no\n"}
    watch, sent, ready = _start(failed)
    assert watch.failure == "ImportError: no"
    assert sent == [{"type": "lifespan.startup.failed"}]
    assert ready == []


def _litellm(monkeypatch: pytest.MonkeyPatch, *, hooked: bool) -> None:
    callback: Any = types.ModuleType("io3ops_gateway.callback")
    callback.policy = object()
    litellm: Any = types.ModuleType("litellm")
    litellm.callbacks = ["another", callback.policy] if hooked else ["another"]
    monkeypatch.setitem(sys.modules, "io3ops_gateway.callback", callback)
    monkeypatch.setitem(sys.modules, "litellm", litellm)


def test_a_start_that_succeeds_is_passed_on_and_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _litellm(monkeypatch, hooked=True)
    watch, sent, ready = _start({"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"})
    assert watch.failure == ""
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert ready == ["ready"]


def test_a_litellm_that_did_not_take_the_hooks_over_does_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """It drops callbacks that it cannot load without a word, and would then route everything anywhere."""
    _litellm(monkeypatch, hooked=False)
    watch, sent, _ = _start({"type": "lifespan.startup.complete"})
    assert sent == [{"type": "lifespan.startup.failed"}] and "hooks" in watch.failure


def test_a_start_without_hooks_is_not_said_to_be_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    _litellm(monkeypatch, hooked=False)
    assert _start({"type": "lifespan.startup.complete"})[2] == []
