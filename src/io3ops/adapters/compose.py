"""Docker Compose, through its command: the same files and project that a user's own `docker compose` sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from io3ops.adapters.process import Finished, Processes
from io3ops.errors import ComposeFailed, NoSubnet, PortTaken


class Compose:
    """One project. `variables`: what `.env` says, given again so that a stray environment cannot win."""

    def __init__(self, processes: Processes, root: Path, docker: Callable[[], str]) -> None:
        self._processes = processes
        self._root = root
        self._docker = docker

    def up(
        self, services: Sequence[str], variables: Mapping[str, str], *, profile: str = "", anew: bool = False
    ) -> None:
        """Create or update and start; returns when the containers were started, healthy or not. `anew`: also what is as it should be."""
        argv = self._argv("--profile", profile) if profile else self._argv()
        argv += [
            "up",
            "--detach",
            "--no-build",
            "--pull",
            "never",
            "--no-deps",
            *(["--force-recreate"] if anew else []),
        ]
        argv += [*services] if profile else ["--remove-orphans", *services]
        self._run(argv, variables)

    def down(self, variables: Mapping[str, str], *, volumes: bool = False) -> None:
        """Stop and remove the containers and networks; the named volumes only when asked."""
        self._run(
            [*self._argv("--profile", "*"), "down", "--remove-orphans", *(["--volumes"] if volumes else [])], variables
        )

    def remove(self, service: str, variables: Mapping[str, str]) -> None:
        self._run([*self._argv("--profile", "*"), "rm", "--stop", "--force", service], variables)

    def restart(self, service: str, variables: Mapping[str, str]) -> None:
        self._run([*self._argv(), "restart", service], variables)

    def _argv(self, *options: str) -> list[str]:
        return [self._docker(), "compose", "--project-directory", str(self._root), *options]

    def _run(self, argv: Sequence[str], variables: Mapping[str, str]) -> Finished:
        done = self._processes.run(argv, env=variables)
        if done.ok:
            return done
        if "port is already allocated" in done.errors or "address already in use" in done.errors:
            # The port was free in the preflight and taken a moment later: rare, and worth its own name.
            raise PortTaken(f"port {variables.get('IO3OPS_PORT')} is taken", hint=port_hint(), details=done.tail(3))
        if "Pool overlaps with other one" in done.errors:
            # As with a port: another network took them between the choice and the start.
            raise NoSubnet(
                "the addresses chosen for a network of the stack are taken",
                hint="run the same command again",
                details=done.tail(3),
            )
        raise ComposeFailed(
            f"`docker compose {' '.join(a for a in argv[4:])}` failed (exit code {done.code})",
            details=done.tail(),
            hint="the lines above are Compose's own; `io3ops status` shows what runs",
        )


def port_hint() -> str:
    return "stop the program that uses it, or choose another port: add IO3OPS_PORT=4100 to .env and run `make up` again"
