"""The error for each engine problem, and the packages that would be installed. Decisions only."""

from __future__ import annotations

from typing import Any

import pytest

from io3ops.adapters.docker_engine import EngineState, EngineStatus
from io3ops.adapters.machine import Machine
from io3ops.adapters.packages import PIN, SOURCE, Packages
from io3ops.adapters.process import Finished
from io3ops.operations.stack.engine import choose_install, refusal


def machine(**changes: Any) -> Machine:
    base: dict[str, Any] = {
        "system": "Linux", "distribution": "debian", "codename": "bookworm", "memory": 16 * 2**30,
        "cores": 4, "root": False, "systemd": True, "nvidia": False, "amd": False,
    }  # fmt: skip
    return Machine(**(base | changes))


@pytest.mark.parametrize(
    ("status", "changes", "policy", "code"),
    [
        (EngineStatus.MISSING, {}, "auto", None),
        (EngineStatus.MISSING, {"distribution": "ubuntu"}, "auto", None),
        (EngineStatus.MISSING, {}, "never", 20),
        (EngineStatus.MISSING, {"distribution": "fedora"}, "auto", 20),
        (EngineStatus.MISSING, {"system": "Darwin", "distribution": ""}, "auto", 20),
        (EngineStatus.NO_DAEMON, {}, "auto", None),
        (EngineStatus.NO_DAEMON, {}, "never", 20),
        (EngineStatus.STOPPED, {}, "never", None),
        (EngineStatus.DENIED, {}, "auto", 22),
        (EngineStatus.TOO_OLD, {}, "auto", 23),
        (EngineStatus.NO_COMPOSE, {}, "never", 24),
        (EngineStatus.NO_COMPOSE, {"distribution": "fedora"}, "auto", 24),
        (EngineStatus.NO_COMPOSE, {}, "auto", None),
        (EngineStatus.NO_BUILDX, {}, "never", 24),
        (EngineStatus.NO_BUILDX, {}, "auto", None),
        (EngineStatus.READY, {}, "auto", None),
    ],
)
def test_each_status_is_usable_repairable_or_its_own_error(
    status: EngineStatus, changes: dict[str, object], policy: str, code: int | None
) -> None:
    error = refusal(EngineState(status=status, detail="d"), machine(**changes), policy)
    assert (error.exit_code if error else None) == code
    assert error is None or error.hint


def test_an_old_debian_takes_only_the_engine_from_the_newer_suite() -> None:
    chosen = choose_install(machine(), {"docker.io": "20.10.24+dfsg1-1", "docker-compose": "1.29.2-3"})
    assert chosen.suite == "forky"
    assert "iptables" in chosen.packages
    assert "forky" in chosen.text(), "packages from another suite are announced before the installation"


def test_a_new_debian_takes_its_own_packages() -> None:
    assert choose_install(machine(), {"docker.io": "26.1.5+dfsg1-9", "docker-compose": "2.26.1-4"}).suite == ""


def test_ubuntu_has_another_name_for_compose() -> None:
    assert "docker-compose-v2" in choose_install(machine(distribution="ubuntu"), {}).packages


def test_an_engine_below_25_of_the_distribution_is_not_used() -> None:
    assert choose_install(machine(), {"docker.io": "24.0.9-1", "docker-compose": "2.26.1-4"}).suite == "forky"


def test_only_the_named_packages_come_from_the_newer_suite() -> None:
    """Other packages of that suite have a lower priority than installed ones (100) and the distribution's own (500)."""
    written: dict[str, str] = {}

    class Tee:
        def run(self, argv: list[str], *, stdin: bytes) -> Finished:
            written[argv[-1]] = stdin.decode()
            return Finished(argv=tuple(argv), code=0, output="")

    it: Any = Tee()
    Packages(it, root=True).add_pinned_suite("forky", "http://mirror/debian", ("docker.io",))
    general, named = written[PIN].strip().split("\n\n")
    assert general.startswith("Package: *\n") and int(general.rsplit(" ", 1)[1]) < 100
    assert named.startswith("Package: docker.io\n") and 500 < int(named.rsplit(" ", 1)[1]) < 990
    assert "Signed-By:" in written[SOURCE] and "URIs: http://mirror/debian" in written[SOURCE]


def test_versions_are_read_in_every_language() -> None:
    """apt translates the label of the version."""

    class German:
        def run(self, argv: list[str], *, env: dict[str, str] | None = None) -> Finished:
            word = "Candidate" if (env or {}).get("LC_ALL") == "C" else "Installationskandidat"
            return Finished(argv=tuple(argv), code=0, output=f"docker.io:\n  {word}: 26.1.5\n")

    it: Any = German()
    assert Packages(it, root=True).candidate("docker.io") == "26.1.5"
