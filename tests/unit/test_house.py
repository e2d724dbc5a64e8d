"""The rules of the house that a reader cannot see: imports point one way, and the packages share one small package."""

from __future__ import annotations

import ast
import itertools
import re
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from io3ops.operations.stack import images

ALLOWED = {
    "routing": {"routing", "errors"},
    "adapters": {"errors", "adapters.process", "adapters.docker_engine"},
    "operations": {"operations", "routing", "adapters", "errors", "settings", "tools", "console", "presets"},
}


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text("utf-8"))))


def imports(path: Path) -> set[str]:
    found = {node.module or "" for node in nodes(path) if isinstance(node, ast.ImportFrom)}
    return found | {alias.name for node in nodes(path) if isinstance(node, ast.Import) for alias in node.names}


@pytest.mark.parametrize("layer", sorted(ALLOWED))
def test_imports_point_one_way(root: Path, layer: str) -> None:
    """Adapters may hand `Processes` around; beyond that they never know each other."""
    for path in sorted((root / "src/io3ops" / layer).rglob("*.py")):
        for name in sorted(imports(path)):
            if not name.startswith("io3ops."):
                continue
            inner = name.removeprefix("io3ops.")
            assert any(inner == a or inner.startswith(f"{a}.") for a in ALLOWED[layer]), f"{path.name} imports {name}"


def modules(root: Path) -> dict[str, Path]:
    """Every module of ours, by its dotted name."""
    paths = sorted((root / "src").rglob("*.py"))
    return {".".join(p.relative_to(root / "src").with_suffix("").parts): p for p in paths if p.name != "__init__.py"}


def needed(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules that a file imports, at its top or later, and those that it names in a string to import them by name."""
    found: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found & set(known)


def test_no_folder_has_more_than_fifteen_modules(root: Path) -> None:
    for folder, found in itertools.groupby(modules(root).values(), key=lambda path: path.parent):
        assert len(list(found)) <= 15, folder


def test_there_is_no_circle_of_imports_between_modules_or_folders(root: Path) -> None:
    """At each level: what a folder's files and folders import of one another has an order, from the top down."""
    known = modules(root)
    between = {(name, other) for name, path in known.items() for other in needed(path, known)}
    graphs: dict[str, dict[str, set[str]]] = {}
    for name, other in between:
        parts, others = name.split("."), other.split(".")
        for depth in range(1, min(len(parts), len(others)) + 1):
            if parts[:depth] != others[:depth]:
                level = graphs.setdefault(".".join(parts[: depth - 1]), {})
                level.setdefault(parts[depth - 1], set()).add(others[depth - 1])
                break
    for folder, graph in sorted(graphs.items()):
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            pytest.fail(f"{folder}: {' <- '.join(error.args[1])}")


def test_the_packages_never_import_one_another(root: Path) -> None:
    packages = ("io3ops", "io3ops_gateway", "io3ops_observer")
    for package, other in itertools.permutations(packages, 2):
        for path in (root / "src" / package).rglob("*.py"):
            assert not any(name == other or name.startswith(f"{other}.") for name in imports(path)), path


def test_what_they_share_needs_the_standard_library_alone(root: Path) -> None:
    """It is imported by `io3ops --help`, by LiteLLM's process and by the observer: none may load another's libraries."""
    paths = sorted((root / "src/io3ops_shared").rglob("*.py"))
    assert paths
    for path in paths:
        found = {name.partition(".")[0] for name in imports(path)}
        assert found <= {*sys.stdlib_module_names, "io3ops_shared"}, path


def test_programs_that_run_without_a_path_import_none_of_our_packages(root: Path) -> None:
    """Health checks start them with `python3 -I -S FILE`, where no package of ours can be found."""
    alone = [*(root / "src/io3ops_gateway/scripts").glob("*.py"), root / "src/io3ops_observer/healthcheck.py"]
    assert len(alone) > 3
    for path in alone:
        assert not any(name.startswith("io3ops") for name in imports(path)), path


def test_every_package_in_the_image_is_in_its_context_and_its_name(root: Path) -> None:
    copied = re.findall(r"^COPY (src/\S+)", (root / "images/gateway/Dockerfile").read_text("utf-8"), re.M)
    assert copied == ["src/io3ops_gateway", "src/io3ops_observer", "src/io3ops_shared"]
    allowed = (root / ".dockerignore").read_text("utf-8").splitlines()
    for package in copied:
        assert package in images.GATEWAY_INPUTS and f"!{package}/**" in allowed, package


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


def test_parts_beside_a_stack_run_through_one_module(root: Path) -> None:
    """It labels them, so that the next run removes what a killed one left."""
    for path in sorted((root / "tests").rglob("*.py")):
        for node in nodes(path):
            if not isinstance(node, (ast.Call, ast.List)):
                continue
            words = node.args if isinstance(node, ast.Call) else node.elts
            found = tuple(word.value for word in words if isinstance(word, ast.Constant))
            assert ("run", "-d") not in (found[:2], found[1:3]), f"{path.name}:{node.lineno}"
