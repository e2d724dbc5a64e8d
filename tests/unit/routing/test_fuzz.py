"""Any bytes give a plan or a list of problems: never a traceback, and never a rendered file that differs from the plan."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.tables import HOSTILE, from_yaml, in_yaml, tables

from io3ops.errors import TableInvalid
from io3ops.routing.explain import STATUSES, explain
from io3ops.routing.graph import mermaid, svg
from io3ops.routing.language import DATA_CLASSES, DataClass, Unset
from io3ops.routing.load import parse_table
from io3ops.routing.plan import make_plan
from io3ops.routing.render import render, route

MARKS: tuple[DataClass | Unset, ...] = ("", *DATA_CLASSES)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@QUICK
@given(st.binary(max_size=400))
def test_any_bytes_give_a_table_or_problems(data: bytes) -> None:
    try:
        parse_table(data, "t")
    except TableInvalid as error:
        assert error.details


@QUICK
@given(st.text(alphabet="{}[]:,-#&*!|>'\"%@`\n\t version1modesahin0.~\\<", max_size=300))
def test_text_that_looks_like_yaml_gives_a_table_or_problems(text: str) -> None:
    try:
        parse_table(text.encode(), "t")
    except TableInvalid as error:
        assert error.details


@QUICK
@given(tables(), st.data())
def test_one_replaced_value_gives_a_table_or_problems_with_places(table: dict[str, Any], data: st.DataObject) -> None:
    """A valid table with one wrong value gives a problem with its place, or is still valid."""
    paths = [p for p in _paths(table) if p]
    path = data.draw(st.sampled_from(paths))
    _set(
        table,
        path,
        data.draw(
            st.one_of(
                st.sampled_from(HOSTILE),
                st.none(),
                st.lists(st.integers(), max_size=2),
                st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
            )
        ),
    )
    try:
        parsed = parse_table(in_yaml(table), "t")
    except TableInvalid as error:
        assert all(line.startswith("t:") for line in error.details.splitlines())
        return
    render(make_plan(parsed))


@QUICK
@given(tables())
def test_a_valid_table_renders_to_exactly_its_plan(table: dict[str, Any]) -> None:
    """Free fields contain hostile texts; the rendered file is read back with plain YAML."""
    parsed = parse_table(in_yaml(table), "t")
    plan = make_plan(parsed)
    text = render(plan)
    assert text == render(make_plan(parsed))
    loaded = from_yaml(text)
    assert [m["model_info"]["id"] for m in loaded["model_list"]] == [d.id for d in plan.deployments]
    assert [m["litellm_params"]["model"] for m in loaded["model_list"]] == [route(d) for d in plan.deployments]
    for mode in plan.policies:
        assert loaded["io3ops_policy"]["modes"][mode.name].get("system_prompt", "") == mode.system_prompt
    assert mermaid(plan) and svg(plan)


@QUICK
@given(tables(), st.data())
def test_explain_always_ends_and_never_names_a_cloud_deployment_for_an_internal_prompt(
    table: dict[str, Any], data: st.DataObject
) -> None:
    plan = make_plan(parse_table(in_yaml(table), "t"))
    deployments = sorted({d.name for d in plan.deployments})
    fail = data.draw(st.sets(st.sampled_from(deployments)))
    for mode in plan.modes:
        asked = data.draw(st.sampled_from(MARKS))
        status = data.draw(st.sampled_from(sorted(STATUSES)))
        found = explain(plan, mode, data_class=asked, fail=fail, status=status)
        assert len(found.attempts) <= len(plan.deployments)
        assert all(d not in fail for d in found.served)
        if "internal" in (plan.policy(mode).data_class, asked):
            assert found.data_class == "internal"
        if found.data_class == "internal":
            assert all(a.local for a in found.attempts)


BILLION = "a: &a [x,x]\n" + "".join(f"{c}: &{c} [*{chr(ord(c) - 1)},*{chr(ord(c) - 1)}]\n" for c in "bcdefghij")


@pytest.mark.parametrize(
    "text",
    [
        BILLION,
        "x: !!python/object/apply:os.system [ls]\n",
        "x: !!binary aGk=\n",
        "? [a]\n: b\n",
        "x: 1_000\n",
        "- - - -\n",
    ],
)
def test_yaml_traps_are_refused(text: str) -> None:
    with pytest.raises(TableInvalid):
        parse_table(text.encode(), "t")


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        for key, inner in value.items():
            found += _paths(inner, (*path, key))
    if isinstance(value, list):
        for index, inner in enumerate(value):
            found += _paths(inner, (*path, index))
    return found


def _set(value: Any, path: tuple[Any, ...], new: Any) -> None:
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = new
