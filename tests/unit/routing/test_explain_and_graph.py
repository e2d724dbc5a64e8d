"""The predictions of `explain`, and the pictures. The gateway's own tests check that the gateway behaves as predicted."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from io3ops.routing.explain import explain, text
from io3ops.routing.graph import in_document, mermaid, svg
from io3ops.routing.language import DataClass, Unset
from io3ops.routing.load import parse_table
from io3ops.routing.plan import Plan, make_plan

TABLE = b"""
version: 1
providers:
  local: {kind: ollama}
  served: {kind: openai_compatible, url: "http://localhost:8000/v1"}
models:
  a: {provider: local, source: {ollama: "a:1b"}}
  b: {provider: local, source: {ollama: "b:1b"}}
  c: {provider: local, source: {ollama: "c:1b"}}
  d: {provider: served, source: {external: d}}
modes:
  executor: {chain: [a, b], retries: {server_error: 2}, fallbacks: {error: rescue}}
  shared: {chain: [{a: 3, b: 1}, c]}
  long: {chain: [d, a], fallbacks: {context_overflow: rescue}}
  rescue: {chain: [c]}
"""


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(parse_table(TABLE, "t"))


@pytest.mark.parametrize(
    ("mode", "fail", "status", "attempts", "served"),
    [
        ("executor", [], "500", [("executor.1.a", 1)], ["executor.1.a"]),
        ("executor", ["executor.1.a"], "500", [("executor.1.a", 3), ("executor.2.b", 1)], ["executor.2.b"]),
        ("executor", ["executor.1.a"], "429", [("executor.1.a", 1), ("executor.2.b", 1)], ["executor.2.b"]),
        ("executor", ["executor.1.a", "executor.2.b"], "404", [("executor.1.a", 1), ("executor.2.b", 1), ("rescue.1.c", 1)], ["rescue.1.c"]),
        ("executor", ["executor.1.a"], "context", [("executor.1.a", 1), ("rescue.1.c", 1)], ["rescue.1.c"]),
        ("long", ["long.1.d"], "context", [("long.1.d", 1), ("rescue.1.c", 1)], ["rescue.1.c"]),
        ("long", ["long.1.d"], "500", [("long.1.d", 1), ("long.2.a", 1)], ["long.2.a"]),
        ("shared", ["shared.1.a"], "500", [("shared.1.a", 1), ("shared.1.b", 1), ("shared.2.c", 1)], ["shared.1.b", "shared.2.c"]),
        ("rescue", ["rescue.1.c"], "500", [("rescue.1.c", 1)], []),
    ],
)  # fmt: skip
def test_explain_predicts_attempts_and_who_serves(
    plan: Plan, mode: str, fail: list[str], status: str, attempts: list[tuple[str, int]], served: list[str]
) -> None:
    found = explain(plan, mode, fail=fail, status=status)
    assert [(a.deployment, a.tries) for a in found.attempts] == attempts
    assert list(found.served) == served
    assert all(a.deployment in text(found, status) for a in found.attempts)


CLASSES = b"""
version: 1
defaults: {data_class: %s}
providers:
  local: {kind: ollama}
  cloud: {kind: openai, key: openai, enabled: true}
models:
  a: {provider: local, source: {ollama: "a:1b"}}
  g: {provider: cloud, source: {external: g}}
modes:
  said-internal: {chain: [a], data_class: internal, fallbacks: {error: said-public}}
  said-public: {chain: [a, g], data_class: public}
  said-nothing: {chain: [a, g]}
  far: {chain: [g], data_class: public}
"""


@pytest.mark.parametrize("default", ["internal", "public"])
@pytest.mark.parametrize("asked", ["", "internal", "public"])
@pytest.mark.parametrize("mode", ["said-internal", "said-public", "said-nothing", "far"])
def test_the_stricter_data_class_wins(mode: str, asked: DataClass | Unset, default: str) -> None:
    """Internal wins wherever it is set; then no cloud deployment is ever tried, whatever fails."""
    plan = make_plan(parse_table(CLASSES % default.encode(), "t"))
    of_mode = {"said-internal": "internal", "said-nothing": ""}.get(mode, "public")
    said = {of_mode, asked} - {""} or {default}
    expected = "internal" if "internal" in said else "public"
    found = explain(plan, mode, data_class=asked, fail=[d.name for d in plan.deployments])
    assert found.data_class == expected
    if expected == "internal":
        assert all(attempt.local for attempt in found.attempts)
        assert mode != "far" or (not found.attempts and "403" in found.end)
    else:
        assert not all(attempt.local for attempt in found.attempts)


def test_the_pictures_show_every_mode_model_and_fallback(plan: Plan) -> None:
    picture = mermaid(plan)
    assert picture.count("-->") == len(plan.deployments) and picture.count(".->") == 2
    assert '"1: 75 %"' in picture
    drawing = ElementTree.fromstring(svg(plan))
    assert len([e for e in drawing.iter() if e.tag.endswith("line")]) == len(plan.deployments)


def test_the_picture_is_replaced_between_its_marks_and_the_rest_is_kept() -> None:
    once = in_document("# Mine\n\ntext\n", "flowchart LR\n")
    again = in_document(once + "\nafter\n", "flowchart TD\n")
    assert again.startswith("# Mine\n\ntext\n") and again.rstrip().endswith("after")
    assert "flowchart TD" in again and "flowchart LR" not in again
