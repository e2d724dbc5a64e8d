"""The limits of one worker: how much its clients may use, and how many requests it serves at once. Touches nothing."""

from dataclasses import dataclass

from io3ops_gateway.limits.admission import Admission
from io3ops_gateway.limits.counters import WorkerCounters
from io3ops_gateway.limits.rate_limits import RateLimiter
from io3ops_shared.policy import GatewaySettings


@dataclass(frozen=True, slots=True)
class Limits:
    """`rate_limiter`: requests, tokens and parallel requests of modes and keys. `admission`: this worker's places and queue."""

    rate_limiter: RateLimiter
    admission: Admission


def worker_limits(
    settings: GatewaySettings, rate_limiter: RateLimiter, counters: WorkerCounters | None = None
) -> Limits:
    """Return the limits that `settings` set. `counters`: shows how many requests run and wait."""
    admission = Admission(settings.parallel, settings.queue, settings.queue_timeout, counters=counters)
    return Limits(rate_limiter, admission)
