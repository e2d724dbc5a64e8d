"""The rules of the house that a reader cannot see: imports point one way, and the packages share no code."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import pytest

ALLOWED = {
    "routing": {"routing", "errors"},
    "adapters": {"errors", "adapters.process", "adapters.docker_engine"},
    "operations": {"operations", "routing", "adapters", "errors", "settings", "tools", "console", "presets"},
}


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    found = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return found | {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}


@pytest.mark.parametrize("layer", sorted(ALLOWED))
def test_imports_point_one_way(root: Path, layer: str) -> None:
    """Adapters may hand `Processes` around; beyond that they never know each other."""
    for path in sorted((root / "src/io3ops" / layer).rglob("*.py")):
        for name in sorted(imports(path)):
            if not name.startswith("io3ops."):
                continue
            inner = name.removeprefix("io3ops.")
            assert any(inner == a or inner.startswith(f"{a}.") for a in ALLOWED[layer]), f"{path.name} imports {name}"


def test_the_packages_never_import_one_another(root: Path) -> None:
    packages = ("io3ops", "io3ops_gateway", "io3ops_observer")
    for package, other in itertools.permutations(packages, 2):
        for path in (root / "src" / package).rglob("*.py"):
            assert not any(name == other or name.startswith(f"{other}.") for name in imports(path)), path


def test_only_settings_reads_the_environment_and_only_process_starts_programs(root: Path) -> None:
    for path in (root / "src/io3ops").rglob("*.py"):
        text = path.read_text("utf-8")
        if path.name != "settings.py":
            assert "os.environ" not in text.replace("os.environ/", ""), path
        if path.name != "process.py":
            assert "import subprocess" not in text, path


def test_no_registry_host_is_named(root: Path) -> None:
    """Users point pip, Go and apt at their own mirrors; a host written down here would go around them."""
    parts = (
        ("files.pythonhosted", "org"),
        ("pypi", "org"),
        ("proxy.golang", "org"),
        ("sum.golang", "org"),
        ("docker", "com"),
        ("registry-1.docker", "io"),
    )
    parts += (
        ("registry.npmjs", "org"),
        ("deb.debian", "org"),
        ("security.debian", "org"),
        ("ollama", "com"),
        ("ghcr", "io"),
    )
    hosts = [f"//{name}.{end}" for name, end in parts] + [f"{name}.{end}/" for name, end in parts]
    for folder in ("src", "requirements", "images", "compose", "scripts", "docs", "runtime", ".github", ".ci"):
        for path in (root / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and "egg-info" not in str(path):
                text = path.read_text("utf-8", "replace")
                assert not [h for h in hosts if h in text], path
