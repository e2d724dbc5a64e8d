"""A table's text, read, checked and built. Pure."""

from __future__ import annotations

from io3ops.routing.check import check
from io3ops.routing.problems import Problem, table_error
from io3ops.routing.table import Table, build, read_document


def parse_table(data: bytes, path: str) -> Table:
    """The table in `data`. Raises TableInvalid with every problem; `path` is only for messages."""
    return accept(data, path)[0]


def accept(data: bytes, path: str) -> tuple[Table, list[Problem]]:
    """The table in `data` and its warnings. Raises TableInvalid with every problem; `path` is only for messages."""
    document, problems = read_document(data)
    if document is not None:
        table = build(document)
        problems += check(document, table)
        if not any(p.level == "error" for p in problems):
            return table, sorted(problems)
    raise table_error(path, problems)
