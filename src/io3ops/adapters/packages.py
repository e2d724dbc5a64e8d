"""The package manager apt, run as root or through sudo without a password."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from io3ops.adapters.process import Finished, Processes
from io3ops.errors import InstallFailed

SOURCE = "/etc/apt/sources.list.d/io3ops-docker.sources"
PIN = "/etc/apt/preferences.d/io3ops-docker"


class Packages:
    """apt. Calls raise InstallFailed with the tool's last lines."""

    def __init__(self, processes: Processes, root: bool) -> None:
        self._processes = processes
        self._root = root

    def usable(self) -> bool:
        """Return whether packages can be installed without asking the user."""
        if not self._processes.which("apt-get"):
            return False
        return self._root or self._processes.run(["sudo", "-n", "true"]).ok

    def as_root(self, argv: Sequence[str]) -> list[str]:
        """Return the command that runs `argv` as root."""
        return list(argv) if self._root else ["sudo", "-n", *argv]

    def candidate(self, package: str) -> str:
        """Return the version that apt would install, '' when there is none."""
        shown = self._processes.run(["apt-cache", "policy", package], env={"LC_ALL": "C"}).output
        found = next(
            (line.split(":", 1)[1].strip() for line in shown.splitlines() if line.strip().startswith("Candidate:")), ""
        )
        return "" if found == "(none)" else found

    def mirror(self, suite: str) -> str:
        """Return the mirror from which this machine takes a suite; it serves the other suites too."""
        wanted = ["--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]
        shown = self._processes.run(["apt-get", "indextargets", *wanted])
        for line in shown.output.splitlines():
            uri, _, rest = line.partition(" ")
            if rest == f"{suite} main":
                return uri
        raise _failed(f"apt has no mirror of Debian {suite}; set IO3OPS_DEBIAN_MIRROR to one", shown)

    def update(self, on_line: Callable[[str], None]) -> None:
        """Read the package lists. Never fails."""
        # One of many sources may be unreachable. `candidate` shows afterwards whether the needed packages are known.
        self._processes.stream(self.as_root(["apt-get", "update"]), on_line)

    def install(self, packages: Sequence[str], on_line: Callable[[str], None]) -> None:
        """Install packages without their recommendations."""
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
        """Let apt take `packages`, and nothing else, from another suite of Debian."""
        source = (
            "# Added by io3ops to install a Docker engine that is new enough. To undo this, remove this file and\n"
            f"# {PIN}.\nTypes: deb\nURIs: {mirror}\nSuites: {suite}\nComponents: main\n"
            "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
        )
        pin = f"Package: *\nPin: release n={suite}\nPin-Priority: 50\n\nPackage: {' '.join(packages)}\nPin: release n={suite}\nPin-Priority: 600\n"
        for path, text in ((SOURCE, source), (PIN, pin)):
            done = self._processes.run(self.as_root(["tee", path]), stdin=text.encode())
            if not done.ok:
                raise _failed(f"{path} cannot be written", done)


def _failed(message: str, done: Finished) -> InstallFailed:
    return InstallFailed(
        message,
        details=done.tail(8),
        hint="install Docker Engine 25 or newer with Compose and Buildx yourself, then run `make up`",
    )
