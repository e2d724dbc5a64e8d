"""Identifies the client by the key in the request's headers. Touches the file of client keys."""

from collections.abc import Iterable

from io3ops_gateway.asgi import Headers, Message
from io3ops_gateway.errors import Refusal
from io3ops_gateway.policy.client_keys import ClientKey, KeyRing
from io3ops_gateway.policy.data_classes import PROBE


class Authenticator:
    """Looks keys up in `ring`. `owner_key`: for requests that this process sends itself."""

    def __init__(self, ring: KeyRing, owner_key: str = "") -> None:
        self._ring = ring
        self._owner = [(b"authorization", f"Bearer {owner_key}".encode()), (PROBE, b"start")]

    def authenticate(self, headers: Headers) -> ClientKey:
        """Return the client's key.

        Raises:
            Refusal: 401, the key is missing or invalid.
        """
        key = self._ring.find(_keys(headers))
        if key is None:
            raise Refusal(401, "invalid_api_key", "missing or invalid API key")
        return key

    def as_owner(self, scope: Message) -> Message:
        """Return the scope of a request of this process itself, with the owner's key. It does not count towards the clients' limits."""
        return {**scope, "headers": [*scope["headers"], *self._owner]}


def _keys(headers: Headers) -> Iterable[bytes]:
    """Yield the values of all headers in which clients send keys."""
    for name, value in headers:
        if name == b"authorization":
            yield value[7:] if value[:7].lower() == b"bearer " else b""
        elif name in (b"x-api-key", b"api-key"):
            yield value
