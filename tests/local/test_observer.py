"""The observer beside a log that grows: as a process with a collector that comes and goes, and as `io3ops up` starts it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.clone import ROOT, Clone, free_port, until
from tests.fake_collector import Collector
from tests.unit.observer.records import FELL_BACK, SECRET, STREAMED, line

WORDS = {
    "modes": ["executor"],
    "deployments": {
        "executor.1.smollm2": {"provider": "local", "kind": "ollama", "model": "smollm2"},
        "executor.2.gpt-small": {"provider": "openai", "kind": "openai", "model": "gpt-small"},
    },
}


class Watched:
    """A folder with a log in it, and the observer's port."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port

    def write(self, *lines: bytes) -> None:
        with (self.folder / "requests.jsonl").open("ab") as file:
            file.write(b"".join(entry + b"\n" for entry in lines))

    def rotate(self) -> None:
        name = f"requests-20261124T181000Z-{time.monotonic_ns()}.jsonl"
        (self.folder / "requests.jsonl").rename(self.folder / name)

    def scraped(self) -> str:
        return httpx.get(f"http://127.0.0.1:{self.port}/metrics", trust_env=False).text

    def value(self, sample: str) -> float:
        """Of all series of a sample whose labels have these in them, in their alphabet."""
        name, _, labels = sample.partition("{")
        wanted = set(labels.rstrip("}").split(",")) - {""}
        found = re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", self.scraped(), re.M)
        return sum(float(number) for has, number in found if wanted <= set(has.split(",")))

    def answers(self) -> bool:
        try:
            return bool(self.scraped())
        except httpx.TransportError:
            return False


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def test_a_log_that_turns_and_a_collector_that_comes_late(tmp_path: Path) -> None:
    port, later = free_port(), free_port()
    (tmp_path / "logs").mkdir()
    (tmp_path / "words.json").write_text(json.dumps(WORDS))
    watched = Watched(tmp_path / "logs", port)
    watched.write(line(STREAMED), line(STREAMED))
    own = {"IO3_LOGS": str(watched.folder), "IO3_WORDS": str(tmp_path / "words.json"), "IO3_PORT": str(port)}
    environment = os.environ | own | {"PYTHONPATH": str(ROOT / "src"), "IO3_OTLP_URL": f"http://127.0.0.1:{later}"}
    argv = [sys.executable, "-m", "io3ops_observer"]
    with subprocess.Popen(argv, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as observer:
        try:
            until("it answers", watched.answers)
            assert watched.value("io3ops_requests_total") == 0, "what was there before is not counted"
            watched.write(line(STREAMED), b'{"v":1,"torn' + line(FELL_BACK), b"nonsense")
            until("two records are read", lambda: watched.value("io3ops_requests_total") == 2)
            assert watched.value("io3ops_request_log_lines_skipped_total") == 1
            watched.write(line(STREAMED))
            watched.rotate()
            watched.write(line(STREAMED))
            until("both files are read", lambda: watched.value("io3ops_requests_total") == 4)
            assert watched.value('io3ops_attempts_total{local="false",error="none"}') == 1
            until("the collector was called", lambda: watched.value("io3ops_span_exports_failed_total") >= 1)
            assert watched.value("io3ops_spans_queued") == 19, "they wait"
            assert watched.value("io3ops_request_log_lag_seconds") < 5, "and the log does not"
            came = Collector(later)
            try:
                until("they are sent", lambda: watched.value("io3ops_spans_sent_total") == 19)
                assert len(came.spans) == 19 and watched.value("io3ops_spans_dropped_total") == 0
                came.status = 400
                watched.write(line(STREAMED))
                until("one is refused", lambda: watched.value('io3ops_spans_dropped_total{reason="refused"}') == 5)
                # Written a moment before the end: still counted and sent.
                came.status = 200
                watched.write(line(FELL_BACK))
                observer.send_signal(signal.SIGTERM)
                assert observer.wait(10) == 0
                assert len(came.spans) == 19 + 4
            finally:
                came.close()
            assert observer.stdout is not None
            said = observer.stdout.read()
            assert (
                "does not accept spans" in said and "accepts spans again" in said and "refuses spans (HTTP 400)" in said
            )
            assert SECRET not in said
        finally:
            observer.kill()


def test_a_name_that_leads_here_from_a_web_page_is_not_served(tmp_path: Path) -> None:
    from io3ops_observer import server
    from io3ops_observer.metrics import Metrics

    port = free_port()
    made = server.server(port, Metrics(), lambda: {"ok": False})
    import threading

    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            assert client.get("/metrics").status_code == 200
            assert client.get("/metrics", headers={"Host": "rebound.example"}).status_code == 403
            assert client.get("/metrics", headers={"Host": f"localhost:{port}"}).status_code == 200
            assert client.get("/health").status_code == 503 and client.get("/").status_code == 404
            assert client.post("/metrics").status_code == 501
    finally:
        made.shutdown()
        made.server_close()
        thread.join()


@pytest.mark.containers
def test_from_the_table_to_a_scrape_and_a_trace_and_away_again(clone: Clone, collector: Collector) -> None:
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
