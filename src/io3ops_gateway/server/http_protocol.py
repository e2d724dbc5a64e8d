"""uvicorn's HTTP/1.1 connection with the limits it has none for, and without what it serves and nobody needs.

Touches the connections it is given. Without this a client that sends half a header, or a header without end, is waited for.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# From the first byte of a request, or of whatever else comes while nothing is being answered, to the end of its head.
HEAD_SECONDS = 15.0
# Also of what stands between two pieces of a body: chunk extensions, trailers.
HEAD_BYTES = 65_536
HEADERS = 100
# A client that takes nothing of its answer for so long has left, whatever its connection says.
STALL_SECONDS = 60.0

_STATUS = {
    400: b"400 Bad Request",
    408: b"408 Request Timeout",
    431: b"431 Request Header Fields Too Large",
    505: b"505 HTTP Version Not Supported",
}
# What belongs to an offered upgrade and to nothing else.
_OFFER = frozenset({b"upgrade", b"http2-settings"})


class LimitedHttp(HttpToolsProtocol):  # type: ignore[misc]
    """One connection. A head that is too slow or too large ends it."""

    parser: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._fed = 0
        self._clock: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._data = b""
        self._plain = b""
        # What is to be done when the client leaves before its answer is complete; for `disconnect.DisconnectWatcher`.
        self.when_gone: Callable[[], None] | None = None
        self.gone = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        self._read_on()
        super().connection_lost(exc)
        self.gone = True
        if self.when_gone is not None:
            self.when_gone()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read_on()

    def _read_on(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def on_response_complete(self) -> None:
        unread = self.cycle is not None and self.cycle.more_body
        super().on_response_complete()
        if unread:
            # The rest of a body that nobody waits for: the time of an idle connection is not for it.
            self._start_clock()

    def leave(self, idle: float) -> None:
        """This worker serves nobody new: the next answer closes the connection, or `idle` seconds without a request."""
        self.timeout_keep_alive = idle
        if self.cycle is not None and not self.cycle.response_complete:
            if not self.cycle.response_started:
                self.cycle.keep_alive = False
            return
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(idle, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        # The parser keeps what is unfinished to itself, so what it was fed since it last said anything is counted.
        self._fed += len(data)
        self._data = data
        super().data_received(data)
        self._data = b""
        if self._fed > HEAD_BYTES:
            self._end(431)
        elif self.cycle is not None and self.cycle.response_complete:
            # uvicorn's own clock has stopped at the first byte: an empty line, or the rest of a body that was refused.
            self._start_clock()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._start_clock()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            super().on_header(name, value)
        else:
            # A trailer: what it says came too late for every decision.
            self._end(400)

    def on_headers_complete(self) -> None:
        self._stop_clock()
        self._in_head = False
        self._fed = 0
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > HEAD_BYTES or len(self.headers) > HEADERS:
            self._end(431)
        elif self.parser.get_http_version() not in ("1.0", "1.1"):
            self._end(505)
        elif self.parser.get_method() == b"CONNECT":
            self._end(400)
        elif self.parser.should_upgrade():
            self._plain = self._without_offer()
        else:
            super().on_headers_complete()
            # As the client wrote it, with the host of an absolute target and a fragment, which uvicorn takes away.
            self.scope["raw_path"] = self.url.partition(b"?")[0]
            self.scope["io3_connection"] = self
            if self.server_state.leaving:
                self.cycle.keep_alive = False

    def on_chunk_header(self) -> None:
        self._fed = 0

    def on_body(self, body: bytes) -> None:
        self._fed = 0
        if self.cycle is not None and not self._plain:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._fed = 0
        if self.cycle is not None and not self._plain:
            super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """An offer to speak something else may be ignored (Java's client makes one with every request): the same request, without it.

        uvicorn would lose its body, and take that for the next request. Called while it handles the parser's exception.
        """
        error = sys.exc_info()[1]
        plain, self._plain = self._plain, b""
        if plain and error is not None and not self.transport.is_closing():
            self.parser = type(self.parser)(self)
            super().data_received(plain + self._data[error.args[0] :])

    def _without_offer(self) -> bytes:
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + self.parser.get_http_version().encode()]
        for name, value in self.headers:
            if name == b"connection":
                kept = [word for word in value.split(b",") if word.strip().lower() not in _OFFER]
                value = b",".join(kept)
            if name not in _OFFER and (value or name != b"connection"):
                lines.append(name + b": " + value)
        return b"\r\n".join([*lines, b"", b""])

    def _start_clock(self) -> None:
        if self._clock is None:
            self._clock = self.loop.call_later(HEAD_SECONDS, self._end, 408)

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _end(self, status: int) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        waits = self.cycle is not None and not self.cycle.response_started
        if self.cycle is None or self.cycle.response_complete or waits:
            self.transport.write(b"HTTP/1.1 " + _STATUS[status] + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        if waits:
            # Nothing more of this request is read or answered.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
