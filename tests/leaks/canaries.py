"""Secrets that stand nowhere else, and a search that finds them in any file, whole or in part, in the usual encodings. Pure.

Every secret of a run begins and ends with one word of that run, so a search looks for two words and not for a thousand; a piece that was
cut off at either end is found too.
"""

from __future__ import annotations

import base64
import random
import string
from collections.abc import Iterator
from dataclasses import dataclass, field

# Long enough that no file of gigabytes holds one by chance, in any of the forms.
EDGE = 10
AROUND = 80


@dataclass
class Canaries:
    """`seed`: another run with it makes the same secrets. `made`: where each secret was put."""

    seed: str
    made: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self.head, self.tail = self._letters(EDGE), self._letters(EDGE)
        self._patterns = [
            (f"{form} of the {end}", pattern)
            for end, word in (("beginning", self.head), ("end", self.tail))
            for form, pattern in forms(word)
        ]

    def new(self, where: str, *, word: bool = False) -> str:
        """Another secret. `word`: letters only, as short as a server's word may be; else digits and dashes too."""
        middle = self._letters(8) if word else "-" + "".join(self._random.choices(ALPHABET, k=20)) + "-"
        secret = self.head + middle + self.tail
        self.made[secret] = where
        return secret

    def found(self, data: bytes) -> Iterator[str]:
        """What of the secrets stands in `data`: one line for each form, with where it had been put when that can be told."""
        for form, pattern in self._patterns:
            at = data.find(pattern)
            if at >= 0:
                around = data[max(0, at - AROUND) : at + AROUND]
                whose = [where for secret, where in self.made.items() if secret.encode() in around]
                yield f"{form} ({', '.join(whose) or 'which one is not told'}): {around!r}"

    def _letters(self, count: int) -> str:
        return "".join(self._random.choices(string.ascii_lowercase, k=count))


ALPHABET = string.ascii_letters + string.digits


def forms(word: str) -> Iterator[tuple[str, bytes]]:
    """How a word may stand in a file. Base64 cuts a text into groups in three ways; in small letters its two kinds do not differ."""
    raw = word.encode()
    yield "raw", raw
    yield "capitals", word.upper().encode()
    for shift in range(3):
        # Signs that hold bits of the neighbours are left out.
        begin, end = -(-shift * 8 // 6), (shift + len(raw)) * 8 // 6
        yield f"base64, shifted by {shift}", base64.b64encode(b"\0" * shift + raw)[begin:end]
    yield "hex", raw.hex().encode()
    yield "HEX", raw.hex().upper().encode()
    yield "percent-encoded", "".join(f"%{byte:02X}" for byte in raw).encode()
    yield "percent-encoded, small", "".join(f"%{byte:02x}" for byte in raw).encode()
    yield "JSON escapes", "".join(f"\\u{byte:04x}" for byte in raw).encode()
    yield "JSON escapes, capitals", "".join(f"\\u{byte:04X}" for byte in raw).encode()
    yield "UTF-16", word.encode("utf-16-le")
    yield "backwards", raw[::-1]
