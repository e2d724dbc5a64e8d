"""Hands each ended request to the request log, and what `io3ops record` asks for to the content file. Touches nothing itself.

No response waits for it. It waits a moment for what LiteLLM reports late.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import orjson

from io3ops_gateway.request.record import Capture, RequestRecord
from io3ops_gateway.request_log.entry import line, timestamp
from io3ops_shared.policy import ModePolicy
from io3ops_shared.request_log.schema import RequestPath

# LiteLLM reports the end of a call in a task of its own. After this long the line is written without that.
LATE_SECONDS = 0.5
# How long the end of the process may wait for each of the two files.
END_SECONDS = 0.25


class ContentSink(Protocol):
    """The part of `content_capture.ContentRecorder` that is used here."""

    def wants(self, mode: str, data_class: str, allow_internal: bool) -> bool: ...

    def keep(self, entry: Mapping[str, Any]) -> bool: ...

    def close(self, seconds: float = ...) -> bool: ...


class RequestRecorder:
    """Writes the line of each request when it has ended, and its content where that is asked for.

    `write`: takes a line, and neither waits nor raises; None: there is no request log. `wait`: waits so many seconds at the end for
    lines that a slow disk delays.
    """

    def __init__(
        self,
        write: Callable[[bytes], Any] | None,
        content: ContentSink,
        wait: Callable[[float], object] = lambda _seconds: None,
    ) -> None:
        self._write = write
        self._content = content
        self._wait = wait
        self._waiting: dict[int, tuple[RequestRecord, asyncio.TimerHandle]] = {}

    def admitted(self, record: RequestRecord, mode: ModePolicy, body: Mapping[str, Any]) -> None:
        """Begin to capture a request's content if that is asked for. `body`: as it is passed on."""
        if self._content.wants(mode.name, record.decision.data_class, mode.record_internal):
            record.capture = Capture(body)

    def ended(self, record: RequestRecord) -> None:
        """Write the line of a request that has ended; at once, or when LiteLLM has reported its usage."""
        if not record.path:
            return
        if record.capture is not None:
            self._keep(record, record.capture)
        if self._write is None:
            return
        if (
            record.path == RequestPath.FULL
            and not record.usage.reported
            and not record.outcome
            and 200 <= record.status < 400
        ):
            timer = asyncio.get_running_loop().call_later(LATE_SECONDS, self.told, record)
            self._waiting[id(record)] = (record, timer)
        else:
            self._put(record)

    def told(self, record: RequestRecord) -> None:
        """Write the line of a request that waited: LiteLLM has reported its usage, or the time for that is over."""
        waiting = self._waiting.pop(id(record), None)
        if waiting is not None:
            waiting[1].cancel()
            self._put(record)

    def flush(self) -> None:
        """Write the lines of all requests that wait."""
        for record, _ in list(self._waiting.values()):
            self.told(record)

    def close(self) -> None:
        """Write what is left, and give a slow disk a moment. Called when the process ends and its event loop is closed."""
        waiting, self._waiting = self._waiting, {}
        for record, _ in waiting.values():
            self._put(record)
        self._wait(END_SECONDS)
        self._content.close(END_SECONDS)

    def _put(self, record: RequestRecord) -> None:
        if self._write is not None:
            self._write(orjson.dumps(line(record)))

    def _keep(self, record: RequestRecord, capture: Capture) -> None:
        decision = record.decision
        entry = {
            "time": timestamp(record.timing.wall),
            "id": record.id,
            "mode": decision.mode,
            "data_class": decision.data_class,
        }
        record.capture = None
        try:
            request = orjson.dumps(capture.request)
        except orjson.JSONEncodeError:
            # It is nested too deeply, and was refused for that.
            return
        record.recorded = self._content.keep({**entry, "request": request, "answer": bytes(capture.answer)})
