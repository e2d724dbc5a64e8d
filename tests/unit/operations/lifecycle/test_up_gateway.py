"""When `io3ops up` waits for the gateway: a gateway that answers may still be the one that is being replaced."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from io3ops.operations.lifecycle import up
from io3ops_shared import digests

TEXT = "model_list: []\n"


class Gateway:
    """Stands in for GatewayHttp: ready or not, with the configuration that it serves."""

    def __init__(self, *, ready: bool = True, serves: str = TEXT) -> None:
        self.asked = 0
        self._ready = ready
        self._serves = serves

    def ready(self) -> bool:
        self.asked += 1
        return self._ready

    def serves(self) -> tuple[tuple[str, ...], str]:
        return ("executor",), digests.of_config(self._serves)

    def close(self) -> None:
        pass


def decide(monkeypatch: pytest.MonkeyPatch, gateway: Gateway, *, acted: tuple[str, ...], running: bool = True) -> Any:
    monkeypatch.setattr(up, "GatewayHttp", lambda _url, _key: gateway)
    run: Any = SimpleNamespace(
        acted=list(acted),
        running=lambda service: running and service == "gateway",
        tools=SimpleNamespace(settings=SimpleNamespace(base_url="http://127.0.0.1:4000/v1", root=Path("/nowhere"))),
        key="sk-x",
        config=SimpleNamespace(text=TEXT, plan=SimpleNamespace(modes=("executor",))),
    )
    return up._gateway(run)


def test_a_gateway_that_serves_the_table_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = Gateway()
    assert not decide(monkeypatch, gateway, acted=("models",)).needed
    assert gateway.asked == 1


def test_a_gateway_that_was_just_replaced_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may answer and serve the table, and yet its key, image or network are those of the old container."""
    gateway = Gateway()
    assert decide(monkeypatch, gateway, acted=("config", "stack")).needed
    assert gateway.asked == 0, "its answers decide nothing, so it is not asked"


@pytest.mark.parametrize(
    ("gateway", "running"),
    [(Gateway(ready=False), True), (Gateway(serves="other: 1\n"), True), (Gateway(), False)],
    ids=["not ready", "serves another table", "does not run"],
)
def test_a_gateway_that_does_not_serve_the_table_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, gateway: Gateway, running: bool
) -> None:
    assert decide(monkeypatch, gateway, acted=(), running=running).needed
