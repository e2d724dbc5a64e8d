"""Starts the gateway: settings, checks, environment, LiteLLM's import; then the `supervisor` forks workers that serve.

May touch: this process's environment, what `startup_checks` may touch, and one listening socket. It calls nobody,
and sees to it that LiteLLM's start does not either.
"""

import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from io3ops_gateway.asgi import App
from io3ops_gateway.errors import GatewayError
from io3ops_gateway.limits.counters import Counters
from io3ops_gateway.limits.rate_limits import Ledger, RateLimiter
from io3ops_gateway.litellm_proxy import log_redaction, trim
from io3ops_gateway.litellm_proxy.startup import import_litellm, prepare_environment
from io3ops_gateway.policy.client_keys import KeyRing
from io3ops_gateway.request_log.content_capture import ContentRecorder
from io3ops_gateway.request_log.recorder import RequestRecorder
from io3ops_gateway.request_log.rotating_file import RequestLog
from io3ops_gateway.server import sockets, startup_checks, supervisor
from io3ops_gateway.server.rollout import Job
from io3ops_gateway.settings import Settings, from_environment
from io3ops_shared.policy import LogSettings

# Imported once, before the first worker is forked.
OURS = ("io3ops_gateway.server.worker", "io3ops_gateway.fast_lane.lane")
# Memory of the parent with one worker, and what one more adds with some room for its requests.
FIRST_WORKER, MORE_WORKER = 450_000_000, 80_000_000


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
    _leave(0, None)
    return 0


def serve(settings: Settings) -> None:
    """Check everything that can be wrong cheaply, then import LiteLLM, and have workers serve.

    Raises:
        GatewayError: any of its kinds; nothing is listening then.
    """
    startup_checks.check_config(settings.config)
    key = startup_checks.read_master_key(settings.master_key_file)
    bundle = startup_checks.combined_ca_bundle(settings.ca_dir)
    # Before the slow import: a taken port is known at once, and never answered with another port.
    first = sockets.bind(settings.host, settings.port, shared=False)
    show_text = "LITELLM_LOG" in os.environ
    ring = KeyRing(key, settings.keys_file)
    # LiteLLM knows no key of anybody's: the edge lets in whoever has one, and speaks to it with a word of its own.
    inner = secrets.token_urlsafe(32)
    prepare_environment(os.environ, config=settings.config, key=inner, ca_bundle=bundle)
    import_litellm(OURS)
    if settings.trim and (why := trim.before()):
        print(f"gateway: {why}", file=sys.stderr, flush=True)
    ledger, counters = Ledger(), Counters()

    def work(job: Job) -> NoReturn:
        from io3ops_gateway.server import worker

        def make(app: App, hooks: Any, job: Job) -> Any:
            from io3ops_gateway.edge.app import Edge
            from io3ops_gateway.edge.authenticate import Authenticator
            from io3ops_gateway.edge.backend import Backend
            from io3ops_gateway.fast_lane.lane import Lane
            from io3ops_gateway.fast_lane.upstreams import upstreams
            from io3ops_gateway.limits.limits import worker_limits
            from io3ops_gateway.litellm_proxy.app import FullPath
            from io3ops_gateway.litellm_proxy.token_counter import TokenCounter

            policy, provider_keys = hooks.policy, hooks.files.keys
            worker_counters = counters.worker(job.index)
            hooks.limiter = RateLimiter(ledger, worker=job.index, clock=time.monotonic)
            full_path = FullPath(app, inner, provider_keys.hide, hooks.why)
            lane = None
            if policy.gateway.lane:
                lane = Lane(policy, upstreams(policy, hooks.entries), provider_keys, hooks.limiter, TokenCounter())
            recorder = make_recorder(policy.log, settings, worker_counters.lost)
            hooks.told = recorder.told
            return Edge(
                policy,
                Backend(app, full_path, lane),
                Authenticator(ring, key),
                worker_limits(policy.gateway, hooks.limiter, worker_counters),
                recorder,
                config=job.digest,
            )

        when_ready = _nothing if show_text else log_redaction.withhold_text
        if job.generation > 1:
            # Nobody reads the log of a start that fails beside a gateway that serves: whoever asked is told.
            when_ready()
            when_ready = _nothing
        worker.main(job, lambda job: worker.build_edge(job, make), settings.stop_seconds, when_ready)

    def forget(index: int) -> None:
        ledger.forget(index)
        counters.forget(index)

    supervisor.Supervisor(
        config=settings.config,
        control=settings.control,
        first=first,
        stop_seconds=settings.stop_seconds,
        work=work,
        count=lambda config: workers(config, os.cpu_count() or 1, memory()),
        forget=forget,
        room=room(memory()),
        load=lambda: counters.totals() | {"files": files(settings)},
    ).run()


def files(settings: Settings) -> dict[str, str | None]:
    """What `status` says of the files that workers read again while they serve: whoever changed one asks whether it came through."""
    return {"keys": startup_checks.held(settings.keys_file), "recording": startup_checks.held(settings.recording)}


def make_recorder(wanted: LogSettings, settings: Settings, lost: Callable[[int], None]) -> RequestRecorder:
    """What keeps the request log, as the table wants it, and records what the owner asks for. `lost`: is told of lines that are."""
    mb = 1_000_000
    log = RequestLog(
        settings.log_dir,
        keep_days=wanted.keep_days,
        budget=wanted.budget_mb * mb,
        rotate=wanted.rotate_mb * mb,
        lost=lost,
    )
    content = ContentRecorder(settings.recording, settings.content_dir)
    return RequestRecorder(log.write if wanted.requests else None, content, log.close)


def workers(config: Mapping[str, Any], cores: int, memory: int) -> int:
    """How many processes serve. `memory`: bytes that the container may use.

    One serves more than a local runtime answers, so more are for large machines or who asks for them in the table; each needs memory of its own.
    """
    gateway = (config.get("io3ops_policy") or {}).get("door") or {}
    wanted = gateway.get("workers") or (2 if cores >= 16 else 1)
    # While a change is made there are twice as many.
    fit = max(1, room(memory) // 2)
    if fit < wanted:
        print(f"gateway: {wanted} workers are wanted, and there is memory for {fit}", file=sys.stderr, flush=True)
    return int(min(wanted, fit))


def room(memory: int) -> int:
    """How many workers fit into so many bytes; 0 bytes: there is no limit."""
    return 1 + max(0, memory - FIRST_WORKER) // MORE_WORKER if memory else 1000


def memory() -> int:
    """The bytes that this container may use, 0 when it is not limited."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found = Path(path).read_text("ascii").strip()
        except OSError:
            continue
        # Without a limit it is a word, or a number larger than any machine.
        return int(found) if found.isdecimal() and int(found) < 1 << 60 else 0
    return 0


def _leave(_signal: int, _frame: FrameType | None) -> None:
    """End at once: before there are workers, or after the last has ended."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _nothing() -> None:
    return
