"""Tables of text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    r"""Align rows of texts in columns, the first to the left, the others to the right; returns lines.

    >>> print(*columns([("name", "boxes"), ("fast", "7")]), sep="\n")
    name  boxes
    fast      7
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


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
