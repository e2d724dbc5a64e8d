"""Fixtures of the gateway's unit tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import httpx
import pytest
from tests import fake_litellm

from io3ops_gateway import litellm_proxy

HOOKS = "io3ops_gateway.litellm_proxy.hooks"


@pytest.fixture
def certificate() -> bytes:
    """A self-signed authority whose key was thrown away."""
    return Path(__file__).with_name("company.pem").read_bytes()


@pytest.fixture
def litellm(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """LiteLLM's modules, by name. What a test patches in them, and in httpx, is put back."""
    monkeypatch.delitem(sys.modules, HOOKS, raising=False)
    base = httpx._client.BaseClient
    monkeypatch.setattr(base, "_build_redirect_request", base._build_redirect_request)
    monkeypatch.setattr(httpx.AsyncClient, "send", httpx.AsyncClient.send)
    monkeypatch.setattr(httpx.Client, "send", httpx.Client.send)
    yield fake_litellm.install(monkeypatch)
    # The hooks extend a class of these modules, so the next test imports them anew.
    sys.modules.pop(HOOKS, None)
    vars(litellm_proxy).pop("hooks", None)
