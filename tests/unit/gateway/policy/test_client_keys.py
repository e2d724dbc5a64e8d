"""Client keys: finding them, reading the file again after a change, and a broken file."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from pathlib import Path
from typing import Any

import pytest

from io3ops_gateway.errors import KeyRingError
from io3ops_gateway.policy.client_keys import KeyRing

OWNER = "sk-owner"


def entry(key: str, **more: Any) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(key.encode()).hexdigest(), "created": "2026-11-24T10:00:00Z"} | more


def write(path: Path, content: Any) -> None:
    """As `io3ops keys` does: a new file in the old one's place."""
    data = content if isinstance(content, bytes) else json.dumps({"version": 1, "keys": content}).encode()
    path.with_suffix(".new").write_bytes(data)
    path.with_suffix(".new").replace(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def name(ring: KeyRing, *given: str | bytes) -> str | None:
    found = ring.find([word.encode() if isinstance(word, str) else word for word in given])
    return found.name if found else None


def test_the_owner_needs_no_file(path: Path) -> None:
    ring = KeyRing(OWNER, path)
    assert name(ring, OWNER) == "owner" == name(ring, f" {OWNER} ")
    found = ring.find([OWNER.encode()])
    assert found is not None and (found.modes, found.data_class, found.limits) == (None, "", {})


@pytest.mark.parametrize(
    "given", ["", " ", "sk-owne", "sk-ownerx", "SK-OWNER", "\xff", "x" * 100_000, hashlib.sha256(OWNER.encode()).hexdigest()]
)  # fmt: skip
def test_any_other_value_finds_no_key(path: Path, given: str) -> None:
    """A stolen file of hashes opens nothing either."""
    write(path, {"alice": entry("sk-a")})
    assert name(KeyRing(OWNER, path), given) is None
    assert KeyRing(OWNER, path).find([]) is None


def test_every_field_of_a_key_is_read(path: Path) -> None:
    limits = {"requests_per_minute": 5, "tokens_per_minute": 7, "parallel": 2}
    write(
        path, {"alice": entry("sk-a", data_class="internal", modes=["executor"], limits=limits), "bob": entry("sk-b")}
    )
    ring = KeyRing(OWNER, path)
    alice, bob = ring.find([b"sk-a"]), ring.find([b"sk-b"])
    assert alice is not None and bob is not None
    assert (alice.name, alice.data_class, alice.modes) == ("alice", "internal", frozenset({"executor"}))
    assert alice.limits == limits
    assert (bob.name, bob.data_class, bob.modes, bob.limits) == ("bob", "", None, {})
    assert name(ring, OWNER) == "owner"


def test_an_empty_list_of_modes_allows_none(path: Path) -> None:
    write(path, {"alice": entry("sk-a", modes=[])})
    found = KeyRing(OWNER, path).find([b"sk-a"])
    assert found is not None and found.modes == frozenset()


def test_equal_keys_count_as_one_and_different_ones_as_none(path: Path) -> None:
    """Some clients send theirs in two headers; who sends two different ones may be somebody in between."""
    write(path, {"alice": entry("sk-a"), "bob": entry("sk-b")})
    ring = KeyRing(OWNER, path)
    assert name(ring, "sk-a", "sk-a ") == "alice"
    for others in (("sk-b",), (OWNER,), ("",), ("sk-wrong",)):
        assert name(ring, "sk-a", *others) is None and name(ring, *others, "sk-a") is None


def test_a_revoked_key_is_invalid(path: Path) -> None:
    write(path, {"alice": entry("sk-a", revoked="2026-11-24T11:00:00Z"), "bob": entry("sk-b")})
    ring = KeyRing(OWNER, path)
    assert name(ring, "sk-a") is None and name(ring, "sk-b") == "bob"


def test_changes_take_effect_at_once(path: Path) -> None:
    ring = KeyRing(OWNER, path)
    assert name(ring, "sk-a") is None
    write(path, {"alice": entry("sk-a")})
    assert name(ring, "sk-a") == "alice"
    write(path, {"alice": entry("sk-a"), "bob": entry("sk-b")})
    assert name(ring, "sk-b") == "bob"
    write(path, {"alice": entry("sk-a", revoked="2026-11-24T11:00:00Z"), "bob": entry("sk-b")})
    assert name(ring, "sk-a") is None and name(ring, "sk-b") == "bob"
    path.unlink()
    assert name(ring, "sk-b") is None and name(ring, OWNER) == "owner"
    write(path, {"bob": entry("sk-b")})
    assert name(ring, "sk-b") == "bob"


def test_a_file_that_did_not_change_is_not_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, {"alice": entry("sk-a")})
    ring = KeyRing(OWNER, path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda _: pytest.fail("read again"))
        assert name(ring, "sk-a") == "alice" and name(ring, "sk-b") is None


@pytest.mark.parametrize("what", ["inode", "time", "size", "change"])
def test_each_field_of_the_stat_reveals_a_change(path: Path, what: str) -> None:
    write(path, {"alice": entry("sk-a")})
    ring = KeyRing(OWNER, path)
    before = path.stat()
    content = json.dumps({"version": 1, "keys": {"bobby": entry("sk-b")}}).encode()
    if what == "inode":
        write(path, content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif what == "change":
        # As a restore leaves it: the old time, the old size.
        path.write_bytes(content.ljust(before.st_size)[: before.st_size])
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (path.stat().st_ino, path.stat().st_size) == (before.st_ino, before.st_size)
    elif what == "time":
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    else:
        path.write_bytes(content + b"   ")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert name(ring, "sk-b") == "bobby" and name(ring, "sk-a") is None


BROKEN: list[Any] = [
    b"",
    b"{",
    b"\xff\xfe",
    b"[]",
    b"null",
    b"{}",
    b'{"version": 1}',
    b'{"version": 2, "keys": {}}',
    b'{"version": "1", "keys": {}}',
    b'{"version": 1, "keys": []}',
    b'{"version": 1, "keys": null}',
    {"alice": None},
    {"alice": []},
    {"alice": {}},
    {"alice": entry("sk-a") | {"sha256": 5}},
    {"alice": entry("sk-a") | {"sha256": "ab"}},
    {"owner": entry("sk-a")},
    {"alice": entry("sk-a", expires="2026-01-01")},
    {"alice": entry("sk-a", data_class="secret")},
    {"alice": entry("sk-a", data_class=["internal"])},
    {"alice": entry("sk-a", revoked=True)},
    {"alice": entry("sk-a", revoked=5)},
    {"alice": entry("sk-a", modes="executor")},
    {"alice": entry("sk-a", modes={"executor": 1})},
    {"alice": entry("sk-a", limits=["parallel"])},
    {"alice": entry("sk-a", limits={"per_day": 1})},
    {"alice": entry("sk-a", limits={"parallel": 0})},
    {"alice": entry("sk-a", limits={"parallel": -1})},
    {"alice": entry("sk-a", limits={"parallel": True})},
    {"alice": entry("sk-a", limits={"parallel": "1"})},
    {"alice": entry("sk-a", limits={"parallel": 1.5})},
    {"alice": entry("sk-a", limits={"parallel": None})},
    {"fine": entry("sk-f"), "alice": entry("sk-a", unknown=1)},
]


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_file_stops_the_start(path: Path, content: Any) -> None:
    write(path, content)
    with pytest.raises(KeyRingError) as caught:
        KeyRing(OWNER, path)
    assert str(path) in caught.value.what


@pytest.mark.parametrize("content", BROKEN)
def test_a_file_that_breaks_later_invalidates_named_keys_until_it_is_repaired(
    path: Path, content: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The old keys must not live on: one of them may be the one that was to be revoked."""
    write(path, {"alice": entry("sk-a")})
    ring = KeyRing(OWNER, path)
    write(path, content)
    for _ in range(3):
        assert name(ring, "sk-a") is None and name(ring, "sk-f") is None and name(ring, OWNER) == "owner"
    assert capsys.readouterr().err.count("gateway: ") == 1, "said once, not with every request"
    write(path, {"alice": entry("sk-a")})
    assert name(ring, "sk-a") == "alice"


def test_a_file_that_cannot_be_read_is_like_a_broken_one(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(path, {"alice": entry("sk-a")})
    ring = KeyRing(OWNER, path)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", refuse)
        assert name(ring, "sk-a") is None and name(ring, OWNER) == "owner"
        with pytest.raises(KeyRingError, match="Permission denied"):
            KeyRing(OWNER, path)
    assert name(ring, "sk-a") == "alice"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        write(path, {"alice": entry("sk-a"), "bob": entry("sk-b")})
        assert name(ring, "sk-a") is None and name(ring, OWNER) == "owner"
    assert name(ring, "sk-b") == "bob"
    assert "sk-" not in capsys.readouterr().err


def test_keys_are_compared_in_constant_time_and_all_of_them(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, {f"k{i}": entry(f"sk-{i}") for i in range(5)})
    ring = KeyRing(OWNER, path)
    asked: list[str] = []

    def compare(one: str, other: str) -> bool:
        asked.append(one)
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    for given in (OWNER, "sk-0", "sk-4", "sk-wrong"):
        asked.clear()
        name(ring, given)
        assert len(asked) == 6, "also after the one that fits"


@pytest.mark.parametrize(
    "content",
    [
        {"alice": entry("sk-a", revoked="")},
        {"alice": entry("sk-a", revoked=False)},
        {"alice": entry("sk-a", revoked=None)},
        {"alice": entry("sk-a", limits=[])},
        {"alice": entry("sk-a", limits=0)},
        {"alice": entry("sk-a", limits=False)},
        {"alice": entry("sk-a", data_class=[])},
        {"alice": entry("sk-a", data_class=False)},
        {"alice": entry("sk-a", modes=[1])},
        {"alice": entry("sk-a") | {"sha256": "é" * 64}},
        b'{"version": true, "keys": {}}',
        b"[" * 100_000,
    ],
)
def test_entries_that_io3ops_keys_refuses_are_refused_here_too(path: Path, content: Any) -> None:
    write(path, content)
    with pytest.raises(KeyRingError):
        KeyRing(OWNER, path)
