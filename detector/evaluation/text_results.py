"""Detections in the texts of two contests -> checked detections.

    ILSVRC          lines "image-number det-id confidence x1 y1 x2 y2" of the devkit
    PASCAL VOC      files comp4_det_SPLIT_CLASS.txt: lines "image confidence x1 y1 x2 y2"

D detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.checking import Raw, Results, checked
from detector.evaluation.names import UNKNOWN, Names, as_text
from detector.evaluation.results import ResultsError
from detector.evaluation.rows import NUMERIC
from detector.evaluation.truth import ILSVRC, VOC, Truth
from detector.evaluation.voc_names import labels_of_files

ILSVRC_COLUMNS = ("image number", "class number", "confidence", "x1", "y1", "x2", "y2")
VOC_COLUMNS = ("image", "confidence", "x1", "y1", "x2", "y2")
EXACT = 2.0**53
"""From here on float64 does not distinguish all whole numbers."""


def read_submission(path: Path, truth: Truth) -> Results:
    """Read a submission to ILSVRC.

    Raises:
        ResultsError: the images of the truth have no numbers; a line of another form; a check failed (checking.py).
    """
    columns = _columns(path)
    if truth.numbers is None:
        raise ResultsError(
            f"{path}: names images by ILSVRC's numbers, and those of {truth.name} have none; "
            "write COCO results or lines of JSON instead"
        )
    numbers, ids = columns[:, 0], columns[:, 1]
    if (np.abs(numbers) < EXACT).all():
        order = np.argsort(truth.numbers)
        position = np.minimum(np.searchsorted(truth.numbers[order], numbers), len(order) - 1)
        image_index = np.where(truth.numbers[order][position] == numbers, order[position], UNKNOWN)
    else:
        index_of = {str(number): index for number, index in truth.index_of_number.items()}
        texts = np.loadtxt(path, dtype=np.str_, comments=None, usecols=0, ndmin=1, encoding="utf-8-sig").tolist()
        image_index = np.array([index_of.get(text, UNKNOWN) for text in texts], np.int64)
    label_of = np.full(max(truth.classes.ids) + 1, -1, np.int64)
    label_of[list(truth.classes.ids)] = np.arange(len(truth.classes))
    whole = (ids == np.floor(ids)) & (ids >= 0) & (ids < len(label_of))

    def describe(row: int) -> tuple[str, str]:
        with path.open(encoding="utf-8-sig") as file:
            filled = ((number, line) for number, line in enumerate(file, 1) if line.strip())
            number, line = next(islice(filled, row, None))
        return f"line {number}", line.split()[0]

    raw = Raw(
        path,
        describe=describe,
        image_index=image_index,
        labels=np.where(whole, label_of[np.where(whole, ids, 0).astype(np.int64)], -1),
        class_name=lambda i: as_text(ids[i].item()),
        given=np.ascontiguousarray(columns[:, 3:]),
        scores=np.ascontiguousarray(columns[:, 2]),
        convention=ILSVRC,
        known_classes=[f"{min(truth.classes.ids)} to {max(truth.classes.ids)}"],
    )
    return checked(raw, truth)


def _columns(path: Path) -> NDArray[np.float64]:
    """Read a text of numbers, [lines, 7]; a message names the first bad line and counts them."""
    try:
        columns = np.loadtxt(path, dtype=np.float64, comments=None, ndmin=2, encoding="utf-8-sig")
        if columns.shape[1] == len(ILSVRC_COLUMNS):
            return columns
        problem = f"has {columns.shape[1]} columns"
    except (ValueError, UnicodeDecodeError) as error:
        problem = f"cannot be read as numbers ({error})"
    bad: list[tuple[int, str]] = []
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            words = line.split()
            if words and (len(words) != len(ILSVRC_COLUMNS) or not all(map(NUMERIC.fullmatch, words))):
                bad.append((number, line.strip()[:80]))
    if bad:
        more = f" ({len(bad):,} such lines)" if bad[1:] else ""
        expected = f"expected {len(ILSVRC_COLUMNS)} numbers, {', '.join(ILSVRC_COLUMNS)}"
        problem = f"line {bad[0][0]}: {expected}; found {bad[0][1]!r}{more}"
    raise ResultsError(f"{path}: {problem}")


def read_comp4(path: Path, files: Sequence[Path], truth: Truth) -> Results:
    """Read a submission to PASCAL VOC, one file a class; `path` is their folder or the one file.

    Raises:
        ResultsError: a file's name has no class, a line has another form, or a check failed (checking.py).
    """
    names = Names(truth)
    images: list[str] = []
    locations: list[tuple[Path, int]] = []
    numbers: list[list[float]] = []
    labels: list[int] = []
    for file, label in labels_of_files(files, names.classes, truth).items():
        try:
            text = file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ResultsError(f"{file}: not a text in UTF-8 ({error})") from error
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            words = line.rsplit(maxsplit=len(VOC_COLUMNS) - 1)  # the name in front may contain blanks
            if len(words) != len(VOC_COLUMNS) or not all(map(NUMERIC.fullmatch, words[1:])):
                raise ResultsError(
                    f"{file}: line {number}: expected {', '.join(VOC_COLUMNS)}; found {line.strip()[:80]!r}"
                )
            images.append(words[0])
            locations.append((file, number))
            numbers.append([float(word) for word in words[1:]])
            labels.append(label)
    columns = np.array(numbers, np.float64).reshape(-1, 5)
    raw = Raw(
        path,
        describe=lambda i: (f"{locations[i][0].name} line {locations[i][1]}", images[i]),
        image_index=names.images(images),
        labels=np.array(labels, np.int64),
        class_name=labels.__getitem__,
        given=np.ascontiguousarray(columns[:, 1:]),
        scores=np.ascontiguousarray(columns[:, 0]),
        convention=VOC,
        known_classes=list(names.classes),
    )
    results = checked(raw, truth)
    absent = sorted({*range(len(truth.classes))} - {*labels})
    if path.is_dir() and absent:
        note = f"{path}: {len(absent)} of {len(truth.classes)} classes have no detections (first: "
        return Results(results.table, (*results.warnings, f"{note}{truth.classes.names[absent[0]]})"))
    return results
