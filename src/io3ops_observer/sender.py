"""Sends spans to the collector in batches, by a thread that nothing waits for. Touches one URL.

A failed batch is kept and sent again, after growing pauses. Spans that do not fit into the queue meanwhile are dropped and counted.
"""

import contextlib
import http.client
import random
import ssl
import sys
import threading
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import ReadableSpan

from io3ops_observer.metrics import Metrics

LONGEST_QUEUE = 2048
BATCH = 512
LINGER = 1.0
TIMEOUT = 5.0
SLOWEST = 30.0
# OTLP says to repeat these. Every other 4xx refuses the spans, and would refuse them again.
AGAIN = (408, 429)

Post = Callable[[bytes, float], bytes]


class Refused(Exception):
    """The collector refuses these spans."""


class Sender(threading.Thread):
    """Sends spans. `post(body, seconds)` returns the response; it raises Refused, or OSError to try again later."""

    def __init__(self, post: Post, metrics: Metrics, *, linger: float = LINGER, slowest: float = SLOWEST) -> None:
        super().__init__(name="sender", daemon=True)
        self._post = post
        self._metrics = metrics
        self._linger, self._slowest = linger, slowest
        self._traces: deque[list[ReadableSpan]] = deque()
        self._waiting = 0
        self._news = threading.Condition()
        self._stopped = threading.Event()
        self._said = ""
        metrics.queued.set_function(lambda: self._waiting)

    def offer(self, trace: list[ReadableSpan]) -> None:
        """Queue a trace, or drop it when too many wait. Returns at once."""
        if not trace:
            return
        with self._news:
            if self._waiting + len(trace) > LONGEST_QUEUE:
                self._metrics.dropped.labels("queue_full").inc(len(trace))
                return
            self._traces.append(trace)
            self._waiting += len(trace)
            self._news.notify()

    def stop(self, seconds: float) -> None:
        """Send what is queued, for at most so many seconds, and end."""
        self._stopped.set()
        with self._news:
            self._news.notify()
        self.join(seconds)

    def run(self) -> None:
        failures = 0
        while batch := self._next():
            while not self._sent(batch):
                failures += 1
                # There is no later after the end.
                if self._stopped.wait(min(self._slowest, 2.0 ** min(failures, 10) * random.uniform(0.5, 1.0))):  # noqa: S311  spreads retries
                    return
            failures = 0

    def _next(self) -> list[ReadableSpan]:
        """Wait for the next batch and return it; empty when everything is sent and the thread is to stop."""
        with self._news:
            while not self._traces and not self._stopped.is_set():
                self._news.wait()
        # Wait for more, to send fewer batches.
        self._stopped.wait(self._linger)
        with self._news:
            batch: list[ReadableSpan] = []
            while self._traces and (not batch or len(batch) + len(self._traces[0]) <= BATCH):
                batch += self._traces.popleft()
        return batch

    def _sent(self, batch: Sequence[ReadableSpan]) -> bool:
        """Return whether this batch is done: accepted, or refused for good."""
        try:
            refused = min(len(batch), _refused(self._post(encode_spans(batch).SerializeToString(), TIMEOUT)))
        except OSError as error:
            self._metrics.failures.inc()
            self._say(f"the collector does not accept spans ({_reason(error)}); at most {LONGEST_QUEUE} of them wait")
            return False
        except Exception as error:  # noqa: BLE001  Refused, or a bug that would occur again: this thread must go on
            refused = len(batch)
            why = str(error) if isinstance(error, Refused) else type(error).__name__
            self._say(f"the collector refuses spans ({why}); io3ops_spans_dropped_total counts them")
        else:
            self._say("")
        self._metrics.sent.inc(len(batch) - refused)
        self._metrics.dropped.labels("refused").inc(refused)
        with self._news:
            self._waiting -= len(batch)
        return True

    def _say(self, trouble: str) -> None:
        """Print each trouble once, and its end."""
        if trouble != self._said:
            sys.stdout.write(f"observer: {trouble or 'the collector accepts spans again'}\n")
            sys.stdout.flush()
        self._said = trouble


def _reason(error: OSError) -> str:
    # The text of any other error may contain file names.
    return str(error) if type(error) is OSError and len(str(error)) < 40 else type(error).__name__


def _refused(answer: bytes) -> int:
    """Return how many spans of a batch the collector refused, according to its response."""
    try:
        return max(0, int(ExportTraceServiceResponse.FromString(answer).partial_success.rejected_spans))
    except DecodeError:
        # Many collectors send another body. The status says what matters.
        return 0


class _Stay(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: they would lead to hosts that the table does not name."""

    def redirect_request(self, *_: Any) -> None:
        return None


def to(url: str, proxy: str, ca_dir: Path) -> Post:
    """Return a function that sends spans to `url` (without `/v1/traces`), through `proxy` unless it is ''."""
    context = ssl.create_default_context()
    if ca_dir.is_dir():
        for path in sorted(ca_dir.iterdir()):
            # A broken certificate must not make the others untrusted.
            with contextlib.suppress(ssl.SSLError):
                context.load_verify_locations(path)
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({"http": proxy, "https": proxy} if proxy else {}),
        urllib.request.HTTPSHandler(context=context),
        _Stay(),
    )
    target = f"{url.rstrip('/')}/v1/traces"

    def post(body: bytes, seconds: float) -> bytes:
        request = urllib.request.Request(  # noqa: S310  the table accepts http and https only
            target, body, {"Content-Type": "application/x-protobuf", "User-Agent": "io3ops"}
        )
        try:
            with opener.open(request, timeout=seconds) as answer:
                return bytes(answer.read(65_536))
        except urllib.error.HTTPError as error:
            with error:
                if 300 <= error.code < 500 and error.code not in AGAIN:
                    raise Refused(f"HTTP {error.code}") from None
                raise OSError(f"HTTP {error.code}") from None
        except urllib.error.URLError as error:
            raise error.reason if isinstance(error.reason, OSError) else OSError(str(error.reason)) from None
        except OSError:
            raise
        except (http.client.HTTPException, ValueError) as error:
            # The server does not speak HTTP.
            raise OSError(type(error).__name__) from None

    return post
