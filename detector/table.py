"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    r"""Rows of texts -> lines with aligned columns, the first to the left, the others to the right.

    >>> print(*columns([("name", "boxes"), ("fast", "7")]), sep="\n")
    name  boxes
    fast      7
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
