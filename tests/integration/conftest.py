"""Running stacks that tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.clone import Clone
from tests.integration.request_log import TABLE, Bench, Upstream, reserved


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A running stack that tests may look at and send requests to; they leave it running."""
    made = Clone.make(tmp_path_factory.mktemp("running"))
    done = made.io3ops("up", timeout=1800)
    assert done.returncode == 0, done.stderr
    yield made
    made.remove()


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A running stack for the tests of the request log, with upstreams that misbehave."""
    made, upstream = Clone.make(tmp_path_factory.mktemp("log")), Upstream()
    kept, gone = reserved()
    with kept:
        (made.path / "runtime/routing.yaml").write_text(TABLE.format(port=upstream.port, gone=gone), "utf-8")
        try:
            done = made.io3ops("up")
            assert done.returncode == 0, done.stderr
            yield Bench(made, upstream, gone)
        finally:
            made.remove()
