"""Tables of text, fitted to a terminal.

A table that is wider than the terminal first loses the ends of texts that are allowed to be cut, then is folded: the
columns that do not fit follow below, behind the first column once more. No number is ever cut.
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Collection, Sequence

GAP = 2
SHORTEST = 8  # width to which a column of texts may be cut


def columns(
    rows: Sequence[Sequence[str]],
    *,
    width: int | None = None,
    left: Collection[int] = (0,),
    cut: Collection[int] = (),
    footer: int = 0,
) -> list[str]:
    r"""Align rows of texts in columns; return lines.

    Args:
        rows: Cells by row; the first row is the heading.
        width: Most characters in a line; None for no limit.
        left: Columns that are aligned to the left, by position; the others are to the right.
        cut: Columns whose cells may be shortened to "text…" where the table is too wide.
        footer: Number of rows at the end that a rule separates from the others.

    >>> print(*columns([("name", "boxes"), ("fast", "7")]), sep="\n")
    name  boxes
    fast      7
    >>> print(*columns([("name", "boxes", "seconds"), ("fast", "7", "0.39")], width=14), sep="\n")
    name  boxes
    fast      7
    <BLANKLINE>
    name  seconds
    fast     0.39
    """
    widths = [max(map(cells, column)) for column in zip(*rows, strict=True)]
    if width is not None:
        for place in sorted(cut, key=lambda one: -widths[one]):
            excess = sum(widths) + GAP * (len(widths) - 1) - width
            widths[place] = max(min(widths[place], SHORTEST), widths[place] - max(0, excess))
        if len(widths) > 1:
            widths[0] = min(widths[0], max(SHORTEST, width // 2))
    lines: list[str] = []
    for block in _blocks(widths, width):
        shown = [
            (" " * GAP).join(_padded(row[place], widths[place], is_left=place in left) for place in block).rstrip()
            for row in rows
        ]
        if footer:
            shown.insert(-footer, "-" * max(map(cells, shown)))
        lines += [""] * bool(lines) + shown
    return lines


def wrapped(line: str, width: int | None) -> str:
    """Break a line of prose between words where it is longer than `width` characters; None leaves it whole."""
    if width is None or cells(line) <= width:
        return line
    inner = textwrap.TextWrapper(width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return inner.fill(line)


def cells(text: str) -> int:
    """Return how many columns of a terminal a text takes: Chinese characters take two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(one) else 1 + (unicodedata.east_asian_width(one) in "WF") for one in text)


def _blocks(widths: Sequence[int], width: int | None) -> list[list[int]]:
    """Return the columns of each block of a folded table, the first column in all of them."""
    blocks = [[0]]
    used = widths[0]
    for place in range(1, len(widths)):
        if width is not None and used + GAP + widths[place] > width and len(blocks[-1]) > 1:
            blocks.append([0])
            used = widths[0]
        blocks[-1].append(place)
        used += GAP + widths[place]
    return blocks


def _padded(text: str, width: int, *, is_left: bool) -> str:
    if cells(text) > width:
        while cells(text) > width - 1:
            text = text[:-1]
        text = text.rstrip() + "…"
    space = " " * (width - cells(text))
    return text + space if is_left else space + text


def duration(seconds: float) -> str:
    """Write a time in at most six characters, to two or three digits.

    >>> [duration(value) for value in (1.25, 42.4, 185, 5430, 97_200)]
    ['1.2s', '42s', '3m05s', '1h30m', '1d03h']
    """
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    if seconds < 59.5:
        return f"{seconds:.0f}s"
    for name, unit, part, size in (("m", 60, "s", 1), ("h", 3600, "m", 60), ("d", 86400, "h", 3600)):
        whole, rest = divmod(round(seconds / size), unit // size)
        if name == "d" or whole < (60 if name == "m" else 24):
            return f"{whole}{name}{rest:02d}{part}"
    raise AssertionError  # the last unit takes all
