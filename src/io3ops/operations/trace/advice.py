"""What stands out in a traced request, in one sentence. Pure."""

from __future__ import annotations

from io3ops.operations.request_log.records import shown
from io3ops.operations.trace.trace import Waterfall
from io3ops_shared.request_log.record import Attempt, Record

TOO_LONG = "context_length_exceeded"


def advice(record: Record, found: Waterfall, kept: str = "") -> str:
    """One sentence when something stands out, else ''. `kept`: the table's keep_alive of the model that served."""
    if record.error == TOO_LONG:
        return (
            f"the prompt does not fit into the window of {record.window or 'so many'} tokens: a shorter one, a larger `context:`,"
            " or `fallbacks: context_overflow` in the table"
        )
    failed = next((a for a in record.attempts if a.failed), None)
    said = _refusal(record) or (_failure(failed) if failed else "")
    if said:
        return said
    if record.outcome == "timeout":
        return "the mode's time was over: `timeouts:` in the table"
    if record.outcome == "cut":
        return "the server broke off in the middle of its answer: io3ops logs"
    if record.truncated:
        return f"the model read less than was sent: its window is {record.window or 'smaller'} tokens (`context:` in the table)"
    total = found.total
    inner = [p for part in found.parts for p in part.inner]
    for kind, share, least, what in (
        ("wait", 0.3, 50, "waiting for a place: `gateway: parallel:` in the table"),
        ("load", 0.3, 100, f"loading the model: keep_alive is {kept or 'in the table'}"),
        ("rest", 0.5, 200, "in the runtime beside the model's work: was it busy with other requests? io3ops health"),
        ("prompt", 0.6, 500, "reading the prompt: a shorter one, or one that begins like the last, is read sooner"),
        ("gateway", 0.5, 100, "the gateway's own work: io3ops bench says what is usual here"),
    ):
        spent = sum(p.ms for p in (*found.parts, *inner) if p.kind == kind)
        if spent >= least and spent >= share * total:
            return f"{_seconds(spent)} of {_seconds(total)} were {what}"
    if "length" in record.finish_reasons:
        return "the answer was cut at its limit of tokens (finish reason length)"
    return ""


REFUSALS = {
    401: "the key is not one of this gateway's: io3ops keys",
    403: "the key may not do this: io3ops keys",
    404: "no such mode: io3ops routes lists them",
    413: "the request is too long: `gateway:` in the table",
    429: "a limit of the key or the mode was reached: io3ops keys, `limits:` in the table",
    503: "more requests than places and queue: `gateway: parallel, queue` in the table",
}


def _refusal(record: Record) -> str:
    return REFUSALS.get(record.status or 0, "") if record.outcome == "refused" else ""


def _failure(attempt: Attempt) -> str:
    whose = attempt.provider if attempt.cloud else "the runtime"
    if attempt.error.startswith("Connect"):
        what = f"{whose} was down or out of reach: io3ops health"
    elif "Timeout" in attempt.error:
        what = f"{whose} took too long: `timeouts:` in the table"
    elif attempt.status in (401, 403):
        what = f"{whose} refused the key: io3ops secrets"
    elif attempt.status == 429:
        what = f"{whose} was over its limit"
    elif attempt.error == TOO_LONG:
        what = "the prompt was longer than its window"
    else:
        what = f"{whose} failed: io3ops logs"
    return f"attempt at {shown(attempt.deployment, 80) or '?'} ended with {_why(attempt)}: {what}"


def _why(attempt: Attempt) -> str:
    return shown(attempt.error, 40) or f"http {attempt.status}"


def _seconds(ms: float) -> str:
    return f"{ms / 1000:.1f} s" if ms >= 1000 else f"{ms:.0f} ms"
