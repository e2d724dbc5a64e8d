"""Prepares and checks the changelog and the version of a release.

usage: .venv/bin/python scripts/release.py prepare 1.2.3     turn the section Unreleased into 1.2.3, set the version
       .venv/bin/python scripts/release.py check v1.2.3      fail unless tag, version and changelog agree
       .venv/bin/python scripts/release.py notes v1.2.3      print the section of the changelog

`prepare` edits the files; you commit and tag them, as CONTRIBUTING.md describes under "Release".
"""

from __future__ import annotations

import argparse
import re
import sys
from datetime import UTC, date, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHANGELOG = "CHANGELOG.md"
VERSION = "src/io3ops/__init__.py"
ASSIGNMENT = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)


class Failed(Exception):
    """An error that is printed as one line, without a traceback."""


def section(changelog: str, name: str) -> tuple[str, str]:
    """Return (date, text) of the changelog's section with this name; the date is '' when the heading has none."""
    found = re.search(
        rf"^## \[{re.escape(name)}\](?: - (\d{{4}}-\d{{2}}-\d{{2}}))?\n(.*?)(?=^## \[|\Z)",
        changelog,
        re.MULTILINE | re.DOTALL,
    )
    if found is None:
        raise Failed(f"{CHANGELOG} has no section [{name}]")
    return found[1] or "", found[2].strip()


def version_of(source: str) -> str:
    """Return the version that the package's source sets."""
    found = ASSIGNMENT.search(source)
    if found is None:
        raise Failed(f"{VERSION} sets no __version__")
    return found[1]


def check(tag: str, changelog: str, source: str) -> str:
    """Return the release notes. Raises Failed unless tag, version and changelog agree."""
    version = version_of(source)
    if tag != f"v{version}":
        raise Failed(f"the tag is {tag}, but the version in {VERSION} is {version}")
    dated, text = section(changelog, version)
    if not dated:
        raise Failed(f"{CHANGELOG}: section [{version}] has no date")
    if not re.search(r"^- ", text, re.MULTILINE):
        raise Failed(f"{CHANGELOG}: section [{version}] lists no change")
    return text + "\n"


def prepare(version: str, changelog: str, source: str, today: date) -> tuple[str, str]:
    """Return the changelog and the source with the new version. Raises Failed when they cannot be released."""
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", version):
        raise Failed(f"{version} is not a version such as 1.2.3 or 1.2.3rc1")
    if f"## [{version}]" in changelog:
        raise Failed(f"{CHANGELOG} already has a section [{version}]")
    _, text = section(changelog, "Unreleased")
    if not re.search(r"^- ", text, re.MULTILINE):
        raise Failed(f"{CHANGELOG}: the section Unreleased lists no change")
    version_of(source)
    heading = "## [Unreleased]\n"
    changelog = changelog.replace(heading, f"{heading}\n## [{version}] - {today.isoformat()}\n", 1)
    return changelog, ASSIGNMENT.sub(f'__version__ = "{version}"', source)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Prepare and check the changelog and the version of a release.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("prepare", help="date the changelog's section and set the version").add_argument("version")
    commands.add_parser("check", help="fail unless tag, version and changelog agree").add_argument("tag")
    commands.add_parser("notes", help="print the changelog's section").add_argument("tag")
    options = parser.parse_args(arguments)
    changelog, source = (ROOT / CHANGELOG).read_text("utf-8"), (ROOT / VERSION).read_text("utf-8")
    try:
        if options.command == "prepare":
            changelog, source = prepare(options.version, changelog, source, datetime.now(UTC).date())
            (ROOT / CHANGELOG).write_text(changelog, "utf-8")
            (ROOT / VERSION).write_text(source, "utf-8")
        else:
            notes = check(options.tag, changelog, source)
            if options.command == "notes":
                sys.stdout.write(notes)
    except Failed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
