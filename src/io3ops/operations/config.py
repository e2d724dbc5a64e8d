"""routing.yaml -> litellm.yaml: read, prove, plan, render, write."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from io3ops.adapters import files
from io3ops.errors import HandEdited, TableInvalid
from io3ops.routing.plan import Plan, make_plan
from io3ops.routing.render import hand_edited, render
from io3ops.routing.table import Table, parse_table
from io3ops.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Config:
    """The table, its plan, the text it renders to, and the text that is in the file (None: no file)."""

    table: Table
    plan: Plan
    text: str
    on_disk: str | None

    @property
    def current(self) -> bool:
        return self.text == self.on_disk

    @property
    def hand_edited(self) -> bool:
        return self.on_disk is not None and not self.current and hand_edited(self.on_disk)

    def diff(self) -> str:
        old = (self.on_disk or "").splitlines(keepends=True)
        return "".join(
            difflib.unified_diff(
                old, self.text.splitlines(keepends=True), "litellm.yaml", "litellm.yaml (from routing.yaml)"
            )
        )


def load(settings: Settings) -> Config:
    """Read and decide; nothing is written. Raises TableInvalid."""
    path = settings.table.relative_to(settings.root)
    data = files.read_bytes(settings.table)
    if data is None:
        raise TableInvalid(f"{path} is missing", hint="`io3ops preset starter` writes a working table")
    table = parse_table(data, str(path))
    plan = make_plan(table)
    written = files.read_bytes(settings.litellm)
    return Config(
        table=table,
        plan=plan,
        text=render(plan),
        on_disk=None if written is None else written.decode("utf-8", "replace"),
    )


def write(settings: Settings, config: Config, *, force: bool = False) -> bool:
    """Write litellm.yaml if it differs; True when it was written. Raises HandEdited unless `force`."""
    if config.current:
        return False
    if config.hand_edited and not force:
        raise HandEdited(
            "runtime/litellm.yaml was edited by hand",
            details=config.diff(),
            hint="move the change to runtime/routing.yaml; `io3ops render-config --force` discards the edit shown above",
        )
    return files.write_atomic(settings.litellm, config.text.encode())
