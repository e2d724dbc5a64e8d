"""What is in compose/observability asks for metrics and labels that the observer has; and its README lists them all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.observer.records import FELL_BACK, STREAMED, WORDS, made

from io3ops_observer.metrics import Metrics
from io3ops_observer.settings import Settings

Folder = Path


@pytest.fixture
def folder(root: Path) -> Folder:
    return root / "compose/observability"


@pytest.fixture(scope="module")
def samples() -> dict[str, set[str]]:
    """Every sample by name, with its labels, once everything has happened."""
    metrics = Metrics()
    metrics.expect(WORDS)
    metrics.count(made(STREAMED, truncated=True))
    metrics.count(made(FELL_BACK))
    found: dict[str, set[str]] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def rules(folder: Folder) -> list[dict[str, Any]]:
    loaded = yaml.safe_load((folder / "rules.yml").read_text("utf-8"))
    return [rule for group in loaded["groups"] for rule in group["rules"]]


def dashboard(folder: Folder) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "grafana-dashboard.json").read_text("utf-8"))
    return found


def expressions(folder: Folder) -> Iterator[str]:
    yield from (rule["expr"] for rule in rules(folder))
    for panel in dashboard(folder)["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def test_every_metric_that_is_asked_for_is_there_with_its_labels(folder: Folder, samples: dict[str, set[str]]) -> None:
    labels = set().union(*samples.values())
    recorded = {rule["record"] for rule in rules(folder) if "record" in rule}
    for expression in expressions(folder):
        assert set(re.findall(r"\bio3ops:[a-z0-9_:]+", expression)) <= recorded, expression
        plain = re.sub(r"\bio3ops:[a-z0-9_:]+", "", expression)
        named = set(re.findall(r"\b(?:io3ops|gen_ai)_[a-z_]+", plain)) - labels
        assert named <= set(samples), expression
        used = set(re.findall(r"(\w+)(?:=~|!=|=)\"", plain)) | {
            name.strip() for inner in re.findall(r"\bby \(([^)]*)\)", plain) for name in inner.split(",")
        }
        assert used - {"job"} <= labels.union(*(samples[name] for name in named)), expression
        assert named or "io3ops:" in expression or "up{" in expression


def test_the_legends_and_texts_name_labels_that_are_there(folder: Folder, samples: dict[str, set[str]]) -> None:
    labels = set().union(*samples.values())
    for panel in dashboard(folder)["panels"]:
        for target in panel["targets"]:
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels
    for rule in rules(folder):
        assert set(re.findall(r"\$labels\.(\w+)", str(rule.get("annotations")))) <= labels


def test_the_dashboard_can_be_imported_anywhere(folder: Folder) -> None:
    """No id of somebody's installation, and every panel asks the data source that its reader chooses."""
    found = dashboard(folder)
    assert "id" not in found and found["templating"]["list"][0]["type"] == "datasource"
    ids = [panel["id"] for panel in found["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in found["panels"]:
        assert {t["datasource"]["uid"] for t in panel["targets"]} | {panel["datasource"]["uid"]} == {"${datasource}"}
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24


def test_prometheus_finds_the_port_that_is_proposed(folder: Folder) -> None:
    loaded = yaml.safe_load((folder / "prometheus.yml").read_text("utf-8"))
    assert loaded["scrape_configs"][0]["static_configs"] == [{"targets": [f"127.0.0.1:{Settings().port}"]}]
    assert loaded["rule_files"] == ["rules.yml"]


def test_the_readme_lists_every_metric_and_no_other(folder: Folder, samples: dict[str, set[str]]) -> None:
    listed = dict(re.findall(r"^\| `((?:io3ops|gen_ai)_\w+)` \|([^|]*)\|", (folder / "README.md").read_text(), re.M))
    families = {re.sub(r"_(bucket|sum|count)$", "", name): labels - {"le"} for name, labels in samples.items()}
    assert {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in listed.items()} == families
