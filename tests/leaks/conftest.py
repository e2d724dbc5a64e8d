"""One rig for the whole folder: it takes half a minute to start, and no test changes it for another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.leaks.rig import Rig, running


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    yield from running(Path(tmp_path_factory.mktemp("leaks")))
