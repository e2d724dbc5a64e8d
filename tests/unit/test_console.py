"""The output for people and for programs: one line per event, errors with layer and hint, JSON that parses."""

from __future__ import annotations

import io
import json

import pytest

from io3ops.console import Console, Mode, choose_mode
from io3ops.errors import PortTaken


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def console(mode: Mode) -> tuple[Console, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    times = iter(range(1000))
    return Console(mode, out, err, clock=lambda: float(next(times))), out, err


def test_a_step_is_announced_with_its_cause_and_closed_with_its_time() -> None:
    it, _, err = console(Mode.PLAIN)
    with it.step("images", "build gateway: inputs changed") as step:
        step.outcome = "built"
    assert err.getvalue().splitlines() == ["> images   build gateway: inputs changed", "= images   built (1.0 s)"]


def test_a_failing_step_is_marked_and_its_error_passes_through() -> None:
    it, _, err = console(Mode.PLAIN)
    with pytest.raises(PortTaken), it.step("port", "check"):
        raise PortTaken("taken")
    assert err.getvalue().splitlines()[-1].startswith("! port     failed")


def test_an_error_names_code_layer_details_and_hint() -> None:
    it, out, err = console(Mode.PLAIN)
    it.error("up", PortTaken("port 4000 is taken", hint="choose another", details="line 1\nline 2"))
    assert (
        err.getvalue() == "error E40 [containers] port 4000 is taken\n  | line 1\n  | line 2\n\nhint: choose another\n"
    )
    assert out.getvalue() == ""


def test_json_mode_prints_one_object_on_stdout_and_events_as_json_lines_on_stderr() -> None:
    it, out, err = console(Mode.JSON)
    with it.step("models", "fetch") as step:
        step.progress("a")(5, 10)
    it.result("pull", {"fetched": ["a"]}, "text for people")
    assert json.loads(out.getvalue()) == {"schema": 1, "command": "pull", "ok": True, "data": {"fetched": ["a"]}}
    assert [json.loads(line)["event"] for line in err.getvalue().splitlines()] == ["step", "progress", "done"]


def test_an_error_in_json_mode_keeps_the_contract() -> None:
    it, out, _ = console(Mode.JSON)
    it.error("up", PortTaken("taken", hint="h"))
    assert json.loads(out.getvalue())["error"] == {
        "code": "E40",
        "layer": "containers",
        "message": "taken",
        "details": "",
        "hint": "h",
    }


def test_a_tools_output_cannot_move_the_cursor() -> None:
    it, _, err = console(Mode.TTY)
    with it.step("images", "build") as step:
        step.activity("building")("evil \x1b[2J line")
    assert "\x1b[2J" not in err.getvalue()


@pytest.mark.parametrize(
    ("as_json", "err", "no_color", "term", "mode"),
    [
        (True, Terminal(), False, "xterm", Mode.JSON),
        (False, Terminal(), False, "xterm", Mode.TTY),
        (False, Terminal(), True, "xterm", Mode.PLAIN),
        (False, Terminal(), False, "dumb", Mode.PLAIN),
        (False, io.StringIO(), False, "xterm", Mode.PLAIN),
    ],
)
def test_the_mode_is_chosen_once(as_json: bool, err: io.StringIO, no_color: bool, term: str, mode: Mode) -> None:
    assert choose_mode(as_json=as_json, err=err, no_color=no_color, term=term) is mode


def test_a_progress_line_never_wraps_and_shows_only_its_newest_state() -> None:
    out, err = io.StringIO(), io.StringIO()
    times = iter(range(1000))
    it = Console(Mode.TTY, out, err, clock=lambda: float(next(times)), width=lambda: 40)
    with it.step("engine", "install") as step:
        step.activity("apt")("Reading 5%\rReading 10%\r" + "x" * 100)
    shown = [part for part in err.getvalue().split("\x1b[2K") if "apt:" in part]
    assert shown and "Reading" not in shown[0]
    assert len(shown[0].split("\x1b[0m")[0].removeprefix("\x1b[2m")) == 39
