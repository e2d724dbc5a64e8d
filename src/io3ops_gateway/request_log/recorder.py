"""Takes each ended request to the request log, and what `io3ops record` asks for to the recorder. Touches nothing but what it is handed.

Nobody waits for it, but it waits a moment for what LiteLLM tells late.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import orjson

from io3ops_gateway.request.record import RequestRecord
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
        if self._content.wants(mode.name, record.data_class, mode.record_internal):
            record.question, record.kept = body, bytearray()

    def ended(self, record: RequestRecord) -> None:
        """A request has ended; `path` '': it was none that is logged."""
        if not record.path:
            return
        if record.kept is not None:
            self._keep(record, bytes(record.kept))
        if self._write is None:
            return
        if record.path == "full" and not record.told and not record.outcome and 200 <= record.status < 400:
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

    def _keep(self, record: RequestRecord, answer: bytes) -> None:
        entry = {"time": stamp(record.time), "id": record.id, "mode": record.mode, "data_class": record.data_class}
        question, record.question, record.kept = record.question, None, None
        try:
            asked = orjson.dumps(question)
        except orjson.JSONEncodeError:
            # It is nested too deeply, and was refused for that.
            return
        record.recorded = self._content.keep({**entry, "request": asked, "answer": answer})
