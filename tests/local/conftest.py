"""The local tier has clones, and no stack of theirs can run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import projects
from tests.clone import Clone


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    """A clone of its own."""
    made = Clone.make(tmp_path)
    yield made
    projects.release(made.project)
