"""The options `--since` and `--until`: their help and their error. The grammar of times is in `io3ops_shared.times`."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from io3ops_shared.times import TIME_FORMS, parse_time

TIME_HELP = f"TIME: {TIME_FORMS}."


def time_of(option: str, text: str, now: datetime | None = None) -> datetime:
    """Return the point in time that an option's value names, in UTC. Raises UsageError, which lists the forms."""
    try:
        return parse_time(text, now or datetime.now(UTC))
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from None
