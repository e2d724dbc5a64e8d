"""Each name of LiteLLM, httpx and uvicorn that is not public: the start fails and names it when it is gone or has changed."""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import logging
import sys
import types
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from io3ops_gateway.errors import StartError
from io3ops_gateway.litellm_proxy import compat, startup, trim
from io3ops_gateway.litellm_proxy.compat import Symbol
from io3ops_gateway.server.http_protocol import LimitedHttp
from io3ops_gateway.server.worker import Server

SYMBOLS = (*compat.REQUIRED, *compat.TRIMMED)
Modules = dict[str, types.ModuleType]


def each(symbols: tuple[Symbol, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("symbol", symbols, ids=lambda symbol: symbol.path)


def owner(symbol: Symbol) -> tuple[Any, str]:
    *owners, name = symbol.attribute.split(".")
    found: Any = importlib.import_module(symbol.module)
    for part in owners:
        found = getattr(found, part)
    return found, name


def remove(monkeypatch: pytest.MonkeyPatch, symbol: Symbol) -> None:
    """Take the name away, as a release does that drops or renames it."""
    place, name = owner(symbol)
    if not symbol.on_instances:
        monkeypatch.delattr(place, name)
        return
    for method, member in list(vars(place).items()):
        if isinstance(member, types.FunctionType) and name in member.__code__.co_names:
            names = tuple("renamed" if n == name else n for n in member.__code__.co_names)
            code = member.__code__.replace(co_names=names)
            renamed = types.FunctionType(code, member.__globals__, method, member.__defaults__, member.__closure__)
            monkeypatch.setattr(place, method, renamed)


def test_the_installed_libraries_have_every_name(litellm: Modules) -> None:
    compat.check(SYMBOLS)


@each(SYMBOLS)
def test_a_name_that_is_gone_stops_the_start_and_is_named(
    litellm: Modules, monkeypatch: pytest.MonkeyPatch, symbol: Symbol
) -> None:
    remove(monkeypatch, symbol)
    with pytest.raises(StartError) as caught:
        compat.check(SYMBOLS)
    assert f"has no {symbol.path} (used to {symbol.purpose}; without it {symbol.loss})" in caught.value.what
    assert "locked versions" in caught.value.hint and caught.value.exit_code == 70
    assert "\n" not in str(caught.value)


@each(tuple(symbol for symbol in SYMBOLS if symbol.is_kind and "." not in symbol.attribute))
def test_another_kind_of_thing_under_the_name_stops_the_start(
    litellm: Modules, monkeypatch: pytest.MonkeyPatch, symbol: Symbol
) -> None:
    """A list that has become a tuple, or a coroutine that has become a function, would fail at the first request."""
    monkeypatch.setattr(*owner(symbol), 7)
    with pytest.raises(StartError, match=f"has another kind of {symbol.path} "):
        compat.check(SYMBOLS)


def test_a_coroutine_that_became_a_function_stops_the_start(litellm: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*owner(compat.DEPLOYMENT_USAGE), lambda *_: None)
    with pytest.raises(StartError, match=r"another kind of litellm\.router\.Router\._increment_deployment_usage"):
        compat.check(compat.TRIMMED)


@pytest.mark.parametrize("symbol", [*compat.HOOKS, compat.MAP_OLLAMA_ERROR], ids=lambda symbol: symbol.path)
def test_an_argument_that_is_renamed_stops_the_start(
    litellm: Modules, monkeypatch: pytest.MonkeyPatch, symbol: Symbol
) -> None:
    """LiteLLM passes them by name, so each call would fail with a TypeError."""

    async def renamed(_self: Any, something: Any) -> None: ...

    monkeypatch.setattr(*owner(symbol), renamed)
    with pytest.raises(StartError, match=rf"does not pass \(.*{symbol.parameters[0]}.*\) to {symbol.path} "):
        compat.check(SYMBOLS)


def test_all_names_that_are_gone_are_reported_together_with_the_versions(
    litellm: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat, "version", {"litellm": "1.110.0", "httpx": "2.0"}.__getitem__)
    remove(monkeypatch, compat.MAP_OLLAMA_ERROR)
    remove(monkeypatch, compat.REDIRECT)
    with pytest.raises(StartError) as caught:
        compat.check()
    assert "LiteLLM 1.110.0 has no litellm.litellm_core_utils." in caught.value.what
    assert "; httpx 2.0 has no httpx._client.BaseClient._build_redirect_request" in caught.value.what


def test_a_module_that_is_gone_is_a_name_that_is_gone(litellm: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litellm.proxy.hooks", None)
    with pytest.raises(StartError, match=r"LiteLLM .* has no litellm\.proxy\.hooks\.PROXY_HOOKS"):
        compat.check(compat.TRIMMED)


def test_nothing_is_assigned_to_a_name_that_is_gone(litellm: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteLLM 1.110 has no `Router._increment_deployment_usage`: to set it would do nothing, and nobody would know."""
    router, name = owner(compat.DEPLOYMENT_USAGE)
    remove(monkeypatch, compat.DEPLOYMENT_USAGE)
    for use in (lambda: compat.DEPLOYMENT_USAGE.replace(print), compat.DEPLOYMENT_USAGE.find):
        with pytest.raises(StartError, match=r"Router\._increment_deployment_usage"):
            use()
    assert not hasattr(router, name)


@pytest.mark.parametrize(
    "symbol", [compat.SEND, compat.MAP_OLLAMA_ERROR, compat.PRICED], ids=lambda symbol: symbol.path
)
def test_no_patch_is_installed_when_one_of_them_would_do_nothing(
    litellm: Modules, monkeypatch: pytest.MonkeyPatch, symbol: Symbol
) -> None:
    monkeypatch.setattr(trim, "version", lambda _name: trim.VERSION)
    before = httpx._client.BaseClient._build_redirect_request
    remove(monkeypatch, symbol)
    with pytest.raises(StartError, match=symbol.attribute):
        startup.install_patches(trimmed=True)
    if symbol in compat.REQUIRED:
        assert httpx._client.BaseClient._build_redirect_request is before
    else:
        assert litellm["litellm.proxy.hooks"].PROXY_HOOKS, "nothing of LiteLLM is trimmed"


def test_an_import_of_our_modules_changes_nothing() -> None:
    """Each patch is installed by `startup.install_patches`, in an order that can be read there."""
    names = (
        "compat",
        "http_observer",
        "http_transport",
        "log_redaction",
        "ollama_errors",
        "redirects",
        "startup",
        "trim",
    )
    before = (
        httpx.AsyncClient.send,
        httpx.Client.send,
        httpx._client.BaseClient._build_redirect_request,
        logging.getLogRecordFactory(),
        dict(vars(HttpToolsProtocol)),
        dict(vars(uvicorn.Server)),
    )
    for name in names:
        found = importlib.import_module(f"io3ops_gateway.litellm_proxy.{name}")
        spec = found.__spec__
        assert spec is not None and spec.loader is not None
        # A second time, in a module of its own: the first import was long ago.
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert before == (
        httpx.AsyncClient.send,
        httpx.Client.send,
        httpx._client.BaseClient._build_redirect_request,
        logging.getLogRecordFactory(),
        dict(vars(HttpToolsProtocol)),
        dict(vars(uvicorn.Server)),
    )


def test_an_import_of_the_hooks_changes_nothing_and_loads_no_policy(litellm: Modules) -> None:
    before = {name: dict(vars(module)) for name, module in litellm.items()}
    hooks = importlib.import_module("io3ops_gateway.litellm_proxy.hooks")
    assert before == {name: dict(vars(module)) for name, module in litellm.items()}
    assert not hasattr(hooks, "policy"), "a LiteLLM that starts without `load` must fail"


# -- the list is complete


def functions(cls: type) -> list[types.FunctionType]:
    """The methods of a class; of one that is decorated, the function inside."""
    members = [getattr(member, "__wrapped__", member) for member in vars(cls).values()]
    return [member for member in members if isinstance(member, types.FunctionType)]


def named_in(cls: type) -> set[str]:
    """Every attribute that the methods of a class name."""
    return {name for function in functions(cls) for name in function.__code__.co_names}


@pytest.mark.parametrize("ours", [LimitedHttp, Server])
def test_every_name_of_uvicorn_that_we_extend_or_use_is_listed(ours: type) -> None:
    theirs = (HttpToolsProtocol, RequestResponseCycle, uvicorn.Server, ServerState)
    # Documented, or the names of other things: a socket's `send`.
    public = {*dir(asyncio.Protocol), "app", "config", "serve", "send"}
    listed = {symbol.attribute.split(".")[1] for symbol in compat.UVICORN}
    methods = {function.__name__ for cls in theirs for function in functions(cls)}
    assert (methods & set(vars(ours))) - public <= listed, "extended"
    given = {name for cls in theirs for name in vars(an_instance(cls))}
    assert (named_in(ours) & (methods | given)) - public <= listed, "used"


async def an_app(_scope: Any, _receive: Any, _send: Any) -> None: ...


def an_instance(cls: type) -> Any:
    """One of uvicorn's objects, after all that sets its attributes."""
    config = uvicorn.Config(an_app, log_config=None, loop="asyncio")
    loop: Any = object()
    transport: Any = types.SimpleNamespace(get_extra_info=lambda _name: None)
    if cls is ServerState:
        return ServerState()
    if cls is uvicorn.Server:
        server = uvicorn.Server(config)
        server.servers = []
        return server
    protocol = HttpToolsProtocol(config, ServerState(), {}, loop)
    protocol.connection_made(transport)
    protocol.on_message_begin()
    if cls is HttpToolsProtocol:
        return protocol
    given: dict[str, Any] = dict.fromkeys(inspect.signature(cls).parameters)
    return cls(**given)


PUBLIC = {"litellm", "litellm.exceptions", "litellm.integrations.custom_logger", "litellm.proxy.proxy_server"}
EXTENDED = {"uvicorn", "uvicorn.config", "uvicorn.server", "uvicorn.protocols.http.httptools_impl"}


def test_only_compat_names_what_is_not_public(root: Path) -> None:
    """A dotted name of a library in another module is one that no start checks."""
    for path in sorted((root / "src/io3ops_gateway").rglob("*.py")):
        if path.name == "compat.py":
            continue
        tree = ast.parse(path.read_text("utf-8"))
        named = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        named |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        named |= {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        dotted = {
            n for n in named if n.split(".")[0] in ("litellm", "httpx", "uvicorn") and n.replace(".", "").isidentifier()
        }
        assert dotted <= PUBLIC | EXTENDED | {"httpx", "uvicorn.error"}, path
        private = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr.startswith("_")]
        assert not [n.attr for n in private if isinstance(n.value, ast.Name) and n.value.id in ("httpx", "litellm")], (
            path
        )
