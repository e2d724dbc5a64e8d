"""Docker Compose, through its command, with the files and the project that the user's own `docker compose` uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from io3ops.adapters.process import Finished, Processes
from io3ops.errors import ComposeFailed, NoSubnet, PortTaken


class Compose:
    """One project. Every call passes the variables of `.env`, so that the shell's environment cannot override them.

    Calls raise PortTaken, NoSubnet or ComposeFailed.
    """

    def __init__(self, processes: Processes, root: Path, docker: Callable[[], str]) -> None:
        self._processes = processes
        self._root = root
        self._docker = docker

    def up(
        self, services: Sequence[str], variables: Mapping[str, str], *, profile: str = "", recreate: bool = False
    ) -> None:
        """Create or update the services and start them; do not wait until they are healthy.

        `recreate`: replace their containers even when nothing changed.
        """
        argv = self._argv("--profile", profile) if profile else self._argv()
        argv += [
            "up",
            "--detach",
            "--no-build",
            "--pull",
            "never",
            "--no-deps",
            *(["--force-recreate"] if recreate else []),
        ]
        argv += [*services] if profile else ["--remove-orphans", *services]
        self._run(argv, variables)

    def down(self, variables: Mapping[str, str], *, volumes: bool = False) -> None:
        """Stop and remove the containers and networks; with `volumes` also the named volumes."""
        self._run(
            [*self._argv("--profile", "*"), "down", "--remove-orphans", *(["--volumes"] if volumes else [])], variables
        )

    def remove(self, service: str, variables: Mapping[str, str]) -> None:
        """Stop and remove one service's container."""
        self._run([*self._argv("--profile", "*"), "rm", "--stop", "--force", service], variables)

    def restart(self, service: str, variables: Mapping[str, str]) -> None:
        """Restart one service's container."""
        self._run([*self._argv(), "restart", service], variables)

    def _argv(self, *options: str) -> list[str]:
        return [self._docker(), "compose", "--project-directory", str(self._root), *options]

    def _run(self, argv: Sequence[str], variables: Mapping[str, str]) -> Finished:
        done = self._processes.run(argv, env=variables)
        if done.ok:
            return done
        if "port is already allocated" in done.errors or "address already in use" in done.errors:
            # Another program took the port after the check at the start of `up`.
            raise PortTaken(f"port {variables.get('IO3OPS_PORT')} is taken", hint=port_hint(), details=done.tail(3))
        if "Pool overlaps with other one" in done.errors:
            # Another network took the addresses after they were chosen.
            raise NoSubnet(
                "the addresses that were chosen for a network of the stack are taken",
                hint="run the same command again",
                details=done.tail(3),
            )
        raise ComposeFailed(
            f"`docker compose {' '.join(a for a in argv[4:])}` failed (exit code {done.code})",
            details=done.tail(),
            hint="the lines above are Compose's own; `io3ops status` shows the state of each container",
        )


def port_hint() -> str:
    """Return the hint for a port that another program uses."""
    return (
        "stop the program that uses it, or choose another port: add IO3OPS_PORT=4100 to .env, then run `make up` again"
    )
