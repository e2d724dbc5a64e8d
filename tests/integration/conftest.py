"""Clones without a stack of their own, and one running stack for tests that look at its containers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.clone import Clone


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    """A clone of its own; nothing runs in it yet."""
    made = Clone.make(tmp_path)
    yield made
    made.remove()


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A running stack that tests may look at and send requests to; they leave it running."""
    made = Clone.make(tmp_path_factory.mktemp("running"))
    done = made.io3ops("up", timeout=1800)
    assert done.returncode == 0, done.stderr
    yield made
    made.remove()
