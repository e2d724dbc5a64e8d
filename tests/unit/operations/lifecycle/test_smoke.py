"""The gateway's list of modes, and the report for CI."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from io3ops.errors import ModesDiffer
from io3ops.operations.lifecycle import smoke
from io3ops.routing.load import parse_table
from io3ops.routing.plan import Plan, make_plan


class Listing:
    def __init__(self, *modes: str) -> None:
        self._modes = modes

    def modes(self) -> tuple[str, ...]:
        return self._modes


@pytest.fixture
def plan(root: Path) -> Plan:
    return make_plan(parse_table((root / "runtime/routing.yaml").read_bytes(), "t"))


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        (("executor", "synthesizer", "governance"), "missing: embed"),
        (("executor", "synthesizer", "governance", "embed", "gpt-4o"), "unexpected: gpt-4o"),
        ((), "unexpected: none"),
    ],
)
def test_other_modes_than_the_tables_are_named(plan: Plan, listed: tuple[str, ...], words: str) -> None:
    gateway: Any = Listing(*listed)
    with pytest.raises(ModesDiffer) as caught:
        smoke.check_modes(gateway, plan)
    assert words in caught.value.details


def test_the_tables_modes_pass_in_any_order(plan: Plan) -> None:
    gateway: Any = Listing("embed", "governance", "executor", "synthesizer")
    smoke.check_modes(gateway, plan)


def test_the_report_counts_failures_and_survives_any_text() -> None:
    checks = (
        smoke.Check(mode='a"b&<', ok=True, seconds=1.5, detail="fine"),
        smoke.Check(mode="bad", ok=False, seconds=0.25, detail='HTTP 500: <"told" & failed>'),
    )
    suite = ElementTree.fromstring(smoke.junit(checks).encode())[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("time")) == ("2", "1", "1.750")
    assert [case.get("name") for case in suite] == ['a"b&<', "bad"]
    failure = suite[1].find("failure")
    assert suite[0].find("failure") is None
    assert failure is not None and failure.get("message") == 'HTTP 500: <"told" & failed>'
    error = smoke.failure(checks)
    assert error is not None and error.exit_code == 1 and "1 of 2" in error.message
    assert smoke.failure(checks[:1]) is None
