"""Reads a file of lines from its end to its beginning. Touches the file that it is given."""

import os
from collections.abc import Iterator
from typing import BinaryIO

BLOCK = 1 << 18
# A longer line is none of any writer's here, and is not kept in memory.
LONGEST_LINE = 1 << 20


def lines(file: BinaryIO, needle: bytes = b"", end: int | None = None) -> Iterator[bytes]:
    """Yield the lines without their ends, the last one first; empty ones are left out.

    `needle`: only lines that contain these bytes. `end`: where the last line ends, in bytes; None: at the end of the file.
    """
    at = file.seek(0, os.SEEK_END) if end is None else end
    rest, endless = b"", False
    while at > 0:
        size = min(BLOCK, at)
        at -= size
        file.seek(at)
        block = file.read(size) + rest
        if endless:
            # This is the earlier part of a line that is too long.
            cut = block.rfind(b"\n")
            block, endless = block[: max(cut, 0)], cut < 0
        first = block.find(b"\n") if at else -1
        if at and first < 0:
            rest, endless = (b"", True) if len(block) > LONGEST_LINE else (block, endless)
            continue
        rest, block = block[: max(first, 0)], block[first + 1 :]
        if needle in block:
            yield from (line for line in reversed(block.split(b"\n")) if line and needle in line)
