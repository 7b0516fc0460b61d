"""Rows of a text folder or a table -> Truth: classes by name or number, boxes in px."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from detector.data.ground_truth import INVERTED, ClassTable, DataError, Repairs, composed, listed
from detector.data.image import ImageError, read_size
from detector.data.trees import counted
from detector.evaluation.box_layouts import TOLERATED, Evidence, Layout, cannot_tell, find_layout
from detector.evaluation.rows import Rows, names_near
from detector.evaluation.truth import Truth

OPTION = "--truth-boxes"
"""The option that states the layout of ground truth's boxes."""

MOST = 100_000
"""Greatest number of a class."""


def truth_of_rows(rows: Rows, class_names: Sequence[str] = (), layout: Layout | None = None) -> Truth:
    """Make the ground truth of rows, with a warning of everything that was assumed.

    Args:
        rows: The rows; an image without rows has no objects.
        class_names: The K class names, of classes 0, 1, ... where the rows have numbers; empty for those of data.yaml
            or classes.txt near the rows, else for the names or numbers in the rows, sorted.
        layout: The layout of the boxes; None to find it.

    Raises:
        DataError: there are no boxes; a class is not among the names; the layout cannot be told; boxes are shares of
            images whose sizes are not known, or are not finite; more than a tenth of them end before they begin.
    """
    if not len(rows.boxes):
        raise DataError(f"{rows.path}: no boxes in {counted(len(rows.images), 'image')}")
    if not np.isfinite(rows.boxes).all():
        first = int(np.flatnonzero(~np.isfinite(rows.boxes).all(axis=1))[0])
        box = rows.boxes[first].tolist()
        raise DataError(f"{rows.path}: {rows.where(first)}: a box must be finite numbers, not {box}")
    classes, labels, warnings = _classes(rows, class_names)
    sizes = image_sizes(rows)
    seen = Evidence(
        rows.boxes,
        np.where(sizes > 0, sizes, np.nan)[rows.of_image],
        rows.forms,
        usual="cxcywh" if rows.numbered else "",
    )
    known = layout or find_layout(seen)
    if known is None:
        raise DataError(f"{rows.path}: {rows.where(0)}: {cannot_tell(seen, OPTION)}")
    if layout is None and (known.relative or len(rows.forms) > 1):
        warnings.append(f"{rows.path}: boxes are read as {known} ({OPTION} {known.option})")
    if known.relative and (unsized := np.flatnonzero(~(sizes[rows.of_image] > 0).all(axis=1))).size:
        name = rows.images[rows.of_image[unsized[0]]]
        raise DataError(
            f"{rows.path}: boxes are shares of their images, and the size of {name} is not known: its file is neither "
            "in a folder images beside these nor here (a table may have columns width and height)"
        )
    boxes = known.corners(rows.boxes, sizes[rows.of_image].astype(np.float64))
    extent = boxes[:, 2:] - boxes[:, :2] + known.convention.inclusive
    upright = np.asarray((extent >= known.convention.inclusive).all(axis=1))
    if (~upright).mean() > TOLERATED:
        first = int(np.flatnonzero(~upright)[0])
        raise DataError(
            f"{rows.path}: {rows.where(first)}: box {rows.boxes[first].tolist()} ends before it begins as {known} "
            f"({int((~upright).sum()):,} of {len(upright):,} boxes); give another {OPTION}"
        )
    repairs = Repairs()
    for row in np.flatnonzero(~upright).tolist():
        repairs.note(INVERTED, rows.where(row))
    order = np.flatnonzero(upright)
    order = order[np.argsort(rows.of_image[order], kind="stable")]
    truth = Truth(
        name=rows.path.stem if rows.path.is_file() else rows.path.resolve().name,
        classes=classes,
        image_ids=tuple(rows.images),
        paths=tuple(rows.files),
        sizes=sizes,
        numbers=None,
        image_index=rows.of_image[order],
        labels=labels[order],
        boxes=boxes[order],
        difficult=rows.difficult[order],
        crowd=np.zeros(len(order), np.bool_),
        areas=extent[order].prod(axis=1),
        convention=known.convention,
        numbered=rows.numbered,
        warnings=(*warnings, *repairs.lines()),
    )
    return truth.with_trusted_sizes()


def image_sizes(rows: Rows) -> NDArray[np.int64]:
    """Return width and height of each image, [I, 2] px, as stated or as its file has them; 0 where unknown."""
    sizes = rows.sizes.copy()
    for place in np.flatnonzero((sizes <= 0).any(axis=1)).tolist():
        sizes[place] = 0
        if os.path.isfile(rows.files[place]):
            try:
                sizes[place] = read_size(rows.files[place])
            except ImageError as error:
                raise DataError(f"{rows.path}: an image cannot be read: {error}") from error
    return sizes


def _classes(rows: Rows, class_names: Sequence[str]) -> tuple[ClassTable, NDArray[np.int64], list[str]]:
    """Return the classes, the label of each row, and lines on where the names come from."""
    folder = rows.path if rows.path.is_dir() else rows.path.parent
    names, file = (tuple(map(composed, class_names)), None) if class_names else names_near(folder)
    words = sorted(set(rows.classes), key=int if rows.numbered else None)
    if not names or (file is not None and not rows.numbered and not {*words} <= {*names}):
        if rows.numbered:
            names = _numbered(rows, int(words[-1]))
            line = (
                f"{rows.path}: no file names the classes (data.yaml, classes.txt); they are called {listed(names, 3)}"
            )
            table = ClassTable(names, (None,) * len(names), tuple(range(len(names))))
            return table, np.array([int(word) for word in rows.classes], np.int64), [line]
        table = ClassTable(tuple(words), (None,) * len(words), tuple(range(1, len(words) + 1)))
        label_of = {word: label for label, word in enumerate(words)}
        return table, np.array([label_of[word] for word in rows.classes], np.int64), []
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"class {twice!r} is named twice")
    table = ClassTable(names, (None,) * len(names), tuple(range(len(names))))
    label_of = {str(number): number for number in range(len(names))} if rows.numbered else {}
    label_of |= {} if rows.numbered else {name: label for label, name in enumerate(names)}
    for row, word in enumerate(rows.classes):
        label = label_of.get(str(int(word)) if rows.numbered else word)
        if label is None:
            source = f"{file} names" if file else "there are"
            raise DataError(
                f"{rows.path}: {rows.where(row)}: unknown class {word!r}; {source} {len(names)}: {listed(names)}"
                + "; they are numbered from 0" * rows.numbered
            )
    labels = np.array([label_of[str(int(word)) if rows.numbered else word] for word in rows.classes], np.int64)
    return table, labels, [f"{rows.path}: class names are those of {file}"] * (file is not None)


def _numbered(rows: Rows, greatest: int) -> tuple[str, ...]:
    """Name all classes up to the greatest number, as detections may have numbers that no object has."""
    if greatest >= MOST:
        raise DataError(f"{rows.path}: class {greatest} is no number of a class, which are counted from 0")
    return tuple(f"class {number}" for number in range(greatest + 1))


def named_rows(rows: Rows, names: Sequence[str]) -> Rows:
    """Return rows with names for the numbers of their classes, where there is one."""
    known = {word: names[int(word)] if int(word) < len(names) else word for word in set(rows.classes)}
    return replace(rows, classes=[known[word] for word in rows.classes])
