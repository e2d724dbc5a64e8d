"""The distribution's package manager (apt), as root or through sudo without a password."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from io3ops.adapters.process import Finished, Processes
from io3ops.errors import InstallFailed

SOURCE = "/etc/apt/sources.list.d/io3ops-docker.sources"
PIN = "/etc/apt/preferences.d/io3ops-docker"


class Packages:
    """apt. Every failure is InstallFailed with the tool's last lines."""

    def __init__(self, processes: Processes, root: bool) -> None:
        self._processes = processes
        self._root = root

    def usable(self) -> bool:
        """Whether packages can be installed without asking for anything."""
        if not self._processes.which("apt-get"):
            return False
        return self._root or self._processes.run(["sudo", "-n", "true"]).ok

    def as_root(self, argv: Sequence[str]) -> list[str]:
        return list(argv) if self._root else ["sudo", "-n", *argv]

    def candidate(self, package: str) -> str:
        """The version that would be installed, '' when there is none."""
        shown = self._processes.run(["apt-cache", "policy", package], env={"LC_ALL": "C"}).output
        found = next(
            (line.split(":", 1)[1].strip() for line in shown.splitlines() if line.strip().startswith("Candidate:")), ""
        )
        return "" if found == "(none)" else found

    def mirror(self, suite: str) -> str:
        """Where this machine takes the suite from; the same mirror serves the others. Raises InstallFailed."""
        wanted = ["--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]
        shown = self._processes.run(["apt-get", "indextargets", *wanted])
        for line in shown.output.splitlines():
            uri, _, rest = line.partition(" ")
            if rest == f"{suite} main":
                return uri
        raise _failed(f"apt knows no mirror of Debian {suite}; IO3OPS_DEBIAN_MIRROR can name one", shown)

    def update(self, on_line: Callable[[str], None]) -> None:
        # A company mirror may be unreachable for one of many sources: what matters is checked afterwards
        # by `candidate`, so a partial failure is not one here.
        self._processes.stream(self.as_root(["apt-get", "update"]), on_line)

    def install(self, packages: Sequence[str], on_line: Callable[[str], None]) -> None:
        argv = [
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "install",
            "--yes",
            "--no-install-recommends",
            *packages,
        ]
        done = self._processes.stream(self.as_root(argv), on_line)
        if not done.ok:
            raise _failed(f"apt-get could not install {', '.join(packages)}", done)

    def add_pinned_suite(self, suite: str, mirror: str, packages: Sequence[str]) -> None:
        """Take only `packages` from another suite of Debian; everything else stays as it is."""
        source = (
            "# Added by io3ops: a Docker engine new enough for its stack. Remove this file and\n"
            f"# {PIN} to undo it.\nTypes: deb\nURIs: {mirror}\nSuites: {suite}\nComponents: main\n"
            "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        )
        pin = f"Package: *\nPin: release n={suite}\nPin-Priority: 50\n\nPackage: {' '.join(packages)}\nPin: release n={suite}\nPin-Priority: 600\n"
        for path, text in ((SOURCE, source), (PIN, pin)):
            done = self._processes.run(self.as_root(["tee", path]), stdin=text.encode())
            if not done.ok:
                raise _failed(f"{path} could not be written", done)


def _failed(message: str, done: Finished) -> InstallFailed:
    return InstallFailed(
        message,
        details=done.tail(8),
        hint="install Docker Engine 25 or newer with Compose and Buildx yourself, then run `make up`",
    )
