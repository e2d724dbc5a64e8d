"""Splits a stream of server-sent events (WHATWG HTML, section 9.2) into whole events. Pure."""

import re

# An event ends with an empty line.
_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
# Upper bound for one event, far above any real one: an image in base64 has a few megabytes.
EVENT_BYTES = 16_000_000


class EndlessEventError(Exception):
    """The upstream sent more than `EVENT_BYTES` bytes without ending an event."""


class EventSplitter:
    """Splits the bytes of one stream into events, however the upstream and the network cut them."""

    def __init__(self) -> None:
        self._begun = bytearray()

    def add(self, part: bytes) -> list[bytes]:
        """Return the events that `part` completes, each with the empty line that ends it.

        Raises:
            EndlessEventError: the event that has begun is too long.
        """
        # The end of an event may itself be cut in two.
        start = max(0, len(self._begun) - 3)
        self._begun += part
        events, done = [], 0
        for end in _END.finditer(self._begun, start):
            events.append(bytes(self._begun[done : end.end()]))
            done = end.end()
        del self._begun[:done]
        if len(self._begun) > EVENT_BYTES:
            raise EndlessEventError
        return events

    def rest(self) -> bytes:
        """Return the bytes of the event that has begun and has not ended."""
        return bytes(self._begun)
