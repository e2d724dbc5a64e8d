"""A record of the request log as one readable line. Pure.

A client chose some of its texts, so each is made printable and short.
"""

from __future__ import annotations

from io3ops.console import printable
from io3ops_shared.request_log.record import Attempt, Record

# How much of a longer id is shown: its end, because the beginning of an id that the gateway made is only its time.
SHORT = 8
# Attempts in one line.
MOST = 6


def short(identity: str) -> str:
    """Return an id, or the end of a long one."""
    return identity if len(identity) <= SHORT + 4 else f"…{identity[-SHORT:]}"


def word(value: str, most: int = 60) -> str:
    """Return a text of a record as one printable word or phrase."""
    return printable(value, most).strip()


def outcome(record: Record) -> str:
    """Return the outcome to show; `ok` when the log says nothing readable."""
    return word(record.outcome, 20) or "ok"


def text(record: Record) -> str:
    """Return who asked for what, how it ended, how long it took and which deployments were tried."""
    status = record.status
    parts = [short(word(record.id, 128)) or "-", word(record.mode) or "-"]
    parts.append(f"{status} {outcome(record)}" if status else outcome(record))
    if error := word(record.error):
        parts.append(error)
    parts.append(f"{record.ms or 0.0:,.0f} ms")
    if record.input_tokens or record.output_tokens:
        parts.append(f"{record.input_tokens or 0:,}→{record.output_tokens or 0:,} tokens")
    if tried := attempts(record):
        parts.append(tried)
    return "  ".join(parts)


def attempts(record: Record) -> str:
    """Return the attempts in order: `executor.1.smollm2✗ConnectError → executor.2.gpt-small✓`."""
    shown = [f"{word(attempt.deployment) or '-'}{_how(attempt)}" for attempt in record.attempts[:MOST]]
    return " → ".join([*shown, *([f"{len(record.attempts) - MOST} more"] if len(record.attempts) > MOST else [])])


def _how(attempt: Attempt) -> str:
    error = word(attempt.error, 40) or (str(attempt.status) if attempt.status and attempt.status >= 400 else "")
    return f"✗{error}" if error else "✓"
