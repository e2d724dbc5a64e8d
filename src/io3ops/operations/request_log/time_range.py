"""Times as people write them (`7d`, `today`, `2026-11-01`), and the machine's clock beside UTC. Pure but for the time zone."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
FORMS = "30m, 24h, 7d, 2w, today, yesterday, now, 2026-11-01, 2026-11-01T18:00"
HOUR = timedelta(hours=1)


def moment(text: str, now: datetime) -> datetime:
    """A point in time in UTC; days and times without a zone are this machine's. Raises ValueError, which lists the forms."""
    local = now.astimezone()
    today = datetime(local.year, local.month, local.day)
    try:
        if text == "now":
            return now.astimezone(UTC)
        if text in ("today", "yesterday"):
            return (today - timedelta(days=text == "yesterday")).astimezone(UTC)
        ago = re.fullmatch(r"([0-9]{1,9})([mhdw])", text)
        if ago:
            return now.astimezone(UTC) - int(ago[1]) * UNITS[ago[2]]
        if re.match(r"[0-9]{4}-", text):
            return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{text[:40]!r} is no time; for example {FORMS}")


def offsets(since: datetime, until: datetime) -> list[tuple[datetime, timedelta]]:
    """This machine's distance from UTC from each moment on: one entry, and one more for each change of the clocks."""
    found: list[tuple[datetime, timedelta]] = []
    at = since
    while at < until or not found:
        distance = at.astimezone().utcoffset() or timedelta()
        if not found or found[-1][1] != distance:
            found.append((at, distance))
        # Clocks change at full hours of UTC.
        at = at.replace(minute=0, second=0, microsecond=0) + HOUR
    return found
