"""Counts records for Prometheus. Every label value is from a fixed list or a name of the table. Touches its own registry only."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from io3ops_observer.record import Record
from io3ops_observer.words import NONE, OTHER, Words
from io3ops_shared.names import INTERNAL
from io3ops_shared.request_log.schema import Outcome

# The buckets that OpenTelemetry's GenAI conventions recommend.
DURATION = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576)
QUEUE = (0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0)

# Drops the `_created` series, which double the number of series. The library gives this function no types.
disable_created_metrics()  # type: ignore[no-untyped-call]
REASONS = ("queue_full", "refused")


class Metrics:
    """The observer's metrics."""

    def __init__(self, unread: Callable[[], float] = lambda: 0.0, lag: Callable[[], float] = lambda: 0.0) -> None:
        self.registry = registry = CollectorRegistry()
        asked = ("gen_ai_operation_name", "gen_ai_request_model", "gen_ai_response_model")
        self.duration = Histogram("gen_ai_client_operation_duration_seconds", "From the request's head to the end of the response, for requests that reached a model.", (*asked, "error_type"), registry=registry, buckets=DURATION)  # fmt: skip
        self.first = Histogram("gen_ai_server_time_to_first_token_seconds", "From the request's head to the first byte of a streamed response.", asked, registry=registry, buckets=FIRST)  # fmt: skip
        self.per_token = Histogram("gen_ai_server_time_per_output_token_seconds", "Seconds per generated token.", asked, registry=registry, buckets=PER_TOKEN)  # fmt: skip
        self.tokens = Histogram("gen_ai_client_token_usage", "Tokens per request.", (*asked, "gen_ai_token_type"), registry=registry, buckets=TOKENS)  # fmt: skip
        self.requests = Counter("io3ops_requests", "Ended requests.", ("mode", "outcome", "status", "data_class", "served"), registry=registry)  # fmt: skip
        self.attempts = Counter("io3ops_attempts", "Attempts at a deployment.", ("deployment", "provider", "local", "error"), registry=registry)  # fmt: skip
        self.fallbacks = Counter("io3ops_fallbacks", "Requests for which more than one deployment was tried.", ("mode",), registry=registry)  # fmt: skip
        self.truncated = Counter("io3ops_truncated", "Requests of which the runtime read only a part.", ("mode",), registry=registry)  # fmt: skip
        self.internal_out = Counter("io3ops_internal_sent_out", "Internal prompts that were sent to a cloud; without an override there are none.", ("mode", "override"), registry=registry)  # fmt: skip
        self.cost = Counter("io3ops_cost_usd", "Cost of cloud models whose price LiteLLM knows.", ("mode", "deployment"), registry=registry)  # fmt: skip
        self.queue = Histogram("io3ops_queue_seconds", "Waiting for a place in the gateway.", ("mode",), registry=registry, buckets=QUEUE)  # fmt: skip
        self.skipped = Counter("io3ops_request_log_lines_skipped", "Lines that hold no record of version 1.", registry=registry)  # fmt: skip
        self.sent = Counter("io3ops_spans_sent", "Spans that the collector accepted.", registry=registry)
        self.dropped = Counter("io3ops_spans_dropped", "Spans that were dropped: the collector was away for too long, or refused them.", ("reason",), registry=registry)  # fmt: skip
        self.failures = Counter("io3ops_span_exports_failed", "Failed exports to the collector, which are repeated.", registry=registry)  # fmt: skip
        self.queued = Gauge("io3ops_spans_queued", "Spans waiting for the collector.", registry=registry)
        Gauge(
            "io3ops_request_log_lag_seconds", "Since the log was last read to its end.", registry=registry
        ).set_function(lag)
        Gauge("io3ops_request_log_unread_bytes", "Bytes written to the log and not read yet.", registry=registry).set_function(unread)  # fmt: skip
        for reason in REASONS:
            self.dropped.labels(reason)

    def expect(self, words: Words) -> None:
        """Start the counters of every mode at 0: `increase()` does not see the first event of a counter that begins with it."""
        for mode in (*words.modes, OTHER, NONE):
            self.fallbacks.labels(mode)
            self.truncated.labels(mode)
            for override in ("true", "false"):
                self.internal_out.labels(mode, override)

    def count(self, record: Record) -> None:
        """Count one record."""
        self.requests.labels(record.mode, record.outcome, record.status, record.data_class, record.served).inc()
        for attempt in record.attempts:
            self.attempts.labels(attempt.deployment, attempt.provider, _flag(not attempt.cloud), attempt.error).inc()
        if record.fell_back:
            self.fallbacks.labels(record.mode).inc()
        if record.truncated:
            self.truncated.labels(record.mode).inc()
        if record.data_class == INTERNAL and any(attempt.cloud for attempt in record.attempts):
            self.internal_out.labels(record.mode, _flag(record.override)).inc()
        if not record.attempts:
            return
        self.queue.labels(record.mode).observe(record.queue_ms / 1000)
        if record.cost:
            self.cost.labels(record.mode, record.attempts[-1].deployment).inc(record.cost)
        asked = (record.operation, record.mode, record.model)
        self.duration.labels(*asked, "" if record.outcome == Outcome.OK else record.outcome).observe(record.ms / 1000)
        if record.stream and record.first_ms:
            self.first.labels(*asked).observe(record.first_ms / 1000)
        last = record.attempts[-1]
        if last.eval_ms and record.output_tokens:
            self.per_token.labels(*asked).observe(last.eval_ms / 1000 / record.output_tokens)
        elif record.tokens_per_second:
            self.per_token.labels(*asked).observe(1 / record.tokens_per_second)
        for kind, tokens in (("input", record.input_tokens), ("output", record.output_tokens)):
            if tokens:
                self.tokens.labels(*asked, kind).observe(tokens)


def _flag(value: bool) -> str:
    return "true" if value else "false"
