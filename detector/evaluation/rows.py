"""Rows of boxes as a text folder or a CSV table holds them, for ground truth and for detections.

text_folders.py and csv_tables.py read them; row_truth.py and row_results.py give them their meaning.
I images, N rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from detector.data.ground_truth import DataError
from detector.data.yolo_layout import NAMES, YoloTree
from detector.data.yolo_yaml import YAMLS
from proposals.errors import UserError

NUMERIC = re.compile(r"[-+]?(\d+\.?\d*([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?|nan|inf|infinity)", re.ASCII | re.I)
DIGITS = re.compile(r"\d{1,9}", re.ASCII)
ABOVE = 2  # folders above that of the boxes in which a file may name the classes


@dataclass(frozen=True)
class Rows:
    """The N boxes of a folder of text files or of a table.

    Attributes:
        path: The folder or the table.
        images: I images as the files name them, each once, also those without a box.
        files: I image files, which need not exist.
        sizes: [I, 2] width and height as the files state them, px; 0 where they state none.
        of_image: [N] position of each box's image.
        classes: N names or numbers of classes, as text.
        boxes: [N, 4] numbers of the box, in one of `forms`.
        scores: [N] scores, NaN where a row has none; None for ground truth.
        last: [N, 5] the numbers of rows whose score may be the first or the last of five; None elsewhere.
        difficult: [N] bool.
        forms: Possible meanings of the four numbers.
        where: Function from a row to its place, such as "a.txt line 3".
    """

    path: Path
    images: Sequence[str]
    files: Sequence[Path]
    sizes: NDArray[np.int64]
    of_image: NDArray[np.int64]
    classes: Sequence[str]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64] | None
    difficult: NDArray[np.bool_]
    forms: Sequence[str]
    where: Callable[[int], str]
    last: NDArray[np.float64] | None = None

    @property
    def numbered(self) -> bool:
        """Whether all classes are given by number."""
        return all(map(DIGITS.fullmatch, set(self.classes)))


def read_numbers(texts: Sequence[str], problem: Callable[[int, str], UserError]) -> NDArray[np.float64]:
    """Read texts as numbers.

    JSON's decoder does it several times as fast as float(); what it does not know is read one by one.

    Args:
        texts: The texts.
        problem: Function from the position of a text that is no number, and the reason, to the error that is raised.
    """
    try:
        numbers: list[float] = msgspec.json.decode(f"[{','.join(texts)}]".encode(), type=list[float])
    except (msgspec.MsgspecError, UnicodeEncodeError):
        numbers = []
    if len(numbers) == len(texts):  # else commas were in them
        return np.array(numbers, np.float64)
    for place, text in enumerate(texts):
        if not NUMERIC.fullmatch(text.strip()):
            raise problem(place, _reason(text.strip()))
    return np.array([float(text) for text in texts], np.float64)


def _reason(text: str) -> str:
    if re.fullmatch(r"[-+]?\d*,\d+", text):
        return f"{text} has a decimal comma; numbers are written with a point"
    return f"{text[:40]!r} is no number"


def names_near(folder: Path) -> tuple[tuple[str, ...], Path | None]:
    """Return the names of classes 0, 1, ... that data.yaml or classes.txt states in a folder or near above it.

    Returns:
        The names and their file; none, None where no file names them.

    Raises:
        DataError: such a file in the folder itself is malformed.
    """
    folder = folder.absolute()
    for place in (folder, *folder.parents[:ABOVE]):
        file = next((place / name for name in (*YAMLS, *NAMES) if (place / name).is_file()), None)
        if file is None:
            continue
        tree = YoloTree(place)
        try:
            names = (tree.settings.names if tree.settings else ()) if file.name in YAMLS else tree.names(())
        except DataError:
            if place == folder:
                raise
            continue  # a file of something else
        if names:
            return names, file
    return (), None
