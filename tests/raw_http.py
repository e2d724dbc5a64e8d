"""HTTP/1.1 by hand, for requests that every library would tidy up: what is sent is exactly what stands in the test."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

# Longer than anything that is answered at once, shorter than the gateway's own clocks.
SECONDS = 10.0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The error object of an answer in OpenAI's shape."""
        found: dict[str, Any] = json.loads(self.body)["error"]
        assert set(found) >= {"message", "type", "code"} and self.headers["content-type"] == "application/json"
        return found


def request(
    method: str, target: str | bytes, *headers: str | bytes, body: bytes = b"", host: str = "localhost"
) -> bytes:
    """A request with exactly these header lines, after one Host; a body also gets its length."""
    lines = [method.encode() + b" " + _bytes(target) + b" HTTP/1.1", f"Host: {host}".encode(), *map(_bytes, headers)]
    if body:
        lines.append(f"Content-Length: {len(body)}".encode())
    return b"\r\n".join([*lines, b"", body])


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


class Connection:
    """One connection, with what came and was not read yet."""

    def __init__(self, port: int, seconds: float = SECONDS) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), seconds)
        self._rest = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> bool:
        """False when the other side has gone."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def send_all(self, parts: Iterable[bytes]) -> int:
        """How many bytes were taken before the other side answered or left."""
        sent = 0
        for part in parts:
            if self.arrived() or not self.send(part):
                break
            sent += len(part)
        return sent

    def arrived(self) -> bool:
        """Whether there is something to read: an answer, or the end."""
        self._socket.setblocking(False)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, ConnectionResetError) as error:
            return isinstance(error, ConnectionResetError)
        finally:
            self._socket.settimeout(SECONDS)
        return True

    def closed(self, seconds: float = SECONDS) -> bool:
        """Wait for the other side to close, past whatever it still says."""
        self._socket.settimeout(seconds)
        try:
            while self._socket.recv(65_536):
                pass
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False
        return True

    def answer(self, *, to: str = "GET") -> Answer | None:
        """The next answer; None when the connection ends without one."""
        head = self._until(b"\r\n\r\n")
        if head is None:
            return None
        first, *lines = head[:-4].split(b"\r\n")
        pairs = (line.decode("latin-1").partition(": ") for line in lines)
        headers = {name.lower(): value for name, _, value in pairs}
        status = int(first.split()[1])
        if to == "HEAD" or status in (100, 204):
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int((self._until(b"\r\n") or b"0").strip() or b"0", 16):
                body += self._exactly(size)
                self._exactly(2)
            self._exactly(2)
            return Answer(status, headers, body)
        return Answer(status, headers, self._exactly(int(headers.get("content-length", 0))))

    def answers(self) -> list[Answer]:
        """All until the connection ends."""
        found = []
        while (answer := self.answer()) is not None:
            found.append(answer)
        return found

    def _until(self, mark: bytes) -> bytes | None:
        while mark not in self._rest:
            if not self._more():
                return None
        found, _, self._rest = self._rest.partition(mark)
        return found + mark

    def _exactly(self, size: int) -> bytes:
        while len(self._rest) < size and self._more():
            pass
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    def _more(self) -> bool:
        try:
            part = self._socket.recv(65_536)
        except ConnectionResetError:
            return False
        self._rest += part
        return bool(part)


def exchange(port: int, data: bytes, *, to: str = "GET") -> Answer | None:
    """One request on a connection of its own, and its answer."""
    with Connection(port) as connection:
        connection.send(data)
        return connection.answer(to=to)


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()
