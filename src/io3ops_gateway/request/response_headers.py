"""The x-io3-* response headers, which say how a request was served. Pure."""

import re

from io3ops_gateway.asgi import Headers
from io3ops_gateway.request.context import RequestContext

_UNPRINTABLE = re.compile("[^ -~]")


def x_io3_headers(context: RequestContext, status: int) -> Headers:
    """Return the x-io3-* headers, which say how a request was served."""
    found = {
        "mode": context.admitted.mode,
        "data-class": context.admitted.data_class,
        "data-class-from": context.admitted.data_class_from,
        "attempts": str(context.routing.attempts),
    }
    if context.routing.deployment:
        found["deployment"] = context.routing.deployment
        if status < 400:
            found["served"] = "local" if context.routing.local else "cloud"
    if context.admitted.override_reason:
        found["override"] = "audited" if context.routing.audited else "not used"
    if context.routing.truncated:
        found["truncated"] = "true"
    if context.admitted.ignored:
        found["ignored"] = ",".join(context.admitted.ignored)[:500]
    return [
        # uvicorn cuts a response off at a control character, and field names come from the client.
        (f"x-io3-{n}".encode(), (v if v.isascii() and v.isprintable() else _UNPRINTABLE.sub("?", v)).encode())
        for n, v in found.items()
    ]
