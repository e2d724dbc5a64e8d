"""Follow the log until a signal ends it: count every record, and send its trace if the table names a collector."""

import os
import signal
import sys
import threading
from typing import Any

from io3ops_observer import sender, server
from io3ops_observer.metrics import Metrics
from io3ops_observer.record import parse
from io3ops_observer.settings import Settings, from_environment
from io3ops_observer.spans import trace
from io3ops_observer.words import WordsFile
from io3ops_shared.log_files.file_follower import Follower
from io3ops_shared.request_log.files import CURRENT, FULL

POLL = 0.25
# Seconds without having read the log to its end. The gateway never writes faster than this reads.
LATE = 10.0


class Observer:
    """Reads the log, and hands its records to the metrics and the sender."""

    def __init__(self, settings: Settings) -> None:
        self.follower = Follower(settings.logs / CURRENT, FULL)
        self.metrics = Metrics(self.follower.unread, self.follower.lag)
        self._words = WordsFile(settings.words)
        self._reported = ""
        self._sender: sender.Sender | None = None
        if settings.otlp_url:
            post = sender.to(settings.otlp_url, settings.proxy, settings.ca_dir)
            self._sender = sender.Sender(post, self.metrics)
            self._sender.start()

    def look(self) -> None:
        """Read everything that is new in the log. An error in a line, a read or the table does not end the observer."""
        trouble = ""
        try:
            if self._words.refresh():
                self.metrics.expect(self._words.words)
        except (OSError, ValueError) as error:
            trouble = f"the table's names cannot be read ({type(error).__name__})"
        try:
            for line in self.follower.lines():
                self._take(line)
        except OSError as error:
            trouble = f"the log cannot be read ({type(error).__name__})"
        self._report(trouble)

    def _take(self, line: bytes) -> None:
        try:
            record = parse(line, self._words.words)
            spans = trace(record) if record and self._sender else []
        except Exception:  # noqa: BLE001  a line that no gateway of ours wrote must not end the observer
            record = None
        if record is None:
            self.metrics.skipped.inc()
            return
        self.metrics.count(record)
        if self._sender:
            self._sender.offer(spans)

    def _report(self, text: str) -> None:
        """Print each trouble once."""
        if text and text != self._reported:
            sys.stdout.write(f"observer: {text}\n")
            sys.stdout.flush()
        self._reported = text

    def health(self) -> dict[str, Any]:
        """Return how far the log is read, and whether that is well."""
        lag = self.follower.lag()
        return {"ok": lag < LATE, "lag_seconds": round(lag, 1), "unread_bytes": self.follower.unread()}

    def stop(self) -> None:
        """Send what is queued, for a moment, and close the log."""
        if self._sender:
            self._sender.stop(2.0)
        self.follower.close()


def main() -> None:
    settings = from_environment(os.environ)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    observer = Observer(settings)
    http = server.server(settings.port, observer.metrics, observer.health)
    threading.Thread(target=http.serve_forever, name="http", daemon=True).start()
    while not stopped.wait(POLL):
        observer.look()
    observer.look()
    observer.stop()


if __name__ == "__main__":
    main()
