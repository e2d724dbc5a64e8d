"""Running stacks that modules share: starting one takes a minute on a busy machine, changing its table some seconds."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.clone import Clone


class SharedStack:
    """A gateway for modules that bring their own table and upstream; it runs no models of its own.

    Modules take it one after another. None depends on what another left behind: `serve` changes the table, empties the request
    log, and replaces a stack that no longer starts. Only what a minute's limits have counted stays, so a mode with a limit needs a
    name of its own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clone: Clone | None = None
        self._count = 0

    def serve(self, table: str) -> Clone:
        """The stack, serving this table."""
        if self.clone is not None:
            clone = self.clone
            empty_log(clone)
            table_file(clone).write_text(table, "utf-8")
            # One that hangs is replaced like one that fails, so that not every module waits for it.
            with suppress(subprocess.TimeoutExpired):
                if clone.io3ops("up").returncode == 0:
                    return clone
            clone.remove()
        self._count += 1
        self.clone = Clone.make(self.folder, f"clone{self._count}")
        table_file(self.clone).write_text(table, "utf-8")
        done = self.clone.io3ops("up", timeout=1800)
        assert done.returncode == 0, done.stderr
        return self.clone

    def remove(self) -> None:
        if self.clone is not None:
            self.clone.remove()


def table_file(clone: Clone) -> Path:
    return clone.path / "runtime/routing.yaml"


def empty_log(clone: Clone) -> None:
    """Remove rotated files and empty the one that the gateway writes, which it has open."""
    for file in (clone.path / ".io3ops/logs").glob("requests*.jsonl"):
        if file.name == "requests.jsonl":
            file.write_bytes(b"")
        else:
            file.unlink()


@contextmanager
def own_table(clone: Clone) -> Iterator[None]:
    """Give a shared stack back with the table that it had."""
    table = table_file(clone)
    before = table.read_bytes()
    try:
        yield
    finally:
        table.write_bytes(before)
        done = clone.io3ops("up", timeout=1800)
        assert done.returncode == 0, done.stderr
