"""Models as a runtime reports them: installed, loaded, local, and small enough for its disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from io3ops.adapters.ollama_api import InstalledModel, LoadedModel
from io3ops.errors import DiskFull, RuntimeRefused
from io3ops.operations.models import models
from io3ops.routing.load import parse_table
from io3ops.routing.plan import Plan, make_plan


@pytest.fixture
def plan(root: Path) -> Plan:
    return make_plan(parse_table((root / "runtime/routing.yaml").read_bytes(), "t"))


def runtime(
    monkeypatch: pytest.MonkeyPatch, installed: tuple[InstalledModel, ...], loaded: tuple[LoadedModel, ...]
) -> Any:
    @contextmanager
    def api(_tools: object, _url: str, **_: object) -> Iterator[Any]:
        yield SimpleNamespace(installed=lambda: installed, loaded=lambda: loaded)

    monkeypatch.setattr(models, "runtime_api", api)
    return SimpleNamespace()


def installed(plan: Plan, *, remote: bool = False) -> tuple[InstalledModel, ...]:
    return tuple(InstalledModel(name=m.runtime_name, digest="d", size=1, remote=remote) for m in plan.models)


def test_a_model_on_another_machine_is_refused(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    with pytest.raises(RuntimeRefused, match="prompts would leave"):
        models.states(runtime(monkeypatch, installed(plan, remote=True), ()), plan)


def test_a_model_counts_as_loaded_only_with_the_tables_window(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    chat, vec = plan.models
    loaded = (
        LoadedModel(name=chat.runtime_name, memory=1, vram=0, context=chat.model.context * 2),
        LoadedModel(name=vec.runtime_name, memory=1, vram=0, context=0),
    )
    found = models.states(runtime(monkeypatch, installed(plan), loaded), plan)
    assert [(s.missing, s.ready) for s in found] == [(False, False), (False, True)]


def test_a_model_that_is_not_installed_is_missing(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    found = models.states(runtime(monkeypatch, installed(plan)[:1], ()), plan)
    assert [s.missing for s in found] == [False, True]


@pytest.mark.parametrize(("free_mb", "fits"), [(100, False), (300, False), (400, True)])
def test_a_fetch_needs_room_for_the_models_and_a_reserve(
    monkeypatch: pytest.MonkeyPatch, plan: Plan, free_mb: int, fits: bool
) -> None:
    """The starter's two models need 177 MB, and 200 MB must stay free."""
    answer = f"Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/x 9 9 {free_mb * 1000} 9% /models\n"
    tools: Any = SimpleNamespace(
        settings=SimpleNamespace(project="p"),
        engine=SimpleNamespace(
            containers=lambda _p: {"runtime": SimpleNamespace(id="r")}, execute=lambda _id, _argv: (0, answer)
        ),
    )
    missing = models.states(runtime(monkeypatch, (), ()), plan)
    if fits:
        models._check_room(tools, missing)
        return
    with pytest.raises(DiskFull, match="177 MB"):
        models._check_room(tools, missing)
