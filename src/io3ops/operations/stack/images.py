"""The images: which ones, whether they are there, and how they are made."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from io3ops.adapters import files
from io3ops.adapters.process import Finished
from io3ops.console import Step
from io3ops.errors import BuildFailed, BuildOffline, Io3opsError
from io3ops.tools import Tools

OLLAMA_VERSION = "0.32.15"
OFFICIAL = f"ollama/ollama:{OLLAMA_VERSION}"
BASE_FROM_REGISTRY = "debian:trixie-slim"
BASE_FROM_PACKAGES = "io3ops/base:trixie"
REGISTRY_TIMEOUT = 3

RUNTIME_INPUTS = ("images/ollama",)
GATEWAY_INPUTS = (
    "images/gateway",
    "requirements/gateway.lock",
    "requirements/observer.lock",
    "requirements/uv.lock",
    "src/io3ops_gateway",
    "src/io3ops_observer",
    "src/io3ops_shared",
    ".dockerignore",
)


EGRESS_INPUTS = ("images/egress", "images/gateway/build-env.sh", ".dockerignore")
FOLDERS = {"runtime": "images/ollama", "gateway": "images/gateway", "egress": "images/egress"}


@dataclass(frozen=True, kw_only=True)
class Image:
    """One image to use. `how`: present, official (`vendor` with one folder added) or build."""

    name: str
    tag: str
    how: str
    cause: str
    vendor: str = ""


@dataclass(frozen=True, kw_only=True)
class Images:
    """`egress` is '' where nothing outside is in the table."""

    runtime: Image
    gateway: Image
    egress: Image

    @property
    def missing(self) -> tuple[Image, ...]:
        return tuple(i for i in (self.runtime, self.gateway, self.egress) if i.how != "present")


def decide(tools: Tools, *, runs_runtime: bool, outside: bool = False, gpu: str = "") -> Images:
    """Which images this clone needs. Asks a registry only when the runtime image is not here, for at most 3 s."""
    root = tools.settings.root
    policy = tools.settings.images
    gateway = _ours(tools, "gateway", GATEWAY_INPUTS)
    egress = Image(name="egress", tag="", how="present", cause="nothing outside is in the table")
    if outside:
        egress = _ours(tools, "egress", EGRESS_INPUTS)
    runtime = Image(name="runtime", tag="", how="present", cause="an external runtime is used")
    if runs_runtime:
        runtime = _runtime(tools, digest(root, RUNTIME_INPUTS), policy, gpu)
    return Images(runtime=runtime, gateway=gateway, egress=egress)


def _ours(tools: Tools, name: str, inputs: Iterable[str]) -> Image:
    """An image that only we make: of the given inputs, so a change of them is another image."""
    tag = f"io3ops/{name}:{digest(tools.settings.root, inputs)}"
    if tools.engine.image_id(tag) is not None:
        return Image(name=name, tag=tag, how="present", cause="inputs unchanged")
    cause = "inputs changed" if tools.engine.images(f"io3ops/{name}") else "not built yet"
    return Image(name=name, tag=tag, how="build", cause=cause)


def gateway_image(tools: Tools) -> str:
    """The gateway's image. Raises BuildOffline when it was not built yet."""
    tag = f"io3ops/gateway:{digest(tools.settings.root, GATEWAY_INPUTS)}"
    if tools.engine.image_id(tag) is None:
        raise BuildOffline("the gateway image is not built yet, and the loader is in it", hint="`make up` builds it")
    return tag


def contained(tools: Tools, image: str, program: str, *, network: str, options: Iterable[str] = ()) -> list[str]:
    """The command for a program of an image in a container that may do nothing but look, and is gone afterwards."""
    argv = [tools.engine.command(), "run", "--rm", "--network", network, "--read-only", "--tmpfs", "/tmp"]
    argv += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    return [*argv, *options, "--entrypoint", program, image]


def run_once(
    tools: Tools, image: str, program: str, arguments: Iterable[str], *, network: str, options: Iterable[str] = ()
) -> Finished:
    """Such a program, run to its end; as the image's own user."""
    argv = contained(tools, image, program, network=network, options=options)
    return tools.processes.run([*argv, *arguments], timeout=120)


def _runtime(tools: Tools, inputs: str, policy: str, gpu: str) -> Image:
    vendor = _vendor(gpu)
    official = f"io3ops/ollama:{vendor.partition(':')[2]}-official-{inputs}"
    built = f"io3ops/ollama:{OLLAMA_VERSION}-built-{inputs}"
    for tag, wanted in ((official, policy != "build"), (built, policy != "registry")):
        if wanted and tools.engine.image_id(tag):
            return Image(name="runtime", tag=tag, how="present", cause="inputs unchanged")
    if policy == "build":
        return Image(name="runtime", tag=built, how="build", cause="IO3OPS_IMAGES=build")
    if tools.engine.image_id(vendor):
        return Image(name="runtime", tag=official, how="official", cause=f"{vendor} is here", vendor=vendor)
    answers, why = tools.engine.registry_answers(vendor, REGISTRY_TIMEOUT)
    if answers:
        return Image(
            name="runtime",
            tag=official,
            how="official",
            cause=f"{vendor} is served by the image registry",
            vendor=vendor,
        )
    if policy == "registry":
        raise BuildOffline(
            "no image registry answers, and IO3OPS_IMAGES=registry forbids building",
            details=why,
            hint="unset IO3OPS_IMAGES",
        )
    return Image(name="runtime", tag=built, how="build", cause="no image registry answers")


def _vendor(gpu: str) -> str:
    # The vendor's default image carries CUDA; ROCm has an image of its own.
    return f"{OFFICIAL}-rocm" if gpu == "amd" else OFFICIAL


def ensure(tools: Tools, images: Images, step: Step) -> None:
    """Make what is missing, both at once. Raises BuildFailed, BuildOffline or EngineLost."""
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
    """One `docker buildx build`. A thread, because two cores build two images sooner than one after the other."""

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
        except Exception as error:  # a thread's exception would be lost, and the build taken for done
            self.failure = BuildFailed(
                f"the {self._image.name} image could not be built: {error}", hint="run the same command again"
            )
            return
        if not done.ok:
            self.failure = BuildFailed(
                f"the {self._image.name} image could not be built (exit code {done.code})",
                details=done.tail(12),
                hint="mostly the network: package registries must be reachable from the engine, through your proxy and CA (IO3OPS_CA_DIR)",
            )


def _argv(tools: Tools, image: Image, base: str, secrets: Iterable[str]) -> list[str]:
    folder = FOLDERS[image.name]
    context = folder if image.name == "runtime" else "."
    docker = tools.engine.command()
    # The builder of the current context stores its result in the engine itself; one chosen by
    # `docker buildx use` may not, and could not see local base images either.
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
    if image.how == "official":
        argv += ["--target", "official", "--build-arg", f"OFFICIAL={image.vendor}"]
    if tools.settings.debian_mirror:
        argv += ["--build-arg", f"DEBIAN_MIRROR={tools.settings.debian_mirror}"]
        argv += ["--build-arg", f"DEBIAN_SECURITY_MIRROR={tools.settings.debian_mirror.rstrip('/')}-security"]
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"):
        if tools.settings.environment.get(name):
            argv += ["--build-arg", name]
    return [*argv, *secrets, context]


def _base(tools: Tools, images: Images, step: Step) -> str:
    """The Debian base: the registry's when it answers, else one bootstrapped from Debian's packages."""
    needs_base = [i for i in images.missing if i.how == "build"]
    if not needs_base or tools.engine.image_id(BASE_FROM_REGISTRY):
        return BASE_FROM_REGISTRY
    if tools.engine.image_id(BASE_FROM_PACKAGES):
        return BASE_FROM_PACKAGES
    # The runtime is built only when no registry answered: no need to wait for that answer again.
    asked = images.runtime.how == "build" or tools.settings.images == "build"
    if not asked and tools.engine.registry_answers(BASE_FROM_REGISTRY, REGISTRY_TIMEOUT)[0]:
        return BASE_FROM_REGISTRY
    step.note("no image registry answers: bootstrapping the Debian base from its packages")
    _bootstrap(tools, step)
    return BASE_FROM_PACKAGES


def _bootstrap(tools: Tools, step: Step) -> None:
    if not tools.processes.which("mmdebstrap"):
        if tools.settings.install_docker == "never" or not tools.packages.usable():
            raise BuildOffline(
                "no image registry answers, and the Debian base cannot be bootstrapped: mmdebstrap is not installed",
                hint=f"sudo apt-get install mmdebstrap, or `docker load` an image {BASE_FROM_REGISTRY} from another machine",
            )
        tools.packages.update(step.activity("apt"))
        tools.packages.install(["mmdebstrap", "debian-archive-keyring"], step.activity("apt"))
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "base.tar"
        # An old mirror's Release file may be past its date; its signature is still checked.
        argv = ["mmdebstrap", "--variant=apt", '--aptopt=Acquire::Check-Valid-Until "false"', "trixie", str(archive)]
        done = tools.processes.stream(
            [*argv, *([tools.settings.debian_mirror] if tools.settings.debian_mirror else [])],
            step.activity("mmdebstrap"),
        )
        if not done.ok:
            raise BuildFailed(
                "the Debian base could not be bootstrapped",
                details=done.tail(),
                hint="is Debian's package archive reachable? IO3OPS_DEBIAN_MIRROR names another mirror",
            )
        loaded = tools.processes.run(
            [tools.engine.command(), "import", "--change", 'CMD ["/bin/bash"]', str(archive), BASE_FROM_PACKAGES]
        )
        if not loaded.ok:
            raise BuildFailed(
                "the engine did not take the Debian base",
                details=loaded.tail(4),
                hint="is its disk full? `docker system df`",
            )


@contextlib.contextmanager
def _secrets(tools: Tools) -> Iterator[list[str]]:
    """`--secret` arguments: what a build must know and no image may keep."""
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
    """The index that a company wrote to its pip.conf: `pip_index_url` -> global.index-url."""
    if not secret.startswith("pip_"):
        return ""
    name = secret.removeprefix("pip_").replace("_", "-")
    shown = tools.processes.run([sys.executable, "-m", "pip", "config", "get", f"global.{name}"])
    return shown.output.strip() if shown.ok else ""


def digest(root: Path, inputs: Iterable[str]) -> str:
    """A name for the content of the given files and folders: same content, same 12 digits."""
    found = hashlib.sha256()
    for entry in inputs:
        path = root / entry
        paths = (
            sorted(p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts and p.name != ".DS_Store")
            if path.is_dir()
            else [path]
        )
        for file in paths:
            content = file.read_bytes()
            found.update(f"{file.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return found.hexdigest()[:12]
