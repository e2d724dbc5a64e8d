"""The one grammar of durations and times: in the table, and in `--since`, `--until` and `--for`. Pure but for this machine's time zone."""

import contextlib
import re
from datetime import UTC, datetime, timedelta

# In milliseconds, the longest first: parts of a duration stand in this order.
UNITS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
# For JSON Schema too, so it uses nothing that only Python's regular expressions have. At least one part: the first is a digit.
DURATION_PATTERN = "^(?=[0-9])" + "".join(f"([0-9]{{1,12}}{unit})?" for unit in UNITS) + "$"
_DURATION = re.compile(DURATION_PATTERN)

DURATION_FORMS = "500ms, 90s, 30m, 1h30m, 7d or 2w"
TIME_FORMS = "90s, 30m, 1h30m, 7d or 2w ago; now, today, yesterday; 2026-11-01, 2026-11-01T18:00 or 2026-11-01T18:00Z"
# Nothing that has a log is older.
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)


def parse_duration(text: str) -> float:
    """Return the seconds of a duration like `1h30m`; a whole number where it is one. Raises ValueError, which lists the forms."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f"{_quoted(text)} is not a duration; for example {DURATION_FORMS}")
    parts = zip(found.groups(), UNITS.items(), strict=True)
    milliseconds = sum(int(part.removesuffix(unit)) * size for part, (unit, size) in parts if part)
    whole, rest = divmod(milliseconds, 1000)
    return milliseconds / 1000 if rest else whole


def format_duration(seconds: float) -> str:
    """Return the shortest duration of one unit: 90 -> `90s`, 600 -> `10m`, 604800 -> `168h`.

    LiteLLM and Ollama read what this writes, so it uses only units that Go knows: no days and weeks.
    """
    milliseconds = round(seconds * 1000)
    for unit in ("h", "m", "s"):
        if milliseconds >= UNITS[unit] and milliseconds % UNITS[unit] == 0:
            return f"{milliseconds // UNITS[unit]}{unit}"
    return f"{milliseconds}ms"


def parse_time(text: str, now: datetime) -> datetime:
    """Return a point in time in UTC: `now`, `today`, `yesterday`, a duration ago, or an ISO date or time.

    Days, and times without a zone, are this machine's. Raises ValueError, which lists the forms.
    """
    if text == "now":
        return now.astimezone(UTC)
    if text in ("today", "yesterday"):
        local = now.astimezone()
        today = datetime(local.year, local.month, local.day)
        return (today - timedelta(days=text == "yesterday")).astimezone(UTC)
    if _DURATION.fullmatch(text):
        try:
            return now.astimezone(UTC) - timedelta(seconds=parse_duration(text))
        except OverflowError:
            return EARLIEST
    with contextlib.suppress(ValueError, OverflowError):
        return datetime.fromisoformat(text).astimezone(UTC)
    raise ValueError(f"{_quoted(text)} is not a time; for example {TIME_FORMS}")


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")
