"""How many workers serve: what the table says, as far as the container's memory holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from io3ops_gateway.server import capacity


@pytest.mark.parametrize(
    ("asked", "cores", "memory", "count"),
    [
        (None, 2, 1 << 30, 1),
        (None, 15, 0, 1),
        (None, 16, 0, 2),
        (3, 2, 0, 3),
        (3, 2, 1 << 30, 3),
        (4, 2, 1 << 30, 3),
        (5, 64, 2 << 30, 5),
        (8, 64, 2 << 30, 7),
        (4, 64, 100_000_000, 1),
    ],
)
def test_as_many_serve_as_are_asked_for_and_memory_holds(
    asked: int | None, cores: int, memory: int, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"io3ops_policy": {"edge": {} if asked is None else {"workers": asked}}}
    assert capacity.workers(config, cores, memory) == count
    assert ("there is memory for" in capsys.readouterr().err) is (asked is not None and count < asked)


@pytest.mark.parametrize("config", [{}, {"io3ops_policy": None}, {"io3ops_policy": {"edge": None}}])
def test_a_configuration_without_a_number_has_a_worker_too(config: dict[str, Any]) -> None:
    assert capacity.workers(config, 2, 0) == 1


@pytest.mark.parametrize(
    ("text", "limit"), [("max\n", 0), ("1073741824\n", 1 << 30), ("9223372036854771712", 0), ("", 0)]
)
def test_the_memory_limit_is_that_of_the_control_group(monkeypatch: pytest.MonkeyPatch, text: str, limit: int) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_: text)
    assert capacity.memory_limit() == limit


def test_a_machine_without_control_groups_has_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    assert capacity.memory_limit() == 0
