"""YOLO's text files -> Dataset.

    labels/a.txt    a row an object: class cx cy width height, the class from 0, the rest as shares of the image

Rows of polygons (class x1 y1 x2 y2 x3 y3 ...) become the boxes around them. An image without a file, or with an empty
one, has no objects. Sizes are those of the image files. Which images there are: yolo_layout.py.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from detector.data.ground_truth import (
    ClassTable,
    DataError,
    Dataset,
    Record,
    Repairs,
    composed,
    listed,
    make_record,
    read_lines,
)
from detector.data.image import ImageError, read_size
from detector.data.image_list import chosen
from detector.data.trees import files_below, ids_of
from detector.data.yolo_layout import NAMES, YoloTree, lists_images
from detector.progress import progress
from proposals.boxes import Boxes

ROUNDING = 1e-4  # share of the image: tools write down to four decimals, and an edge is the sum of two values
FAR = 0.01  # share of the image by which a box reaches outside and is no slip of rounding
ABSENT = "images have no label file and count as without objects"
EMPTY = "images have an empty label file and count as without objects"
UNREADABLE = "images cannot be read, so that the shares in their label files state no boxes"
POLYGONS = "polygons were replaced by the boxes around them"


class Row(NamedTuple):
    """A row of a label file: its class, and the corners of its box as shares of the image."""

    number: int
    corners: tuple[float, float, float, float]


def read_yolo(
    root: Path, split: str = "", *, class_names: Sequence[str] = (), image_list: str = "", as_written: bool = False
) -> Dataset:
    """Read a part of a YOLO data set. Its image files must exist: they state the sizes.

    A class's id is its number in the files, from 0. An image's id is its path without suffix below the folder that all
    images of the part share.

    Args:
        root: Folder of the data set, with or without data.yaml.
        split: Name of the part, as data.yaml, a text file of images or a folder names it; empty for all parts.
        class_names: Names of classes 0, 1, ...; empty for those of data.yaml, classes.txt or obj.names, else
            "class 0", "class 1" and so on.
        image_list: File that names the images to read (image_list.py); empty for all of the part.
        as_written: Keep boxes that reach outside their image, for scoring.

    Raises:
        DataError: there is no such part or no label file; data.yaml is malformed; a row has another number of columns,
            a value outside [0, 1], or a class without name; an image cannot be read, with as_written, where its objects
            would be missing from a score. The message names file and line.
    """
    tree = YoloTree(root)
    images = tree.images(split)
    if not images:
        raise DataError(f"{root}: no images with YOLO label files; check data.root and data.kind")
    named = chosen(list(zip(ids_of(images), images, strict=True)), lambda pair: pair, image_list)
    label_files = [tree.labels.find(path) for _, path in named]
    if not any(label_files):
        first = named[0][1]
        raise DataError(
            f"{root}: none of {len(named):,} images has a label file; looked for {first.stem}.txt in a folder labels "
            f"and beside {first}"
        )
    names = tree.names(class_names)
    points = tree.settings.points if tree.settings else 0
    warnings: tuple[str, ...] = ()
    if not names:
        names = _numbered(tree, [path for path in label_files if path], points)
        called = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
        warnings = (
            f"{root}: no file names the classes (data.yaml, classes.txt, obj.names); they are called {called}; name "
            "them in their order:  data.classes=[...]",
        )
    classes = ClassTable(tuple(map(composed, names)), (None,) * len(names), tuple(range(len(names))))
    reader = _Reader(root, classes, points, tree.repairs, as_written)
    pairs = progress(list(zip(named, label_files, strict=True)), f"labels of {root.name}", delay=3)
    records = tuple(reader.record(image_id, image, labels) for (image_id, image), labels in pairs)
    name = f"{root.resolve().name} {split}".strip()
    return Dataset(name, classes, records, (*warnings, *tree.repairs.lines(), *reader.remarks()))


class _Reader:
    """Reads the label files of a part, and counts what is fixed in all of them together."""

    def __init__(self, root: Path, classes: ClassTable, points: int, repairs: Repairs, as_written: bool) -> None:
        self.root, self.classes, self.points = root, classes, points
        self.repairs, self.as_written = repairs, as_written
        self.boxes = self.outside = 0

    def record(self, image_id: str, image: Path, labels: Path | None) -> Record:
        where = str((labels or image).name)
        try:
            size = read_size(image)
        except ImageError as error:
            if self.as_written:
                raise DataError(
                    f"{error}\n  YOLO's boxes are shares of the image, whose size only this file states"
                ) from error
            self.repairs.note(UNREADABLE, image.name)
            size, labels = (0, 0), None
        rows = [] if labels is None else read_rows(labels, self.points, self.repairs)
        if not rows and size != (0, 0):
            self.repairs.note(ABSENT if labels is None else EMPTY, image.name)
        for line, row in rows:
            if row.number >= len(self.classes):
                raise DataError(
                    f"{labels}, line {line}: class {row.number}, and there are {len(self.classes)} names, of classes 0 "
                    f"to {len(self.classes) - 1} ({listed(self.classes.names, 5)}); classes are numbered from 0"
                )
        corners = np.array([row.corners for _, row in rows], np.float64).reshape(-1, 4)
        self.boxes += len(corners)
        self.outside += int(((corners < -FAR) | (corners > 1 + FAR)).any(axis=1).sum())
        return make_record(
            image_id,
            image,
            size,
            _in_pixels(corners, size),
            np.array([row.number for _, row in rows], np.int64),
            repairs=self.repairs,
            where=where,
            as_written=self.as_written,
        )

    def remarks(self) -> tuple[str, ...]:
        """Return a line where so many boxes reach outside that the columns have another meaning."""
        if 10 * self.outside <= self.boxes:
            return ()
        return (
            f"{self.root}: {self.outside:,} of {self.boxes:,} boxes reach far outside their images; YOLO's columns are "
            "class, x and y of the centre, width, height, and these may be corners",
        )


def read_rows(path: Path, points: int, repairs: Repairs) -> list[tuple[int, Row]]:
    """Read a label file.

    Args:
        path: The file.
        points: Numbers of key points behind each box; 0 for none.
        repairs: Receives the count of polygons and of boxes with key points.

    Returns:
        The number of the line and the row, for each line that is not empty.

    Raises:
        DataError: a row has another form; the message names the line and the likely cause.
    """
    rows = []
    for line, text in enumerate(read_lines(path), 1):
        if text:
            try:
                rows.append((line, _row(text, points, path.name, repairs)))
            except ValueError as error:
                raise DataError(f"{path}, line {line}: {error}") from error
    return rows


def _row(text: str, points: int, where: str, repairs: Repairs) -> Row:
    """Parse a row; raises ValueError with a reason."""
    columns = text.split()
    shown = repr(text[:60])
    if len(columns) < 5 and "," in text:
        raise ValueError(f"{shown} is separated by commas; YOLO's columns are separated by blanks")
    values = [_number(column) for column in columns]
    bad = next((column for column, value in zip(columns, values, strict=True) if not math.isfinite(value)), None)
    if bad is not None:
        hint = "; YOLO writes a class as its number" if bad == columns[0] else ""
        raise ValueError(f"{bad[:40]!r} is no number in the row {shown}{hint}")
    if len(columns) == 6:
        raise ValueError(
            f"six columns, of which the last is a confidence: {shown} is a prediction, not ground truth; take the "
            "files of the labels"
        )
    has_points = points > 0 and len(columns) == 5 + points
    if not has_points and len(columns) != 5 and (len(columns) < 7 or len(columns) % 2 == 0):
        raise ValueError(
            f"{len(columns)} columns in {shown}; a box has 5 (class cx cy width height), a polygon the class and three "
            "or more pairs x y"
        )
    if values[0] < 0 or values[0] != int(values[0]):
        raise ValueError(f"the class is {columns[0]}; classes are whole numbers from 0")
    shares = values[1:5] if has_points else values[1:]
    wrong = next((place for place, value in enumerate(shares, 1) if not -ROUNDING <= value <= 1 + ROUNDING), None)
    if wrong is not None:
        pixels = max(shares) > 2
        cause = "these look like pixels; divide x by the image's width and y by its height" if pixels else "fix the row"
        raise ValueError(f"{columns[wrong]} is outside [0, 1] in {shown}; boxes are shares of the image: {cause}")
    if has_points or len(shares) == 4:
        repairs.note("key points behind boxes were left out", where, int(has_points))
        x, y, width, height = shares
        return Row(int(values[0]), (x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    repairs.note(POLYGONS, where)
    across, down = shares[0::2], shares[1::2]
    return Row(int(values[0]), (min(across), min(down), max(across), max(down)))


def _in_pixels(corners: Boxes, size: tuple[int, int]) -> Boxes:
    """Scale corners [N, 4] to an image; an edge that rounding put outside is on the border."""
    outside = ((corners < 0) & (corners >= -ROUNDING)) | ((corners > 1) & (corners <= 1 + ROUNDING))
    inside = np.where(outside, np.clip(corners, 0, 1), corners)
    return np.asarray(inside * np.array([*size, *size], np.float64), np.float64)


def _numbered(tree: YoloTree, files: Sequence[Path], points: int) -> tuple[str, ...]:
    """Name the classes of a data set without names, by the count that data.yaml states or the label files have."""
    count = tree.settings.count if tree.settings else 0
    if not count:
        every = dict.fromkeys([*files, *(path for path in files_below(tree.root, (".txt",)) if _holds_rows(path))])
        numbers = [row.number for path in every for _, row in read_rows(path, points, Repairs())]
        count = max(numbers, default=0) + 1
    return tuple(f"class {number}" for number in range(count))


def _holds_rows(path: Path) -> bool:
    """Whether a text file of the data set is one of labels, by the form of its first row."""
    if path.name in NAMES or lists_images(path):
        return False
    try:
        with path.open(encoding="utf-8-sig") as file:
            columns = file.readline().split()
    except (OSError, UnicodeDecodeError):
        return False
    return len(columns) >= 5 and all(math.isfinite(_number(column)) for column in columns)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def has_labels(path: Path) -> bool:
    """Whether a file is a label file of YOLO's form, or an empty one."""
    return os.path.isfile(path) and (path.stat().st_size == 0 or _holds_rows(path))
