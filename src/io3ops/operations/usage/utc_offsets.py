"""This machine's clock beside UTC, for days and hours as its user counts them. Reads the time zone."""

from __future__ import annotations

from datetime import datetime, timedelta

HOUR = timedelta(hours=1)


def offsets(since: datetime, until: datetime) -> list[tuple[datetime, timedelta]]:
    """Return this machine's distance from UTC from each moment on: one entry, and one more for each change of the clocks."""
    found: list[tuple[datetime, timedelta]] = []
    at = since
    while at < until or not found:
        distance = at.astimezone().utcoffset() or timedelta()
        if not found or found[-1][1] != distance:
            found.append((at, distance))
        # Clocks change at full hours of UTC.
        at = at.replace(minute=0, second=0, microsecond=0) + HOUR
    return found
