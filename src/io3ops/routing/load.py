"""A table's text, read, checked and built. Pure."""

from __future__ import annotations

from io3ops.routing.check import check
from io3ops.routing.problems import Problem, Severity, table_error
from io3ops.routing.table import Table, build, read_document


def parse_table(data: bytes, path: str) -> Table:
    """Return the table in `data`; `path` is for messages only. Raises TableInvalid with every problem."""
    return parse_with_warnings(data, path)[0]


def parse_with_warnings(data: bytes, path: str) -> tuple[Table, list[Problem]]:
    """Return the table in `data` and its warnings; `path` is for messages only. Raises TableInvalid with every problem."""
    document, problems = read_document(data)
    if document is not None:
        table = build(document)
        problems += check(document, table)
        if not any(p.severity is Severity.ERROR for p in problems):
            return table, sorted(problems)
    raise table_error(path, problems)
