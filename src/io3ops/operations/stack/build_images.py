"""Builds the missing images: with `docker buildx`, on a Debian base from a registry or from Debian's packages."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from io3ops.adapters import files
from io3ops.console import Step
from io3ops.errors import BuildFailed, BuildOffline, Io3opsError
from io3ops.operations.stack.images import REGISTRY_TIMEOUT, Image, Images, Origin
from io3ops.tools import Tools

BASE_FROM_REGISTRY = "debian:trixie-slim"
BASE_FROM_PACKAGES = "io3ops/base:trixie"
FOLDERS = {"runtime": "images/ollama", "gateway": "images/gateway", "egress": "images/egress"}


def build(tools: Tools, images: Images, step: Step) -> None:
    """Make the missing images, all at once. Raises BuildFailed, BuildOffline or EngineLost."""
    vendor = images.runtime.vendor
    if vendor and tools.engine.image_id(vendor) is None:
        tools.engine.pull(vendor, step.progress(f"pulling {vendor}"))
    base = _base(tools, images, step)
    with _secrets(tools) as secrets:
        jobs = [_Build(tools, image, base, secrets, step) for image in images.missing]
        for job in jobs:
            job.start()
        try:
            for job in jobs:
                while job.is_alive():
                    job.join(0.2)
        except BaseException:
            for job in jobs:
                job.cancelled = True
            raise
    for job in jobs:
        if job.failure:
            raise job.failure
    step.outcome = ", ".join(i.tag for i in images.missing)


class _Build(threading.Thread):
    """One `docker buildx build`, in a thread of its own so that the images are built in parallel."""

    def __init__(self, tools: Tools, image: Image, base: str, secrets: Iterable[str], step: Step) -> None:
        super().__init__(daemon=True)
        self._tools = tools
        self._image = image
        self._argv = _argv(tools, image, base, secrets)
        self._show = step.activity("building")
        self.cancelled = False
        self.failure: Io3opsError | None = None

    def run(self) -> None:
        def line(text: str) -> None:
            if self.cancelled:
                raise SystemExit
            if text.startswith("#"):
                self._show(f"{self._image.name} {text}")

        try:
            done = self._tools.processes.stream(self._argv, line)
        except Exception as error:  # noqa: BLE001  an exception that leaves the thread is lost, and the build would count as done
            self.failure = BuildFailed(
                f"the {self._image.name} image could not be built: {error}", hint="run the same command again"
            )
            return
        if not done.ok:
            self.failure = BuildFailed(
                f"the {self._image.name} image could not be built (exit code {done.code})",
                details=done.tail(12),
                hint="check the network first: the engine must reach the package registries, through your proxy and with your certificates (IO3OPS_CA_DIR)",
            )


def _argv(tools: Tools, image: Image, base: str, secrets: Iterable[str]) -> list[str]:
    folder = FOLDERS[image.name]
    context = folder if image.name == "runtime" else "."
    docker = tools.engine.command()
    # Use the builder of the current context, which stores its result in the engine. One that `docker buildx use` chose may not do
    # so, and may not see local base images.
    builder = tools.processes.run([docker, "context", "show"]).output.strip() or "default"
    argv = [
        docker,
        "buildx",
        "--builder",
        builder,
        "build",
        "--progress=plain",
        "--load",
        "--provenance=false",
        "--tag",
        image.tag,
    ]
    argv += ["--file", f"{folder}/Dockerfile", "--build-arg", f"BASE={base}"]
    if image.origin is Origin.OFFICIAL:
        argv += ["--target", "official", "--build-arg", f"OFFICIAL={image.vendor}"]
    if tools.settings.debian_mirror:
        argv += ["--build-arg", f"DEBIAN_MIRROR={tools.settings.debian_mirror}"]
        argv += ["--build-arg", f"DEBIAN_SECURITY_MIRROR={tools.settings.debian_mirror.rstrip('/')}-security"]
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"):
        if tools.settings.environment.get(name):
            argv += ["--build-arg", name]
    return [*argv, *secrets, context]


def _base(tools: Tools, images: Images, step: Step) -> str:
    """Return the Debian base: that of the registry if it answers, else one that is made from Debian's packages."""
    needs_base = [i for i in images.missing if i.origin is Origin.BUILD]
    if not needs_base or tools.engine.image_id(BASE_FROM_REGISTRY):
        return BASE_FROM_REGISTRY
    if tools.engine.image_id(BASE_FROM_PACKAGES):
        return BASE_FROM_PACKAGES
    # A runtime that must be built means that no registry answered, so do not ask again.
    asked = images.runtime.origin is Origin.BUILD or tools.settings.images == "build"
    if not asked and tools.engine.registry_answers(BASE_FROM_REGISTRY, REGISTRY_TIMEOUT)[0]:
        return BASE_FROM_REGISTRY
    step.note("no image registry answers: making the Debian base from its packages")
    _bootstrap(tools, step)
    return BASE_FROM_PACKAGES


def _bootstrap(tools: Tools, step: Step) -> None:
    if not tools.processes.which("mmdebstrap"):
        if tools.settings.install_docker == "never" or not tools.packages.usable():
            raise BuildOffline(
                "no image registry answers, and mmdebstrap, which makes the Debian base, is not installed",
                hint=f"run `sudo apt-get install mmdebstrap`, or `docker load` the image {BASE_FROM_REGISTRY} from another machine",
            )
        tools.packages.update(step.activity("apt"))
        tools.packages.install(["mmdebstrap", "debian-archive-keyring"], step.activity("apt"))
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "base.tar"
        # A mirror's Release file may have expired; its signature is still checked.
        argv = ["mmdebstrap", "--variant=apt", '--aptopt=Acquire::Check-Valid-Until "false"', "trixie", str(archive)]
        done = tools.processes.stream(
            [*argv, *([tools.settings.debian_mirror] if tools.settings.debian_mirror else [])],
            step.activity("mmdebstrap"),
        )
        if not done.ok:
            raise BuildFailed(
                "the Debian base could not be made",
                details=done.tail(),
                hint="check that Debian's package archive is reachable, or set IO3OPS_DEBIAN_MIRROR to another mirror",
            )
        loaded = tools.processes.run(
            [tools.engine.command(), "import", "--change", 'CMD ["/bin/bash"]', str(archive), BASE_FROM_PACKAGES]
        )
        if not loaded.ok:
            raise BuildFailed(
                "the Docker engine could not import the Debian base",
                details=loaded.tail(4),
                hint="its disk may be full: `docker system df` shows it",
            )


@contextlib.contextmanager
def _secrets(tools: Tools) -> Iterator[list[str]]:
    """Yield the `--secret` arguments: values that a build needs and no image may contain."""
    environment = tools.settings.environment
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "extra_ca.pem"
        bundle.write_bytes(b"\n".join(files.ca_certificates(tools.settings.ca_dir).values()))
        found = ["--secret", f"id=extra_ca,src={bundle}"]
        for secret, names in (
            ("pip_index_url", ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")),
            ("pip_extra_index_url", ("UV_INDEX", "UV_EXTRA_INDEX_URL", "PIP_EXTRA_INDEX_URL")),
            ("goproxy", ("GOPROXY",)),
        ):
            value = next((environment[n] for n in names if environment.get(n)), "") or _pip_setting(tools, secret)
            if value:
                (Path(folder) / secret).write_text(value, "utf-8")
                found += ["--secret", f"id={secret},src={Path(folder) / secret}"]
        yield found


def _pip_setting(tools: Tools, secret: str) -> str:
    """Return the index from the user's pip.conf: `pip_index_url` -> global.index-url."""
    if not secret.startswith("pip_"):
        return ""
    name = secret.removeprefix("pip_").replace("_", "-")
    shown = tools.processes.run([sys.executable, "-m", "pip", "config", "get", f"global.{name}"])
    return shown.output.strip() if shown.ok else ""
