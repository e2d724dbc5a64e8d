"""One HTTP request on its way through the edge. Touches nothing."""

from dataclasses import dataclass, field

from io3ops_gateway.asgi import Headers, Message, Receive, Send
from io3ops_gateway.policy.client_keys import ClientKey
from io3ops_gateway.policy.endpoints import Endpoint
from io3ops_gateway.request.record import RequestRecord


@dataclass(slots=True, eq=False)
class Exchange:
    """A request, and what the edge's steps know about it so far.

    `extra`: headers of every response to it (CORS). `endpoint`: None when no model serves it. `key`: the client's, once authenticated.
    """

    scope: Message
    receive: Receive
    send: Send
    record: RequestRecord
    extra: Headers = field(default_factory=list)
    endpoint: Endpoint | None = None
    key: ClientKey | None = None

    @property
    def headers(self) -> Headers:
        """The request's headers, names in lower case."""
        headers: Headers = self.scope["headers"]
        return headers

    @property
    def method(self) -> str:
        return str(self.scope["method"])

    @property
    def path(self) -> str:
        """The path, '' when the client encoded it: no path that we serve needs that."""
        path = str(self.scope["path"])
        raw = self.scope.get("raw_path", path.encode())
        return path if raw == path.encode() else ""
