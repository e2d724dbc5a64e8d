"""The project around the code: its files agree with each other, and a release says what it must."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, settings
from scripts import release

CHANGELOG = """# Changelog

## [Unreleased]

### Added

- A thing.

## [0.1.0] - 2026-01-02

- The first.
"""
SOURCE = '"""The command line."""\n\n__version__ = "0.1.0"\n'


def pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)==([^\s;\\]+)", path.read_text("utf-8"), re.MULTILINE))


def workflows(root: Path) -> list[Path]:
    return sorted((root / ".github/workflows").glob("*.yml"))


def steps(root: Path) -> list[dict[str, Any]]:
    jobs = [job for path in workflows(root) for job in yaml.safe_load(path.read_text("utf-8"))["jobs"].values()]
    return [step for job in jobs for step in job.get("steps", [job])]


def test_every_action_is_pinned_by_commit_with_its_version_beside_it(root: Path) -> None:
    used: dict[str, set[str]] = {}
    for path in workflows(root):
        for name, rest in re.findall(r"\buses: ([^@\s]+)(.*)", path.read_text("utf-8")):
            if not name.startswith("./"):
                assert re.fullmatch(r"@[0-9a-f]{40} # v\d+\.\d+\.\d+", rest), f"{path.name}: {name}{rest}"
                used.setdefault(name, set()).add(rest)
    assert used and all(len(versions) == 1 for versions in used.values()), used


def test_no_workflow_may_write_unless_a_job_says_so(root: Path) -> None:
    for path in workflows(root):
        assert yaml.safe_load(path.read_text("utf-8"))["permissions"] == {"contents": "read"}, path.name


def test_no_checkout_leaves_its_token_in_the_clone(root: Path) -> None:
    checkouts = [step for step in steps(root) if "actions/checkout" in step.get("uses", "")]
    assert checkouts and all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_a_release_is_published_only_after_every_test(root: Path) -> None:
    jobs = yaml.safe_load((root / ".github/workflows/release.yml").read_text("utf-8"))["jobs"]
    assert jobs["test"]["uses"] == "./.github/workflows/test.yml"
    assert set(jobs["pypi"]["needs"]) == {"build", "test"} and jobs["github"]["needs"] == "pypi"


def test_ci_runs_the_pythons_that_the_package_names(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    named = {c.rpartition(" ")[2] for c in project["classifiers"] if re.search(r":: 3\.\d+$", c)}
    job = yaml.safe_load((root / ".github/workflows/test.yml").read_text("utf-8"))["jobs"]["unit"]
    assert set(job["strategy"]["matrix"]["python"]) == named


def test_actionlint_has_one_version(root: Path) -> None:
    texts = [(root / name).read_text("utf-8") for name in (".github/workflows/test.yml", "scripts/lint.sh")]
    assert len({re.findall(r"actionlint@(v[\d.]+)", text)[0] for text in texts}) == 1


def test_the_development_environment_holds_the_versions_that_run(root: Path) -> None:
    """bootstrap.sh lets dev.lock serve the command line; the gateway's code is tested on its image's libraries."""
    folder = root / "requirements"
    dev, gateway, server = (pins(folder / name) for name in ("dev.lock", "gateway.lock", "gateway-server.txt"))
    assert {"aiohttp", "fastapi", "httptools", "uvicorn", "uvloop"} <= server.keys()
    assert server.items() <= gateway.items() and server.items() <= dev.items()
    for name in ("host.lock", "observer.lock", "uv.lock"):
        assert pins(folder / name).items() <= dev.items(), name
    assert "litellm" not in dev


def test_the_licence_is_the_one_that_the_package_names(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    text = (root / "LICENSE").read_text("utf-8")
    assert project["license"] == "Apache-2.0" and project["license-files"] == ["LICENSE"]
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text


def test_every_clone_has_line_feeds(root: Path) -> None:
    """With CRLF neither a shell nor a container finds the interpreter of a script."""
    assert "* text=auto eol=lf" in (root / ".gitattributes").read_text("utf-8").splitlines()


def test_hypothesis_measures_no_time() -> None:
    """A busy machine took 53 s for one input, and a health check failed."""
    assert settings.default is not None
    assert settings.default.deadline is None
    assert HealthCheck.too_slow in settings.default.suppress_health_check


def test_preparing_a_release_dates_the_section_and_sets_the_version() -> None:
    changelog, source = release.prepare("0.2.0", CHANGELOG, SOURCE, date(2026, 3, 4))
    assert "## [Unreleased]\n\n## [0.2.0] - 2026-03-04\n\n### Added\n\n- A thing.\n\n## [0.1.0]" in changelog
    assert '__version__ = "0.2.0"' in source
    assert release.check("v0.2.0", changelog, source) == "### Added\n\n- A thing.\n"


@pytest.mark.parametrize(
    ("version", "changelog", "problem"),
    [
        ("0.2", CHANGELOG, "is not a version"),
        ("v0.2.0", CHANGELOG, "is not a version"),
        ("0.1.0", CHANGELOG, r"already has a section \[0.1.0\]"),
        ("0.2.0", CHANGELOG.replace("- A thing.", ""), "Unreleased lists no change"),
        ("0.2.0", CHANGELOG.replace("## [Unreleased]", "## Unreleased"), r"no section \[Unreleased\]"),
    ],
)
def test_a_release_that_cannot_be_prepared(version: str, changelog: str, problem: str) -> None:
    with pytest.raises(release.Failed, match=problem):
        release.prepare(version, changelog, SOURCE, date(2026, 3, 4))


@pytest.mark.parametrize(
    ("tag", "changelog", "problem"),
    [
        ("v0.2.0", CHANGELOG, "the tag is v0.2.0, but the version in .* is 0.1.0"),
        ("0.1.0", CHANGELOG, "the tag is 0.1.0"),
        ("v0.1.0", CHANGELOG.replace(" - 2026-01-02", ""), "has no date"),
        ("v0.1.0", CHANGELOG.replace("[0.1.0]", "[0.0.9]"), r"no section \[0.1.0\]"),
        ("v0.1.0", CHANGELOG.replace("- The first.", ""), "lists no change"),
    ],
)
def test_a_release_that_must_not_be_published(tag: str, changelog: str, problem: str) -> None:
    with pytest.raises(release.Failed, match=problem):
        release.check(tag, changelog, SOURCE)


def test_every_section_of_the_changelog_is_unreleased_or_dated(root: Path) -> None:
    names = re.findall(r"^## (.*)$", (root / release.CHANGELOG).read_text("utf-8"), re.MULTILINE)
    assert names[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\S*\] - \d{4}-\d{2}-\d{2}", name) for name in names[1:]), names
