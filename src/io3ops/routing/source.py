"""Strict YAML with positions: bytes -> nodes, and a reader that collects the problems. Pure.

PyYAML alone silently keeps the last of two equal keys, follows anchors (which can expand to billions of strings) and reads
`no` as False. A policy file must not be read that way.
"""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from io3ops.routing.problems import Problem, Severity

MAX_BYTES = 5_000_000
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
TAG = "tag:yaml.org,2002:"


def parse_nodes(data: bytes) -> tuple[yaml.MappingNode | None, list[Problem]]:
    """Return the root mapping of one YAML document, or None and the problem that prevents reading it."""

    def failed(message: str, line: int = 0, column: int = 0) -> tuple[None, list[Problem]]:
        return None, [Problem(line=line, column=column, where="", message=message)]

    if len(data) > MAX_BYTES:
        return failed(f"the file has {len(data)} bytes; the limit is {MAX_BYTES}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return failed(f"not UTF-8 text (byte 0x{data[error.start]:02x}); save it as UTF-8", line, 1)
    if not text.strip():
        return failed("the file is empty; `io3ops preset starter` writes a working table")
    for number, row in enumerate(text.split("\n"), 1):
        indent = row[: len(row) - len(row.lstrip(" \t"))]
        if "\t" in indent and row.strip() and not row.lstrip().startswith("#"):
            return failed("a tab in the indentation; YAML allows spaces only", number, indent.index("\t") + 1)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            mark = event.start_mark
            if mark and (isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None)):
                return failed(
                    "YAML anchors and aliases are not supported; write the value out", mark.line + 1, mark.column + 1
                )
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = " ".join(part for part in (error.context, error.problem) if part)
        return failed(f"not valid YAML: {message}", mark.line + 1 if mark else 0, mark.column + 1 if mark else 0)
    except yaml.YAMLError as error:
        return failed(f"not valid YAML: {' '.join(str(error).split())}")
    except RecursionError:
        return failed("nested too deeply")
    if not isinstance(root, yaml.MappingNode):
        return failed("the top level must be a mapping (`version: 1`, `providers:`, `models:`, `modes:`)", 1, 1)
    return root, []


class Reader:
    """Collects every problem while the nodes are turned into values."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def problem(self, node: yaml.Node, where: str, message: str, severity: Severity = Severity.ERROR) -> None:
        """Report a problem at a node; `where` is the path of its key."""
        mark = node.start_mark
        self.problems.append(
            Problem(line=mark.line + 1, column=mark.column + 1, where=where, message=message, severity=severity)
        )

    def pairs(self, node: yaml.MappingNode, where: str) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
        """Yield (key, key node, value node) of a mapping; report duplicate keys and keys that are not text."""
        lines: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.problem(key, where, "a key must be plain text")
            elif key.value == "<<" and key.tag == TAG + "merge":
                self.problem(key, where, "YAML merge keys (`<<`) are not supported; write the values out")
            elif key.value in lines:
                self.problem(key, where, f"duplicate key {key.value!r}, first on line {lines[key.value]}")
            else:
                lines[key.value] = key.start_mark.line + 1
                yield key.value, key, value
