"""The request that runs in this context: what the edge decided about it, and what the hooks did with it. Touches nothing."""

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass, field

from io3ops_gateway.errors import Refusal
from io3ops_gateway.policy.endpoints import CHAT, Endpoint
from io3ops_gateway.request.record import RequestRecord, new_record


@dataclass(slots=True, eq=False)
class RequestContext:
    """One admitted request. `leaves`: it may go to a cloud, because it is public or `reason` overrides its class.

    `slots`: what the meter counts it towards. `deployment`, `local` and `attempts` are of the attempt that began last; `kind`: LiteLLM's word for the call. `begun`, `ended`:
    of the answer; `stopping`: the gateway ends, and the request with it. `warmup`: what LiteLLM answers in place of a model; `outcome`: see `http_transport`.
    `truncation`: what becomes of a prompt longer than `window`, which is of the attempt that began last, in tokens; 0: not known. `truncated`: the
    model has read less than was sent. `overlong`: what to say of a prompt that the last attempt refused or cut; `overflowed`: some attempt did. `record`: for the request log.
    """

    budget: asyncio.Timeout
    key: str
    slots: tuple[str, ...]
    mode: str
    asked: str
    group: str
    data_class: str
    source: str
    leaves: bool
    reason: str = ""
    endpoint: Endpoint = CHAT
    attempts: int = 0
    kind: str = ""
    deployment: str = ""
    local: bool = True
    begun: bool = False
    ended: bool = False
    stopping: bool = False
    truncation: str = "refuse"
    window: int = 0
    truncated: bool = False
    overlong: Refusal | None = None
    overflowed: bool = False
    status: int = 0
    warmup: object = None
    outcome: object = None
    ignored: list[str] = field(default_factory=list)
    audited: set[str] = field(default_factory=set)
    record: RequestRecord = field(default_factory=lambda: new_record([]))


CURRENT: ContextVar[RequestContext | None] = ContextVar("io3ops_running", default=None)
