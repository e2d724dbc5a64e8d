"""The observer as `io3ops up` starts it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.clone import Clone, free_port, until
from tests.fake_collector import Collector
from tests.stacks import own_table
from tests.unit.observer.records import SECRET, STREAMED, line
from tests.watched import Watched


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.mark.containers
def test_from_the_table_to_a_scrape_and_a_trace_and_away_again(running: Clone, collector: Collector) -> None:
    with own_table(running):
        observe_and_stop(running, collector)


def observe_and_stop(clone: Clone, collector: Collector) -> None:
    port = free_port()
    observe = f"observe:\n  metrics_port: {port}\n  otlp_url: http://127.0.0.1:{collector.port}\n"
    clone.edit_table("\nproviders:", f"\n{observe}\nproviders:")
    done = clone.io3ops("up", timeout=1800)
    assert done.returncode == 0, done.stderr
    watched = Watched(clone.path / ".io3ops/logs", port)
    until("the observer answers", watched.answers)
    status = {entry["name"]: entry for entry in clone.json("status")["data"]["services"]}
    assert status["observer"]["status"] == status["outlet"]["status"] == "running" and "egress" not in status

    before = watched.value('io3ops_requests_total{mode="executor"}')
    name = f"{STREAMED['id'][:-4]}beef"
    watched.write(line(STREAMED, id=name))
    until("it is counted", lambda: watched.value('io3ops_requests_total{mode="executor"}') == before + 1)
    until("its trace is there", lambda: len(collector.of(name)) == 5)
    assert collector.paths == {"/v1/traces"} and collector.service == "io3ops-gateway"
    root, attempt, *parts = collector.of(name)
    assert (root.name, root.parent, attempt.name, attempt.parent) == ("chat executor", "", "chat smollm2", root.id)
    assert [part.name for part in parts] == ["load", "prompt", "generation"]
    assert {part.parent for part in parts} == {attempt.id}
    assert sum(part.ms for part in parts) == pytest.approx(508.3) and attempt.ms == pytest.approx(511.5)
    assert root.start <= attempt.start <= parts[0].start and parts[-1].end == attempt.end <= root.end
    assert not any(SECRET.encode() in body for body in collector.bodies)

    probes = {probe["layer"]: probe for probe in clone.json("health")["data"]["probes"]}
    assert probes["observer"]["state"] == "ok", probes["observer"]
    findings = clone.json("verify-isolation")["data"]["findings"]
    assert not [f for f in findings if f["state"] == "failed"], findings
    assert [f["state"] for f in findings if f["about"] == "outlet: only the table"] == ["ok"]
    # The gateway has no part in it: not even the outlet's name means anything to it.
    resolved = clone.docker("exec", clone.container("gateway"), "getent", "hosts", "outlet")
    assert resolved.returncode != 0, resolved.stdout
    libraries = "import importlib.util as u; print(u.find_spec('prometheus_client'), u.find_spec('opentelemetry.sdk'))"
    seen = clone.docker("exec", clone.container("gateway"), "/opt/gateway/bin/python", "-c", libraries)
    assert seen.stdout.strip() == "None None"

    gateway = clone.container("gateway")
    clone.edit_table(observe, "")
    done = clone.io3ops("apply")
    assert done.returncode == 0, done.stderr
    assert clone.container("observer") == clone.container("outlet") == "" and not watched.answers()
    assert clone.container("gateway") == gateway, "it was not replaced"
    assert clone.json("health")["ok"]
