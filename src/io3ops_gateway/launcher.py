"""Starts LiteLLM's proxy under uvicorn: settings, checks, environment, import, serve.

May touch: this process's environment, what `inputs` may touch, and one listening socket. It calls nobody,
and sees to it that LiteLLM's start does not either.
"""

import gc
import importlib
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, MutableMapping
from pathlib import Path
from types import FrameType

from io3ops_gateway import inputs, logs
from io3ops_gateway.asgi import App, Message, Receive, Send
from io3ops_gateway.errors import GatewayError, PortError, StartError
from io3ops_gateway.keyring import KeyRing
from io3ops_gateway.settings import Settings, from_environment

# Set only where the environment says nothing, so that each can be overridden in compose.yaml.
LITELLM_DEFAULTS = {
    # Without this LiteLLM loads a .env file from wherever it was started.
    "LITELLM_MODE": "PRODUCTION",
    # Each of these is a download at start or on a request; LiteLLM ships a copy of all five.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True",
    "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    # The OpenAI client's own retries, for calls that forget to switch them off (embeddings do).
    "DEFAULT_MAX_RETRIES": "0",
    # Tokenizers of model families come from a model hub; see also disable_hf_tokenizer_download below.
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Pages nobody needs on a machine-to-machine port, and a map of every route for whoever finds it.
    "NO_DOCS": "True",
    "NO_REDOC": "True",
    "NO_OPENAPI": "True",
    "DISABLE_ADMIN_UI": "True",
    # LiteLLM's own default is DEBUG. A value set from outside also turns `logs.withhold_text` off.
    "LITELLM_LOG": "ERROR",
}


def main() -> int:
    """Start the gateway and serve until a signal comes. Returns the exit code; see `errors` for what it means."""
    # As a container's first process, Python would ignore SIGTERM while it imports.
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    try:
        serve(from_environment(os.environ))
    except GatewayError as error:
        print(f"gateway: {error}", file=sys.stderr, flush=True)
        # Not `return`: LiteLLM's threads and exit handlers would add their own lines to ours.
        os._exit(error.exit_code)
    return 0


def serve(settings: Settings) -> None:
    """Check everything that can be wrong cheaply, then import LiteLLM and serve.

    Raises:
        GatewayError: any of its kinds; nothing is listening then.
    """
    inputs.check_config(settings.config)
    key = inputs.read_master_key(settings.master_key_file)
    bundle = inputs.combined_ca_bundle(settings.ca_dir)
    # Before the slow import: a taken port is known at once, and never answered with another port.
    listener = bind(settings.host, settings.port)
    show_text = "LITELLM_LOG" in os.environ
    ring = KeyRing(key, settings.keys_file)
    # LiteLLM knows no key of anybody's: the edge lets in whoever has one, and speaks to it with a word of its own.
    inner = secrets.token_urlsafe(32)
    prepare_environment(os.environ, config=settings.config, key=inner, ca_bundle=bundle)
    run(import_proxy(ring, inner), listener, settings.stop_seconds, _nothing if show_text else logs.withhold_text)


def bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet: until the proxy is ready, connections are refused.

    Raises:
        PortError: taken, not allowed, or not an address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        hint = "stop what listens there or set IO3_HOST and IO3_PORT"
        raise PortError(f"cannot listen on {host}:{port}: {error.strerror or error}", hint) from error
    return listener


def prepare_environment(
    environment: MutableMapping[str, str], *, config: Path, key: str, ca_bundle: Path | None
) -> None:
    """Tell LiteLLM, in the only language it reads before its import, what to load and what to leave alone."""
    for name, value in LITELLM_DEFAULTS.items():
        environment.setdefault(name, value)
    environment["CONFIG_FILE_PATH"] = str(config)
    environment["LITELLM_MASTER_KEY"] = key
    if ca_bundle is not None:
        environment["SSL_CERT_FILE"] = str(ca_bundle)
        environment["REQUESTS_CA_BUNDLE"] = str(ca_bundle)


def import_proxy(ring: KeyRing, inner_key: str) -> App:
    """LiteLLM's ASGI app behind our edge. Most of the start is this import.

    Raises:
        ConfigError: the policy cannot be read.
        StartError: the import failed, so the image is broken.
    """
    # Nothing of what an import makes is garbage; looking for some among 300 MB again and again is a waste.
    gc.disable()
    try:
        # No environment variable does this one: count tokens with the bundled tokenizer.
        vars(importlib.import_module("litellm"))["disable_hf_tokenizer_download"] = True
        app: App = importlib.import_module("litellm.proxy.proxy_server").app
        hooks = importlib.import_module("io3ops_gateway.callback").policy
        edge = importlib.import_module("io3ops_gateway.edge")
        app = edge.Edge(app, hooks.policy, ring, hooks.meter, inner_key, hooks.files.keys.hide, hooks.why)
    except GatewayError:
        raise
    except Exception as error:
        raise StartError(f"LiteLLM cannot be imported: {_one_line(error)}", "build the gateway image again") from error
    finally:
        gc.freeze()
        gc.enable()
    return app


def run(app: App, listener: socket.socket, stop_seconds: int, when_ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT; running requests then get `stop_seconds` to finish.

    `when_ready` is called once, after LiteLLM's own start and before the first request.

    Raises:
        StartError: LiteLLM refused its configuration.
    """
    import uvicorn

    from io3ops_gateway.server import LimitedHttp

    started = _StartWatch(app, when_ready)
    config = uvicorn.Config(
        started,
        loop="uvloop",
        http=LimitedHttp,
        # Nothing is served over websockets, and their handshake has limits of its own: none.
        ws="none",
        # Each holds memory; a laptop has a few clients, not thousands.
        limit_concurrency=1000,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=stop_seconds,
    )
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except SystemExit as error:
        # uvicorn leaves this way when the app's start fails; the reason is in what we watched.
        hint = "correct runtime/routing.yaml and run `io3ops render-config`"
        raise StartError(f"LiteLLM did not start: {started.failure or error}", hint) from error


class _StartWatch:
    """Passes everything on, and keeps the last line of a failed start's traceback in place of the whole."""

    def __init__(self, app: App, when_ready: Callable[[], None]) -> None:
        self._app = app
        self._when_ready = when_ready
        self.failure = ""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return

        async def watched(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed":
                lines = str(message.get("message", "")).strip().splitlines()
                self.failure = lines[-1] if lines else "no reason given"
                message = {"type": message["type"]}
                # Its own line after ours says nothing new.
                logging.getLogger("uvicorn.error").disabled = True
            elif message["type"] == "lifespan.startup.complete":
                if not _hooked():
                    self.failure = "LiteLLM has not taken the policy's hooks over"
                    message = {"type": "lifespan.startup.failed"}
                    logging.getLogger("uvicorn.error").disabled = True
                else:
                    self._when_ready()
            await send(message)

        await self._app(scope, receive, watched)


def _leave(_signal: int, _frame: FrameType | None) -> None:
    """End at once: before uvicorn takes the signal over, or after it has stopped and hands the signal back."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _hooked() -> bool:
    """Whether LiteLLM will call the policy: a gateway without it must not serve."""
    hooks = sys.modules["io3ops_gateway.callback"].policy
    return any(callback is hooks for callback in sys.modules["litellm"].callbacks)


def _nothing() -> None:
    return


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
