"""The text of a table in CSV: its rows, whichever separator it has, and its columns by their names."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from proposals.errors import UserError

if TYPE_CHECKING:
    import _csv

IMAGE = ("image", "filename", "file", "imageid", "imagename", "imagepath", "path", "img")
"""Names of the column of images, as `columns_of` returns them."""


def open_csv(path: Path, error: type[UserError]) -> _csv.Reader:
    """Read a file, separated by commas, semicolons or tabs; rows that follow raise csv.Error where they are malformed.

    Raises:
        UserError: of the given type: the file cannot be read, or is not in UTF-8.
    """
    try:
        return csv_reader(path.read_text(encoding="utf-8-sig"))
    except OSError as reason:
        raise error(f"{path}: cannot be read ({(reason.strerror or str(reason)).lower()})") from reason
    except UnicodeDecodeError as reason:
        raise error(f"{path}: not a text in UTF-8 ({reason})") from reason


def csv_reader(text: str) -> _csv.Reader:
    """Return a reader of CSV with the separator that occurs most in the first line."""
    first = text.partition("\n")[0]
    return csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)


def columns_of(header: Iterable[str]) -> dict[str, int]:
    """Return the columns by name in lower case, without blanks and signs between the words.

    >>> columns_of(["Image ID", "x_min", ""])
    {'imageid': 0, 'xmin': 1}
    """
    names = [re.sub(r"[\W_]", "", name.lower()) for name in header]
    return {name: names.index(name) for name in names if name}
