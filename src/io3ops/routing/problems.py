"""A problem in the routing table, with its line and column, and the error that carries all of them at once. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from io3ops.errors import TableInvalid


class Severity(StrEnum):
    """How serious a problem is: an error stops the render, a warning does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, kw_only=True, order=True)
class Problem:
    """One problem. `line` and `column` count from 1; 0 means the whole file. `where` is the path of the key."""

    line: int
    column: int
    where: str
    message: str
    severity: Severity = Severity.ERROR

    def text(self, path: str) -> str:
        """Return one printable line, without anything that looks like a secret."""
        place = f"{path}:{self.line}:{self.column}" if self.line else path
        line = scrub(f"{place}: {self.where + ': ' if self.where else ''}{self.message}")
        # The table's keys and values are quoted here; they must not break the line or control the terminal.
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def looks_secret(value: str) -> bool:
    """Return whether a value may be an API key pasted by mistake: a known prefix, or long and random."""
    return bool(
        re.match(r"(sk-|pk-|rk-|AIza|AKIA|ASIA|ghp_|gho_|hf_|xox[abp]-|eyJ|Bearer )", value)
        or (re.fullmatch(r"[A-Za-z0-9_+/=-]{32,}", value) and re.search(r"[0-9]", value) and re.search(r"[A-Z]", value))
    )


def scrub(text: str) -> str:
    """Return the text without anything that looks like a secret, because users paste errors into chats."""
    return re.sub(r"[A-Za-z0-9_+/=-]{8,}", lambda m: "[a secret?]" if looks_secret(m.group()) else m.group(), text)


def did_you_mean(value: str, allowed: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest spelling, else the list of allowed names."""
    names = sorted(allowed)
    near = difflib.get_close_matches(value, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; allowed: {', '.join(names)}" if names else ""


def table_error(path: str, problems: Iterable[Problem]) -> TableInvalid:
    """Return one error that lists every problem, in file order."""
    errors = sorted(p for p in problems if p.severity is Severity.ERROR)
    count = f"{len(errors)} problem{'s' if len(errors) != 1 else ''}"
    return TableInvalid(
        f"{path} has {count}",
        details="\n".join(p.text(path) for p in errors),
        hint="correct the lines above; nothing was changed",
    )
