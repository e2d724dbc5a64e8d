"""The data class of a request, the group that serves it, and the headers and errors of the response."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.unit.gateway.edge.house import PNG, POLICY, House, outcome

from io3ops_gateway.asgi import Message, Receive, Send
from io3ops_gateway.policy.policy import Policy
from io3ops_gateway.request.context import CURRENT


@pytest.mark.parametrize(
    ("model", "key", "said", "expected"),
    [
        ("near", "owner", "", ("internal", "mode", "near", False)),
        ("near", "outer", "public", ("internal", "mode", "near", False)),
        ("near", "inner", "internal", ("internal", "request", "near", False)),
        ("open", "owner", "", ("public", "mode", "open:public", True)),
        ("open", "inner", "", ("internal", "key", "open", False)),
        ("open", "inner", "public", ("internal", "key", "open", False)),
        ("open", "outer", "internal", ("internal", "request", "open", False)),
        ("quiet", "owner", "", ("internal", "default", "quiet", False)),
        ("quiet", "outer", "", ("public", "key", "quiet:public", True)),
        ("quiet", "owner", "public", ("public", "request", "quiet:public", True)),
        ("quiet", "inner", "public", ("internal", "key", "quiet", False)),
        ("strict", "outer", "public", ("internal", "mode", "strict", False)),
    ],
)
def test_an_internal_prompt_goes_to_the_local_group(
    house: House, model: str, key: str, said: str, expected: tuple[str, str, str, bool]
) -> None:
    marked = [(b"x-io3-data-class", said.encode())] if said else []
    assert outcome(house, house.chat(model, key=key, headers=marked)) == expected
    if said:
        assert outcome(house, house.chat(f"{model}:{said}", key=key)) == expected
        assert outcome(house, house.chat(model, key=key, metadata={"data_class": said})) == expected
        # A tag makes a prompt internal and never public.
        tagged = expected if said == "internal" else outcome(house, house.chat(model, key=key))
        assert outcome(house, house.chat(model, key=key, tags=[said])) == tagged


def test_an_unmarked_prompt_leaves_only_when_the_table_allows_it(tmp_path: Path) -> None:
    modes = {"quiet": POLICY.modes["quiet"]}
    house = House(tmp_path, Policy(modes=modes, aliases={}, data_class="public"))
    assert outcome(house, house.chat("quiet")) == ("public", "default", "quiet:public", True)
    assert outcome(house, house.chat("quiet:internal")) == ("internal", "request", "quiet", False)
    assert Policy(modes=modes, aliases={}).data_class == "internal"


def test_aliases_and_suffixes_lead_to_their_mode(house: House) -> None:
    assert outcome(house, house.chat("gpt-4o")) == ("public", "mode", "open:public", True)
    assert outcome(house, house.chat("gpt-4o:internal")) == ("internal", "request", "open", False)
    assert outcome(house, house.chat("claude:latest")) == ("internal", "mode", "near", False)
    assert [r.admitted.requested_model for r in house.inner.runs] == ["gpt-4o", "gpt-4o:internal", "claude:latest"]
    assert house.inner.bodies[0]["model"] == "gpt-4o", "the hook compares it"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([(b"x-io3-data-class", b"secret")], {}),
        ([(b"x-io3-data-class", b"internal"), (b"x-io3-data-class", b"public")], {}),
        ([(b"x-io3-data-class", b"public")], {"metadata": {"data_class": "internal"}}),
        ([], {"metadata": "internal"}),
        ([], {"tags": [1]}),
        ([(b"x-io3-data-class", b"internal")], {"model": "open:public"}),
    ],
)
def test_a_mark_that_is_unclear_is_refused(
    house: House, headers: list[tuple[bytes, bytes]], body: dict[str, Any]
) -> None:
    found = house.ask(body={"model": "open", "messages": [], **body}, headers=headers)
    assert found.status == 400 and house.inner.scopes == []


def test_an_internal_prompt_in_a_cloud_only_mode_is_refused(house: House) -> None:
    for found in (house.chat("far:internal"), house.chat("far", key="inner")):
        assert (found.status, found.code) == (403, "stays_local")
        assert found.body["error"]["type"] == "permission_error"
    assert house.inner.scopes == [] and house.chat("far").status == 200


def test_nothing_is_fetched_for_a_prompt_that_is_internal_for_any_reason(house: House) -> None:
    linked = [{"role": "user", "content": [PNG]}]
    for found in (
        house.chat("near", messages=linked),
        house.chat("open", key="inner", messages=linked),
        house.chat("open:internal", messages=linked),
        house.chat("quiet", messages=linked),
        house.chat("near", messages=[], web_search_options={}),
        house.chat("near", tools=[{"type": "web_search"}]),
    ):
        assert found.status == 400 and found.code in ("link_not_allowed", "tool_not_allowed")
    assert house.inner.scopes == []
    assert house.chat("open", messages=linked, tools=[{"type": "web_search"}]).status == 200


def test_the_response_has_our_headers_and_none_of_litellms(house: House) -> None:
    async def serve(_scope: Message, receive: Receive, send: Send) -> None:
        context = CURRENT.get()
        assert context is not None
        context.routing.attempts, context.routing.deployment, context.routing.local = 3, "open.2.g", False
        await house.inner.answer({}, receive, send)

    house.inner.does = serve
    found = house.chat("open", headers=[(b"x-request-id", b"mine-1")])
    assert found.headers == {
        "content-type": "application/json",
        "content-length": "8",
        "retry-after": "7",
        "x-request-id": "mine-1",
        "x-io3-mode": "open",
        "x-io3-data-class": "public",
        "x-io3-data-class-from": "mode",
        "x-io3-attempts": "3",
        "x-io3-deployment": "open.2.g",
        "x-io3-served": "cloud",
    }
    assert found.data == b'{"ok":1}'


def _says(house: House, status: int, body: bytes, *, attempts: int) -> Any:
    async def serve(_scope: Message, _receive: Receive, send: Send) -> None:
        context = CURRENT.get()
        assert context is not None
        context.routing.attempts, context.routing.deployment = attempts, "open.2.g" if attempts else ""
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body[:9], "more_body": True})
        await send({"type": "http.response.body", "body": body[9:]})

    house.inner.does = serve
    return house.chat("open")


def test_an_error_reveals_nothing_of_litellms_settings_or_code(house: House) -> None:
    text = (
        "OpenAIException - Connection error.\\n\\nLiteLLM: model group 'open:public' failed with the error above. Add a fallbacks entry"
        ' for \\"it\\" (Router fallbacks)'
    )
    found = _says(house, 500, f'{{"error":{{"message":"{text}","code":"500"}}}}'.encode(), attempts=2)
    assert found.status == 500 and found.body["error"] == {
        "message": "OpenAIException - Connection error.",
        "code": "500",
    }
    assert int(found.headers["content-length"]) == len(found.data)
    assert "x-io3-served" not in found.headers and found.headers["x-io3-deployment"] == "open.2.g"


def test_when_no_model_can_be_tried_the_client_gets_no_rate_limit_error(house: House) -> None:
    """LiteLLM's 429 for it makes SDKs try again at once."""
    found = _says(house, 429, b'{"error":{"message":"No deployments available for selected model"}}', attempts=0)
    assert (found.status, found.code) == (503, "no_model") and "mode open" in found.body["error"]["message"]
    assert _says(house, 429, b'{"error":{"message":"slow down"}}', attempts=1).status == 429, "a provider's own stays"


def test_a_response_after_a_fallback_names_the_requested_model(house: House) -> None:
    found = _says(house, 200, b'{"model":"ollama_chat/io3ops/x:1","choices":[]}', attempts=2)
    assert found.body == {"model": "open", "choices": []} and int(found.headers["content-length"]) == len(found.data)


def test_the_owners_test_of_a_mode_does_not_count_towards_its_limits(house: House) -> None:
    for _ in range(60):
        assert house.chat("one", headers=[(b"x-io3-probe", b"smoke")]).status == 200
    for _ in range(50):
        assert house.chat("one").status == 200
    assert house.chat("one").status == 429
    assert house.chat("one", key="alice", headers=[(b"x-io3-probe", b"smoke")]).status == 429, "only the owner's"


def test_without_an_attempt_no_deployment_is_named(house: House) -> None:
    found = house.chat("near")
    assert found.headers["x-io3-attempts"] == "0"
    assert "x-io3-served" not in found.headers and "x-io3-deployment" not in found.headers


def test_a_local_response_is_labelled_local(house: House) -> None:
    async def serve(_scope: Message, receive: Receive, send: Send) -> None:
        context = CURRENT.get()
        assert context is not None
        context.routing.deployment = "near.1.a"
        await house.inner.answer({}, receive, send)

    house.inner.does = serve
    assert house.chat("near").headers["x-io3-served"] == "local"


def test_a_providers_key_is_masked_in_responses_that_may_contain_it(tmp_path: Path) -> None:
    house = House(tmp_path, hide=lambda data: data.replace(b"ok", b"**"))
    assert house.chat("open").data == b'{"**":1}'
    assert house.chat("near").data == b'{"ok":1}', "a local answer is not searched"
