"""One stack for all end-to-end tests, brought up as a user would: `make up` in a fresh clone."""

from __future__ import annotations

from collections.abc import Iterator
from subprocess import CompletedProcess

import pytest
from tests.clone import Clone


@pytest.fixture(scope="session")
def fresh_clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A clone in a path with spaces and letters beyond ASCII: both break unquoted scripts."""
    clone = Clone.make(tmp_path_factory.mktemp("a user's Öffner"), "mein io3ops – 复制")
    yield clone
    clone.remove()


@pytest.fixture(scope="session")
def first_up(fresh_clone: Clone) -> CompletedProcess[str]:
    """The first `make up`, engine and images included when this machine has none."""
    done = fresh_clone.run("make", "up", timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="session")
def stack(fresh_clone: Clone, first_up: CompletedProcess[str]) -> Clone:
    """The running stack."""
    return fresh_clone
