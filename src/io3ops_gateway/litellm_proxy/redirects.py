"""Keep every HTTP client of this process, LiteLLM's and those of the providers' libraries, from following redirects. Touches httpx.

Each would follow by default, and httpx has no setting for all of them.
"""

import httpx

from io3ops_gateway.litellm_proxy import compat


def refuse_redirect(_client: object, request: httpx.Request, _response: httpx.Response) -> httpx.Request:
    """Stand in for httpx's own: a server that answers with another address would take the prompt along to it."""
    raise httpx.RemoteProtocolError(
        "the server redirects to another address, and no redirect is followed", request=request
    )


def install() -> None:
    """Refuse redirects from now on.

    Raises:
        StartError: this httpx builds redirects elsewhere.
    """
    compat.REDIRECT.replace(refuse_redirect)
