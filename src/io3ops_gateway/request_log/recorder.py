"""Takes each ended request to the request log, and what `io3ops record` asks for to the recorder. Touches nothing but what it is handed.

Nobody waits for it, but it waits a moment for what LiteLLM tells late.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import orjson

from io3ops_gateway.request.record import Capture, RequestRecord
from io3ops_gateway.request_log.entry import line, stamp
from io3ops_shared.policy import ModePolicy

# LiteLLM tells of a call's end in a task of its own; a line without that says less, and that is all.
LATE_SECONDS = 0.5
# At the end of the process, for each of the two files; whoever stops it does not wait long.
END_SECONDS = 0.25


class ContentSink(Protocol):
    """`content_capture.ContentRecorder`, as far as it is needed here."""

    def wants(self, mode: str, data_class: str, allow_internal: bool) -> bool: ...

    def keep(self, entry: Mapping[str, Any]) -> bool: ...

    def close(self, seconds: float = ...) -> bool: ...


class RequestRecorder:
    """`write`: takes a line, and neither waits nor raises; None: there is no request log. `content`: for what is asked for.
    `wait`: at the end, for so many seconds, for what a slow disk holds up."""

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
        """A request is served; `body`: as it is handed on."""
        if self._content.wants(mode.name, record.decision.data_class, mode.record_internal):
            record.capture = Capture(body)

    def ended(self, record: RequestRecord) -> None:
        """A request has ended; `path` '': it was none that is logged."""
        if not record.path:
            return
        if record.capture is not None:
            self._keep(record, record.capture)
        if self._write is None:
            return
        if record.path == "full" and not record.usage.reported and not record.outcome and 200 <= record.status < 400:
            timer = asyncio.get_running_loop().call_later(LATE_SECONDS, self.told, record)
            self._waiting[id(record)] = (record, timer)
        else:
            self._put(record)

    def told(self, record: RequestRecord) -> None:
        """LiteLLM has told of it, or nobody waits any longer."""
        found = self._waiting.pop(id(record), None)
        if found is not None:
            found[1].cancel()
            self._put(record)

    def flush(self) -> None:
        """There is no time left."""
        for record, _ in list(self._waiting.values()):
            self.told(record)

    def close(self) -> None:
        """The process ends, and its event loop has: whoever ended since `flush` is written too, and a slow disk is given a moment."""
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
            "time": stamp(record.timing.wall),
            "id": record.id,
            "mode": decision.mode,
            "data_class": decision.data_class,
        }
        record.capture = None
        try:
            asked = orjson.dumps(capture.request)
        except orjson.JSONEncodeError:
            # It is nested too deeply, and was refused for that.
            return
        record.recorded = self._content.keep({**entry, "request": asked, "answer": bytes(capture.answer)})
