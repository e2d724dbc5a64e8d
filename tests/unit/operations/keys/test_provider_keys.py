"""The providers' keys: valid values, their users, and the remarks about them, which never contain a value."""

from __future__ import annotations

import pytest

from io3ops.errors import NameInvalid, SecretInvalid
from io3ops.operations.keys import provider_keys
from io3ops.operations.keys.provider_keys import ProviderKey, Secrets, State, User
from io3ops.routing.table import Provider

ON = User(provider="cloud", enabled=True, kind="openai")
OFF = User(provider="spare", enabled=False, kind="openai")


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"sk-1\n", "sk-1"),
        (b"sk-1\r\n", "sk-1"),
        (b"sk-1", "sk-1"),
        (b"AKIA:a/b+c=", "AKIA:a/b+c="),
        (b"x" * 4096 + b"\n", "x" * 4096),
    ],
)
def test_one_line_end_is_removed_from_a_piped_key(data: bytes, value: str) -> None:
    assert provider_keys.one_line(data) == value


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\n", "empty"),
        (b"hidden\n\n", "more than one line"),
        (b"hidden\nhidden\n", "more than one line"),
        (b"hidden\r", "more than one line"),
        ("hidden-ä\n".encode(), "outside ASCII"),
        (b"\xef\xbb\xbfhidden\n", "outside ASCII"),
        (b"hidden key\n", "a space"),
        (b" hidden\n", "a space"),
        (b"hidden\0\n", "control character"),
        (b"hidden" + b"x" * 4091, "longer than 4096"),
    ],
)
def test_an_unusable_key_is_refused_and_not_repeated(data: bytes, words: str) -> None:
    with pytest.raises(SecretInvalid) as caught:
        provider_keys.one_line(data)
    assert words in caught.value.message and "hidden" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("name", ["OpenAI", "../master_key", ".openai", "", "sk-abcdefgh", "a" * 42])
def test_a_name_that_no_provider_could_use_is_refused(name: str) -> None:
    with pytest.raises(NameInvalid):
        provider_keys.check_name(name)
    provider_keys.check_name("openai-2")


def test_the_providers_that_use_a_key_are_listed() -> None:
    found = [Provider(name="a", key="k", kind="openai"), Provider(name="b"), Provider(name="c", key="k", enabled=False)]
    assert provider_keys.users(found, "k") == (
        User(provider="a", enabled=True, kind="openai"),
        User(provider="c", enabled=False, kind="ollama"),
    )


def test_only_an_enabled_provider_needs_up() -> None:
    assert provider_keys.after_set("k", "v", [ON, OFF], []) == (
        "run `io3ops up`, so that the gateway uses it for cloud",
    )
    (off,) = provider_keys.after_set("k", "v", [OFF], [])
    assert "spare" in off and "does not enable" in off and "io3ops up" not in off
    (unused,) = provider_keys.after_set("opneai", "v", [], ["openai"])
    assert "no provider" in unused and "did you mean 'openai'" in unused


def test_bedrock_needs_an_id_and_a_secret() -> None:
    aws = User(provider="aws", enabled=True, kind="bedrock")
    assert any("ACCESS_KEY_ID:SECRET" in note for note in provider_keys.after_set("k", "AKIA", [aws], []))
    assert len(provider_keys.after_set("k", "AKIA:x", [aws], [])) == 1


def test_removing_a_key_names_what_stops() -> None:
    assert "cloud will stop" in provider_keys.after_remove("k", [ON, OFF])
    assert "stop" not in provider_keys.after_remove("k", [OFF]) and "spare" in provider_keys.after_remove("k", [OFF])
    assert "no provider" in provider_keys.after_remove("k", [])


def test_the_list_shows_users_and_faults() -> None:
    keys = (
        ProviderKey(name="k", state=State.PRESENT, why="", used_by=(ON, OFF)),
        ProviderKey(name="open", state=State.UNSAFE, why="mode 0644", used_by=()),
    )
    first, second = provider_keys.text(Secrets(keys=keys, table=True)).splitlines()
    assert first.split(maxsplit=2) == ["k", "present", "cloud (enabled), spare (disabled)"]
    assert "no provider uses it" in second and second.endswith("mode 0644")
    assert "the table cannot be read" in provider_keys.text(Secrets(keys=keys, table=False))
    assert "needs a key" in provider_keys.text(Secrets(keys=(), table=True))
