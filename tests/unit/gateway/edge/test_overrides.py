"""Overrides: who may use one, for what, and with which reason."""

from __future__ import annotations

import pytest
from tests.unit.gateway.edge.house import REASON, House, outcome

from io3ops_gateway.asgi import Message, Receive, Send
from io3ops_gateway.request.context import CURRENT


def test_an_override_lets_one_request_out(house: House) -> None:
    found = house.chat("strict", key="alice", headers=[(b"x-io3-override", REASON)])
    assert outcome(house, found) == ("internal", "mode", "strict:public", True)
    assert (
        house.inner.runs[0].admitted.override_reason == REASON.decode()
        and found.headers["x-io3-override"] == "not used"
    )
    assert outcome(house, house.chat("strict", key="alice")) == ("internal", "mode", "strict", False), "and no other"
    assert house.inner.runs[1].admitted.override_reason == ""
    assert outcome(house, house.chat("far:internal", key="alice", headers=[(b"x-io3-override", REASON)]))[3] is True
    assert outcome(house, house.chat("strict", key="owner", metadata={"override_reason": REASON.decode()}))[3] is True


def test_a_used_override_is_reported_as_audited(house: House) -> None:
    async def serve(_scope: Message, receive: Receive, send: Send) -> None:
        context = CURRENT.get()
        assert context is not None
        context.routing.audited.add("cloud")
        await house.inner.answer({}, receive, send)

    house.inner.does = serve
    found = house.chat("strict", key="alice", headers=[(b"x-io3-override", REASON)])
    assert found.headers["x-io3-override"] == "audited"


@pytest.mark.parametrize(
    ("model", "key"),
    [("near", "alice"), ("quiet", "alice"), ("strict", "outer"), ("strict", "inner"), ("far:internal", "owner"), ("open", "owner"),
     ("near", "owner"), ("claude:latest", "alice")],
)  # fmt: skip
def test_only_named_keys_in_named_modes_may_override(house: House, model: str, key: str) -> None:
    for more in ({"headers": [(b"x-io3-override", REASON)]}, {"metadata": {"override_reason": REASON.decode()}}):
        found = house.chat(model, key=key, **more)
        assert (found.status, found.code) == (403, "override_not_allowed")
    assert house.inner.scopes == []


def test_an_override_of_a_public_prompt_is_ignored(house: House) -> None:
    found = house.chat("open", key="alice", headers=[(b"x-io3-override", REASON)])
    assert outcome(house, found) == ("public", "mode", "open:public", True)
    assert house.inner.runs[0].admitted.override_reason == "" and "x-io3-override" not in found.headers


@pytest.mark.parametrize(
    "reason",
    [b"", b" ", b"too short", b"x" * 301, b"a" * 9 + b" ", b"reason\nwith a line end", b"reason with \x07 a bell", b"reason with \xe2\x80\xae a turn",
     b"  123456789  "],
)  # fmt: skip
def test_an_override_needs_a_readable_reason(house: House, reason: bytes) -> None:
    for more in ({"headers": [(b"x-io3-override", reason)]}, {"metadata": {"override_reason": reason.decode()}}):
        found = house.chat("strict", key="alice", **more)
        assert (found.status, found.code) == (400, "bad_override")
    assert house.inner.scopes == []


@pytest.mark.parametrize("reason", [True, 1, ["a reason in a list"], {"a": "reason in a mapping"}, False, 0])
def test_a_reason_that_is_not_text_is_refused(house: House, reason: object) -> None:
    assert house.chat("strict", key="alice", metadata={"override_reason": reason}).code == "bad_override"


def test_two_different_reasons_are_refused_and_equal_ones_count_as_one(house: House) -> None:
    twice = [(b"x-io3-override", REASON), (b"x-io3-override", b"another reason altogether")]
    assert house.chat("strict", key="alice", headers=twice).code == "bad_override"
    both = {"headers": twice[:1], "metadata": {"override_reason": "another reason altogether"}}
    assert house.chat("strict", key="alice", **both).code == "bad_override"
    same = {"headers": twice[:1], "metadata": {"override_reason": REASON.decode()}}
    assert outcome(house, house.chat("strict", key="alice", **same))[3] is True


def test_a_reason_in_other_places_overrides_nothing(house: House) -> None:
    words = REASON.decode()
    for more in (
        {"override_reason": words},
        {"user": words},
        {"headers": [(b"x-override", REASON)]},
        {"override": True},
    ):
        assert outcome(house, house.chat("strict", key="alice", **more))[3] is False


@pytest.mark.parametrize("length", [10, 300])
def test_the_shortest_and_longest_reason(house: House, length: int) -> None:
    assert house.chat("strict", key="alice", headers=[(b"x-io3-override", b"x" * length)]).status == 200
