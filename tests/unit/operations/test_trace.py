"""`io3ops trace`: the parts of any record add up to the whole; its drawing and its advice."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from io3ops.errors import LogMissing, RequestUnknown
from io3ops.operations.trace import text as trace_text
from io3ops.operations.trace import trace
from io3ops.operations.trace.advice import advice
from io3ops.operations.trace.trace import Part, PartKind, Waterfall, waterfall
from io3ops_shared.request_log.record import Attempt, Record, parse

QUICK = settings(max_examples=200, deadline=None)
OLLAMA: dict[str, Any] = {"load_ms": 3200.0, "prompt_ms": 50.0, "eval_ms": 100.0, "runtime_ms": 3360.0}


def made(**fields: Any) -> Record:
    return Record(**({"time": "2026-11-24T18:10:03.123Z", "id": "a" * 32} | fields))


def examples(root: Path) -> list[Record]:
    text = (root / "docs/request-log.md").read_text("utf-8")
    return [r for line in re.findall(r"^```json\n(.*)\n```$", text, re.M) if (r := parse(line.encode()))]


def adds_up(found: Waterfall) -> None:
    """Check that each part begins where the last one ended, and that they add up to the whole; the same inside each attempt."""
    at = 0.0
    for part in found.parts:
        assert part.at == pytest.approx(at, rel=1e-12, abs=1e-6) and part.ms >= 0
        at = part.end
        if part.inner:
            assert sum(p.ms for p in part.inner) == pytest.approx(part.ms, rel=1e-6, abs=1e-6)
            # Floats round in proportion: a length of thousands of years has no millionths of a millisecond.
            slack = 1e-6 + 1e-12 * part.end
            assert all(part.at - slack <= p.at and p.end <= part.end + slack for p in part.inner)
    assert at == pytest.approx(found.total, rel=1e-6, abs=1e-6)


def test_the_docs_examples_add_up(root: Path) -> None:
    for record in examples(root):
        found = waterfall(record)
        adds_up(found)
        assert found.total == record.ms and found.cut == pytest.approx(0, abs=1e-6) and found.measured


def test_parts_are_placed_by_the_logs_times(root: Path) -> None:
    streamed, fell_back, refused = map(waterfall, examples(root))
    assert [(p.name, round(p.at, 1), round(p.ms, 1)) for p in streamed.parts] == [
        ("body from the client", 0.0, 0.2),
        ("gateway", 0.2, 0.4),
        ("1 executor.1.smollm2", 0.6, 511.5),
        ("gateway, at the end", 512.1, 0.3),
    ]
    assert [(p.kind, round(p.at, 1), round(p.ms, 1)) for p in streamed.parts[2].inner] == [
        ("rest", 0.6, 1.5),
        ("load", 2.1, 11.1),
        ("prompt", 13.2, 18.2),
        ("generation", 31.4, 479.0),
        ("rest", 510.4, 1.7),
    ]
    assert streamed.first == 31.2 and fell_back.first is None, "only a stream has a first byte of its own"
    assert [(p.kind, p.note) for p in fell_back.parts if p.kind in ("attempt", "failed")] == [
        ("failed", "ConnectError"),
        ("attempt", ""),
    ]
    assert [(p.name, p.ms) for p in refused.parts] == [("gateway", 0.2)]


def test_parts_that_exceed_the_whole_are_cut_and_a_note_says_so() -> None:
    found = waterfall(
        made(ms=100.0, attempts=(Attempt(deployment="a", at=1.0, ms=120.0, eval_ms=119.0, runtime_ms=119.5),))
    )
    adds_up(found)
    assert found.total == 100.0 and found.cut == pytest.approx(21.0)
    assert "21.0 ms more than the whole" in trace_text.waterfall(found, 80, colour=False)


def test_timings_that_exceed_the_runtimes_own_sum_are_not_cut() -> None:
    """Its clock is coarse: 60 + 41 fit into the attempt's 102, although it reports 100 in all."""
    one = Attempt(deployment="a", at=0.0, ms=102.0, prompt_ms=60.0, eval_ms=41.0, runtime_ms=100.0)
    found = waterfall(made(ms=102.0, attempts=(one,)))
    adds_up(found)
    assert found.cut == 0 and [p.ms for p in found.parts[0].inner] == [1.0, 60.0, 41.0]


def test_overlapping_attempts_are_placed_one_after_the_other() -> None:
    found = waterfall(
        made(ms=100.0, attempts=(Attempt(deployment="a", at=0.0, ms=60.0), Attempt(deployment="b", at=50.0, ms=50.0)))
    )
    adds_up(found)
    assert [(p.at, p.ms) for p in found.parts] == [(0.0, 60.0), (60.0, 40.0)] and found.cut == pytest.approx(10.0)


def test_without_a_total_the_sum_is_shown_and_a_note_says_so() -> None:
    found = waterfall(made(body_ms=1.0, attempts=(Attempt(deployment="a", at=2.0, ms=60.0),)))
    adds_up(found)
    assert found.total == 62.0 and not found.measured
    assert "does not say how long" in trace_text.waterfall(found, 80, colour=False)


times = st.none() | st.just(0.0) | st.floats(0, 5000) | st.floats(0, 1e15)
attempts = st.builds(
    Attempt, deployment=st.text(max_size=20), cloud=st.booleans(), at=times, ms=times, load_ms=times, prompt_ms=times,
    eval_ms=times, runtime_ms=times, error=st.sampled_from(["", "ConnectError", "\x1b[2J", "ReadTimeout"]),
    status=st.sampled_from([None, 200, 429, 500]),
)  # fmt: skip
records = st.builds(
    Record, time=st.text(max_size=10), id=st.text(max_size=200), mode=st.text(max_size=20), client=st.text(max_size=100), ms=times,
    body_ms=times, queue_ms=times, first_ms=times, stream=st.booleans(), cost_usd=times, truncated=st.booleans(),
    outcome=st.sampled_from(["ok", "error", "refused", "timeout", "cut", "\x9b"]), status=st.none() | st.integers(0, 999),
    attempts=st.lists(attempts, max_size=4).map(tuple), finish_reasons=st.just(("length",)),
)  # fmt: skip


@QUICK
@given(records, st.integers(20, 200), st.booleans())
def test_any_record_adds_up_and_is_drawn_within_the_terminal(record: Record, width: int, colour: bool) -> None:
    found = waterfall(record)
    adds_up(found)
    said = advice(record, found)
    shown = trace_text.text(record, found, said, width, colour=colour)
    bare = re.sub(r"\x1b\[[0-9;]+m", "", shown)
    assert (bare == shown) == (not colour) or not found.parts
    assert all(c.isprintable() for c in bare.replace("\n", "")), "a log has no power over the terminal"
    picture = re.sub(r"\x1b\[[0-9;]+m", "", trace_text.waterfall(found, width, colour=colour))
    if width >= 60:
        assert all(len(line) <= width for line in picture.splitlines() if line[:1] not in ("t",))
    written = json.dumps(trace_text.data(record, found, said), ensure_ascii=False)
    assert written.isprintable()


def test_bars_are_placed_by_time() -> None:
    parts = (
        Part(name="a", kind=PartKind.BODY, at=0, ms=50),
        Part(name="b", kind=PartKind.ATTEMPT, at=50, ms=50),
        Part(name="c", kind=PartKind.GATEWAY, at=100, ms=0.001),
    )
    found = Waterfall(total=100.0, parts=parts, first=75.0, cut=0, measured=True)
    lines = trace_text.waterfall(found, 52, colour=False).splitlines()
    room = 52 - 10 - 11 - len("100.0")
    bars = [line[11 : 11 + room] for line in lines]
    assert bars[0] == "█" * 13 + " " * 13 and bars[1] == " " * 13 + "█" * 13
    assert bars[2] == " " * 25 + "▏" and bars[3] == " " * 19 + "▲" + " " * 6
    assert "50.0 ms  50 %" in lines[0] and "100.0 ms 100 %" in lines[4]


def test_colour_is_used_only_on_request() -> None:
    found = waterfall(made(ms=10.0, body_ms=1.0))
    assert "\x1b[36m" in trace_text.waterfall(found, 80, colour=True)
    assert "\x1b" not in trace_text.waterfall(found, 80, colour=False)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"ms": 3400.0, "attempts": (Attempt(deployment="a", at=1.0, ms=3390.0, **OLLAMA),)}, "3.2 s of 3.4 s were loading the model: keep_alive is 24 h"),
        ({"ms": 1000.0, "queue_ms": 700.0}, "700 ms of 1.0 s were waiting for a place"),
        ({"ms": 1000.0, "attempts": (Attempt(deployment="a", at=0.0, ms=990.0, runtime_ms=90.0, eval_ms=80.0),)}, "busy with other requests"),
        ({"ms": 1000.0, "attempts": (Attempt(deployment="a", at=0.0, ms=990.0, runtime_ms=980.0, prompt_ms=900.0),)}, "900 ms of 1.0 s were reading the prompt"),
        ({"ms": 1000.0, "attempts": (Attempt(deployment="a", at=900.0, ms=50.0),)}, "950 ms of 1.0 s were the gateway's own work"),
        ({"ms": 9.0, "attempts": (Attempt(deployment="a", at=0.0, ms=1.0, error="ConnectError"), Attempt(deployment="b", at=2.0, ms=7.0))}, "attempt at a ended with ConnectError: the runtime was down"),
        ({"ms": 9.0, "attempts": (Attempt(deployment="a", provider="openai", cloud=True, at=0.0, ms=1.0, status=429),)}, "http 429: openai was over its rate limit"),
        ({"ms": 9.0, "attempts": (Attempt(deployment="a", provider="openai", cloud=True, at=0.0, ms=1.0, status=401),)}, "io3ops secrets"),
        ({"ms": 9.0, "attempts": (Attempt(deployment="a", at=0.0, ms=1.0, error="ReadTimeout"),)}, "took too long"),
        ({"ms": 9.0, "outcome": "refused", "status": 503}, "all places and the queue were taken"),
        ({"ms": 9.0, "outcome": "refused", "status": 401}, "missing or invalid API key"),
        ({"ms": 9.0, "outcome": "timeout"}, "time was used up"),
        ({"ms": 9.0, "outcome": "cut"}, "broke off"),
        ({"ms": 9.0, "truncated": True, "window": 4096}, "4096 tokens"),
        ({"ms": 9.0, "finish_reasons": ("length",)}, "limit of tokens"),
    ],
)  # fmt: skip
def test_the_advice_names_what_stands_out(fields: dict[str, Any], words: str) -> None:
    record = made(**fields)
    assert words in advice(record, waterfall(record), "24 h")


def test_a_usual_request_gets_no_advice(root: Path) -> None:
    assert advice(examples(root)[0], waterfall(examples(root)[0])) == ""


def log(folder: Path, *requests: dict[str, Any]) -> Path:
    lines = (json.dumps({"v": 1, "time": "2026-11-24T18:10:03.123Z"} | r, separators=(",", ":")) for r in requests)
    (folder / "requests.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return folder


def test_a_request_is_found_by_its_id_or_the_beginning_of_it(tmp_path: Path) -> None:
    folder = log(
        tmp_path,
        {"id": "abcdefgh-1", "ms": 1},
        {"id": "abcdefgh-1", "ms": 2},
        {"id": "abcdefgh-12", "ms": 3},
        {"id": "zyxwvuts-9", "ms": 4},
        {"id": "other", "mode": "zyxwvuts-9", "client": "abcdefgh-1", "ms": 5},
        {"id": "zyxwvuts-9", "ms": 6},
    )
    assert trace.find(folder, "abcdefgh-1").ms == 2, "the newest of them, though another one begins so too"
    assert trace.find(folder, "zyxwvuts").ms == 6
    with pytest.raises(RequestUnknown, match="abcdefgh-12, abcdefgh-1"):
        trace.find(folder, "abcdefgh")
    with pytest.raises(RequestUnknown, match="beginning"):
        trace.find(folder, "zyx")
    with pytest.raises(RequestUnknown, match="no request"):
        trace.find(folder, "nothing-like-it\x1b[2J")


def test_last_finds_the_last_request_the_last_failed_one_or_that_of_a_mode(tmp_path: Path) -> None:
    folder = log(
        tmp_path, {"id": "1", "mode": "a"}, {"id": "2", "mode": "a", "outcome": "error"}, {"id": "3", "mode": "b", "outcome": "refused"},
        {"id": "4", "mode": "a"}, {"id": "5", "mode": "b", "outcome": "ok", "client": "a"},
    )  # fmt: skip
    assert trace.last(folder, failed=False, mode="").id == "5"
    assert trace.last(folder, failed=True, mode="").id == "3"
    assert trace.last(folder, failed=False, mode="a").id == "4"
    assert trace.last(folder, failed=True, mode="a").id == "2"
    with pytest.raises(RequestUnknown, match="no failed request of mode c"):
        trace.last(folder, failed=True, mode="c")


def test_without_a_log_the_hint_says_what_writes_it(tmp_path: Path) -> None:
    with pytest.raises(LogMissing) as found:
        trace.find(tmp_path / "nothing", "abcdefgh")
    assert found.value.code == "E65" and "make up" in found.value.hint


def test_a_prompt_that_was_too_long_is_not_blamed_on_the_runtime() -> None:
    attempt = {"deployment": "m.1.a", "at": 1, "ms": 2, "status": 400, "error": "context_length_exceeded"}
    line = {"v": 1, "time": "2026-11-24T18:10:03.123Z", "id": "x", "ms": 3, "window": 4096, "attempts": [attempt]}
    refused = parse(json.dumps(line | {"outcome": "error", "error": "context_length_exceeded"}).encode())
    assert refused is not None
    assert "window of 4096 tokens" in advice(refused, waterfall(refused))
    served = parse(json.dumps(line | {"attempts": [attempt, {"deployment": "n.1.b", "at": 3, "ms": 2}]}).encode())
    assert served is not None
    assert "longer than its window" in advice(served, waterfall(served))
