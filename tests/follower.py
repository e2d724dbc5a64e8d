"""`io3ops logs -f` in the background, for tests of what it prints."""

from __future__ import annotations

import json
import signal
import threading
from typing import Any

from tests.clone import PATIENCE, Clone, until


class Follower:
    """A running `io3ops logs -f --json`, and the lines that it has printed."""

    def __init__(self, clone: Clone, *args: str, **env: str) -> None:
        self.process = clone.start("logs", "-f", "--json", *args, **env)
        self.seen: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.seen.append(json.loads(line))

    @property
    def texts(self) -> list[str]:
        return [str(one.get("text", one.get("id"))) for one in self.seen]

    def has(self, *texts: str) -> None:
        until(f"{texts} in {self.texts}", lambda: set(texts) <= set(self.texts))

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE)
        self._thread.join(PATIENCE)
        assert self.process.stdout and self.process.stderr
        self.errors = self.process.stderr.read()
        self.process.stdout.close()
        self.process.stderr.close()
        return code


def record(identity: str, **fields: Any) -> str:
    return json.dumps({"v": 1, "time": "2026-11-24T18:00:00Z", "id": identity, "mode": "m", "ms": 1} | fields) + "\n"
