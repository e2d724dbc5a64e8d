"""Digests are plain SHA-256, so that files written by an older release stay valid."""

from __future__ import annotations

import hashlib
from pathlib import Path

from io3ops.operations.stack import owner_key
from io3ops_gateway.policy.client_keys import KeyRing
from io3ops_shared import digests


def test_a_key_is_kept_as_its_plain_sha256() -> None:
    plain = hashlib.sha256(b"sk-io3-a").hexdigest()
    assert digests.of_key("sk-io3-a") == digests.of_key(b"sk-io3-a") == plain
    assert digests.SHA256.fullmatch(plain) and not digests.SHA256.fullmatch(plain.upper())


def test_the_log_and_the_commands_show_the_same_id_of_a_key(tmp_path: Path) -> None:
    found = KeyRing("sk-io3-a", tmp_path / "keys.json").find([b"sk-io3-a"])
    assert found is not None
    assert (
        digests.key_id(found.digest) == owner_key.fingerprint("sk-io3-a") == hashlib.sha256(b"sk-io3-a").hexdigest()[:8]
    )


def test_a_configuration_has_the_same_digest_as_text_and_as_bytes() -> None:
    assert digests.of_config("modes: ü\n") == digests.of_config("modes: ü\n".encode())
    assert digests.of_config("") == hashlib.sha256(b"").hexdigest()[:16]


def test_an_audit_entrys_hash_covers_its_other_fields_in_order() -> None:
    entry = {"b": 1, "a": "ä"}
    assert digests.of_audit_entry(entry) == hashlib.sha256(b'{"a":"\\u00e4","b":1}').hexdigest()
    assert digests.of_audit_entry(entry | {"hash": "x"}) == digests.of_audit_entry(entry)
