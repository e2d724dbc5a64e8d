"""The pages are true: the reference is what the code says, commands parse, tables load, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from scripts import reference
from tests.guides import READ, RUN, blocks, edited

import io3ops.adapters.process  # A command imports it late, when the unit tests fixture has replaced its `Popen`.
import io3ops.cli.main  # noqa: F401  (registers the commands)
from io3ops.cli.command import main
from io3ops.routing.load import parse_table
from io3ops.routing.plan import make_plan

ROOT = Path(__file__).resolve().parents[2]
GUIDES = sorted((ROOT / "docs/guides").glob("*.md"))
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "compose/observability/README.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCE = re.compile(r"^```[^\n]*\n(.*?)^```$", re.M | re.S)
CALL = r"(?:\.venv/bin/)?io3ops(?= |$)"


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """As GitHub and the site make them of headings."""
    headings = re.findall(r"^#+ +(.+?) *$", prose(page), re.M)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def parse(command: click.Command, words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words name, and what is left of them."""
    while isinstance(command, click.Group) and words and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    assert command is not main, f"there is no command {words[:1]}"
    return command, words


def shell_calls(page: Path) -> Iterator[str]:
    """Every call of io3ops in the page's shell blocks, without comments, pipes and redirections."""
    for block in blocks(page):
        if block.kind == "sh":
            for line in block.text.replace("\\\n", " ").splitlines():
                for part in re.split(r"\||&&|;|\$\(|\)", line.partition(" #")[0]):
                    if found := re.match(rf"\s*(?:[A-Z0-9_]+=\S+ )*{CALL}(.*)", part):
                        yield found[1]


def inline_calls(page: Path) -> Iterator[str]:
    yield from re.findall(rf"`{CALL} ([a-z][^`]*)`", prose(page))


def test_the_readme_fits_five_minutes() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) < 150


def test_the_reference_is_what_the_code_says() -> None:
    written = {name(page): page.read_text("utf-8") for page in (ROOT / "docs/reference").iterdir()}
    assert written == reference.pages(), "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_and_anchor_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{target}: there is no such file"
        if anchor:
            assert anchor in anchors(found), f"{target}: there is no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_in_the_docs_parses(page: Path) -> None:
    for call in shell_calls(page):
        command, words = parse(main, shlex.split(call))
        command.make_context(command.name, words)
    for call in inline_calls(page):
        # Written for readers: `[--json]`, `…`, a NAME where a choice is wanted. Commands and options must exist.
        command, words = parse(main, re.sub(r"[\[\]…]", " ", call).replace("|", " ").split())
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        unknown = [word for word in words if word.startswith("-") and word not in {*known, "--help"}]
        assert not unknown, f"io3ops {call}: {unknown}"
        takes = [p for p in command.params if isinstance(p, click.Argument)]
        assert takes or not words or words[0].startswith("-") or command.name == "logs", f"io3ops {call}"


@pytest.mark.parametrize("page", GUIDES, ids=name)
def test_every_block_of_a_guide_runs_or_says_why_not(page: Path) -> None:
    found = blocks(page)
    text = page.read_text("utf-8")
    assert text.count("```") == 2 * len(found) and text.count("<!--") == sum(bool(b.reason) for b in found)
    assert {b.kind for b in found} <= {*RUN, *READ}, "a block without a language, or in another one, would not be run"
    assert all(len(b.reason.split()) >= 2 for b in found if b.reason), "a reason is more than a word"


@pytest.mark.parametrize("page", GUIDES, ids=name)
def test_every_table_of_a_guide_loads(page: Path) -> None:
    """Each block put into the starter table, after those before it that are put in too."""
    table = (ROOT / "src/io3ops/presets/starter.yaml").read_text("utf-8")
    for block in blocks(page):
        if block.kind == "yaml":
            changed = edited(table, block.text)
            make_plan(parse_table(changed.encode(), f"{page.name}:{block.line}"))
            table = table if block.reason else changed


def test_the_index_and_the_readme_name_every_guide() -> None:
    for page, prefix in (("README.md", "docs/guides/"), ("docs/index.md", "guides/")):
        linked = set(re.findall(rf"\({prefix}([\w-]+\.md)\)", (ROOT / page).read_text("utf-8")))
        assert linked == {guide.name for guide in GUIDES}, page
