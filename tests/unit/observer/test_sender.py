"""Sending spans to a collector that is slow, down or refuses them; nothing waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from tests.unit.observer.records import STREAMED, made

from io3ops_observer import sender
from io3ops_observer.metrics import Metrics
from io3ops_observer.sender import Refused, Sender
from io3ops_observer.spans import trace

SPANS = 5


class Collector:
    """`answers`: the response to each call, the last one for all later calls. An exception is raised."""

    def __init__(self, *answers: bytes | Exception | Callable[[], bytes]) -> None:
        self.answers, self.taken, self.calls = list(answers), 0, 0

    def __call__(self, body: bytes, _seconds: float) -> bytes:
        self.calls += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        found = answer() if callable(answer) else answer
        request = ExportTraceServiceRequest.FromString(body)
        self.taken += sum(len(s.spans) for r in request.resource_spans for s in r.scope_spans)
        return found


def started(collector: Collector) -> tuple[Sender, Metrics]:
    metrics = Metrics()
    made = Sender(collector, metrics, linger=0.01, slowest=0.01)
    made.start()
    return made, metrics


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def until(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_spans_are_sent_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "BATCH", 4 * SPANS)
    collector = Collector(b"")
    metrics = Metrics()
    made_sender = Sender(collector, metrics, linger=0.01)
    for _ in range(10):
        made_sender.offer(trace(made(STREAMED)))
    made_sender.start()
    until(lambda: value(metrics, "io3ops_spans_sent_total") == 10 * SPANS)
    assert collector.taken == 10 * SPANS and collector.calls == 3 and value(metrics, "io3ops_spans_queued") == 0
    made_sender.stop(1)
    assert not made_sender.is_alive()


def test_a_collector_that_was_down_gets_the_spans_later() -> None:
    collector = Collector(ConnectionRefusedError(), OSError("HTTP 503"), b"")
    made_sender, metrics = started(collector)
    made_sender.offer(trace(made(STREAMED)))
    until(lambda: collector.taken == SPANS)
    until(lambda: value(metrics, "io3ops_spans_queued") == 0)
    assert value(metrics, "io3ops_span_exports_failed_total") == 2
    made_sender.stop(1)


def test_spans_beyond_the_queue_are_counted_and_the_caller_never_waits() -> None:
    gate = threading.Event()
    collector = Collector(lambda: b"" * gate.wait(60))
    made_sender, metrics = started(collector)
    for _ in range(500):
        made_sender.offer(trace(made(STREAMED)))
    assert collector.taken == 0, "the collector still holds the first call"
    kept = sender.LONGEST_QUEUE // SPANS * SPANS
    assert value(metrics, "io3ops_spans_queued") == kept
    assert value(metrics, "io3ops_spans_dropped_total", reason="queue_full") == 500 * SPANS - kept
    gate.set()
    until(lambda: value(metrics, "io3ops_spans_sent_total") == kept)
    made_sender.stop(1)


def test_refused_spans_are_not_sent_again() -> None:
    collector = Collector(Refused("HTTP 400"), b"")
    made_sender, metrics = started(collector)
    made_sender.offer(trace(made(STREAMED)))
    until(lambda: value(metrics, "io3ops_spans_dropped_total", reason="refused") == SPANS)
    made_sender.offer(trace(made(STREAMED)))
    until(lambda: collector.taken == SPANS)
    assert collector.calls == 2
    made_sender.stop(1)


def test_a_partial_refusal_is_counted() -> None:
    partial = ExportTracePartialSuccess(rejected_spans=2, error_message="too old")
    answer = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
    made_sender, metrics = started(Collector(answer))
    made_sender.offer(trace(made(STREAMED)))
    until(lambda: value(metrics, "io3ops_spans_sent_total") == SPANS - 2)
    assert value(metrics, "io3ops_spans_dropped_total", reason="refused") == 2
    made_sender.stop(1)


@pytest.mark.parametrize("rejected", [10**9, -5])
def test_a_wrong_count_of_refused_spans_is_ignored(rejected: int) -> None:
    answer = ExportTraceServiceResponse(partial_success=ExportTracePartialSuccess(rejected_spans=rejected))
    collector = Collector(answer.SerializeToString(), RuntimeError("a mistake of ours"), b"\xff", b"")
    made_sender, metrics = started(collector)
    for number in range(1, 5):
        made_sender.offer(trace(made(STREAMED)))
        until(lambda: collector.calls == number)  # noqa: B023
    until(lambda: value(metrics, "io3ops_spans_queued") == 0)
    taken = 2 * SPANS if rejected > 0 else 3 * SPANS
    assert value(metrics, "io3ops_spans_sent_total") == taken
    assert value(metrics, "io3ops_spans_dropped_total", reason="refused") == 4 * SPANS - taken
    made_sender.stop(1)


def test_it_stops_at_once_while_the_collector_is_down() -> None:
    made_sender, metrics = started(Collector(ConnectionRefusedError()))
    made_sender.offer(trace(made(STREAMED)))
    until(lambda: value(metrics, "io3ops_span_exports_failed_total") >= 1)
    made_sender.stop(1)
    assert not made_sender.is_alive()
