"""The file of client keys: entries are read back as written, and an invalid entry is never used."""

from __future__ import annotations

import json
from typing import Any

import pytest

from io3ops.errors import KeysFileInvalid
from io3ops.operations.keys import client_keys
from io3ops.operations.keys.client_keys import ClientKey

ALICE: dict[str, Any] = {
    "sha256": "ab" * 32,
    "created": "2026-11-24T10:00:00Z",
    "data_class": "internal",
    "modes": ["executor", "embed"],
    "limits": {"requests_per_minute": 5, "tokens_per_minute": 100, "parallel": 2},
    "revoked": "2026-11-25T10:00:00Z",
}
BOB: dict[str, Any] = {"sha256": "cd" * 32, "created": "2026-11-24T10:00:00Z"}


def file(**keys: Any) -> bytes:
    return json.dumps({"version": 1, "keys": keys}).encode()


def test_every_field_is_read_and_written_back_the_same() -> None:
    data = file(alice=ALICE, bob=BOB)
    found = client_keys.parse(data, "f")
    assert found["alice"].modes == ("executor", "embed") and found["alice"].fingerprint == "abababab"
    assert found["bob"] == ClientKey(name="bob", sha256="cd" * 32, created="2026-11-24T10:00:00Z")
    assert json.loads(client_keys.render(found)) == json.loads(data), "absent fields stay absent"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe\x00",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"version": 1}',
        b'{"version": 2, "keys": {}}',
        b'{"version": true, "keys": {}}',
        b'{"version": 1, "keys": []}',
        b'{"version": 1, "keys": {}, "more": 1}',
        b'{"version": 1, "keys": {}} {}',
    ],
)
def test_an_invalid_file_of_keys_is_refused(data: bytes) -> None:
    with pytest.raises(KeysFileInvalid, match=r"f is not a file of client keys") as caught:
        client_keys.parse(data, "f")
    assert "the file is unchanged" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sha256": "AB" * 32}, "64 hex"),
        ({"sha256": None}, "64 hex"),
        ({"created": 5}, "`created`"),
        ({"created": "yesterday"}, "`created`"),
        ({"revoked": ""}, "`revoked`"),
        ({"revoked": None}, "`revoked`"),
        ({"revoked": False}, "`revoked`"),
        ({"data_class": "secret"}, "`data_class`"),
        ({"data_class": ["internal"]}, "`data_class`"),
        ({"modes": []}, "at least one"),
        ({"modes": "executor"}, "at least one"),
        ({"modes": [1]}, "`modes` contains an invalid name"),
        ({"limits": []}, "`limits`"),
        ({"limits": {"per_day": 1}}, "`limits`"),
        ({"limits": {"parallel": 0}}, "above 0"),
        ({"limits": {"parallel": True}}, "above 0"),
        ({"limits": {"parallel": "2"}}, "above 0"),
        ({"expires": "2027-01-01T00:00:00Z"}, "unknown key"),
    ],
)
def test_an_invalid_entry_is_refused_with_its_name(change: dict[str, Any], words: str) -> None:
    """Otherwise a restriction that we do not understand would be ignored."""
    client_keys.parse(file(alice=ALICE), "f")
    with pytest.raises(KeysFileInvalid) as caught:
        client_keys.parse(file(alice=ALICE | change), "f")
    assert "'alice'" in caught.value.message and words in caught.value.message


@pytest.mark.parametrize("field", ["sha256", "created"])
def test_a_missing_field_of_an_entry_is_reported(field: str) -> None:
    with pytest.raises(KeysFileInvalid, match=field):
        client_keys.parse(file(alice={k: v for k, v in ALICE.items() if k != field}), "f")


def test_duplicate_keys_in_the_file_are_refused() -> None:
    entry = json.dumps(BOB)
    with pytest.raises(KeysFileInvalid, match="it contains a duplicate key"):
        client_keys.parse(f'{{"version": 1, "keys": {{"bob": {entry}, "bob": {entry}}}}}'.encode(), "f")
    with pytest.raises(KeysFileInvalid, match="same"):
        client_keys.parse(file(alice=BOB, bob=BOB), "f")


@pytest.mark.parametrize("name", ["owner", "Alice", "", "../x"])
def test_the_file_cannot_contain_a_name_that_no_key_can_have(name: str) -> None:
    with pytest.raises(KeysFileInvalid, match="invalid name"):
        client_keys.parse(file(**{name: BOB}), "f")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("owner", "'owner' is the name of the owner's key"),
        ("alice", "a key named 'alice' exists or was revoked"),
        ("Bob", "is not a valid name"),
        ("a b", "is not a valid name"),
        ("", "is not a valid name"),
        ("../../etc", "is not a valid name"),
        ("x" * 65, "is not a valid name"),
        ("sk-io3-abc", "this looks like a key; choose a name"),
    ],
)
def test_a_refused_name_gives_its_reason(name: str, words: str) -> None:
    assert words in client_keys.refusal(name, ["alice"])
    assert client_keys.refusal("bob", ["alice"]) == ""


def test_a_pasted_key_is_not_repeated() -> None:
    assert "abc" not in client_keys.refusal("sk-io3-abc", [])


def test_the_list_shows_what_each_may_do_and_never_a_whole_hash() -> None:
    found = client_keys.parse(file(alice=ALICE, bob=BOB), "f")
    shown = client_keys.text(found.values())
    header, alice, bob = shown.splitlines()
    assert header.split() == ["name", "fingerprint", "class", "modes", "limits", "created", "revoked"]
    assert "executor, embed" in alice and "5 requests/min, 100 tokens/min, 2 concurrent" in alice
    assert alice.endswith(ALICE["revoked"]) and bob.split()[1:] == ["cdcdcdcd", "-", "all", "-", BOB["created"], "-"]
    assert "ab" * 5 not in shown and "ab" * 5 not in json.dumps([k.row() for k in found.values()])
    assert "keys add" in client_keys.text([])
