"""The search for leaked secrets finds what it is there to find; it is what the leak tests stand on."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from urllib.parse import quote

import pytest
from tests.leaks.canaries import Canaries


@pytest.mark.parametrize(
    "hide",
    [
        lambda s: s,
        lambda s: s[:12],
        lambda s: s[-12:],
        str.upper,
        *(lambda s, n=n: base64.b64encode(b"x" * n + s.encode() + b"yy").decode() for n in range(3)),
        *(lambda s, n=n: base64.urlsafe_b64encode(b"\xff" * n + s.encode()).decode() for n in range(3)),
        *(lambda s, n=n: base64.b64encode((s[:11] + "z" * n + "???").encode()).decode() for n in range(3)),
        quote,
        lambda s: "".join(f"%{ord(c):02x}" for c in s),
        json.dumps,
        lambda s: "".join(f"\\u{ord(c):04x}" for c in s),
        lambda s: s.encode().hex(),
        repr,
        lambda s: s[::-1],
    ],
)
@pytest.mark.parametrize("word", [False, True])
def test_a_secret_is_found_in_every_form(hide: Callable[[str], str], word: bool) -> None:
    canaries = Canaries("seed")
    secret = canaries.new("a prompt", word=word)
    assert list(canaries.found(b"before\n" * 1000 + hide(secret).encode() + b"\nafter"))


def test_nothing_is_found_where_nothing_is_and_a_seed_gives_the_same_secrets() -> None:
    one, other = Canaries("1"), Canaries("2")
    secret = one.new("a prompt")
    assert not list(other.found(secret.encode())) and not list(one.found(base64.b64encode(b"harmless" * 999)))
    assert Canaries("1").new("a prompt") == secret and len({one.new(str(n)) for n in range(1000)}) == 1000
    assert "a prompt" in next(one.found(secret.encode()))
