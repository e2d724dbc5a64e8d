"""A problem in the table, and the error that carries all of them at once. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from io3ops.errors import TableInvalid


@dataclass(frozen=True, kw_only=True, order=True)
class Problem:
    """One finding. `line` and `column` count from 1; 0 means the whole file."""

    line: int
    column: int
    where: str
    message: str
    level: str = "error"

    def text(self, path: str) -> str:
        place = f"{path}:{self.line}:{self.column}" if self.line else path
        found = scrub(f"{place}: {self.where + ': ' if self.where else ''}{self.message}")
        # A key may hold anything, also what ends a line or speaks to the terminal.
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in found)


def looks_secret(value: str) -> bool:
    """Whether a value may be a key pasted by mistake: a known prefix, or long, mixed and without meaning."""
    return bool(
        re.match(r"(sk-|pk-|rk-|AIza|AKIA|ASIA|ghp_|gho_|hf_|xox[abp]-|eyJ|Bearer )", value)
        or (re.fullmatch(r"[A-Za-z0-9_+/=-]{32,}", value) and re.search(r"[0-9]", value) and re.search(r"[A-Z]", value))
    )


def scrub(text: str) -> str:
    """The text without anything that looks like a secret: an error report gets pasted into chats."""
    return re.sub(r"[A-Za-z0-9_+/=-]{8,}", lambda m: "[a secret?]" if looks_secret(m.group()) else m.group(), text)


def did_you_mean(value: str, allowed: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest spelling, or the list of what is allowed."""
    names = sorted(allowed)
    near = difflib.get_close_matches(value, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; allowed: {', '.join(names)}" if names else ""


def table_error(path: str, problems: Iterable[Problem]) -> TableInvalid:
    """One error with every problem, in file order."""
    found = sorted(p for p in problems if p.level == "error")
    count = f"{len(found)} problem{'s' if len(found) != 1 else ''}"
    return TableInvalid(
        f"{path} has {count}",
        details="\n".join(p.text(path) for p in found),
        hint="correct the lines above; nothing was changed",
    )
