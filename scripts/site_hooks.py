"""MkDocs hooks: pages from outside docs/ join the site, the routing picture needs no script, and nothing loads from elsewhere."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from io3ops.routing import graph
from io3ops.routing.load import parse_table
from io3ops.routing.plan import make_plan

ROOT = Path(__file__).resolve().parents[1]
# Where GitHub's readers expect them, and where the site shows them.
ELSEWHERE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
    "benchmarks/README.md": "measurements.md",
    "compose/observability/README.md": "metrics.md",
}
LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")
MERMAID = re.compile(r"^```mermaid\n.*?^```$", re.M | re.S)
# What a browser fetches by itself; a link that a reader clicks may lead anywhere.
LOADED = re.compile(
    r"<(?:script|img|iframe|source|link rel=.(?:stylesheet|preconnect|icon)).[^>]*?(?:src|href)=.?(https?:)?//[^>]*>"
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, target in ELSEWHERE.items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at the site's pages; a file that is not part of the site keeps its name only."""
    here = next((ROOT / s for s, t in ELSEWHERE.items() if t == page.file.src_uri), ROOT / "docs" / page.file.src_uri)

    def moved(found: re.Match[str]) -> str:
        text, target = found.groups()
        path, mark, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", target):
            return found[0]
        name = os.path.relpath((here.parent / path).resolve(), ROOT)
        inside = ELSEWHERE.get(name) or (name.removeprefix("docs/") if name.startswith("docs/") else "")
        if not inside:
            return text
        return f"[{text}]({os.path.relpath(inside, Path(page.file.src_uri).parent)}{mark}{anchor})"

    # Drawing Mermaid takes a script that the theme loads from another host; the table can be drawn here.
    return MERMAID.sub(lambda _: picture(), LINK.sub(moved, markdown))


def picture() -> str:
    return graph.svg(make_plan(parse_table((ROOT / "runtime/routing.yaml").read_bytes(), "runtime/routing.yaml")))


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    if found := LOADED.search(output):
        raise PluginError(f"{page.file.src_uri} loads something from another host: {found[0]}")
    return output
