"""The fenced blocks of docs/guides/*.md: each runs in tests/e2e/test_guides.py, or says in a comment why it cannot."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

# `sh` runs in the clone, `yaml` is merged into the table; the others are only read.
RUN = ("sh", "yaml")
READ = ("text", "python")
BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n\n?)?```(?P<kind>[^\n]*)\n(?P<text>.*?)^```$", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """`reason`: why it cannot run in the tests, '' when it runs."""

    guide: str
    line: int
    kind: str
    text: str
    reason: str

    @property
    def runs(self) -> bool:
        return self.kind in RUN and not self.reason


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    return [
        Block(
            guide=page.stem,
            line=text.count("\n", 0, found.start("kind")) + 1,
            kind=found["kind"],
            text=found["text"],
            reason=found["reason"] or "",
        )
        for found in BLOCK.finditer(text)
    ]


def merged(table: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """The table with the keys of a block put in, as a reader does it: mappings are joined, everything else is replaced."""
    joined = dict(table)
    for key, value in change.items():
        old = joined.get(key)
        joined[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return joined


def edited(table: str, change: str) -> str:
    """`merged` for texts."""
    return yaml.safe_dump(merged(yaml.safe_load(table), yaml.safe_load(change)), sort_keys=False, allow_unicode=True)
