"""Bills of materials of the images that this clone would start, as a user makes them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from scripts import sbom
from tests.clone import Clone

from io3ops.operations.stack.images import OLLAMA_VERSION

pytestmark = pytest.mark.containers


def make(clone: Clone, *arguments: str) -> str:
    done = clone.run(sys.executable, "scripts/sbom.py", *arguments, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stderr


def versions(text: str) -> dict[str, str]:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    parts: list[dict[str, Any]] = json.loads(text)["components"]
    return {part["name"]: part.get("version", "") for part in parts}


def test_every_image_of_a_running_stack_has_a_bill(running: Clone, tmp_path: Path) -> None:
    told = make(running, "--all", "-o", str(tmp_path))
    tags = dict(re.findall(r"^(\w+) +(\S+:\S+)$", told, re.MULTILINE))
    gateway = (tmp_path / "gateway.cdx.json").read_text("utf-8")
    names = versions(gateway)
    assert names["litellm"] == "1.106.2"
    assert names["python3"].startswith("3.13") and names["ca-certificates"]
    # What is installed is what the lock says: nothing more, nothing else.
    locked = sbom.pins("\n".join((running.path / name).read_text("utf-8") for name in sbom.LOCKS))
    installed = {(part["name"], part["version"]) for part in json.loads(gateway)["components"]
                 if part.get("purl", "").startswith("pkg:pypi/")}  # fmt: skip
    assert len(installed) > 50 and installed <= set(locked)

    names = versions((tmp_path / "runtime.cdx.json").read_text("utf-8"))
    assert names["ollama"] == OLLAMA_VERSION == "0.32.15"
    assert names["stdlib"] and names["golang.org/x/crypto"].startswith("v")
    if "-built-" in tags["runtime"]:
        # The vendor's image has llama.cpp as files of its own, without a version.
        assert names["llama.cpp-tools"]

    make(running, tags["gateway"], "-o", str(tmp_path / "again.json"))
    assert (tmp_path / "again.json").read_text("utf-8") == gateway


def test_an_image_that_is_not_here_is_said(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, sbom.__file__, "io3ops/nowhere:none"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr
