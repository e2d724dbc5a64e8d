"""The parts beside a stack: seen on loopback only, known by the label, gone afterwards; one that fails says why."""

from __future__ import annotations

from typing import Any

import pytest
from tests import projects
from tests.beside import LABEL, Part, answers, network, prints
from tests.clone import Clone

pytestmark = pytest.mark.containers

SERVER = "import http.server as h; h.HTTPServer(('', 8080), h.SimpleHTTPRequestHandler).serve_forever()"


@pytest.fixture
def image(running: Clone) -> str:
    return running.docker("inspect", "-f", "{{.Config.Image}}", running.container("gateway")).stdout.strip()


def python(clone: Clone, image: str, program: str, **options: Any) -> Part:
    return Part(clone, "part", image, ("-u", "-c", program), entrypoint="/usr/bin/python3", **options)


def test_a_part_is_published_on_loopback_and_known_by_the_label(clone: Clone, image: str) -> None:
    with network(clone, "one") as one, network(clone, "two") as two:
        ready = answers("/")
        with python(clone, image, SERVER, networks=[one, two], aliases=["far.example"], port=8080, ready=ready) as part:
            state = part.state()
            (published,) = state["NetworkSettings"]["Ports"]["8080/tcp"]
            assert published == {"HostIp": "127.0.0.1", "HostPort": str(part.published)}
            assert state["Config"]["Labels"][LABEL] == clone.project
            joined = state["NetworkSettings"]["Networks"]
            assert set(joined) == {one, two}
            assert "far.example" in joined[one]["Aliases"] and "far.example" not in (joined[two]["Aliases"] or [])
            name = part.name
        assert clone.docker("inspect", name).returncode != 0
        # The next run finds by this label what a killed run has left.
        left = python(clone, image, SERVER, networks=[one]).start()
        projects.remove(clone.project)
        assert clone.docker("inspect", name).returncode != 0
        left.stop()


def test_a_part_that_ends_is_not_waited_for_and_says_why(clone: Clone, image: str) -> None:
    program = "import sys; sys.exit('there is no such cloud')"
    with (
        pytest.raises(AssertionError, match="-part ended with 1, still not: prints 'ready'") as failed,
        python(clone, image, program, networks=["none"], ready=prints("ready")),
    ):
        pass
    assert "there is no such cloud" in failed.value.__notes__[0]
    assert clone.docker("inspect", f"{clone.project}-part").returncode != 0
