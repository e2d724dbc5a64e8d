"""Decides which images a clone needs, and whether to take or to build each. Runs programs in them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from io3ops.adapters.process import Finished
from io3ops.errors import BuildOffline
from io3ops.settings import ImagePolicy
from io3ops.tools import Tools

OLLAMA_VERSION = "0.32.15"
OFFICIAL = f"ollama/ollama:{OLLAMA_VERSION}"
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


class Origin(StrEnum):
    """Where an image comes from. OFFICIAL: the vendor's image with one folder added."""

    PRESENT = "present"
    OFFICIAL = "official"
    BUILD = "build"


@dataclass(frozen=True, kw_only=True)
class Image:
    """One image, its origin and why. `vendor`: the base of an OFFICIAL one."""

    name: str
    tag: str
    origin: Origin
    cause: str
    vendor: str = ""


@dataclass(frozen=True, kw_only=True)
class Images:
    """The images of a stack. The tag of one that it does not need is ''."""

    runtime: Image
    gateway: Image
    egress: Image

    @property
    def missing(self) -> tuple[Image, ...]:
        """The images that must be made."""
        return tuple(i for i in (self.runtime, self.gateway, self.egress) if i.origin is not Origin.PRESENT)


def decide(tools: Tools, *, runs_runtime: bool, outside: bool = False, gpu: str = "") -> Images:
    """Choose the images of this clone. Ask a registry, for at most 3 s, only when the runtime's image is not here.

    Raises BuildOffline when no registry answers and IO3OPS_IMAGES forbids building.
    """
    root = tools.settings.root
    policy = tools.settings.images
    gateway = _ours(tools, "gateway", GATEWAY_INPUTS)
    egress = Image(name="egress", tag="", origin=Origin.PRESENT, cause="the table names nothing outside the stack")
    if outside:
        egress = _ours(tools, "egress", EGRESS_INPUTS)
    runtime = Image(name="runtime", tag="", origin=Origin.PRESENT, cause="the table uses an external runtime")
    if runs_runtime:
        runtime = _runtime(tools, digest(root, RUNTIME_INPUTS), policy, gpu)
    return Images(runtime=runtime, gateway=gateway, egress=egress)


def _ours(tools: Tools, name: str, inputs: Iterable[str]) -> Image:
    """Return an image that we build ourselves. Its tag contains a digest of its inputs, so changed inputs give another image."""
    tag = f"io3ops/{name}:{digest(tools.settings.root, inputs)}"
    if tools.engine.image_id(tag) is not None:
        return Image(name=name, tag=tag, origin=Origin.PRESENT, cause="inputs unchanged")
    cause = "inputs changed" if tools.engine.images(f"io3ops/{name}") else "not built yet"
    return Image(name=name, tag=tag, origin=Origin.BUILD, cause=cause)


def gateway_image(tools: Tools) -> str:
    """Return the tag of the gateway's image. Raises BuildOffline when it is not built yet."""
    tag = f"io3ops/gateway:{digest(tools.settings.root, GATEWAY_INPUTS)}"
    if tools.engine.image_id(tag) is None:
        raise BuildOffline(
            "the gateway's image, which this command needs, is not built yet", hint="`make up` builds it"
        )
    return tag


def contained(tools: Tools, image: str, program: str, *, network: str, options: Iterable[str] = ()) -> list[str]:
    """Return the command that runs a program of an image in a temporary container without privileges."""
    argv = [tools.engine.command(), "run", "--rm", "--network", network, "--read-only"]
    argv += ["--tmpfs", "/tmp"]  # noqa: S108  the container's own
    argv += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    return [*argv, *options, "--entrypoint", program, image]


def run_once(
    tools: Tools, image: str, program: str, arguments: Iterable[str], *, network: str, options: Iterable[str] = ()
) -> Finished:
    """Run a program of an image to its end in such a container, as the image's own user."""
    argv = contained(tools, image, program, network=network, options=options)
    return tools.processes.run([*argv, *arguments], timeout=120)


def _runtime(tools: Tools, inputs: str, policy: ImagePolicy, gpu: str) -> Image:
    vendor = _vendor(gpu)
    official = f"io3ops/ollama:{vendor.partition(':')[2]}-official-{inputs}"
    built = f"io3ops/ollama:{OLLAMA_VERSION}-built-{inputs}"
    for tag, wanted in ((official, policy != "build"), (built, policy != "registry")):
        if wanted and tools.engine.image_id(tag):
            return Image(name="runtime", tag=tag, origin=Origin.PRESENT, cause="inputs unchanged")
    if policy == "build":
        return Image(name="runtime", tag=built, origin=Origin.BUILD, cause="IO3OPS_IMAGES=build")
    if tools.engine.image_id(vendor):
        return Image(name="runtime", tag=official, origin=Origin.OFFICIAL, cause=f"{vendor} is present", vendor=vendor)
    answers, why = tools.engine.registry_answers(vendor, REGISTRY_TIMEOUT)
    if answers:
        return Image(
            name="runtime",
            tag=official,
            origin=Origin.OFFICIAL,
            cause=f"the image registry serves {vendor}",
            vendor=vendor,
        )
    if policy == "registry":
        raise BuildOffline(
            "no image registry answers, and IO3OPS_IMAGES=registry forbids building",
            details=why,
            hint="check the network, or unset IO3OPS_IMAGES",
        )
    return Image(name="runtime", tag=built, origin=Origin.BUILD, cause="no image registry answers")


def _vendor(gpu: str) -> str:
    # The vendor's default image contains CUDA; ROCm has a separate image.
    return f"{OFFICIAL}-rocm" if gpu == "amd" else OFFICIAL


def digest(root: Path, inputs: Iterable[str]) -> str:
    """Return 12 digits that identify the content of the given files and folders."""
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
