"""Running stacks that tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.clone import Clone
from tests.integration.request_log import TABLE, Bench, Upstream, reserved
from tests.stacks import SharedStack


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A running stack that tests may look at and send requests to; they leave it running."""
    made = Clone.make(tmp_path_factory.mktemp("running"))
    try:
        done = made.io3ops("up", timeout=1800)
        assert done.returncode == 0, done.stderr
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedStack]:
    """A running stack that serves the table of the module that takes it."""
    made = SharedStack(tmp_path_factory.mktemp("shared"))
    yield made
    made.remove()


@pytest.fixture(scope="session")
def misbehaving() -> Iterator[tuple[Upstream, int]]:
    """Upstreams that misbehave, and a port at which nobody answers."""
    kept, gone = reserved()
    with kept:
        yield Upstream(), gone


@pytest.fixture(scope="module")
def bench(shared: SharedStack, misbehaving: tuple[Upstream, int]) -> Bench:
    """A running gateway for the tests of the request log."""
    upstream, gone = misbehaving
    return Bench(shared.serve(TABLE.format(port=upstream.port, gone=gone)), upstream, gone)
