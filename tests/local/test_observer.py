"""The observer beside a log that grows: as a process, with a collector that comes and goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
from tests.clone import PATIENCE, ROOT, free_port, until
from tests.fake_collector import Collector
from tests.unit.observer.records import FELL_BACK, SECRET, STREAMED, line
from tests.watched import Watched

WORDS = {
    "modes": ["executor"],
    "deployments": {
        "executor.1.smollm2": {"provider": "local", "kind": "ollama", "model": "smollm2"},
        "executor.2.gpt-small": {"provider": "openai", "kind": "openai", "model": "gpt-small"},
    },
}


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
                assert observer.wait(PATIENCE) == 0
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
