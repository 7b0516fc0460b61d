"""Paths from a pipe, one a line, as they come: nobody waits for the pipe's end, or for a line that is not there yet."""

from __future__ import annotations

import os
import select
import sys
from collections import deque
from collections.abc import Iterator

from detector.data.image import ImageError


def standard_input() -> int:
    """Return the descriptor of standard input; raises ImageError where it is closed."""
    if sys.stdin is None or sys.stdin.closed:
        raise ImageError("standard input is closed, and - reads paths from it")
    return sys.stdin.fileno()


class PathLines:
    """The lines of a pipe, a file or a terminal, as they come.

    Args:
        descriptor: Open for reading.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._rest, self._ended = descriptor, b"", False
        self._lines: deque[bytes] = deque()

    def batches(self) -> Iterator[Iterator[str]]:
        """Yield the lines that are there, until none waits to be read; wait for the next, until the end."""
        while self._read(wait=True):
            yield self._waiting()

    def _waiting(self) -> Iterator[str]:
        while self._read(wait=False):
            text = os.fsdecode(self._lines.popleft().removesuffix(b"\r"))
            if text.strip():
                yield text

    def _read(self, *, wait: bool) -> bool:
        """Read until there is a line; without waiting, only what is there. Returns whether there is one."""
        while not self._lines and not self._ended:
            if not wait and not select.select([self._descriptor], [], [], 0)[0]:
                return False
            some = os.read(self._descriptor, 1 << 16)
            *lines, self._rest = (self._rest + some).split(b"\n")
            self._ended = not some
            if self._ended and self._rest:
                lines.append(self._rest)
            self._lines.extend(lines)
        return bool(self._lines)
