"""Writes lines without slowing or failing a response: a thread takes over while the disk is slow, lost lines are counted.

Touches stderr, and whatever `put` touches. Created before the fork, used after it by one thread of each process.
"""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable

from io3ops_gateway.request_log.append_file import NEWLINE

# After a write that took longer, no response waits for the next ones.
SLOW = 0.02
# The queue of the thread; lines beyond it are dropped.
MOST_LINES, MOST_BYTES = 10_000, 32_000_000
# The thread joins lines up to this size into one write. With 30 ms for each line it would never catch up.
BATCH = 65_536
# After a failed write, lines are dropped this long without a new attempt.
RETRY = 1.0
# At most one complaint on stderr in this time.
SAY_EVERY = 60.0


class LogWriter:
    """Writes through `put`, at once or by a thread.

    `put(lines)` writes, or raises OSError. `what` names the log on stderr. `lost(count)` is called for lost lines, by one thread at a time.
    """

    def __init__(
        self,
        what: str,
        put: Callable[[bytes], None],
        *,
        ticks: Callable[[], float] = time.monotonic,
        lost: Callable[[int], None] = lambda _count: None,
    ) -> None:
        self.lost = 0
        self._what = what
        self._tell = lost
        self._put = put
        self._ticks = ticks
        self._ready = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        # While `_behind`, only the thread writes. It goes on as long as its last write was slow.
        self._behind = self._slow = False
        self._busy = False
        self._retry_at = self._say_at = float("-inf")
        self._said = False

    def write(self, line: bytes) -> bool:
        """Write a line, or queue it for the thread. False: it is lost, and counted. Never raises."""
        # No lock needed here: only this thread sets `_behind`, and the writer thread clears it after it has written the whole queue.
        if not self._behind:
            return self._write(line)
        with self._ready:
            behind = self._behind
            if behind and len(self._waiting) < MOST_LINES and self._waiting_bytes + len(line) <= MOST_BYTES:
                self._waiting.append(line)
                self._waiting_bytes += len(line)
                self._ready.notify_all()
                return True
        if behind:
            self._lose(1, "the disk is too slow")
            return False
        return self._write(line)

    def _write(self, line: bytes) -> bool:
        written = self._try(line, 1)
        if self._slow:
            self._fall_behind()
        return written

    def close(self, seconds: float = 1.0) -> bool:
        """Wait until the thread has written its queue. False: it has not, after so many seconds."""
        with self._ready:
            return self._ready.wait_for(lambda: not self._waiting and not self._busy, seconds)

    def _try(self, lines: bytes, count: int) -> bool:
        begun = self._ticks()
        if begun < self._retry_at:
            # No attempt for each request: a broken disk can take seconds to report its error.
            self._lose(count)
            return False
        why = ""
        try:
            self._put(lines)
        except OSError as error:
            why = error.strerror or type(error).__name__
        ended = self._ticks()
        self._slow = ended - begun > SLOW
        if why:
            self._retry_at = ended + RETRY
            self._lose(count, why)
        elif self._said:
            self._said = False
            say(f"gateway: the {self._what} is written again; lines lost: {self.lost}")
        return not why

    def _fall_behind(self) -> None:
        with self._ready:
            self._behind = True
        try:
            threading.Thread(target=self._catch_up, name=self._what, daemon=True).start()
        except RuntimeError:
            # No more threads are allowed. Writing slowly is better than losing lines.
            self._behind = False

    def _catch_up(self) -> None:
        while True:
            with self._ready:
                self._busy = False
                self._ready.notify_all()
                while not self._waiting:
                    # After a slow write the next line is written here too: otherwise each would delay a response.
                    if not self._slow:
                        self._behind = False
                        return
                    self._ready.wait()
                lines = [self._waiting.popleft()]
                length = len(lines[0])
                while self._waiting and length + len(self._waiting[0]) < BATCH:
                    lines.append(self._waiting.popleft())
                    length += len(lines[-1])
                self._waiting_bytes -= length
                self._busy = True
            self._try(NEWLINE.join(lines), len(lines))

    def _lose(self, count: int, why: str = "") -> None:
        with self._ready:
            self.lost += count
            self._tell(count)
            now = self._ticks()
            due = bool(why) and now >= self._say_at
            if due:
                self._say_at, self._said = now + SAY_EVERY, True
        if due:
            say(
                f"gateway: the {self._what} cannot be written: {why}; "
                f"lines lost so far: {self.lost}; responses are not affected"
            )


def say(text: str) -> None:
    """Print a line to stderr. Never raises."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        # stderr is closed.
        return
