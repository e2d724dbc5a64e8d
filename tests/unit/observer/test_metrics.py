"""Metrics have few labels, and none that a client chose."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from prometheus_client import generate_latest
from tests.unit.observer.records import FELL_BACK, REFUSED, SECRET, STREAMED, WORDS, made
from tests.unit.observer.test_record import hostile

from io3ops_observer.metrics import Metrics
from io3ops_observer.record import parse


def counted(*records: Any) -> Metrics:
    metrics = Metrics()
    metrics.expect(WORDS)
    for record in records:
        metrics.count(record)
    return metrics


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_streamed_request_of_a_local_model() -> None:
    metrics = counted(made(STREAMED))
    asked = {"gen_ai_operation_name": "chat", "gen_ai_request_model": "executor", "gen_ai_response_model": "smollm2"}
    labels = {"mode": "executor", "outcome": "ok", "status": "200", "data_class": "internal", "served": "local"}
    assert value(metrics, "io3ops_requests_total", **labels) == 1
    labels = {"deployment": "executor.1.smollm2", "provider": "local", "local": "true", "error": "none"}
    assert value(metrics, "io3ops_attempts_total", **labels) == 1
    assert value(metrics, "gen_ai_client_operation_duration_seconds_sum", **asked, error_type="") == 0.5124
    assert value(metrics, "gen_ai_server_time_to_first_token_seconds_sum", **asked) == 0.0312
    assert value(metrics, "gen_ai_client_token_usage_sum", **asked, gen_ai_token_type="input") == 31
    assert value(metrics, "gen_ai_client_token_usage_sum", **asked, gen_ai_token_type="output") == 47
    assert round(value(metrics, "gen_ai_server_time_per_output_token_seconds_sum", **asked) or 0, 6) == 0.010191
    assert value(metrics, "io3ops_fallbacks_total", mode="executor") == 0, "there before its first event"
    assert value(metrics, "io3ops_internal_sent_out_total", mode="executor", override="false") == 0


def test_a_fallback_to_a_cloud() -> None:
    metrics = counted(made(FELL_BACK), made(FELL_BACK))
    assert value(metrics, "io3ops_fallbacks_total", mode="executor") == 2
    assert value(metrics, "io3ops_cost_usd_total", mode="executor", deployment="executor.2.gpt-small") == 0.5
    labels = {"deployment": "executor.1.smollm2", "provider": "local", "local": "true", "error": "ConnectError"}
    assert value(metrics, "io3ops_attempts_total", **labels) == 2
    assert value(metrics, "io3ops_queue_seconds_sum", mode="executor") == 0.003
    assert value(metrics, "io3ops_internal_sent_out_total", mode="executor", override="false") == 0, "it was public"


def test_an_internal_prompt_sent_to_a_cloud_is_counted_even_if_the_attempt_failed() -> None:
    attempts = [FELL_BACK["attempts"][1] | {"error": "ReadTimeout"}]
    metrics = counted(made(FELL_BACK, data_class="internal", attempts=attempts, outcome="error"))
    assert value(metrics, "io3ops_internal_sent_out_total", mode="executor", override="false") == 1
    metrics = counted(made(FELL_BACK, data_class="internal", override=True))
    assert value(metrics, "io3ops_internal_sent_out_total", mode="executor", override="true") == 1
    assert value(metrics, "io3ops_internal_sent_out_total", mode="executor", override="false") == 0


def test_a_retry_is_not_a_fallback_and_a_truncated_prompt_is_counted() -> None:
    attempts = [STREAMED["attempts"][0] | {"error": "http_500"}, STREAMED["attempts"][0]]
    metrics = counted(made(STREAMED, attempts=attempts, truncated=True))
    assert value(metrics, "io3ops_fallbacks_total", mode="executor") == 0
    assert value(metrics, "io3ops_truncated_total", mode="executor") == 1


def test_a_refused_request_does_not_count_for_models() -> None:
    text = generate_latest(counted(made(REFUSED)).registry).decode()
    labels = 'io3ops_requests_total{data_class="none",mode="none",outcome="refused",served="none",status="401"} 1.0'
    assert labels in text and "gen_ai_client_operation_duration_seconds_count{" not in text


def test_hostile_lines_do_not_add_series() -> None:
    metrics = Metrics()
    for number in range(500):
        name = f"x{number}"
        attempt = {"deployment": name, "provider": name, "error": name, "ms": 1}
        response = {"operation": {"name": name}, "response": {"model": name}, "usage": {"input_tokens": 1}}
        metrics.count(made(STREAMED, mode=name, data_class=name, outcome=name, status=number, attempts=[attempt], gen_ai=response))  # fmt: skip
    text = generate_latest(metrics.registry).decode()
    # By `status` alone: one for each status that HTTP knows.
    assert "x7" not in text and text.count("io3ops_requests_total{") < 80 and text.count("io3ops_attempts_total{") == 1


@settings(max_examples=200, deadline=None)
@given(hostile)
def test_no_line_breaks_the_metrics_or_leaks_into_them(record: dict[str, Any]) -> None:
    found = parse(json.dumps(record).encode(), WORDS)
    metrics = counted(*([found] if found else []))
    text = generate_latest(metrics.registry).decode()
    assert SECRET not in text and "NaN" not in text and "-1.0" not in text
