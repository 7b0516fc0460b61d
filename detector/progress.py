"""Progress of long loops on standard error while a command runs; silent in a program that uses the library.

On a terminal it is a bar. Elsewhere, in the log of a scheduler or of CI, a bar would be megabytes of one line, so
there it is a plain line a minute, and one at the end.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from detector.terminal import is_terminal

MINUTE = 60.0

_prefix: str | None = None


def progress(items: Iterable[Any] | None, label: str, unit: str = "image", **options: Any) -> Any:
    """Show the progress of a loop, if a command shows any.

    Args:
        items: Items of the loop; None where the caller updates.
        label: Text in front.
        unit: Name of one item.
        **options: total, initial, leave, delay (seconds before anything is shown) and disable, as tqdm has them.

    Returns:
        A tqdm bar on a terminal, else `Lines`, which has the same methods. Of several processes under torchrun only
        the first one shows it.
    """
    disabled = options.pop("disable", False)
    silent = disabled or _prefix is None or os.environ.get("RANK", "0") != "0"
    if silent or is_terminal(sys.stderr):
        return tqdm(items, desc=label, unit=unit, dynamic_ncols=True, disable=silent, **options)
    return Lines(items, f"{_prefix}{label}", unit, **options)


@contextmanager
def shown(name: str = "") -> Iterator[None]:
    """Show progress while the block runs.

    Args:
        name: The command, which begins each plain line as it begins every message.
    """
    global _prefix
    before, _prefix = _prefix, f"{name}: " if name else ""
    try:
        yield
    finally:
        _prefix = before


class Lines:
    """Progress as plain lines on standard error: what, how many of how many, the rate, the time that is left.

    Args:
        items: Items of the loop; None where the caller calls `update`.
        label: Beginning of each line.
        unit: Name of one item.
        total: Number of items; None for the length of `items`, if they have one.
        initial: Number of items that were done before.
        leave: Whether there is a line at the end, although no minute has passed.
        delay: Seconds before there is any line.
        clock: Function that returns seconds.
    """

    def __init__(
        self,
        items: Iterable[Any] | None,
        label: str,
        unit: str = "image",
        *,
        total: int | None = None,
        initial: int = 0,
        leave: bool = True,
        delay: float = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total = len(items) if total is None and hasattr(items, "__len__") else total  # type: ignore[arg-type]
        self.n = self._initial = initial
        self._items, self._label, self._unit = items, label, unit
        self._leave, self._delay, self._clock = leave, delay, clock
        self._begun = self._printed = clock()
        self._postfix, self._any, self._closed = "", False, False

    def __iter__(self) -> Iterator[Any]:
        try:
            for item in self._items or ():
                yield item
                self.update()
        finally:
            self.close()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, n: int = 1) -> None:
        """Count items that are done, and print a line if the last one is a minute old."""
        self.n += n
        if self._clock() - self._printed >= MINUTE:
            self._print()

    def set_postfix(self, *, refresh: bool = True, **values: object) -> None:
        """Set values that the following lines end with."""
        self._postfix = "".join(f", {name} {value}" for name, value in values.items())

    def close(self) -> None:
        """Print the last line; once."""
        seconds = self._clock() - self._begun
        if not self._closed and (self._any or (self._leave and self.n > self._initial and seconds >= self._delay)):
            self._print()
        self._closed = True

    def _print(self) -> None:
        self._any, self._printed = True, self._clock()
        seconds, done = self._printed - self._begun, self.n - self._initial
        units = self._unit + ("" if self._unit.endswith("s") else "es" if self._unit.endswith("ch") else "s")
        counted = f"{self.n}/{self.total} {units}" if self.total else f"{self.n} {units}"
        rate = ""
        if done and seconds > 0:
            rate = f", {done / seconds:.1f} {units}/s" if done > seconds else f", {seconds / done:.1f} s/{self._unit}"
        rest = ""
        if self.total and self.n < self.total and done:
            rest = f", {span(seconds / done * (self.total - self.n))} left"
        elif seconds >= 1:
            rest = f", in {span(seconds)}"
        print(f"{self._label}: {counted}{rate}{rest}{self._postfix}", file=sys.stderr, flush=True)


def span(seconds: float) -> str:
    """Format a length of time with the two largest units that matter.

    >>> span(2.14), span(17), span(95), span(3700), span(100_000)
    ('2.1 s', '17 s', '2 min', '1 h 02 min', '27 h 47 min')
    """
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
