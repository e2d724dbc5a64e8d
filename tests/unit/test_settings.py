"""Settings that follow from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from io3ops.settings import Settings


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"HOME": "/home/me"}, "/home/me/.cache/io3ops"),
        ({"HOME": "/home/me", "XDG_CACHE_HOME": "/big"}, "/big/io3ops"),
        ({"HOME": ""}, "/clone/.io3ops/cache"),
        ({}, "/clone/.io3ops/cache"),
    ],
)
def test_downloads_are_kept_where_no_other_user_may_write(environment: dict[str, str], folder: str) -> None:
    assert Settings(root=Path("/clone"), environment=environment).cache == Path(folder)
