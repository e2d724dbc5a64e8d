"""Traces are well formed, and contain nothing that a client chose."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind
from opentelemetry.trace.status import StatusCode
from tests.unit.observer.records import FELL_BACK, REFUSED, SECRET, STREAMED, WORDS, made
from tests.unit.observer.test_record import hostile

from io3ops_observer.record import parse
from io3ops_observer.spans import trace


def context(span: ReadableSpan) -> SpanContext:
    found = span.get_span_context()
    assert found is not None
    return found


def milliseconds(span: ReadableSpan) -> float:
    return ((span.end_time or 0) - (span.start_time or 0)) / 1e6


def nested(spans: list[ReadableSpan]) -> None:
    """Check that there is one trace with one root, and that every span lies within its parent."""
    known = {context(span).span_id: span for span in spans}
    assert len(known) == len(spans) and [s for s in spans if s.parent is None] == spans[:1]
    assert len({context(span).trace_id for span in spans}) == 1
    for span in spans[1:]:
        assert span.parent is not None
        outer = known[span.parent.span_id]
        assert (outer.start_time or 0) <= (span.start_time or 0) <= (span.end_time or 0) <= (outer.end_time or 0)


def test_a_request_has_spans_for_its_attempt_and_the_runtimes_phases() -> None:
    root, attempt, load, prompt, generation = spans = trace(made(STREAMED))
    nested(spans)
    assert [s.name for s in spans] == ["chat executor", "chat smollm2", "load", "prompt", "generation"]
    assert (root.kind, attempt.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    assert root.start_time == 1_795_543_803_123_000_000 and milliseconds(root) == 512.4
    assert attempt.start_time == root.start_time + 600_000 and milliseconds(attempt) == 511.5
    assert [milliseconds(s) for s in (load, prompt, generation)] == [11.1, 18.2, 479.0]
    assert prompt.start_time == load.end_time and generation.start_time == prompt.end_time
    assert generation.end_time == attempt.end_time, "the answer ends when the runtime is done"
    assert f"{context(root).trace_id:032x}" == STREAMED["id"]
    assert dict(root.attributes or {}) == {
        "gen_ai.operation.name": "chat", "gen_ai.request.model": "executor", "gen_ai.response.model": "smollm2",
        "gen_ai.response.finish_reasons": ("stop",), "gen_ai.usage.input_tokens": 31, "gen_ai.usage.output_tokens": 47,
        "http.response.status_code": 200, "io3ops.outcome": "ok", "io3ops.data_class": "internal", "io3ops.served": "local",
        "io3ops.path": "lane", "io3ops.first_byte_ms": 31.2,
    }  # fmt: skip
    assert root.resource.attributes["service.name"] == "io3ops-gateway"


def test_a_failed_attempt_and_the_next_one_have_a_span_each() -> None:
    root, queue, failed, served = spans = trace(made(FELL_BACK))
    nested(spans)
    assert queue.name == "queue" and milliseconds(queue) == 1.5
    assert failed.status.status_code is StatusCode.ERROR and (failed.attributes or {})["error.type"] == "ConnectError"
    assert (served.attributes or {})[
        "gen_ai.provider.name"
    ] == "openai" and served.status.status_code is StatusCode.UNSET
    assert (served.attributes or {})["io3ops.local"] is False and root.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize(("outcome", "failed"), [("error", True), ("cut", True), ("timeout", True), ("client_left", False), ("refused", False)])  # fmt: skip
def test_only_a_failure_of_the_gateway_is_an_error(outcome: str, failed: bool) -> None:
    root = trace(made(STREAMED, outcome=outcome))[0]
    assert (root.status.status_code is StatusCode.ERROR) is failed and (root.attributes or {})["error.type"] == outcome


def test_a_refused_request_is_a_single_span() -> None:
    (root,) = trace(made(REFUSED))
    assert (root.attributes or {})["error.type"] == "invalid_api_key" and root.name == "chat none"


def test_two_requests_with_one_id_are_one_trace_with_two_roots() -> None:
    one, other = trace(made(STREAMED))[0], trace(made(STREAMED))[0]
    assert context(one).trace_id == context(other).trace_id
    assert context(one).span_id != context(other).span_id


def test_a_record_with_a_wrong_clock_has_no_trace() -> None:
    assert trace(made(STREAMED, time="1970-01-01T00:00:00.000Z")) == []


@settings(max_examples=300, deadline=None)
@given(hostile)
def test_the_trace_of_any_record_is_well_formed_and_can_be_sent(record: dict[str, Any]) -> None:
    found = parse(json.dumps(record).encode(), WORDS)
    spans = trace(found) if found else []
    if spans:
        nested(spans)
        assert SECRET.encode() not in encode_spans(spans).SerializeToString()
