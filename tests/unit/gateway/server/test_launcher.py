"""The start, without LiteLLM: what it is told, what is bound, how a failure reads."""

import gc
import os
import socket
import sys
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
from io3ops_gateway.server import launcher, sockets


def test_every_reason_has_its_own_exit_code() -> None:
    kinds: list[type[GatewayError]] = [ConfigError, KeyFileError, KeyRingError, CertificateError, PortError, StartError]
    assert len({kind.exit_code for kind in kinds}) == len(kinds)


def test_litellm_is_told_before_its_import_and_the_environment_wins() -> None:
    environment = {"LITELLM_LOG": "DEBUG"}
    startup.prepare_environment(environment, config=Path("/c.yaml"), key="sk-abc", ca_bundle=None)
    assert environment["CONFIG_FILE_PATH"] == "/c.yaml"
    assert environment["LITELLM_MASTER_KEY"] == "sk-abc"
    assert environment["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
    assert environment["LITELLM_LOG"] == "DEBUG"
    assert "SSL_CERT_FILE" not in environment


def test_a_bundle_is_used_by_both_families_of_http_clients() -> None:
    environment: dict[str, str] = {}
    startup.prepare_environment(environment, config=Path("/c"), key="k", ca_bundle=Path("/tmp/b.pem"))
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
        sockets.bind("127.0.0.1", 4000)


@pytest.mark.parametrize(
    ("asked", "cores", "memory", "count"),
    [
        (None, 2, 1 << 30, 1),
        (None, 15, 0, 1),
        (None, 16, 0, 2),
        (3, 2, 0, 3),
        (3, 2, 1 << 30, 3),
        (4, 2, 1 << 30, 4),
        (5, 64, 1 << 30, 4),
        (4, 64, 100_000_000, 1),
    ],
)
def test_as_many_serve_as_are_asked_for_and_memory_holds(
    asked: int | None, cores: int, memory: int, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"io3ops_policy": {"door": {} if asked is None else {"workers": asked}}}
    assert launcher.workers(config, cores, memory) == count
    assert ("there is memory for" in capsys.readouterr().err) is (asked is not None and count < asked)


@pytest.mark.parametrize("config", [{}, {"io3ops_policy": None}, {"io3ops_policy": {"door": None}}])
def test_a_file_that_says_nothing_about_the_door_has_a_worker_too(config: dict[str, Any]) -> None:
    assert launcher.workers(config, 2, 0) == 1


@pytest.mark.parametrize(
    ("text", "found"), [("max\n", 0), ("1073741824\n", 1 << 30), ("9223372036854771712", 0), ("", 0)]
)
def test_the_containers_memory_is_what_its_group_says(monkeypatch: pytest.MonkeyPatch, text: str, found: int) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_: text)
    assert launcher.memory() == found


def test_a_machine_without_such_groups_has_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    assert launcher.memory() == 0


def test_an_import_that_fails_is_one_line_and_leaves_the_collector_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(StartError, match="LiteLLM cannot be imported: ModuleNotFoundError"):
        startup.import_litellm([])
    gc.unfreeze()
    assert gc.isenabled()
