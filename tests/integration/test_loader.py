"""LiteLLM's own loader takes every file that we render, and then holds exactly the plan: it silently drops what it cannot read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from tests.clone import Clone
from tests.tables import tables

from io3ops.operations.images import GATEWAY_INPUTS, digest
from io3ops.routing.plan import Plan, make_plan
from io3ops.routing.render import fallbacks, render, route
from io3ops.routing.table import parse_table

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
    script = root / "tests/integration/load_all.py"
    image = f"io3ops/gateway:{digest(running.path, GATEWAY_INPUTS)}"
    mounts = ["-v", f"{tmp_path}:/t:ro", "-v", f"{script}:/load_all.py:ro"]
    done = running.docker(
        "run",
        "--rm",
        "--network",
        "none",
        "--user",
        "0:0",
        *mounts,
        "--entrypoint",
        "/opt/gateway/bin/python",
        image,
        "/load_all.py",
        "/t",
    )
    held = dict(json.loads(line.removeprefix("HELD ")) for line in done.stdout.splitlines() if line.startswith("HELD "))
    assert set(held) == set(plans), done.stderr[-3000:]
    for name, plan in plans.items():
        assert held[name]["deployments"] == [[d.mode, d.id, route(d), d.order] for d in plan.deployments], name
        assert held[name]["fallbacks"] == [{m: [t]} for m, t in dict(fallbacks(plan)).get("fallbacks", [])], name
        assert held[name]["modes"] == sorted(plan.modes)
