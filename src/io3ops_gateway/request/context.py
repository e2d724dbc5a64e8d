"""The state of one admitted request: what the edge decided, how its response goes, and where it was routed. Touches nothing.

Each part has one owner: the edge writes `AdmittedRequest` once, the response's sender drives `ResponseWriter`, and LiteLLM's hooks
or the fast lane keep `RoutingState`.
"""

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass, field

from io3ops_gateway.errors import Refusal
from io3ops_gateway.policy.endpoints import Endpoint
from io3ops_gateway.request.attempt_outcome import AttemptOutcome
from io3ops_gateway.request.record import RequestRecord
from io3ops_gateway.request.response_writer import ResponseWriter


@dataclass(frozen=True, kw_only=True, slots=True)
class AdmittedRequest:
    """What the edge decided about a request; nothing changes it afterwards.

    `key`: the client key's name. `requested_model`: the model as the client wrote it;
    `group`: the router's name for the deployments it may use. `may_leave`: it may go to a cloud, because it is public or because
    `override_reason` overrides its class. `truncation`: `refuse` or `flag`, for a prompt longer than the model's window.
    `ignored`: names of the request's fields that are not handed on.
    """

    endpoint: Endpoint
    key: str
    mode: str
    requested_model: str
    group: str
    data_class: str
    data_class_from: str
    may_leave: bool
    override_reason: str = ""
    truncation: str = "refuse"
    ignored: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class RoutingState:
    """Where the request was sent. `deployment`, `local` and `window` (tokens, 0: unknown) describe the attempt that began last.

    `call_type`: LiteLLM's word for the outer call. `truncated`: the model read less than was sent. `overlong`: the error for a
    prompt that the last attempt refused or cut; `overflowed`: some attempt did. `outcome`: a failed attempt of the fast lane, which
    `litellm_proxy.http_transport` replays to LiteLLM. `audited`: providers whose use was written to the audit log.
    """

    attempts: int = 0
    call_type: str = ""
    deployment: str = ""
    local: bool = True
    window: int = 0
    truncated: bool = False
    overlong: Refusal | None = None
    overflowed: bool = False
    outcome: AttemptOutcome | None = None
    audited: set[str] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class RequestContext:
    """One admitted request while it runs.

    `budget`: cancels it when the mode's total time is used up, the client disconnects, or the gateway stops (`stopping`). `slots`: the rate
    limits for which it counts, to be given back. `warmup`: the response that LiteLLM gives in place of a model's, None for a client's
    request. `unsent`: a warm-up request that stops at `litellm_proxy.http_transport`, after the provider's client.
    """

    admitted: AdmittedRequest
    budget: asyncio.Timeout
    response: ResponseWriter
    record: RequestRecord
    slots: tuple[str, ...] = ()
    routing: RoutingState = field(default_factory=RoutingState)
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: bool = False
    warmup: object = None
    unsent: bool = False


CURRENT: ContextVar[RequestContext | None] = ContextVar("request_context", default=None)
