"""routing.yaml -> litellm.yaml, its schema and its picture: read, prove, plan, render, write."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path

from io3ops.adapters import files
from io3ops.errors import HandEdited, TableInvalid
from io3ops.routing.graph import in_document, mermaid
from io3ops.routing.language import json_schema
from io3ops.routing.load import accept
from io3ops.routing.plan import Plan, make_plan
from io3ops.routing.render import hand_edited, render
from io3ops.routing.table import Table
from io3ops.settings import Settings

PICTURE_INTRO = (
    "# Routing\n\nDrawn by `io3ops render-config` from `runtime/routing.yaml`; `--check` holds it current.\n"
)


@dataclass(frozen=True, kw_only=True)
class Derived:
    """A file that follows from the table: what it should say, and what it says (None: no file)."""

    path: Path
    text: str
    on_disk: str | None

    @property
    def current(self) -> bool:
        return self.text == self.on_disk

    def diff(self, root: Path) -> str:
        name = str(self.path.relative_to(root))
        old = (self.on_disk or "").splitlines(keepends=True)
        return "".join(
            difflib.unified_diff(old, self.text.splitlines(keepends=True), name, f"{name} (from routing.yaml)")
        )


@dataclass(frozen=True, kw_only=True)
class Config:
    """The table, its plan, and the files that follow: litellm.yaml first, then schema and picture."""

    table: Table
    plan: Plan
    derived: tuple[Derived, ...]
    warnings: tuple[str, ...]

    @property
    def rendered(self) -> Derived:
        return self.derived[0]

    @property
    def text(self) -> str:
        return self.rendered.text

    @property
    def stale(self) -> tuple[Derived, ...]:
        return tuple(d for d in self.derived if not d.current)

    @property
    def current(self) -> bool:
        return not self.stale

    @property
    def hand_edited(self) -> bool:
        found = self.rendered
        return found.on_disk is not None and not found.current and hand_edited(found.on_disk)

    def diff(self, root: Path) -> str:
        return "".join(d.diff(root) for d in self.stale)


def load(settings: Settings) -> Config:
    """Read and decide; nothing is written. Raises TableInvalid."""
    data = files.read_bytes(settings.table)
    if data is None:
        raise TableInvalid("runtime/routing.yaml is missing", hint="`io3ops preset starter` writes a working table")
    return from_bytes(settings, data)


def from_bytes(settings: Settings, data: bytes) -> Config:
    """As `load`, for a table that may not be in its place yet."""
    path = str(settings.table.relative_to(settings.root))
    table, warnings = accept(data, path)
    plan = make_plan(table)
    picture = _text(settings.picture)
    return Config(
        table=table,
        plan=plan,
        derived=(
            Derived(path=settings.litellm, text=render(plan), on_disk=_text(settings.litellm)),
            Derived(
                path=settings.schema, text=json.dumps(json_schema(), indent=1) + "\n", on_disk=_text(settings.schema)
            ),
            Derived(path=settings.picture, text=in_document(picture or PICTURE_INTRO, mermaid(plan)), on_disk=picture),
        ),
        warnings=tuple(w.text(path) for w in warnings),
    )


def _text(path: Path) -> str | None:
    data = files.read_bytes(path)
    return None if data is None else data.decode("utf-8", "replace")


def write(settings: Settings, config: Config, *, force: bool = False) -> tuple[str, ...]:
    """Write the files that differ; their names. Raises HandEdited unless `force`."""
    if config.hand_edited and not force:
        raise refuse_hand_edit(settings, config)
    for found in config.stale:
        files.write_atomic(found.path, found.text.encode())
    return tuple(str(found.path.relative_to(settings.root)) for found in config.stale)


def refuse_hand_edit(settings: Settings, config: Config) -> HandEdited:
    return HandEdited(
        "runtime/litellm.yaml was edited by hand",
        details=config.rendered.diff(settings.root),
        hint="move the change to runtime/routing.yaml; `io3ops render-config --force` discards the edit shown above",
    )
