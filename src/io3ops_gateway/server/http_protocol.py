"""uvicorn's HTTP/1.1 connection with the limits that it lacks: on the time and size of a request's head, and on a client that stops reading.

Without them a client that sends half a head, or one without end, would hold its connection open. Touches the connections it is given.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from io3ops_gateway.asgi import Message

# From a request's first byte to the end of its head.
HEAD_SECONDS = 15.0
# Also the limit for bytes between two parts of a body: chunk extensions and trailers.
HEAD_BYTES = 65_536
HEADERS = 100
# A client that reads nothing of its response for this long is gone, even when its connection still stands.
STALL_SECONDS = 60.0

_STATUS = {
    400: b"400 Bad Request",
    408: b"408 Request Timeout",
    431: b"431 Request Header Fields Too Large",
    505: b"505 HTTP Version Not Supported",
}
# Headers that offer an upgrade, and have no other meaning.
_UPGRADE = frozenset({b"upgrade", b"http2-settings"})


class ConnectionState(ServerState):
    """What all connections of a worker share. `leaving`: the worker accepts no new ones, so each response closes its connection."""

    def __init__(self) -> None:
        super().__init__()
        self.leaving = False


class LimitedHttp(HttpToolsProtocol):
    """One connection. A head that is too slow or too large ends it."""

    server_state: ConnectionState

    def __init__(
        self,
        config: Config,
        server_state: ConnectionState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._in_head = True
        # Bytes since the parser last reported anything; it does not show an unfinished part.
        self._fed = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._data = b""
        # The head of a request without the upgrade that it offered, until that request is read again.
        self._plain = b""
        # Called when the client disconnects before its response is complete; `request.disconnect` sets it.
        self.when_gone: Callable[[], None] | None = None
        self.gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A stream's transport; asyncio's base class of all protocols leaves that open.
        super().connection_made(cast(asyncio.Transport, transport))
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._stop_stall_timer()
        super().connection_lost(exc)
        self.gone = True
        if self.when_gone is not None:
            self.when_gone()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall_timer = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_stall_timer()

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def on_response_complete(self) -> None:
        unread = self.cycle is not None and self.cycle.more_body
        super().on_response_complete()
        if unread:
            # The rest of a refused body may still come, and must not have the time of an idle connection.
            self._start_head_timer()

    def leave(self, idle: int) -> None:
        """Close this connection with its next response, or after `idle` seconds without a request."""
        self.timeout_keep_alive = idle
        if self.cycle is not None and not self.cycle.response_complete:
            if not self.cycle.response_started:
                self.cycle.keep_alive = False
            return
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(idle, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        self._fed += len(data)
        self._data = data
        super().data_received(data)
        self._data = b""
        if self._fed > HEAD_BYTES:
            self._end(431)
        elif self.cycle is not None and self.cycle.response_complete:
            # uvicorn's timer of an idle connection stops at any byte, also of an empty line or of a refused body's rest.
            self._start_head_timer()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._start_head_timer()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            super().on_header(name, value)
        else:
            # A trailer comes too late for every decision about the request.
            self._end(400)

    def on_headers_complete(self) -> None:
        self._stop_head_timer()
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
            self._plain = self._without_upgrade()
        else:
            super().on_headers_complete()
            # As the client wrote it: uvicorn drops the host of an absolute target, and a fragment.
            self.scope["raw_path"] = self.url.partition(b"?")[0]
            # ASGI allows a server keys of its own; uvicorn's type lists only its own.
            cast(Message, self.scope)["io3_connection"] = self
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
        """Read the same request again without the upgrade that it offers. Java's client offers one with every request.

        uvicorn would lose the body, and take it for the next request. It calls this while it handles the parser's exception, whose
        argument is where the parser stopped.
        """
        error = sys.exc_info()[1]
        plain, self._plain = self._plain, b""
        if plain and error is not None and not self.transport.is_closing():
            self.parser = type(self.parser)(self)
            super().data_received(plain + self._data[error.args[0] :])

    def _without_upgrade(self) -> bytes:
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/" + self.parser.get_http_version().encode()]
        for name, value in self.headers:
            if name == b"connection":
                kept = [option for option in value.split(b",") if option.strip().lower() not in _UPGRADE]
                value = b",".join(kept)
            if name not in _UPGRADE and (value or name != b"connection"):
                lines.append(name + b": " + value)
        return b"\r\n".join([*lines, b"", b""])

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._end, 408)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end(self, status: int) -> None:
        """Refuse what this connection sends and close it; a response that has begun is only cut."""
        if self.transport is None or self.transport.is_closing():
            return
        waits = self.cycle is not None and not self.cycle.response_started
        if self.cycle is None or self.cycle.response_complete or waits:
            self.transport.write(b"HTTP/1.1 " + _STATUS[status] + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        if waits:
            # The app must not answer this request a second time.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
