"""Takes each ended request to the request log, and what `io3ops record` asks for to the recorder. Touches nothing but what it is handed.

Nobody waits for it, but it waits a moment for what LiteLLM tells late.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import orjson

from io3ops_gateway.policy.policy import ModePolicy
from io3ops_gateway.request.record import Seen
from io3ops_gateway.request_log.entry import line, stamp

# LiteLLM tells of a call's end in a task of its own; a line without that says less, and that is all.
LATE_SECONDS = 0.5
# At the end of the process, for each of the two files; whoever stops it does not wait long.
END_SECONDS = 0.25


class Keeper(Protocol):
    """`content_capture.Recorder`, as far as it is needed here."""

    def wants(self, mode: str, data_class: str, allow_internal: bool) -> bool: ...

    def keep(self, entry: Mapping[str, Any]) -> bool: ...

    def close(self, seconds: float = ...) -> bool: ...


class Journal:
    """`write`: takes a line, and neither waits nor raises; None: there is no request log. `recorder`: for what is asked for.
    `wait`: at the end, for so many seconds, for what a slow disk holds up."""

    def __init__(
        self,
        write: Callable[[bytes], Any] | None,
        recorder: Keeper,
        wait: Callable[[float], object] = lambda _seconds: None,
    ) -> None:
        self._write = write
        self._recorder = recorder
        self._wait = wait
        self._waiting: dict[int, tuple[Seen, asyncio.TimerHandle]] = {}

    def admitted(self, seen: Seen, mode: ModePolicy, body: Mapping[str, Any]) -> None:
        """A request is served; `body`: as it is handed on."""
        if self._recorder.wants(mode.name, seen.data_class, mode.record_internal):
            seen.question, seen.kept = body, bytearray()

    def ended(self, seen: Seen) -> None:
        """A request has ended; `path` '': it was none that is logged."""
        if not seen.path:
            return
        if seen.kept is not None:
            self._keep(seen, bytes(seen.kept))
        if self._write is None:
            return
        if seen.path == "full" and not seen.told and not seen.outcome and 200 <= seen.status < 400:
            timer = asyncio.get_running_loop().call_later(LATE_SECONDS, self.told, seen)
            self._waiting[id(seen)] = (seen, timer)
        else:
            self._put(seen)

    def told(self, seen: Seen) -> None:
        """LiteLLM has told of it, or nobody waits any longer."""
        found = self._waiting.pop(id(seen), None)
        if found is not None:
            found[1].cancel()
            self._put(seen)

    def flush(self) -> None:
        """There is no time left."""
        for seen, _ in list(self._waiting.values()):
            self.told(seen)

    def close(self) -> None:
        """The process ends, and its event loop has: whoever ended since `flush` is written too, and a slow disk is given a moment."""
        waiting, self._waiting = self._waiting, {}
        for seen, _ in waiting.values():
            self._put(seen)
        self._wait(END_SECONDS)
        self._recorder.close(END_SECONDS)

    def _put(self, seen: Seen) -> None:
        if self._write is not None:
            self._write(orjson.dumps(line(seen)))

    def _keep(self, seen: Seen, answer: bytes) -> None:
        entry = {"time": stamp(seen.time), "id": seen.id, "mode": seen.mode, "data_class": seen.data_class}
        question, seen.question, seen.kept = seen.question, None, None
        try:
            asked = orjson.dumps(question)
        except orjson.JSONEncodeError:
            # It is nested too deeply, and was refused for that.
            return
        seen.recorded = self._recorder.keep({**entry, "request": asked, "answer": answer})
