"""The choice of images, the digest in their tags, and the secrets of a build."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from io3ops.errors import BuildOffline
from io3ops.operations.stack import build_images, images
from io3ops.settings import read_settings


def tools(root: Path, here: set[str], *, registry: bool = False, **environment: str) -> Any:
    asked: list[int] = []

    def answers(_reference: str, timeout: int) -> tuple[bool, str]:
        asked.append(timeout)
        return registry, "" if registry else "no route"

    return SimpleNamespace(
        asked=asked,
        settings=read_settings(environment, root, {}),
        engine=SimpleNamespace(
            image_id=lambda tag: "id" if any(tag.startswith(h) for h in here) else None,
            images=lambda _repository: (),
            registry_answers=answers,
            command=lambda: "docker",
        ),
        processes=SimpleNamespace(run=lambda _argv: SimpleNamespace(ok=False, output="")),
    )


def runtime(it: Any) -> tuple[images.Origin, str]:
    found = images.decide(it, runs_runtime=True).runtime
    return found.origin, found.tag


def test_a_present_image_asks_no_registry(root: Path) -> None:
    it = tools(root, {"io3ops/ollama:", "io3ops/gateway:"})
    assert not images.decide(it, runs_runtime=True).missing and it.asked == []


def test_the_runtime_is_pulled_from_a_registry_or_built_without_one(root: Path) -> None:
    it = tools(root, set())
    assert runtime(it)[0] is images.Origin.BUILD and max(it.asked) <= 3, "an unreachable registry costs at most 3 s"
    assert runtime(tools(root, set(), registry=True))[0] is images.Origin.OFFICIAL
    assert runtime(tools(root, {images.OFFICIAL}))[0] is images.Origin.OFFICIAL, "the vendor's image is already present"


def test_the_setting_decides(root: Path) -> None:
    it = tools(root, {images.OFFICIAL}, registry=True, IO3OPS_IMAGES="build")
    assert runtime(it)[0] is images.Origin.BUILD and it.asked == []
    with pytest.raises(BuildOffline):
        runtime(tools(root, set(), IO3OPS_IMAGES="registry"))
    built = f"io3ops/ollama:{images.OLLAMA_VERSION}-built"
    assert runtime(tools(root, {built}, registry=True, IO3OPS_IMAGES="registry"))[0] is images.Origin.OFFICIAL


def test_the_digest_covers_every_file_that_a_build_reads(tmp_path: Path) -> None:
    (tmp_path / "d/sub").mkdir(parents=True)
    for name, text in (("d/a", "1"), ("d/sub/b", "2"), ("lock", "3")):
        (tmp_path / name).write_text(text)
    seen = {images.digest(tmp_path, ("d", "lock"))}
    for name in ("d/a", "d/sub/b", "lock"):
        (tmp_path / name).write_text("9")
        seen.add(images.digest(tmp_path, ("d", "lock")))
    (tmp_path / "d/a").rename(tmp_path / "d/c")
    seen.add(images.digest(tmp_path, ("d", "lock")))
    assert len(seen) == 5
    (tmp_path / "d/__pycache__").mkdir()
    (tmp_path / "d/__pycache__/x.pyc").write_text("x")
    assert images.digest(tmp_path, ("d", "lock")) in seen, "compiled files are not an input"


def test_the_gateways_inputs_are_those_that_its_dockerfile_copies(root: Path) -> None:
    assert {"images/gateway", "requirements/gateway.lock", "src/io3ops_gateway"} <= set(images.GATEWAY_INPUTS)
    assert "images/ollama" in images.RUNTIME_INPUTS


def test_every_file_names_the_same_version_of_ollama(root: Path) -> None:
    """A tag with another version than the image contains would mislead."""
    dockerfile = (root / "images/ollama/Dockerfile").read_text("utf-8")
    named = {
        images.OLLAMA_VERSION,
        *re.findall(r"^ARG OLLAMA_VERSION=(\S+)$", dockerfile, re.M),
        *re.findall(r"^ARG OFFICIAL=ollama/ollama:(\S+)$", dockerfile, re.M),
        *re.findall(r"github\.com/ollama/ollama v(\S+)", (root / "images/ollama/go.mod").read_text("utf-8")),
    }
    assert len(named) == 1, named


def test_an_index_with_a_password_reaches_a_build_only_as_a_secret(root: Path, tmp_path: Path) -> None:
    secret = "https://me:hunter2@index.example/simple"
    it = tools(root, set(), PIP_INDEX_URL=secret, UV_INDEX=secret, GOPROXY=secret, HTTPS_PROXY=secret)
    image = images.Image(name="gateway", tag="t", origin=images.Origin.BUILD, cause="c")
    with build_images._secrets(it) as found:
        argv = build_images._argv(it, image, "base", found)
        assert not [a for a in argv if "hunter2" in a]
        files = [Path(a.split("src=")[1]) for a in argv if "src=" in a]
        assert len([f for f in files if "hunter2" in f.read_text("utf-8")]) == 3
    assert not [f for f in files if f.exists()], "removed after the build"
