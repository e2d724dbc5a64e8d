"""Changing the table of a running stack: taken when it works, put back when it does not, and edited in an editor."""

from __future__ import annotations

import json
import stat
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import yaml
from tests.clone import PATIENCE, Clone, until
from tests.fake_ollama import serve
from tests.fake_upstream import FakeUpstream
from tests.stacks import SharedStack

pytestmark = pytest.mark.containers

TABLE = """# yaml-language-server: $schema=routing.schema.json
version: 1
providers:
  host: {{kind: ollama, url: "http://127.0.0.1:{port}"}}
models:
  a: {{provider: host, source: {{external: a}}}}
  b: {{provider: host, source: {{external: b}}}}
modes:
  executor:
    chain: [a]
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[FakeUpstream]:
    yield FakeUpstream(("a", "b"))


@pytest.fixture(scope="module")
def clone(shared: SharedStack, upstream: FakeUpstream) -> Iterator[Clone]:
    with serve(upstream.answer) as port:
        yield shared.serve(TABLE.format(port=port))


def served_by(clone: Clone, mode: str = "executor") -> str:
    body = {"model": mode, "messages": [{"role": "user", "content": "x"}]}
    with httpx.Client(trust_env=False, timeout=PATIENCE, headers={"Authorization": f"Bearer {clone.key()}"}) as client:
        answer = client.post(f"http://127.0.0.1:{clone.port}/v1/chat/completions", json=body)
    return str(answer.json()["choices"][0]["message"]["content"])


def editor(tmp_path: Path, script: str) -> str:
    """An `$EDITOR` that changes its file with a Python expression on `text`."""
    path = tmp_path / "my editor"
    path.write_text(
        f"#!/usr/bin/env python3\nimport sys\np = sys.argv[1]\ntext = open(p).read()\nopen(p, 'w').write({script})\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return f"'{path}'"


def test_nothing_to_apply(clone: Clone) -> None:
    before = clone.container("gateway")
    assert clone.json("apply")["data"] == {"changed": False, "acted": []}
    assert clone.container("gateway") == before


def test_a_changed_table_is_taken_and_tested(clone: Clone) -> None:
    clone.edit_table("chain: [a]", "chain: [b]")
    assert clone.json("apply")["data"]["changed"]
    assert served_by(clone) == "from b"
    clone.edit_table("chain: [b]", "chain: [a]")
    assert clone.json("apply")["data"]["changed"]


def test_a_table_whose_mode_does_not_answer_is_put_back(clone: Clone, upstream: FakeUpstream) -> None:
    rendered = (clone.path / "runtime/litellm.yaml").read_bytes()
    table = (clone.path / "runtime/routing.yaml").read_text("utf-8")
    clone.edit_table("chain: [a]", "chain: [a]\n  broken: {chain: [b]}")
    upstream.reset(b="500")
    done = clone.io3ops("apply")
    assert done.returncode == 62, done.stderr
    assert "error E62 [gateway]" in done.stderr and "broken" in done.stderr and "\nhint: " in done.stderr
    upstream.reset()
    assert (clone.path / "runtime/litellm.yaml").read_bytes() == rendered, "the file too is the one that serves"
    assert served_by(clone) == "from a"
    assert "broken" in (clone.path / "runtime/routing.yaml").read_text("utf-8"), "the user's text is not touched"
    (clone.path / "runtime/routing.yaml").write_text(table, "utf-8")
    assert clone.json("apply")["ok"] and clone.json("health")["ok"]


def test_a_model_that_is_not_there_stops_before_the_gateway_is_touched(clone: Clone) -> None:
    before = clone.container("gateway")
    clone.edit_table("external: b", "external: nowhere")
    clone.edit_table("chain: [a]", "chain: [a, b]")
    done = clone.io3ops("apply")
    assert done.returncode == 50 and "nowhere" in done.stderr
    assert clone.container("gateway") == before and served_by(clone) == "from a"
    clone.edit_table("external: nowhere", "external: b")
    clone.edit_table("chain: [a, b]", "chain: [a]")
    assert clone.json("apply")["ok"]


def test_a_table_with_problems_changes_nothing(clone: Clone) -> None:
    clone.edit_table("chain: [a]", "chian: [a]")
    assert clone.io3ops("apply").returncode == 10
    clone.edit_table("chian: [a]", "chain: [a]")


def test_without_a_stack_there_is_nothing_to_apply_to(tmp_path: Path) -> None:
    idle = Clone.make(tmp_path)
    try:
        done = idle.io3ops("apply")
        assert done.returncode == 41 and "make up" in done.stderr
    finally:
        idle.remove()


def test_edit_takes_a_good_change(clone: Clone, tmp_path: Path) -> None:
    change = editor(tmp_path, "text.replace('chain: [a]', 'chain: [a, b]')")
    done = clone.io3ops("routes", "edit", EDITOR=change, VISUAL="")
    assert done.returncode == 0, done.stderr
    assert "+    chain: [a, b]" in done.stderr
    assert clone.io3ops("render-config", "--check").returncode == 0
    assert (
        clone.io3ops("routes", "edit", EDITOR=editor(tmp_path, "text"), VISUAL="").stderr.strip()
        == "nothing was changed"
    )
    clone.edit_table("chain: [a, b]", "chain: [a]")


def test_edit_keeps_a_bad_change_out_and_the_text_for_the_next_try(clone: Clone, tmp_path: Path) -> None:
    before = (clone.path / "runtime/routing.yaml").read_bytes()
    done = clone.io3ops("routes", "edit", EDITOR=editor(tmp_path, "text.replace('[a]', '[z]')"), VISUAL="")
    assert done.returncode == 10 and "unknown model 'z'" in done.stderr
    assert (clone.path / "runtime/routing.yaml").read_bytes() == before
    done = clone.io3ops("routes", "edit", EDITOR=editor(tmp_path, "text.replace('[z]', '[b]')"), VISUAL="")
    assert done.returncode == 0 and "continuing" in done.stderr
    assert "chain: [b]" in (clone.path / "runtime/routing.yaml").read_text("utf-8")
    clone.edit_table("chain: [b]", "chain: [a]")
    assert clone.io3ops("render-config").returncode == 0


def test_least_busy_gives_the_free_one_the_next_request(clone: Clone, upstream: FakeUpstream) -> None:
    clone.edit_table("version: 1", "version: 1\nbalance: least_busy")
    clone.edit_table("chain: [a]", "chain: [[a, b]]")
    assert clone.json("apply")["data"]["changed"]
    upstream.reset(a="hang")
    threads = [threading.Thread(target=served_by, args=(clone,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    until("one of them hangs at a", lambda: "a" in upstream.sequence() or not any(t.is_alive() for t in threads))
    for _ in range(8):
        assert served_by(clone) == "from b"
    assert Counter(upstream.sequence())["b"] >= 8
    upstream.reset()
    for thread in threads:
        thread.join()
    clone.edit_table("version: 1\nbalance: least_busy", "version: 1")
    clone.edit_table("chain: [[a, b]]", "chain: [a]")
    assert clone.json("apply")["ok"]


@pytest.mark.parametrize("name", ["starter", "laptop", "workstation"])
def test_the_schema_knows_what_the_parser_knows(root: Path, name: str) -> None:
    """Editors check with the schema: it takes every preset, and refuses what the parser refuses by itself."""
    text = (root / f"src/io3ops/presets/{name}.yaml").read_text("utf-8")
    assert text.startswith("# yaml-language-server: $schema=routing.schema.json\n")
    schema: Any = json.loads((root / "runtime/routing.schema.json").read_text("utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    found = yaml.safe_load(text)
    validator.validate(found)
    changes: tuple[dict[str, Any], ...] = (
        {"mods": {}},
        {"version": 2},
        {"modes": {"x": {"chain": []}}},
        {"modes": {"x": {"chain": ["a"], "timeouts": {"step": "5 min"}}}},
    )
    for change in changes:
        assert not validator.is_valid(found | change), change
