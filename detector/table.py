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
