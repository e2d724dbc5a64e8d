"""Every name of LiteLLM, httpx, FastAPI and uvicorn that the gateway uses and that is not their public interface.

Any release may drop such a name, and an assignment to a name that is gone succeeds and does nothing. So each one is a `Symbol`: read with
`find`, patched with `replace`, and looked up by `check` at every start, which refuses to start without it.

Touches the modules of these libraries; only `Symbol.replace` changes them.
"""

import importlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from types import FunctionType
from typing import Any

from io3ops_gateway.errors import StartError

HINT = "build the gateway image with the locked versions, or adapt `litellm_proxy/compat.py` to this release"
LIBRARIES = {"litellm": "LiteLLM"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Symbol:
    """One name of a library: what the gateway uses it for, and what is lost without it.

    `attribute`: a dotted path inside `module`. `is_kind`: whether a value is of the kind that the gateway expects; None accepts any.
    `parameters`: names by which a function is called. `on_instances`: the name is an attribute that the class gives its instances.
    """

    module: str
    attribute: str
    purpose: str
    loss: str
    is_kind: Callable[[Any], bool] | None = None
    parameters: tuple[str, ...] = ()
    on_instances: bool = False

    @property
    def path(self) -> str:
        return f"{self.module}.{self.attribute}"

    def find(self) -> Any:
        """Return the library's own value.

        Raises:
            StartError: the installed library has no such name, or something else under it.
        """
        if problem := self.problem():
            raise StartError(problem, HINT)
        return getattr(*self._place())

    def replace(self, value: object) -> None:
        """Put `value` in the place of the library's own.

        Raises:
            StartError: the library has nothing there, so nothing would call `value`.
        """
        if problem := self.problem():
            raise StartError(problem, HINT)
        owner, name = self._place()
        setattr(owner, name, value)

    def problem(self) -> str:
        """Say why the installed library cannot be used through this name; "" when it can."""
        try:
            owner, name = self._place()
            found = None if self.on_instances else getattr(owner, name)
        except (ImportError, AttributeError):
            return self._say("has no")
        if self.on_instances:
            return "" if _names_attribute(owner, name) else self._say("has no")
        if self.is_kind is not None and not self.is_kind(found):
            return self._say("has another kind of")
        if self.parameters and not _takes(found, self.parameters):
            return self._say(f"does not pass ({', '.join(self.parameters)}) to")
        return ""

    def _place(self) -> tuple[Any, str]:
        """Return the module or class that holds the name, and the name in it."""
        *owners, name = self.attribute.split(".")
        owner = importlib.import_module(self.module)
        for part in owners:
            owner = getattr(owner, part)
        return owner, name

    def _say(self, fault: str) -> str:
        library = self.module.partition(".")[0]
        try:
            installed = version(library)
        except PackageNotFoundError:
            installed = "(unknown version)"
        return f"{LIBRARIES.get(library, library)} {installed} {fault} {self.path} (used to {self.purpose}; without it {self.loss})"


def _names_attribute(owner: Any, name: str) -> bool:
    """Whether a method of the class reads or assigns `self.name`: a class does not list what it gives its instances."""
    return any(isinstance(member, FunctionType) and name in member.__code__.co_names for member in vars(owner).values())


def _takes(function: Any, names: Iterable[str]) -> bool:
    try:
        return set(names) <= set(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return False


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _is_dict(value: object) -> bool:
    return isinstance(value, dict)


# LiteLLM: what the gateway cannot do without.

PROXY_APP = Symbol(
    module="litellm.proxy.proxy_server",
    attribute="app",
    purpose="send it the requests that the edge has admitted",
    loss="no request can be served through LiteLLM",
    is_kind=callable,
)
ROUTER = Symbol(
    module="litellm.proxy.proxy_server",
    attribute="llm_router",
    purpose="compare the deployments that it loaded with those of the file",
    loss="a deployment that LiteLLM drops would go unnoticed",
)
PROXY_CONFIG = Symbol(
    module="litellm.proxy.proxy_server",
    attribute="ProxyConfig",
    purpose="try a rendered file before it is written",
    loss="a file that LiteLLM refuses would be found only at the next start",
    is_kind=inspect.isclass,
)
LOAD_CONFIG = Symbol(
    module="litellm.proxy.proxy_server",
    attribute="ProxyConfig.load_config",
    purpose="try a rendered file before it is written",
    loss="a file that LiteLLM refuses would be found only at the next start",
    is_kind=inspect.iscoroutinefunction,
    parameters=("router", "config_file_path"),
)
CALLBACKS = Symbol(
    module="litellm",
    attribute="callbacks",
    purpose="see that LiteLLM calls the policy's hooks",
    loss="requests could be routed without the policy",
    is_kind=_is_list,
)
NO_TOKENIZER_DOWNLOAD = Symbol(
    module="litellm",
    attribute="disable_hf_tokenizer_download",
    purpose="count tokens with the bundled tokenizer",
    loss="LiteLLM would download tokenizers from a model hub",
)
HTTP_HANDLER = Symbol(
    module="litellm.llms.custom_httpx.http_handler",
    attribute="AsyncHTTPHandler",
    purpose="bound how long a Gemini stream may be silent",
    loss="such a stream would be waited for without end",
    is_kind=inspect.isclass,
    parameters=("timeout",),
)
MAP_OLLAMA_ERROR = Symbol(
    module="litellm.litellm_core_utils.exception_mapping_utils",
    attribute="_map_ollama_exception",
    purpose="recognise Ollama's refusal of a prompt that is too long",
    loss="fallbacks for long prompts would not act",
    is_kind=callable,
    parameters=("model", "error_str", "custom_llm_provider"),
)


def _hook(name: str, purpose: str, loss: str, *parameters: str) -> Symbol:
    """A method that LiteLLM calls on every custom logger, with these names for its arguments."""
    return Symbol(
        module="litellm.integrations.custom_logger",
        attribute=f"CustomLogger.{name}",
        purpose=purpose,
        loss=loss,
        is_kind=inspect.iscoroutinefunction,
        parameters=parameters,
    )


HOOKS = (
    _hook(
        "async_pre_call_hook",
        "ask the router for the group that the edge chose",
        "a request could reach a group that its data class forbids",
        *("user_api_key_dict", "cache", "data", "call_type"),
    ),
    _hook(
        "async_filter_deployments",
        "offer the router only deployments to which a prompt may go",
        "an internal prompt could be routed to a cloud",
        *("model", "healthy_deployments", "messages", "request_kwargs", "parent_otel_span"),
    ),
    _hook(
        "async_pre_call_deployment_hook",
        "check each attempt and add the provider's key",
        "an attempt could leave unchecked, and without a key",
        *("kwargs", "call_type"),
    ),
    _hook(
        "async_log_success_event",
        "count the tokens of an answer",
        "limits on tokens would not hold",
        *("kwargs", "response_obj", "start_time", "end_time"),
    ),
)

# httpx.

SEND = Symbol(
    module="httpx",
    attribute="AsyncClient.send",
    purpose="hand LiteLLM the outcomes of the fast lane, and see its calls",
    loss="a failed server would be asked twice, and a cut prompt would go unnoticed",
    is_kind=inspect.iscoroutinefunction,
    parameters=("request", "stream"),
)
SEND_BLOCKING = Symbol(
    module="httpx",
    attribute="Client.send",
    purpose="answer warm-up requests that LiteLLM makes in a thread",
    loss="a warm-up could reach a provider",
    is_kind=callable,
    parameters=("request", "stream"),
)
REDIRECT = Symbol(
    module="httpx._client",
    attribute="BaseClient._build_redirect_request",
    purpose="refuse redirects",
    loss="a server could send a prompt on to another address",
    is_kind=callable,
    parameters=("request", "response"),
)

# uvicorn: the classes that `server/` extends. Their documentation covers none of these names.


def _uvicorn(module: str, owner: str, purpose: str, loss: str, *, methods: str, attributes: str) -> tuple[Symbol, ...]:
    return tuple(
        Symbol(
            module=module,
            attribute=f"{owner}.{name}",
            purpose=purpose,
            loss=loss,
            is_kind=None if on_instances else callable,
            on_instances=on_instances,
        )
        for names, on_instances in ((methods, False), (attributes, True))
        for name in names.split()
    )


UVICORN = (
    *_uvicorn(
        "uvicorn.protocols.http.httptools_impl",
        "HttpToolsProtocol",
        "bound the time and size of a request's head",
        "a client could hold connections open without end",
        # Not here: the callbacks of `asyncio.Protocol`, such as `data_received`, which are public.
        methods="on_message_begin on_header on_headers_complete on_body on_message_complete on_response_complete "
        "_unsupported_upgrade_warning _unset_keepalive_if_required timeout_keep_alive_handler",
        attributes="cycle headers loop parser scope server_state timeout_keep_alive timeout_keep_alive_task transport url",
    ),
    *_uvicorn(
        "uvicorn.protocols.http.httptools_impl",
        "RequestResponseCycle",
        "end a connection without spoiling an answer",
        "a refused request could be answered twice",
        methods="",
        attributes="disconnected keep_alive message_event more_body response_complete response_started",
    ),
    *_uvicorn(
        "uvicorn.server",
        "Server",
        "let a worker leave in good order",
        "a change of configuration would cut requests",
        methods="startup shutdown on_tick capture_signals",
        attributes="server_state servers",
    ),
    *_uvicorn(
        "uvicorn.server",
        "ServerState",
        "know which connections and requests a worker still has",
        "a worker would end while it still answers",
        methods="",
        attributes="connections tasks",
    ),
)

# LiteLLM, used only by `trim`.

MIDDLEWARE = Symbol(
    module="litellm.proxy.proxy_server",
    attribute="app.user_middleware",
    purpose="skip middleware that does nothing here",
    loss="each request takes longer",
    is_kind=_is_list,
)
LAZY_FEATURES = Symbol(
    module="litellm.proxy._lazy_features",
    attribute="LazyFeatureMiddleware",
    purpose="keep the middleware that registers `/v1/messages` and others at their first request",
    loss="`/v1/messages` would not exist",
    is_kind=inspect.isclass,
)
ROUTES = Symbol(
    module="litellm.proxy.proxy_server",
    attribute="app.router.routes",
    purpose="skip 500 routes that the edge never serves",
    loss="the first requests take seconds longer",
    is_kind=_is_list,
)
INCLUDED_ROUTER = Symbol(
    module="fastapi.routing",
    attribute="_IncludedRouter.original_router",
    purpose="keep the routes that are served, inside the routers of others",
    loss="endpoints would not exist",
    on_instances=True,
)
PROXY_HOOKS = Symbol(
    module="litellm.proxy.hooks",
    attribute="PROXY_HOOKS",
    purpose="skip limits, budgets and skills that need a database",
    loss="each request takes longer",
    is_kind=_is_dict,
)
KEY_CHECK = Symbol(
    module="litellm.proxy.auth.user_api_key_auth",
    attribute="user_api_key_auth",
    purpose="skip LiteLLM's own look-up of a key that the edge has checked",
    loss="each request takes longer",
    is_kind=callable,
)
CALLER = Symbol(
    module="litellm.proxy._types",
    attribute="UserAPIKeyAuth",
    purpose="name the caller to LiteLLM",
    loss="LiteLLM would refuse every request",
    is_kind=inspect.isclass,
)
CALLER_ROLE = Symbol(
    module="litellm.proxy._types",
    attribute="LitellmUserRoles.PROXY_ADMIN",
    purpose="give the caller every right inside LiteLLM, because the edge has decided already",
    loss="LiteLLM would refuse requests that the edge admitted",
)
ZERO_COST = Symbol(
    module="litellm.litellm_core_utils.litellm_logging",
    attribute="diagnose_zero_cost",
    purpose="skip the search for a reason why a local call costs nothing",
    loss="each request takes longer",
    is_kind=callable,
    parameters=("usage", "pricing_model", "pricing_entry", "calculation_failed"),
)
PRICED = Symbol(
    module="litellm.llms.ollama.common_utils",
    attribute="OllamaModelInfo._is_static_ollama_model",
    purpose="look an Ollama model's price up without a pass over every price",
    loss="each request takes longer",
    is_kind=callable,
    parameters=("model",),
)
BARE_MODEL = Symbol(
    module="litellm.llms.ollama.common_utils",
    attribute="OllamaModelInfo._strip_ollama_model_prefix",
    purpose="look an Ollama model's price up without a pass over every price",
    loss="each request takes longer",
    is_kind=callable,
    parameters=("model",),
)
DEPLOYMENT_USAGE = Symbol(
    module="litellm.router",
    attribute="Router._increment_deployment_usage",
    purpose="skip counters for limits of a deployment, which no rendered file sets",
    loss="each request takes longer",
    is_kind=inspect.iscoroutinefunction,
)
CALLBACK_LISTS = tuple(
    Symbol(
        module="litellm",
        attribute=name,
        purpose="tell only the router and the policy about a call",
        loss="each request takes longer",
        is_kind=_is_list,
    )
    for name in (
        "callbacks",
        "success_callback",
        "failure_callback",
        "_async_success_callback",
        "_async_failure_callback",
    )
)
# Modules whose methods and classes the router itself registers as callbacks.
ROUTER_MODULES = ("litellm.router", "litellm.router_strategy.")
# Modules that LiteLLM looks for on every request and never finds; each failed import searches the disk.
ABSENT_MODULES = ("litellm.integrations.otel.logger", "opentelemetry.sdk", "prisma")
# Modules that LiteLLM imports with the first request of a kind. Imported before the fork, all workers share them and no request waits.
DEFERRED_MODULES = (
    "litellm.proxy.anthropic_endpoints.endpoints",
    "litellm.proxy._experimental.mcp_server.mcp_server_manager",
    "litellm.types.litellm_core_utils.streaming_chunk_builder_utils",
    "litellm.types.proxy.litellm_pre_call_utils",
    "litellm.integrations.websearch_interception.handler",
    "litellm.integrations.shadow_eval_logger",
    "litellm.llms.vertex_ai.vertex_ai_partner_models.anthropic.transformation",
    "anyio._backends._asyncio",
    # OpenAI's client imports these 450 modules at its first call.
    "openai.resources",
)

REQUIRED = (
    *(PROXY_APP, ROUTER, PROXY_CONFIG, LOAD_CONFIG, CALLBACKS, NO_TOKENIZER_DOWNLOAD, HTTP_HANDLER, MAP_OLLAMA_ERROR),
    *(*HOOKS, SEND, SEND_BLOCKING, REDIRECT, *UVICORN),
)
TRIMMED = (
    *(
        MIDDLEWARE,
        LAZY_FEATURES,
        ROUTES,
        INCLUDED_ROUTER,
        PROXY_HOOKS,
        KEY_CHECK,
        CALLER,
        CALLER_ROLE,
        ZERO_COST,
        PRICED,
        BARE_MODEL,
    ),
    *(DEPLOYMENT_USAGE, *CALLBACK_LISTS),
)


def check(symbols: Iterable[Symbol] = REQUIRED) -> None:
    """Make sure that the installed libraries still have these names.

    Raises:
        StartError: naming each one that is gone or changed, the installed version, and what would be lost.
    """
    problems = [problem for symbol in symbols if (problem := symbol.problem())]
    if problems:
        raise StartError("; ".join(problems), HINT)
