"""What a stream can show: whether it is a terminal, how wide, and in colours.

Only a person's terminal gets bars, colours and shortened tables; a file or a pipe gets plain, whole lines.
"""

from __future__ import annotations

import os
import shutil
import sys
from typing import IO, Any

COLOURS = {"red": 31, "yellow": 33}
NARROWEST = 40  # columns; below, lines are left to the terminal


def is_terminal(stream: IO[Any]) -> bool:
    """Return whether a stream is a terminal that can move its cursor: TERM=dumb is none."""
    try:
        return stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # closed
        return False


def table_width() -> int | None:
    """Return the number of columns of standard output, at least 40; None where it is no terminal, so nothing is cut."""
    return max(NARROWEST, shutil.get_terminal_size().columns) if is_terminal(sys.stdout) else None


def coloured(stream: IO[Any]) -> bool:
    """Return whether a stream gets colours: a terminal does, unless NO_COLOR is set; FORCE_COLOR gives them to any.

    An empty variable counts as not set; of both, NO_COLOR wins (no-color.org, force-color.org).
    """
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or is_terminal(stream)


def paint(text: str, colour: str, stream: IO[Any]) -> str:
    """Return a text with the codes of a colour around it where the stream gets colours.

    Args:
        text: The text.
        colour: A key of COLOURS.
        stream: Where it will be printed.
    """
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if coloured(stream) else text
