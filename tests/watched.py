"""A request log beside which an observer runs."""

from __future__ import annotations

import re
import time
from pathlib import Path

import httpx


class Watched:
    """A folder with a log in it, and the observer's port."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port

    def write(self, *lines: bytes) -> None:
        with (self.folder / "requests.jsonl").open("ab") as file:
            file.write(b"".join(entry + b"\n" for entry in lines))

    def rotate(self) -> None:
        name = f"requests-20261124T181000Z-{time.monotonic_ns()}.jsonl"
        (self.folder / "requests.jsonl").rename(self.folder / name)

    def scraped(self) -> str:
        return httpx.get(f"http://127.0.0.1:{self.port}/metrics", trust_env=False).text

    def value(self, sample: str) -> float:
        """Of all series of a sample whose labels have these in them, in their alphabet."""
        name, _, labels = sample.partition("{")
        wanted = set(labels.rstrip("}").split(",")) - {""}
        found = re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", self.scraped(), re.M)
        return sum(float(number) for has, number in found if wanted <= set(has.split(",")))

    def answers(self) -> bool:
        try:
            return bool(self.scraped())
        except httpx.TransportError:
            return False
