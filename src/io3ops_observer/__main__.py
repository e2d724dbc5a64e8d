"""Follow the log until told to stop: count every record, and send its trace where the table names a collector."""

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
from io3ops_shared.log_files.follow import Follower
from io3ops_shared.request_log.files import CURRENT, FULL

POLL = 0.25
# Behind by so much is not well: nobody writes faster than this reads.
LATE = 10.0


class Observer:
    """What is read, and where it goes."""

    def __init__(self, settings: Settings) -> None:
        self.follower = Follower(settings.logs / CURRENT, FULL)
        self.metrics = Metrics(self.follower.unread, self.follower.lag)
        self._words = WordsFile(settings.words)
        self._said = ""
        self._sender: sender.Sender | None = None
        if settings.otlp_url:
            post = sender.to(settings.otlp_url, settings.proxy, settings.ca_dir)
            self._sender = sender.Sender(post, self.metrics)
            self._sender.start()

    def look(self) -> None:
        """Everything that is new in the log. What one line, one look or one table does wrong does not end this."""
        trouble = ""
        try:
            if self._words.refresh():
                self.metrics.expect(self._words.words)
        except (OSError, ValueError, KeyError, TypeError) as error:
            trouble = f"the table's names cannot be read ({type(error).__name__})"
        try:
            for line in self.follower.lines():
                self._take(line)
        except OSError as error:
            trouble = f"the log cannot be read ({type(error).__name__})"
        self._say(trouble)

    def _take(self, line: bytes) -> None:
        try:
            record = parse(line, self._words.words)
            spans = trace(record) if record and self._sender else []
        except Exception:
            # Written by nobody we know; the line is lost and the next one is not.
            record = None
        if record is None:
            self.metrics.skipped.inc()
            return
        self.metrics.count(record)
        if self._sender:
            self._sender.offer(spans)

    def _say(self, text: str) -> None:
        """Each trouble once."""
        if text and text != self._said:
            sys.stdout.write(f"observer: {text}\n")
            sys.stdout.flush()
        self._said = text

    def health(self) -> dict[str, Any]:
        lag = self.follower.lag()
        return {"ok": lag < LATE, "lag_seconds": round(lag, 1), "unread_bytes": self.follower.unread()}

    def stop(self) -> None:
        if self._sender:
            self._sender.stop(2.0)
        self.follower.close()


def main() -> None:
    settings = from_environment(os.environ)
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    observer = Observer(settings)
    served = server.server(settings.port, observer.metrics, observer.health)
    threading.Thread(target=served.serve_forever, name="http", daemon=True).start()
    while not stopped.wait(POLL):
        observer.look()
    observer.look()
    observer.stop()


if __name__ == "__main__":
    main()
