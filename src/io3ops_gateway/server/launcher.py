"""Start the gateway, step by step: settings, checks, port, environment, LiteLLM's import, patches; then the supervisor forks workers.

May touch: this process's environment, what `startup_checks` may touch, and one listening socket. It calls no other machine, and keeps
LiteLLM's start from doing so.
"""

import os
import secrets
import signal
import sys
from types import FrameType

from io3ops_gateway.errors import GatewayError
from io3ops_gateway.litellm_proxy import startup
from io3ops_gateway.policy.client_keys import KeyRing
from io3ops_gateway.server import capacity, sockets, startup_checks, supervisor
from io3ops_gateway.settings import Settings, from_environment

# Modules of ours that need LiteLLM or uvicorn, imported once before the first fork.
OURS = ("io3ops_gateway.server.worker_factory", "io3ops_gateway.litellm_proxy.hooks")


def main() -> int:
    """Start the gateway and serve until a signal comes. Return the exit code; `errors` lists them."""
    # Python as a container's first process would ignore SIGTERM while it imports.
    signal.signal(signal.SIGTERM, _exit_at_once)
    signal.signal(signal.SIGINT, _exit_at_once)
    try:
        serve(from_environment(os.environ))
    except GatewayError as error:
        print(f"gateway: {error}", file=sys.stderr, flush=True)
        # Not `return`: LiteLLM's threads and exit handlers would add lines of their own.
        os._exit(error.exit_code)
    _exit_at_once(0, None)
    return 0


def serve(settings: Settings) -> None:
    """Check everything that can be wrong cheaply, import and patch LiteLLM, and let workers serve until a signal comes.

    Raises:
        GatewayError: any of its kinds; nothing is listening then.
    """
    startup_checks.check_config(settings.config)
    owner_key = startup_checks.read_master_key(settings.master_key_file)
    ca_bundle = startup_checks.combined_ca_bundle(settings.ca_dir)
    # Before the slow import: a taken port is reported at once, and the gateway never falls back to another one.
    listener = sockets.bind(settings.host, settings.port, shared=False)
    keys = KeyRing(owner_key, settings.keys_file)
    # LITELLM_LOG set from outside is a request to read the log's text.
    redact_log = "LITELLM_LOG" not in os.environ
    # LiteLLM learns no client's key: the edge checks those, and calls LiteLLM with a key of its own.
    inner_key = secrets.token_urlsafe(32)
    startup.prepare_environment(os.environ, config=settings.config, key=inner_key, ca_bundle=ca_bundle)
    startup.import_litellm(OURS)
    trimmed = startup.install_patches(trimmed=settings.trim)

    # Only here: it imports the server and the edge, which a start that fails a check need not wait for.
    from io3ops_gateway.server.worker_factory import WorkerFactory

    workers = WorkerFactory(
        settings=settings, keys=keys, owner_key=owner_key, inner_key=inner_key, redact_log=redact_log, trimmed=trimmed
    )
    memory = capacity.memory_limit()
    supervisor.Supervisor(
        config=settings.config,
        control=settings.control,
        first=listener,
        stop_seconds=settings.stop_seconds,
        work=workers.work,
        count=lambda config: capacity.workers(config, os.cpu_count() or 1, memory),
        forget=workers.forget,
        room=capacity.room(memory),
        load=workers.load,
    ).run()


def _exit_at_once(_signal: int, _frame: FrameType | None) -> None:
    """End the process while it has no workers: before the first, or after the last."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
