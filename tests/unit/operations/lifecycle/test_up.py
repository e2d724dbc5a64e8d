"""Which containers `io3ops up` restarts: those that are unhealthy, and those that start again and again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from io3ops.adapters.docker_engine import Container
from io3ops.operations.lifecycle import up

GATEWAY = Container(
    id="c1", service="gateway", status="running", health="healthy", exit_code=0, restarts=0, image="i", working_dir="", oom_killed=False,
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "sick"),
    [
        ({}, False),
        ({"health": "unhealthy"}, True),
        ({"health": "starting"}, False),
        ({"health": "starting", "restarts": 3}, True),
        ({"health": "healthy", "restarts": 3}, False),
        ({"status": "restarting", "health": "", "restarts": 3}, True),
        ({"status": "exited", "health": "unhealthy", "restarts": 3}, False),
    ],
)
def test_a_container_that_cannot_repair_itself_is_restarted(change: dict[str, object], sick: bool) -> None:
    assert up._sick(replace(GATEWAY, **change)) is sick  # type: ignore[arg-type]
