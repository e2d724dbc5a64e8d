"""Build what a forked worker serves: LiteLLM with one configuration, and the edge around it, with the limits that all workers share.

The parent builds one factory before the first fork; its methods are the supervisor's. Touches what the parts that it builds touch.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from io3ops_gateway.edge.app import Edge
from io3ops_gateway.edge.authenticate import Authenticator
from io3ops_gateway.edge.backend import Backend
from io3ops_gateway.fast_lane.lane import Lane
from io3ops_gateway.fast_lane.upstreams import upstreams
from io3ops_gateway.limits.counters import Counters
from io3ops_gateway.limits.limits import worker_limits
from io3ops_gateway.limits.rate_limits import Ledger, RateLimiter
from io3ops_gateway.litellm_proxy import loaded, log_redaction
from io3ops_gateway.litellm_proxy.app import FullPath
from io3ops_gateway.litellm_proxy.loaded import LoadedProxy
from io3ops_gateway.litellm_proxy.token_counter import TokenCounter
from io3ops_gateway.policy.client_keys import KeyRing
from io3ops_gateway.request_log.content_capture import ContentRecorder
from io3ops_gateway.request_log.recorder import RequestRecorder
from io3ops_gateway.request_log.rotating_file import RequestLog
from io3ops_gateway.server import startup_checks, worker
from io3ops_gateway.server.rollout import Job
from io3ops_gateway.settings import Settings
from io3ops_shared.policy import LogSettings

MEGABYTE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class WorkerFactory:
    """`owner_key`: for requests that a worker sends itself. `inner_key`: LiteLLM's master key. `trimmed`: LiteLLM was trimmed.
    `redact_log`: keep text out of the log once requests can come."""

    settings: Settings
    keys: KeyRing
    owner_key: str
    inner_key: str
    redact_log: bool
    trimmed: bool
    ledger: Ledger = field(default_factory=Ledger)
    counters: Counters = field(default_factory=Counters)

    def work(self, job: Job) -> NoReturn:
        """Run one worker, in a forked child, to its end."""
        when_ready: Callable[[], None] = log_redaction.install if self.redact_log else _do_nothing
        if job.generation > 1:
            # The log is not needed to read a start that fails: the caller of `reload` gets the reason.
            when_ready()
            when_ready = _do_nothing
        worker.main(job, self.build, self.settings.stop_seconds, when_ready)

    def build(self, job: Job) -> worker.Service:
        """Load LiteLLM's hooks with the job's configuration, and build the edge around its app.

        Raises:
            GatewayError: the policy cannot be read, or the image is broken.
        """
        proxy = loaded.load(replace(self.settings, config=job.config), trimmed=self.trimmed)
        return worker.Service(self._edge(job, proxy), proxy)

    def _edge(self, job: Job, proxy: LoadedProxy) -> Edge:
        hooks = proxy.hooks
        policy, provider_keys = hooks.policy, hooks.files.keys
        # The edge and LiteLLM's hooks must count in the same place.
        limiter = hooks.limiter = RateLimiter(self.ledger, worker=job.index, clock=time.monotonic)
        counters = self.counters.worker(job.index)
        full_path = FullPath(proxy.app, self.inner_key, provider_keys.hide, hooks.why)
        lane = None
        if policy.gateway.lane:
            lane = Lane(policy, upstreams(policy, hooks.entries), provider_keys, limiter, TokenCounter())
        recorder = build_recorder(policy.log, self.settings, counters.lost)
        hooks.told = recorder.told
        return Edge(
            policy,
            Backend(proxy.app, full_path, lane),
            Authenticator(self.keys, self.owner_key),
            worker_limits(policy.gateway, limiter, counters),
            recorder,
            config=job.digest,
        )

    def forget(self, index: int) -> None:
        """Free what a worker that has ended had counted for itself."""
        self.ledger.forget(index)
        self.counters.forget(index)

    def load(self) -> dict[str, Any]:
        """Return what `status` reports: how many requests run and wait in all workers, and the files that workers read while they serve."""
        files = {"keys": self.settings.keys_file, "recording": self.settings.recording}
        return self.counters.totals() | {"files": {name: startup_checks.held(path) for name, path in files.items()}}


def build_recorder(log: LogSettings, settings: Settings, lost: Callable[[int], None]) -> RequestRecorder:
    """Build the recorder of the request log and of recorded content. `lost` gets the number of lines that could not be written."""
    file = RequestLog(
        settings.log_dir,
        keep_days=log.keep_days,
        budget=log.budget_mb * MEGABYTE,
        rotate=log.rotate_mb * MEGABYTE,
        lost=lost,
    )
    content = ContentRecorder(settings.recording, settings.content_dir)
    return RequestRecorder(file.write if log.requests else None, content, file.close)


def _do_nothing() -> None:
    return
