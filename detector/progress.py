"""What a user sees while library code works: log lines and progress bars, both on stderr and only where asked for.

Modules log to `logging.getLogger(__name__)` and wrap long loops in `progress`. A Python program sees warnings, as of
any library; a command shows everything (`shown`).
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

_LOG = logging.getLogger("detector")
_bars = False


def progress(items: Iterable[Any] | None, label: str, unit: str = "image", **options: Any) -> Any:
    """Wrap a loop in a progress bar, which is silent unless a command shows it.

    Args:
        items: What to loop over; None for a bar that the caller updates.
        label: Text in front of the bar.
        unit: What is counted.
        **options: Further arguments of tqdm.

    Returns:
        A tqdm bar. Of several processes under torchrun only the first one shows it.
    """
    silent = not _bars or os.environ.get("RANK", "0") != "0"
    return tqdm(items, desc=label, unit=unit, dynamic_ncols=True, disable=silent, **options)


@contextmanager
def shown(command: str) -> Iterator[None]:
    """Show progress bars and this package's log lines on stderr while the block runs.

    Args:
        command: Name in front of each log line.
    """
    global _bars
    handler, before, level = _Lines(command), _bars, _LOG.level
    _bars = True
    _LOG.addHandler(handler)
    _LOG.setLevel(logging.INFO)
    try:
        yield
    finally:
        _bars = before
        _LOG.removeHandler(handler)
        _LOG.setLevel(level)


class _Lines(logging.Handler):
    """Log records as lines such as "detect: warning: ...", above the progress bars."""

    def __init__(self, command: str) -> None:
        super().__init__()
        self.command = command

    def emit(self, record: logging.LogRecord) -> None:
        level = "warning: " if record.levelno >= logging.WARNING else ""
        for line in record.getMessage().splitlines():
            tqdm.write(f"{self.command}: {level}{line}", file=sys.stderr)
