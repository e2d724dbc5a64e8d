"""LiteLLM's start in the parent: its environment, its import, and the one place that patches."""

from __future__ import annotations

import gc
import importlib
import sys
import types
from pathlib import Path
from typing import Any

import httpx
import pytest

from io3ops_gateway.errors import StartError
from io3ops_gateway.litellm_proxy import http_transport, redirects, startup, trim
from io3ops_gateway.server import launcher


def environment(**given: str) -> dict[str, str]:
    startup.prepare_environment(given, config=Path("/c.yaml"), key="sk-abc", ca_bundle=None)
    return given


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
def test_a_switch_that_keeps_litellm_quiet_is_set_before_its_import(name: str, value: str) -> None:
    assert environment()[name] == value


def test_litellm_gets_its_file_and_key_and_the_environment_wins() -> None:
    found = environment(LITELLM_LOG="DEBUG")
    assert found["CONFIG_FILE_PATH"] == "/c.yaml"
    assert found["LITELLM_MASTER_KEY"] == "sk-abc"
    assert found["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
    assert found["LITELLM_LOG"] == "DEBUG"
    assert "SSL_CERT_FILE" not in found


def test_a_bundle_is_used_by_both_families_of_http_clients() -> None:
    found: dict[str, str] = {}
    startup.prepare_environment(found, config=Path("/c"), key="k", ca_bundle=Path("/tmp/b.pem"))
    assert found["SSL_CERT_FILE"] == found["REQUESTS_CA_BUNDLE"] == "/tmp/b.pem"


class Imports:
    """Every import of `startup` and `compat`, in order. Each module is `litellm`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.litellm: Any = types.ModuleType("litellm")
        vars(self.litellm).update(token_counter=lambda **_: 1, disable_hf_tokenizer_download=None)
        self.names: list[str] = []
        monkeypatch.setattr(importlib, "import_module", self)

    def __call__(self, name: str) -> Any:
        if name != "litellm":
            assert self.litellm.disable_hf_tokenizer_download is True, "set before LiteLLM's proxy is imported"
        self.names.append(name)
        return self.litellm


def test_no_tokenizer_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    imports = Imports(monkeypatch)
    startup.import_litellm(launcher.OURS)
    gc.unfreeze()
    assert list(dict.fromkeys(imports.names))[:2] == ["litellm", "litellm.proxy.proxy_server"]
    assert tuple(imports.names[-2:]) == launcher.OURS, "shared by all workers"


def test_a_litellm_without_that_switch_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    imports = Imports(monkeypatch)
    del imports.litellm.disable_hf_tokenizer_download
    with pytest.raises(StartError, match=r"has no litellm\.disable_hf_tokenizer_download"):
        startup.import_litellm(())
    gc.unfreeze()
    assert "litellm.proxy.proxy_server" not in imports.names


def test_an_import_that_fails_is_one_line_and_leaves_the_collector_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(StartError, match="LiteLLM cannot be imported: ModuleNotFoundError"):
        startup.import_litellm([])
    gc.unfreeze()
    assert gc.isenabled()


# -- the patches


def test_every_patch_is_installed_in_one_place(
    litellm: dict[str, types.ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trim, "version", lambda _name: trim.VERSION)
    assert startup.install_patches(trimmed=True) is True
    assert (httpx.AsyncClient.send, httpx.Client.send) == (http_transport.send, http_transport.send_blocking)
    assert httpx._client.BaseClient._build_redirect_request is redirects.refuse_redirect
    mapping: Any = litellm["litellm.litellm_core_utils.exception_mapping_utils"]
    assert mapping._map_ollama_exception.__module__ == "io3ops_gateway.litellm_proxy.ollama_errors"
    assert litellm["litellm.proxy.hooks"].PROXY_HOOKS == {}


@pytest.mark.parametrize(("installed", "wanted"), [("9.9.9", True), (trim.VERSION, False)])
def test_a_litellm_that_is_not_trimmed_is_patched_all_the_same(
    litellm: dict[str, types.ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    installed: str,
    wanted: bool,
) -> None:
    """Another version is reported; IO3_TRIM=off is somebody's wish and needs no word."""
    monkeypatch.setattr(trim, "version", lambda _name: installed)
    assert startup.install_patches(trimmed=wanted) is False
    assert httpx.AsyncClient.send is http_transport.send
    assert litellm["litellm.proxy.hooks"].PROXY_HOOKS
    said = capsys.readouterr().err
    assert said.startswith("gateway: LiteLLM 9.9.9 is not ") if wanted else said == ""
