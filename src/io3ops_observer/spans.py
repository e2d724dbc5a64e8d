"""Turns a record into a trace: spans for the request, its wait, its attempts, and Ollama's loading, reading and generating. Pure.

Names and attributes follow OpenTelemetry's GenAI conventions where they exist. None of them was chosen by a client: no request id, no
name of a key, no user agent.
"""

import secrets
from collections.abc import Mapping

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from io3ops_observer import words as w
from io3ops_observer.record import Attempt, Record
from io3ops_shared.request_log.schema import Outcome

RESOURCE = Resource({"service.name": "io3ops-gateway"})
# The gateway failed the request. When it stops, or refuses, it works as it should.
FAILED = frozenset({Outcome.ERROR, Outcome.TIMEOUT, Outcome.CUT})
SCOPE = InstrumentationScope("io3ops_observer")
# OpenTelemetry's names of the services. Other services keep the table's word.
PROVIDERS = {"gemini": "gcp.gemini", "mistral": "mistral_ai", "azure": "azure.ai.openai", "bedrock": "aws.bedrock"}

Value = str | int | float | bool | tuple[str, ...]
Span = tuple[float, float]


def trace(record: Record) -> list[ReadableSpan]:
    """Return the spans, the root first; none when the clock was wrong, because no collector could place them."""
    if not record.begin:
        return []
    spans = _Trace(record)
    root = spans.add(f"{record.operation} {record.mode}", SpanKind.SERVER, (0, record.ms), None, _request(record), record.outcome in FAILED)  # fmt: skip
    context = root.get_span_context()
    if record.queue_ms:
        # The wait comes before the attempts. The log does not say when exactly.
        spans.add("queue", SpanKind.INTERNAL, spans.within(record.body_ms, record.queue_ms), context, {})
    for attempt in record.attempts:
        start, end = spans.within(attempt.at, attempt.ms)
        failed = not attempt.answered
        asked = spans.add(f"{record.operation} {attempt.model}", SpanKind.CLIENT, (start, end), context, _attempt(record, attempt), failed)  # fmt: skip
        for name, part in phases(attempt, start, end):
            spans.add(name, SpanKind.INTERNAL, part, asked.get_span_context(), {})
    return spans.spans


def phases(attempt: Attempt, start: float, end: float) -> list[tuple[str, Span]]:
    """Return the runtime's phases, one after the other up to the attempt's end. The time before them is the network's and the queue's."""
    parts = [("load", attempt.load_ms), ("prompt", attempt.prompt_ms), ("generation", attempt.eval_ms)]
    here = max(start, end - sum(ms for _, ms in parts))
    phases = []
    for name, ms in parts:
        if ms:
            phases.append((name, (here, min(here + ms, end))))
            here = min(here + ms, end)
    return phases


class _Trace:
    def __init__(self, record: Record) -> None:
        self._record = record
        self._trace_id = int(record.trace, 16)
        self.spans: list[ReadableSpan] = []

    def within(self, at: float, ms: float) -> Span:
        """Return a part of the request, cut at its end."""
        start = min(at, self._record.ms)
        return start, min(start + ms, self._record.ms)

    def add(
        self,
        name: str,
        kind: SpanKind,
        part: Span,
        parent: SpanContext | None,
        attributes: Mapping[str, Value],
        failed: bool = False,
    ) -> ReadableSpan:
        # A client may use an id twice, so spans get random ids. 0 is not valid.
        own = SpanContext(self._trace_id, secrets.randbits(64) or 1, False, TraceFlags(TraceFlags.SAMPLED))
        start, end = (self._record.begin + round(ms * 1_000_000) for ms in part)
        span = ReadableSpan(
            name, own, parent, RESOURCE, attributes, kind=kind, start_time=start, end_time=end, instrumentation_scope=SCOPE,
            status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
        )  # fmt: skip
        self.spans.append(span)
        return span


def _request(record: Record) -> dict[str, Value]:
    attributes: dict[str, Value | None] = {
        "gen_ai.operation.name": record.operation,
        "gen_ai.request.model": record.mode,
        "gen_ai.response.model": record.model if record.model != w.NONE else None,
        "gen_ai.response.finish_reasons": record.finishes or None,
        "gen_ai.usage.input_tokens": record.input_tokens or None,
        "gen_ai.usage.output_tokens": record.output_tokens or None,
        "gen_ai.usage.cache_read.input_tokens": record.cached_tokens or None,
        "http.response.status_code": int(record.status) if record.status.isdecimal() else None,
        "error.type": record.error or (record.outcome if record.outcome != Outcome.OK else None),
        "io3ops.outcome": record.outcome,
        "io3ops.data_class": record.data_class,
        "io3ops.served": record.served,
        "io3ops.path": record.path,
        "io3ops.truncated": record.truncated or None,
        "io3ops.override": record.override or None,
        "io3ops.cost_usd": record.cost or None,
        "io3ops.first_byte_ms": record.first_ms or None,
    }
    return {name: value for name, value in attributes.items() if value is not None}


def _attempt(record: Record, attempt: Attempt) -> dict[str, Value]:
    attributes: dict[str, Value | None] = {
        "gen_ai.operation.name": record.operation,
        "gen_ai.provider.name": PROVIDERS.get(attempt.kind, attempt.kind),
        "gen_ai.request.model": attempt.model,
        "io3ops.deployment": attempt.deployment,
        "io3ops.provider": attempt.provider,
        "io3ops.local": not attempt.cloud,
        "http.response.status_code": attempt.status or (200 if attempt.answered else None),
        "error.type": attempt.error if not attempt.answered else None,
    }
    return {name: value for name, value in attributes.items() if value is not None}
