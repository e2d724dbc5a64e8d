"""Every word of the request log passes from the gateway's writer through the commands' reader to the observer.

Each side used to have lists of its own, and the observer counted eleven of the gateway's finish reasons as `other`.
"""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from tests.unit.observer.records import WORDS

from io3ops.operations.usage import sql
from io3ops_gateway.edge.app import OPERATIONS as RENAMED
from io3ops_gateway.policy import endpoints
from io3ops_gateway.request.record import Attempt, Caller, Decision, RequestRecord, Timing
from io3ops_gateway.request.usage import Usage
from io3ops_gateway.request_log.entry import line
from io3ops_observer.record import Record as Observed
from io3ops_observer.record import parse as observe
from io3ops_observer.spans import trace
from io3ops_observer.words import ERRORS, STATUSES
from io3ops_shared.names import DATA_CLASSES
from io3ops_shared.policy import Deployment
from io3ops_shared.request_log import record as records
from io3ops_shared.request_log.record import Record, parse
from io3ops_shared.request_log.schema import (
    FINISH_REASONS,
    OPERATIONS,
    VERSION,
    AttemptError,
    Outcome,
    RequestPath,
)

PLACE = Deployment(
    name="executor.1.smollm2", provider="local", local=True, url="http://x", window=4096, model="smollm2"
)


def a_request(**given: Any) -> RequestRecord:
    """A request with these fields, whichever part of the record they belong to."""

    def part(kind: type[Any], **known: Any) -> Any:
        names = {field.name for field in fields(kind)} & given.keys()
        return kind(**known, **{name: given.pop(name) for name in names})

    parts = {
        "timing": part(Timing, wall=1_795_543_803.123, begun=10.0, ended=10.5),
        "caller": part(Caller),
        "decision": part(Decision, mode="executor"),
        "usage": part(Usage),
    }
    return RequestRecord("id-1", status=200, **parts, **given)


def through(request: RequestRecord) -> tuple[Record, Observed]:
    """Return what the commands and the observer read from the gateway's line."""
    written = orjson.dumps(line(request))
    read, observed = parse(written), observe(written, WORDS)
    assert read is not None and observed is not None
    return read, observed


@pytest.mark.parametrize("reason", sorted(FINISH_REASONS))
def test_a_finish_reason_reaches_the_commands_and_the_trace(reason: str) -> None:
    request = a_request()
    request.usage.finish(reason)
    read, observed = through(request)
    assert read.finish_reasons == observed.finishes == (reason,)
    attributes = trace(observed)[0].attributes
    assert attributes is not None and attributes["gen_ai.response.finish_reasons"] == (reason,)


def test_no_other_word_of_a_server_becomes_a_finish_reason() -> None:
    for word in ("a secret of the prompt", "Stop", "stop ", "", "end-turn"):
        request = a_request()
        request.usage.finish(word)
        read, observed = through(request)
        assert read.finish_reasons == observed.finishes == ()


@pytest.mark.parametrize("outcome", list(Outcome))
def test_an_outcome_is_the_same_word_everywhere(outcome: Outcome) -> None:
    request = a_request()
    if outcome is not Outcome.OK:
        request.failed(outcome, "")
    read, observed = through(request)
    assert read.outcome == observed.outcome == outcome
    assert ("outcome" in line(request)) == (outcome is not Outcome.OK), "the usual is left out"
    assert read.failed == (outcome is not Outcome.OK)


@pytest.mark.parametrize("path", list(RequestPath))
@pytest.mark.parametrize("data_class", DATA_CLASSES)
def test_a_path_and_a_data_class_are_the_same_word_everywhere(path: RequestPath, data_class: str) -> None:
    read, observed = through(a_request(path=path, data_class=data_class))
    assert read.path == observed.path == path and read.data_class == observed.data_class == data_class


@pytest.mark.parametrize("error", [*AttemptError, "http_500", "ConnectError", "ReadTimeout"])
def test_an_attempts_error_is_the_same_word_everywhere(error: str) -> None:
    request = a_request()
    request.attempts = [Attempt(PLACE, 10.1, 10.2, 0, error)]
    read, observed = through(request)
    assert read.attempts[0].error == observed.attempts[0].error == error and read.attempts[0].failed
    assert "500" in STATUSES


def test_the_observer_knows_every_failure_of_an_http_client() -> None:
    """The gateway writes the name of httpx's exception. An unknown one counts as `other`."""

    def leaves(found: type[Exception]) -> set[str]:
        below = found.__subclasses__()
        return set().union(*map(leaves, below)) if below else {found.__name__}

    assert leaves(httpx.RequestError) <= ERRORS


def test_every_endpoint_has_an_operation_that_the_observer_knows() -> None:
    served = [*endpoints.SERVED.values(), *endpoints.EXTRA.values()]
    assert {RENAMED.get(endpoint.name, endpoint.name) for endpoint in served} == OPERATIONS
    for operation in OPERATIONS:
        read, observed = through(a_request(operation=operation))
        assert read.operation == observed.operation == operation


def test_a_line_with_every_field_is_read_in_full() -> None:
    """The reader knows every field that the gateway writes, and the gateway writes every field that the reader knows."""
    request = a_request(
        operation="chat", client="curl 8.14", key="ci", key_id="2c26b46b", data_class="public", data_class_from="request",
        outcome=Outcome.CUT, error="upstream_cut", stream=True, body=10.1, queued=0.2, first=10.3, bytes_in=5, bytes_out=6,
        prompt=7, completion=8, cached=2, cost=0.5, override=True, truncated=True, recorded=True,
    )  # fmt: skip
    timings = dict.fromkeys(("load_duration", "prompt_eval_duration", "eval_duration", "total_duration"), 1_000_000)
    away = Deployment(
        name="executor.2.gpt-small", provider="openai", local=False, url="https://x", window=9, model="gpt-small"
    )
    request.attempts = [Attempt(PLACE, 10.1, 10.2, 500, "http_500", timings), Attempt(away, 10.3, 10.4, 200)]
    read, _ = through(request)
    for field in fields(Record):
        if field.name != "finish_reasons":
            assert getattr(read, field.name) not in (None, "", False, ()), field.name
    for field in fields(records.Attempt):
        assert getattr(read.attempts[0], field.name) not in (None, "") or field.name == "cloud", field.name
    written = line(request)
    known = {
        *records.TEXTS,
        *records.NUMBERS,
        *records.COUNTS,
        *records.FLAGS,
        "v",
        "time",
        "outcome",
        "gen_ai",
        "attempts",
    }
    assert written.keys() <= known and written["v"] == VERSION
    assert written["attempts"][0].keys() <= {field.name for field in fields(records.Attempt)}


def test_the_columns_of_usage_are_fields_of_the_schema() -> None:
    """DuckDB reads the lines itself, for speed. It must read the same fields and accept the same numbers."""
    columns = set(re.findall(r"^    ([a-z_]+):|, ([a-z_]+): '[A-Z]+'", sql.COLUMNS, re.M))
    top = {word for pair in columns for word in pair if word}
    assert {"v", "time", "mode", "outcome", "ms", "gen_ai", "attempts"} <= top
    assert top <= {*records.TEXTS, *records.NUMBERS, *records.FLAGS, "v", "time", "outcome", "gen_ai", "attempts"}
    inner = set(re.findall(r"(?:STRUCT\(|, )([a-z_]+) [A-Z]+", sql.COLUMNS.split("attempts: ")[1]))
    assert (
        inner
        == {"deployment", "cloud", "status", "error", "eval_ms"}
        <= {field.name for field in fields(records.Attempt)}
    )
    assert f"x <= {records.LARGEST_NUMBER}" in sql.KNOWN and f"v = {VERSION}" in sql.REQUESTS


def test_the_document_lists_every_word(root: Path) -> None:
    text = (root / "docs/request-log.md").read_text("utf-8")
    for word in (*Outcome, *RequestPath, *AttemptError, *DATA_CLASSES, *OPERATIONS, *FINISH_REASONS):
        assert f"`{word}`" in text, word
