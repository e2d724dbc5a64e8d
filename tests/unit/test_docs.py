"""The reference is complete: every command, setting and error code is in it, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import io3ops.cli.main  # It registers the commands.
import io3ops.errors
from io3ops.cli.command import main
from io3ops.settings import CHOICES


def page(root: Path, name: str) -> str:
    return (root / f"docs/reference/{name}.md").read_text("utf-8")


def test_every_command_is_in_the_reference_and_has_help(root: Path) -> None:
    assert len(main.commands) > 20, "without commands the loop below would check nothing"
    for name, command in main.commands.items():
        assert f"`io3ops {name}" in page(root, "commands"), name
        assert command.help, name


def test_every_command_that_reports_has_json() -> None:
    for name, command in main.commands.items():
        flags = {option for parameter in command.params for option in parameter.opts}
        assert ("--json" in flags) == (name != "completion"), name


def test_the_error_codes_are_unique_and_all_in_the_reference(root: Path) -> None:
    base = io3ops.errors.Io3opsError
    kinds = [k for k in vars(io3ops.errors).values() if isinstance(k, type) and issubclass(k, base) and k is not base]
    codes = [k.exit_code for k in kinds]
    assert len(set(codes)) == len(codes)
    assert not set(codes) & {0, 2, 70, 130}
    assert set(re.findall(r"^\| (E\d\d) \|", page(root, "errors"), re.M)) == {k("").code for k in kinds}
    docstring = io3ops.errors.__doc__ or ""
    for kind in kinds:
        assert re.search(rf"\b{kind.exit_code}\s+{kind.__name__}\b", docstring), kind.__name__


def test_every_setting_is_in_the_reference(root: Path) -> None:
    source = (root / "src/io3ops/settings.py").read_text("utf-8")
    named = set(re.findall(r'"(IO3OPS_[A-Z_]+)"', source)) - {
        "IO3OPS_RUNTIME_IMAGE",
        "IO3OPS_GATEWAY_IMAGE",
        "IO3OPS_EGRESS_IMAGE",
        "IO3OPS_ROOT",
    }
    assert named == set(re.findall(r"^\| `(IO3OPS_[A-Z_]+)` \|", page(root, "settings"), re.M))
    for name, values in CHOICES.items():
        row = next(line for line in page(root, "settings").splitlines() if line.startswith(f"| `{name}`"))
        assert all(f"`{value}`" in row for value in values), name


def test_the_makefile_has_at_most_thirteen_targets_and_help_lists_them(root: Path) -> None:
    text = (root / "Makefile").read_text("utf-8")
    targets = re.findall(r"^([a-z]+):.*## ", text, re.M)
    phony = next(line for line in text.splitlines() if line.startswith(".PHONY:"))
    assert len(targets) <= 13 and set(phony.split()[1:]) == set(targets)
