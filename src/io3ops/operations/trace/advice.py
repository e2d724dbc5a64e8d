"""One sentence of advice about a traced request: what stands out, and where to change it. Pure."""

from __future__ import annotations

from io3ops.operations.request_log.records import shown
from io3ops.operations.trace.trace import PartKind, Waterfall
from io3ops_shared.request_log.record import Attempt, Record
from io3ops_shared.request_log.schema import AttemptError, Outcome


def advice(record: Record, trace: Waterfall, kept: str = "") -> str:
    """Return one sentence when something stands out, else ''. `kept`: the table's keep_alive of the model that served."""
    if record.error == AttemptError.CONTEXT_LENGTH_EXCEEDED:
        return (
            f"the prompt does not fit into the window{f' of {record.window} tokens' if record.window else ''}: shorten it, or set a larger"
            " `context:` or `fallbacks: context_overflow` in the table"
        )
    failed = next((a for a in record.attempts if a.failed), None)
    cause = _refusal(record) or (_failure(failed) if failed else "")
    if cause:
        return cause
    if record.outcome == Outcome.TIMEOUT:
        return "the mode's total time was used up: `timeouts:` in the table"
    if record.outcome == Outcome.CUT:
        return "the server broke off in the middle of its answer: io3ops logs"
    if record.truncated:
        window = f"its window is {record.window} tokens" if record.window else "its window is smaller"
        return f"the model read only a part of the prompt: {window} (`context:` in the table)"
    total = trace.total
    inner = [p for part in trace.parts for p in part.inner]
    for kind, share, least, cause in (
        (PartKind.WAIT, 0.3, 50, "waiting for a place: `gateway: parallel:` in the table"),
        (PartKind.LOAD, 0.3, 100, f"loading the model: keep_alive is {kept or 'in the table'}"),
        (
            PartKind.REST,
            0.5,
            200,
            "spent in the runtime's queue or other work: is it busy with other requests? io3ops health",
        ),
        (
            PartKind.PROMPT,
            0.6,
            500,
            "reading the prompt: a shorter prompt, or one that begins like the last, is read faster",
        ),
        (PartKind.GATEWAY, 0.5, 100, "the gateway's own work: io3ops bench shows what is usual on this machine"),
    ):
        spent = sum(p.ms for p in (*trace.parts, *inner) if p.kind == kind)
        if spent >= least and spent >= share * total:
            return f"{_seconds(spent)} of {_seconds(total)} were {cause}"
    if "length" in record.finish_reasons:
        return "the answer was cut at its limit of tokens (finish reason length)"
    return ""


REFUSALS = {
    401: "missing or invalid API key: io3ops keys",
    403: "the key may not do this: io3ops keys",
    404: "no such mode: io3ops routes lists the modes",
    413: "the request is too large: `gateway: max_body_mb:` in the table",
    429: "a limit of the key or the mode was reached: io3ops keys, `limits:` in the table",
    503: "all places and the queue were taken: `gateway: parallel, queue` in the table",
}


def _refusal(record: Record) -> str:
    return REFUSALS.get(record.status or 0, "") if record.outcome == Outcome.REFUSED else ""


def _failure(attempt: Attempt) -> str:
    server = attempt.provider if attempt.cloud else "the runtime"
    if attempt.error.startswith("Connect"):
        cause = f"{server} was down or not reachable: io3ops health"
    elif "Timeout" in attempt.error:
        cause = f"{server} took too long: `timeouts:` in the table"
    elif attempt.status in (401, 403):
        cause = f"{server} refused its API key: io3ops secrets"
    elif attempt.status == 429:
        cause = f"{server} was over its rate limit"
    elif attempt.error == AttemptError.CONTEXT_LENGTH_EXCEEDED:
        cause = "the prompt was longer than its window"
    else:
        cause = f"{server} failed: io3ops logs"
    return f"attempt at {shown(attempt.deployment, 80) or '?'} ended with {_why(attempt)}: {cause}"


def _why(attempt: Attempt) -> str:
    return shown(attempt.error, 40) or f"http {attempt.status}"


def _seconds(ms: float) -> str:
    return f"{ms / 1000:.1f} s" if ms >= 1000 else f"{ms:.0f} ms"
