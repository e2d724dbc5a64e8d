"""Provider keys: one file each, read again after a change, and masked in responses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import quote

import pytest

from io3ops_gateway.policy.provider_keys import ProviderKeys


def write(folder: Path, name: str, value: bytes) -> None:
    (folder / ".new").write_bytes(value)
    (folder / ".new").replace(folder / name)


def test_a_key_is_read_without_its_line_end(tmp_path: Path) -> None:
    write(tmp_path, "openai", b"sk-1\n")
    write(tmp_path, "aws-2_x", b"AKIA:secret")
    keys = ProviderKeys(tmp_path)
    assert keys.get("openai") == "sk-1" and keys.get("aws-2_x") == "AKIA:secret"


def test_new_and_removed_keys_take_effect_at_once(tmp_path: Path) -> None:
    keys = ProviderKeys(tmp_path)
    assert keys.get("openai") == ""
    write(tmp_path, "openai", b"sk-1\n")
    assert keys.get("openai") == "sk-1" == keys.get("openai")
    write(tmp_path, "openai", b"sk-2\n")
    assert keys.get("openai") == "sk-2"
    (tmp_path / "openai").write_bytes(b"sk-3\n")
    os.utime(tmp_path / "openai", ns=(1, 1))
    assert keys.get("openai") == "sk-3"
    (tmp_path / "openai").unlink()
    assert keys.get("openai") == "", "a known value must not outlive its file"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../openai", "/etc/passwd", "OpenAI", "open.ai", "openai\n", "a/b", "-a", "1a", "a" * 42, "é"],
)
def test_an_invalid_name_reads_no_file(tmp_path: Path, name: str) -> None:
    inner = tmp_path / "keys"
    inner.mkdir()
    (tmp_path / "openai").write_bytes(b"sk-outside")
    for odd in ("OpenAI", "open.ai", "-a", "1a", "a" * 42):
        (inner / odd).write_bytes(b"sk-odd")
    assert ProviderKeys(inner).get(name) == ""


def test_an_unreadable_file_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    write(tmp_path, "binary", b"\xff\xfe")
    write(tmp_path, "empty", b" \n")
    keys = ProviderKeys(tmp_path)
    assert keys.get("folder") == keys.get("binary") == keys.get("empty") == ""
    assert ProviderKeys(tmp_path / "nowhere").get("openai") == ""


def test_a_used_key_is_masked_in_responses(tmp_path: Path) -> None:
    write(tmp_path, "openai", b"sk-very-secret\n")
    write(tmp_path, "aws", b"AKIA1234:secret/secret+1")
    write(tmp_path, "tiny", b"short")
    keys = ProviderKeys(tmp_path)
    text = b"bad key sk-very-secret, AKIA1234 and secret/secret+1; short"
    assert keys.hide(text) == text, "what was never read cannot be in an answer"
    for name in ("openai", "aws", "tiny"):
        keys.get(name)
    hidden = keys.hide(text)
    assert len(hidden) == len(text), "the length was announced already"
    assert all(word not in hidden for word in (b"sk-very-secret", b"AKIA1234", b"secret/secret+1"))
    assert hidden.startswith(b"bad key ***") and hidden.endswith(b"short"), "a word that short may stand anywhere"
    assert keys.hide(b"nothing here") == b"nothing here"


def test_a_key_is_masked_in_every_form_that_a_response_gives_it(tmp_path: Path) -> None:
    write(tmp_path, "aws", b"AKIA12345678:abc/def+ghi/jkl")
    keys = ProviderKeys(tmp_path)
    keys.get("aws")
    error = {"error": "abc/def+ghi/jkl is wrong"}
    plain = json.dumps(error)
    escaped = plain.replace("/", "\\/")
    url = "https://host/?key=" + quote("abc/def+ghi/jkl", safe="") + "&key=" + quote("abc/def+ghi/jkl")
    for text in (plain, escaped, json.dumps(escaped), json.dumps({"inner": plain}), url):
        hidden = keys.hide(text.encode())
        assert b"def" not in hidden and b"ghi" not in hidden, hidden
        assert len(hidden) == len(text)


def test_a_replaced_key_stays_masked(tmp_path: Path) -> None:
    """A call that began with it may still end with an error that repeats it."""
    write(tmp_path, "openai", b"sk-the-former-one")
    keys = ProviderKeys(tmp_path)
    keys.get("openai")
    (tmp_path / "new").write_bytes(b"sk-the-former-one-and-more")
    (tmp_path / "new").rename(tmp_path / "openai")
    assert keys.get("openai") == "sk-the-former-one-and-more"
    assert keys.hide(b"sk-the-former-one; sk-the-former-one-and-more") == b"*" * 17 + b"; " + b"*" * 26
