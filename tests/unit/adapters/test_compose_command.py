"""The calls of Docker Compose, and the errors for its failures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from io3ops.adapters.compose import Compose
from io3ops.adapters.process import Finished
from io3ops.errors import ComposeFailed, PortTaken


class Recorder:
    def __init__(self, errors: str = "") -> None:
        self.errors = errors
        self.argv: list[str] = []

    def run(self, argv: list[str], **_: object) -> Finished:
        self.argv = list(argv)
        return Finished(argv=tuple(argv), code=1 if self.errors else 0, output="", errors=self.errors)


def compose(recorder: Recorder) -> Compose:
    it: Any = recorder
    return Compose(it, Path("/clone"), lambda: "docker")


def test_a_start_neither_builds_nor_pulls_images() -> None:
    """io3ops builds and pulls images itself, with its own time limits."""
    it = Recorder()
    compose(it).up(("runtime", "gateway"), {})
    assert "--no-build" in it.argv and it.argv[it.argv.index("--pull") + 1] == "never"
    assert it.argv[-2:] == ["runtime", "gateway"]


@pytest.mark.parametrize("asked", [False, True])
def test_down_removes_volumes_only_when_asked(asked: bool) -> None:
    it = Recorder()
    compose(it).down({}, volumes=asked)
    assert ("--volumes" in it.argv) is asked


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ("Bind for 127.0.0.1:4000 failed: port is already allocated", PortTaken),
        ("failed to bind host port: address already in use", PortTaken),
        ("no such image", ComposeFailed),
    ],
)
def test_a_taken_port_is_an_error_of_its_own(errors: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        compose(Recorder(errors)).up(("gateway",), {"IO3OPS_PORT": "4000"})
