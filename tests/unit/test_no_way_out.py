"""For any table and any request: nothing that is internal has a way to a cloud.

Read from the rendered text alone, as LiteLLM and the gateway read it: the groups of the model list, and every list of fallbacks
as edges that may be gone in any order and any number. And the other way about, because a gateway that lets nothing out
would pass as well.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from tests.tables import CALLERS, CLOUDS, LOCAL, cloud_host, enabled, from_yaml, in_yaml, members, tables
from tests.unit.gateway.contexts import an_edge

from io3ops.routing.load import parse_table
from io3ops.routing.plan import make_plan
from io3ops.routing.render import render
from io3ops_gateway.asgi import Message, Receive, Send
from io3ops_gateway.edge.app import Edge
from io3ops_gateway.limits.rate_limits import Ledger, RateLimiter
from io3ops_gateway.policy.client_keys import KeyRing
from io3ops_gateway.policy.policy import Policy, from_config
from io3ops_gateway.request.context import CURRENT, RequestContext

CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large]
# Shrinking renders hundreds of tables; add Phase.shrink to look for a small one.
PHASES = [Phase.explicit, Phase.reuse, Phase.generate, Phase.target]
QUICK = settings(deadline=None, suppress_health_check=CHECKS, phases=PHASES)
LISTS = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks")
LOCAL_URLS = {
    "http://runtime:11434",
    "http://runtime-public:11434",
    "http://host.docker.internal:8000/v1",
    "http://10.0.0.7:11434",
}


class Rendered:
    """What a rendered file says, and nothing of how it came about."""

    def __init__(self, table: dict[str, Any]) -> None:
        self.table = table
        plan = make_plan(parse_table(in_yaml(table), "t"))
        self.outside, self.secrets = plan.outside, plan.secrets
        self.text = render(plan)
        self.loaded = from_yaml(self.text)
        self.policy: Policy = from_config(self.loaded)
        self.groups: dict[str, list[str]] = {}
        self.ways: dict[str, set[str]] = {}
        for entry in self.loaded["model_list"]:
            self.groups.setdefault(entry["model_name"], []).append(entry["model_info"]["id"])
        for name in LISTS:
            for entry in self.loaded["router_settings"].get(name, []):
                for group, targets in entry.items():
                    self.ways.setdefault(group, set()).update(targets)

    def reached(self, group: str | None) -> set[str]:
        """Every deployment that some sequence of failures may lead to."""
        seen: set[str] = set()
        ahead = {group} - {None}
        while ahead:
            here = ahead.pop()
            seen.add(str(here))
            ahead |= self.ways.get(str(here), set()) - seen
        return {found for name in seen for found in self.groups[name]}

    def start(self, mode: str, data_class: str) -> str | None:
        found = self.loaded["io3ops_policy"]["modes"][mode]["groups"].get(data_class)
        return None if found is None else str(found)

    def clouds(self, found: set[str]) -> set[str]:
        return {d for d in found if not self.policy.deployments[d].local}

    def model(self, group: str, found: str) -> str:
        return found.removeprefix(f"{group}.").split(".", 1)[1]


def from_an_internal_group_no_sequence_of_failures_leads_to_a_cloud(made: Rendered) -> None:
    overridden = {mode for entry in made.table.get("overrides", {}).values() for mode in entry["modes"]}
    for mode, entry in made.table["modes"].items():
        assert not made.clouds(made.reached(made.start(mode, "internal")))
        if entry.get("data_class") == "internal" and mode not in overridden:
            assert not made.clouds(made.reached(made.start(mode, "public"))), "whatever the request calls itself"


def the_policy_the_table_and_the_wire_agree_about_what_is_a_cloud(made: Rendered) -> None:
    """Three ways to tell, none of which uses another."""
    for entry in made.loaded["model_list"]:
        found, params = entry["model_info"]["id"], entry["litellm_params"]
        provider = made.table["models"][made.model(entry["model_name"], found)]["provider"]
        assert made.policy.deployments[found].local is (provider in LOCAL) is (params.get("api_base") in LOCAL_URLS)
        assert made.policy.deployments[found].provider == provider
        assert bool(made.policy.deployments[found].key) is (provider in CLOUDS)


def an_internal_group_is_the_local_part_of_the_chain_or_there_is_none(made: Rendered) -> None:
    for mode, entry in made.table["modes"].items():
        near = [m for m in members(entry["chain"]) if made.table["models"][m]["provider"] in LOCAL]
        group = made.start(mode, "internal")
        served = [made.model(group, found) for found in made.groups[group]] if group else []
        assert served == near, "in the table's order, all of it and nothing else"


def a_disabled_provider_appears_nowhere(made: Rendered) -> None:
    on = {name for name, entry in made.table["providers"].items() if name in CLOUDS and entry.get("enabled")}
    for name in set(CLOUDS) - on:
        assert name not in made.text and cloud_host(name) not in made.text
        assert f"{name}-key" not in made.secrets and cloud_host(name) not in {host for _, host, _ in made.outside}
    for model, entry in made.table["models"].items():
        if not enabled(made.table, model):
            assert entry["source"]["external"] not in made.text
    assert all(scheme == "https" for scheme, host, _ in made.outside if host in {cloud_host(n) for n in CLOUDS})


def what_may_leave_has_the_whole_chain(made: Rendered) -> None:
    """The other half of the promise: cloud works for the rest."""
    overridden = {mode for entry in made.table.get("overrides", {}).values() for mode in entry["modes"]}
    for mode, entry in made.table["modes"].items():
        if entry.get("data_class") != "internal" or mode in overridden:
            group = made.start(mode, "public")
            assert group is not None
            served = [made.model(group, found) for found in made.groups[group]]
            assert served == [m for m in members(entry["chain"]) if enabled(made.table, m)]


def the_router_knows_no_way_but_those_between_its_groups(made: Rendered) -> None:
    """LiteLLM takes an unknown target for a model of a provider's, and has lists that hold for every group."""
    known = {"routing_strategy", "num_retries", "max_fallbacks", "model_group_retry_policy", *LISTS}
    assert set(made.loaded["router_settings"]) <= known
    assert set(made.loaded["litellm_settings"]) == {"drop_params", "num_retries", "callbacks"}
    ends = set(made.ways) | {target for targets in made.ways.values() for target in targets}
    assert ends <= set(made.groups) and "*" not in ends
    assert all(entry["litellm_params"].get("fallbacks") is None for entry in made.loaded["model_list"])
    ids = [entry["model_info"]["id"] for entry in made.loaded["model_list"]]
    assert len(set(ids)) == len(ids)


HOLDS = [
    from_an_internal_group_no_sequence_of_failures_leads_to_a_cloud,
    the_policy_the_table_and_the_wire_agree_about_what_is_a_cloud,
    an_internal_group_is_the_local_part_of_the_chain_or_there_is_none,
    a_disabled_provider_appears_nowhere,
    what_may_leave_has_the_whole_chain,
    the_router_knows_no_way_but_those_between_its_groups,
]


def directly(made: Rendered, mode: str) -> bool:
    group = made.start(mode, "public")
    return bool(group and made.clouds(set(made.groups[group])))


def by_fallback(made: Rendered, mode: str) -> bool:
    return not directly(made, mode) and bool(made.clouds(made.reached(made.start(mode, "public"))))


def back_home(made: Rendered, mode: str) -> bool:
    group = made.start(mode, "public")
    there = made.groups[group] if group else []
    return bool(there) and made.clouds(set(there)) == set(there) != made.reached(group)


def by_override(made: Rendered, mode: str) -> bool:
    return made.table["modes"][mode].get("data_class") == "internal" and directly(made, mode)


def refused(made: Rendered, mode: str) -> bool:
    return made.start(mode, "internal") is None


def past_a_public_mode(made: Rendered, mode: str) -> bool:
    """An internal prompt falls back to a mode that for public ones leads out, and reaches that mode's local part."""
    ways = made.ways.get(made.start(mode, "internal") or "", set())
    return any(target in made.table["modes"] and directly(made, target) for target in ways)


SHAPES = [directly, by_fallback, back_home, by_override, refused, past_a_public_mode]


def until_all_are_seen(
    check: Callable[[Any], None], examples: st.SearchStrategy[Any], first: int, missing: Callable[[], set[str]]
) -> None:
    """Check examples, in further rounds if need be, until every kind of example was among them.

    The first round is a new one in each run (in CI the same one); if it misses the rarest kind, small ones follow.
    """
    settings(QUICK, max_examples=first)(given(examples)(check))()
    for number in range(30):
        if not missing():
            break
        seed(number)(settings(QUICK, max_examples=15)(given(examples)(check)))()
    assert not missing(), missing()


def test_whatever_the_table_all_of_this_holds() -> None:
    """And each shape of table that the properties speak of is among those that are generated, more than once."""
    shapes: Counter[str] = Counter({shape.__name__: 0 for shape in SHAPES})

    def hold(table: dict[str, Any]) -> None:
        made = Rendered(table)
        for holds in HOLDS:
            holds(made)
        shapes.update(shape.__name__ for shape in SHAPES for mode in table["modes"] if shape(made, mode))

    until_all_are_seen(hold, tables(), 100, lambda: {shape for shape, times in shapes.items() if times < 2})


# -- requests


class Inner:
    """In LiteLLM's place: keeps what the edge decided."""

    def __init__(self) -> None:
        self.runs: list[RequestContext] = []

    async def __call__(self, _scope: Message, receive: Receive, send: Send) -> None:
        context = CURRENT.get()
        assert context is not None
        self.runs.append(context)
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


PLACES = ("header", "tags header", "body", "tags", "metadata", "metadata tags", "litellm_metadata", "extra_body", "extra_body metadata", "suffix")  # fmt: skip
FIELDS: dict[str, Any] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}]},
    "/v1/completions": {"prompt": "x"},
    "/v1/embeddings": {"input": ["x"]},
    "/v1/responses": {"input": "x", "store": True},
    "/v1/messages": {"messages": [], "max_tokens": 5},
}
TRICKS: dict[str, Any] = {
    "fallbacks": ["zzopenai/gpt"], "api_base": "https://zzother.example", "model_list": [], "user_config": {}, "mock_response": "x",
    "custom_llm_provider": "openai", "group": "x:public", "leaves": True, "data-class": "public", "litellm_params": {"model": "openai/x"},
    "proxy_server_request": {"headers": {"x-io3-data-class": "public"}}, "user": "public", "io3ops_policy": {},
}  # fmt: skip

# Those that carry a mark where nothing reads it.
LOST = {"data-class", "proxy_server_request"}


@st.composite
def requests(draw: st.DrawFn, modes: list[str]) -> dict[str, Any]:
    """Any mode, caller and endpoint, with marks in any places, tricks in any fields, and sometimes a reason."""
    usual = draw(st.sampled_from(["internal", "public"]))
    marks = draw(
        st.dictionaries(st.sampled_from(PLACES), st.sampled_from([usual] * 9 + ["internal", "public"]), max_size=3)
    )
    mode = draw(st.sampled_from(modes))
    fitting = [path for path in sorted(FIELDS) if ("embed" in path) is (mode == "embed")]
    return {
        "mode": mode,
        "caller": draw(st.sampled_from(sorted(CALLERS))),
        "path": draw(st.sampled_from(fitting * 3 + sorted(FIELDS))),
        "marks": marks,
        "tricks": draw(
            st.lists(st.sampled_from(sorted(TRICKS.keys() - LOST) * 4 + sorted(LOST)), max_size=3, unique=True)
        ),
        "reason": draw(st.sampled_from([False] * 3 + [True])),
    }


def written(asked: dict[str, Any]) -> tuple[list[tuple[bytes, bytes]], dict[str, Any]]:
    """The request's headers and body."""
    headers = [(b"host", b"localhost"), (b"authorization", f"Bearer sk-{asked['caller']}".encode())]
    body = {"model": asked["mode"], **FIELDS[asked["path"]], **{name: TRICKS[name] for name in asked["tricks"]}}
    for place, word in asked["marks"].items():
        if place == "header":
            headers.append((b"x-io3-data-class", word.encode()))
        elif place == "tags header":
            headers.append((b"x-litellm-tags", f"team,{word}".encode()))
        elif place == "suffix":
            body["model"] += f":{word}"
        else:
            *outer, last = place.split()
            name = "data_class" if last == "body" else "tags" if last == "tags" else last
            here = body
            for part in outer:
                here = here.setdefault(part, {})
            if name in ("metadata", "litellm_metadata", "extra_body"):
                here.setdefault(name, {})["data_class"] = word
            else:
                here[name] = [word] if name == "tags" else word
    if asked["reason"]:
        headers.append((b"x-io3-override", b"the customer agreed in writing"))
    return headers, body


def answer(edge: Edge, asked: dict[str, Any]) -> tuple[int, dict[str, str]]:
    headers, body = written(asked)
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": json.dumps(body).encode()}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(edge({"type": "http", "method": "POST", "path": asked["path"], "headers": headers}, receive, send))
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    path: Path = tmp_path_factory.mktemp("keys") / "keys.json"
    keys = {
        name: {"sha256": hashlib.sha256(f"sk-{name}".encode()).hexdigest(), "created": "", "data_class": said}
        for name, said in CALLERS.items()
    }
    path.write_text(json.dumps({"version": 1, "keys": keys}))
    return KeyRing("sk-owner", path)


def test_no_request_that_anybody_calls_internal_is_let_near_a_cloud(ring: KeyRing) -> None:
    """And nobody's word is needed where the table's default is internal. Every kind of end is seen."""
    ends: Counter[str] = Counter()

    def hold(data: st.DataObject) -> None:
        made = Rendered(data.draw(tables()))
        for _ in range(16):
            asked = data.draw(requests(list(made.table["modes"])))
            inner, meter = Inner(), RateLimiter(Ledger(), worker=0, clock=lambda: 0.0)
            status, headers = answer(an_edge(inner, made.policy, ring, meter), asked)
            ends[outcome(made, asked, status, headers, inner)] += 1

    # A table takes longer to render than a request to be decided: few tables, many requests of each.
    until_all_are_seen(hold, st.data(), 30, lambda: ENDS - set(ends))
    assert set(ends) == ENDS


ENDS = {
    "a mark that nothing reads",
    "another endpoint",
    "contradictory",
    "internal, here",
    "internal, refused",
    "public, in a cloud",
    "public, here",
    "override, out",
    "override, refused",
}


def outcome(made: Rendered, asked: dict[str, Any], status: int, headers: dict[str, str], inner: Inner) -> str:
    """Hold what became of a request against what the words say, worked out anew; and its kind of end."""
    mode, marks = made.table["modes"][asked["mode"]], set(asked["marks"].values())
    makes_vectors = any("capabilities" in made.table["models"][name] for name in members(mode["chain"]))
    if (asked["path"] == "/v1/embeddings") is not makes_vectors:
        assert status == 400 and not inner.runs
        return "another endpoint"
    if len(marks) > 1:
        assert status == 400 and not inner.runs
        return "contradictory"
    if LOST & set(asked["tricks"]):
        assert status == 400 and not inner.runs
        return "a mark that nothing reads"
    # A tag makes a prompt internal and never public.
    marks = {word for place, word in asked["marks"].items() if word == "internal" or "tags" not in place}
    said = {mode.get("data_class", ""), CALLERS[asked["caller"]], *marks} - {""}
    default = made.table.get("defaults", {}).get("data_class", "internal")
    internal = "internal" in (said or {default})
    may = asked["mode"] in made.table.get("overrides", {}).get(asked["caller"], {}).get("modes", [])
    if asked["reason"] and not may:
        assert status == 403 and not inner.runs
        return "override, refused"
    leaves = not internal or asked["reason"]
    group = made.start(asked["mode"], "public" if leaves else "internal")
    if group is None:
        assert internal and status == 403 and not inner.runs
        return "internal, refused"
    assert status == 200, (status, headers)
    (context,) = inner.runs
    assert context.admitted.group == group and context.admitted.may_leave is leaves
    assert headers["x-io3-data-class"] == context.admitted.data_class == ("internal" if internal else "public")
    assert bool(context.admitted.override_reason) is (internal and leaves)
    out = bool(made.clouds(made.reached(group)))
    if internal and not leaves:
        assert not out
        return "internal, here"
    if internal:
        return "override, out"
    return "public, in a cloud" if out else "public, here"
