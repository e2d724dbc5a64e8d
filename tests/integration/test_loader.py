"""LiteLLM's own loader takes every file that we render, and then holds exactly the plan: it silently drops what it cannot read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from tests.clone import Clone
from tests.tables import tables

from io3ops.operations.stack.images import GATEWAY_INPUTS, digest
from io3ops.operations.stack.validate import PYTHON, loaded, planned
from io3ops.routing.load import parse_table
from io3ops.routing.plan import Plan, make_plan
from io3ops.routing.render import render

pytestmark = pytest.mark.containers


def sample() -> list[Plan]:
    """Forty generated tables, the same ones each time."""
    found: list[Plan] = []

    @settings(max_examples=40, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(tables())
    def collect(table: dict[str, Any]) -> None:
        found.append(make_plan(parse_table(yaml.safe_dump(table, sort_keys=False, allow_unicode=True).encode(), "t")))

    collect()
    return found


def test_what_litellm_holds_is_what_was_planned(running: Clone, root: Path, tmp_path: Path) -> None:
    plans = {f"generated-{i:02}.yaml": plan for i, plan in enumerate(sample())}
    for name in ("starter", "laptop", "workstation"):
        plans[f"{name}.yaml"] = make_plan(parse_table((root / f"src/io3ops/presets/{name}.yaml").read_bytes(), name))
    for name, plan in plans.items():
        (tmp_path / name).write_text(render(plan), "utf-8")
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o755)
    image = f"io3ops/gateway:{digest(running.path, GATEWAY_INPUTS)}"
    mount = ["-v", f"{tmp_path}:/t:ro", "--entrypoint", PYTHON]
    done = running.docker(
        "run", "--rm", "--network", "none", *mount, image, "-m", "io3ops_gateway.litellm_proxy.validate", "/t"
    )
    held = loaded(done.stdout)
    assert set(held) == set(plans), done.stdout[-2000:] + done.stderr[-2000:]
    for name, plan in plans.items():
        assert held[name] == planned(plan), name


def test_a_file_that_litellm_does_not_load_as_planned_is_never_written(running: Clone) -> None:
    """The template of a copy of the package is broken: a provider that LiteLLM does not know is dropped without a word."""
    broken = running.path / "broken"
    shutil.copytree(running.path / "src/io3ops", broken / "io3ops")
    render_py = broken / "io3ops/routing/render.py"
    text = render_py.read_text("utf-8")
    render_py.write_text(text.replace("'ollama_chat'}/", "'no_such_provider'}/"), "utf-8")
    before = (running.path / "runtime/litellm.yaml").read_bytes()
    gateway = running.container("gateway")
    for command, code, words in (
        (("render-config", "--validate"), 60, "was not written"),
        (("apply",), 62, "LiteLLM does not hold what the file says: "),
    ):
        done = running.io3ops(*command, PYTHONPATH=str(broken))
        assert done.returncode == code and words in done.stderr, done.stderr
        assert (running.path / "runtime/litellm.yaml").read_bytes() == before
    assert running.container("gateway") == gateway
    assert running.io3ops("render-config", "--validate").returncode == 0
