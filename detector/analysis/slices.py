"""AP and recall by slices of the images: by columns of a CSV (camera, night or day), and by the number of objects.

In: a Truth, a DetectionTable, and values by image.  Out: a SliceRow for each slice.
Each slice is evaluated on its images alone, as a data set of its own: its classes with objects, its false positives,
its resamples. A mean over other classes, or over images with more objects, differs without a better or worse detector;
compare the intervals.
Values become slices as detector.analysis.values says.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.analysis.part_scores import Limits, part_score
from detector.analysis.values import NONE, slices_of
from detector.data.ground_truth import listed
from detector.evaluation.average import Floats
from detector.evaluation.checking import unknown_image
from detector.evaluation.csv_text import IMAGE, columns_of, open_csv
from detector.evaluation.matching import Matches, match
from detector.evaluation.names import UNKNOWN, UNLISTED, Names
from detector.evaluation.results import DetectionTable, ResultsError
from detector.evaluation.truth import Truth

_LOG = logging.getLogger(__name__)

IMAGE_COLUMNS = (*IMAGE, "name", "id")
"""Names of the column of images; a table without any has them in its first column."""
COUNTS = ((0, 0), (1, 1), (2, 3), (4, 7), (8, 15), (16, None))
"""Numbers of objects in an image, first and last, that are a slice each."""
NAMED = 5  # images that a message names


@dataclass(frozen=True)
class SliceRow:
    """AP and recall on some of the images.

    Attributes:
        column: Name of the column, or "objects" for the number of objects in an image.
        value: The value in it, or a range such as "2 to 3".
        images: Number of images.
        objects: Number of their objects that count.
        mean_ap: Mean AP over the classes with objects in the slice, in [0, 1]; None without any.
        ap_interval: Its 95 % bootstrap interval over images; None without resamples, or where fewer than two images
            have objects.
        recall: Mean over the same classes of the share of objects found, whatever the score, in [0, 1].
        recall_interval: Its 95 % interval.
    """

    column: str
    value: str
    images: int
    objects: int
    mean_ap: float | None
    ap_interval: Limits
    recall: float | None
    recall_interval: Limits


# ---- the file


def read_slices(path: Path, truth: Truth) -> dict[str, list[str]]:
    """Read a CSV of images: a first line of names, a column of images, and columns of values.

    Columns may be separated by commas, semicolons or tabs. Images are matched as in files of detections: by id, file
    name with or without ending, or the end of the path. Logged as warnings are images without a line, which get no
    value; lines of images that the truth does not have, which are not used; and columns of texts with too many values
    for slices (an address, a remark), which are left out.

    Args:
        path: The file.
        truth: The I images.

    Returns:
        [I] values of each column, keyed by its name; "" for no value.

    Raises:
        ResultsError: the file cannot be read or is no such table, an image occurs twice, none is an image of the truth,
            or no column can be used.
    """
    header, rows = _table(path)
    columns = columns_of(header)
    column = next((columns[name] for name in IMAGE_COLUMNS if name in columns), 0)
    others = [place for place in range(len(header)) if place != column and header[place]]
    names = Names(truth)
    line_of: dict[int, int] = {}
    values = {header[place]: [""] * len(truth) for place in others}
    unknown: list[str] = []
    unlisted = 0
    for line, row in rows:
        index = names.image(row[column])
        if index in line_of:
            raise ResultsError(
                f"{path}: image {truth.image_ids[index]} is in line {line_of[index]} and again in line {line}; "
                "an image has one line"
            )
        if index == UNKNOWN:
            unknown.append(row[column])
        unlisted += index == UNLISTED
        if index < 0:
            continue
        line_of[index] = line
        for place in others:
            values[header[place]][index] = row[place]
    if not line_of:
        reason = unknown_image(unknown[0], truth) if unknown else f"{len(rows)} lines, all of images that are left out"
        raise ResultsError(f"{path}: column {header[column]!r} names no image of {truth.name}: {reason}")
    if unknown:
        _LOG.warning(
            "%s: %d of %d images are not in %s and are not used: %s",
            *(path, len(unknown), len(rows), truth.name, listed(unknown, NAMED)),
        )
    absent = [truth.image_ids[index] for index in range(len(truth)) if index not in line_of]
    if absent:
        _LOG.warning(
            "%s: %d of %d images of %s have no line, and are the slice %s: %s",
            *(path, len(absent), len(truth), truth.name, NONE, listed(absent, NAMED)),
        )
    return _usable(path, values)


def _table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Read the names of the columns, and the number and cells of each further line."""
    reader = open_csv(path, ResultsError)
    rows = []
    try:
        header = [name.strip() for name in next(reader, [])]
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append((reader.line_num, [cell.strip() for cell in row]))
    except csv.Error as reason:
        raise ResultsError(f"{path}: line {reader.line_num}: malformed CSV ({reason})") from reason
    if len(header) < 2 or not rows:
        raise ResultsError(
            f"{path}: a table of images has a first line of names such as image,light and a line for each image"
        )
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise ResultsError(f"{path}: two columns are named {twice[0]!r}")
    for line, row in rows:
        if len(row) != len(header):
            raise ResultsError(f"{path}: line {line}: {len(row)} columns, and the first line names {len(header)}")
    return header, rows


def _usable(path: Path, values: dict[str, list[str]]) -> dict[str, list[str]]:
    """Leave out the columns that have too many values."""
    usable = {}
    for name, column in values.items():
        try:
            slices_of(name, column)
        except ResultsError as reason:
            _LOG.warning("%s: %s; the column is left out", path, reason)
        else:
            usable[name] = column
    if not usable:
        raise ResultsError(f"{path}: no column has values for slices; name one such as light with day and night")
    return usable


# ---- the slices


def by_slice(
    truth: Truth,
    table: DetectionTable,
    columns: Mapping[str, Sequence[str]],
    *,
    rule: str,
    points: Floats,
    min_iou: float,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[SliceRow, ...]:
    """Compute AP and recall on the images of each value of each column.

    Args:
        truth: The I images and their objects.
        table: The detections.
        columns: [I] values, keyed by the column's name, as read_slices returns them; "" for no value.
        rule: Matching rule: ilsvrc, voc or coco.
        points: Recalls that average precision uses, as in detector.evaluation.average.
        min_iou: IoU from which an object is found, in (0, 1].
        resamples: Bootstrap resamples of each slice's images; 0 for no intervals.
        seed: Seed of the random resamples.

    Returns:
        The rows, by column; numbers rise, texts are sorted, images without a value come last.

    Raises:
        ResultsError: a column of texts has too many values.
        ValueError: a column does not have I values, min_iou is out of range, or the table was made for another split.
    """
    evaluated = _Evaluated(truth, table, rule, points, min_iou, resamples, seed)
    rows = []
    for name, values in columns.items():
        if len(values) != len(truth):
            raise ValueError(f"column {name!r} has {len(values)} values for {len(truth)} images")
        rows += [evaluated.row(name, value, kept) for value, kept in slices_of(name, values)]
    return tuple(rows)


def by_count(
    truth: Truth,
    table: DetectionTable,
    *,
    rule: str,
    points: Floats,
    min_iou: float,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[SliceRow, ...]:
    """Compute AP and recall on the images with 0, 1, 2 to 3, 4 to 7, 8 to 15 and 16 or more objects that count.

    Args: as in by_slice. Numbers of objects that no image has get no row; images without objects have no AP.

    Raises:
        ValueError: min_iou is out of range, or the table was made for another split.
    """
    evaluated = _Evaluated(truth, table, rule, points, min_iou, resamples, seed)
    parts = counts_of(truth, match(truth, table, rule, min_iou))
    return tuple(evaluated.row("objects", value, kept) for value, kept in parts)


def counts_of(truth: Truth, matches: Matches) -> list[tuple[str, NDArray[np.bool_]]]:
    """Return the ranges of numbers of objects that images have, each with the mask of its images, [I]."""
    number = np.bincount(truth.image_index[matches.counted], minlength=len(truth))
    parts = []
    for low, high in COUNTS:
        kept = (number >= low) & (number <= (number.max(initial=0) if high is None else high))
        if kept.any():
            value = f"{low} or more" if high is None else str(low) if low == high else f"{low} to {high}"
            parts.append((value, kept))
    return parts


@dataclass(frozen=True)
class _Evaluated:
    """What the slices are taken of, and how they are scored."""

    truth: Truth
    table: DetectionTable
    rule: str
    points: Floats
    min_iou: float
    resamples: int
    seed: int

    def row(self, column: str, value: str, kept: NDArray[np.bool_]) -> SliceRow:
        """Score the images of a slice, [I] bool, by themselves."""
        truth, table = self.truth.part(kept), on_images(self.table, kept)
        matches = match(truth, table, self.rule, self.min_iou)
        score = part_score(truth, table, matches, points=self.points, resamples=self.resamples, seed=self.seed)
        return SliceRow(
            column,
            value,
            len(truth),
            score.objects,
            score.mean_ap,
            score.ap_interval,
            score.recall,
            score.recall_interval,
        )


def on_images(table: DetectionTable, kept: NDArray[np.bool_]) -> DetectionTable:
    """Return the detections on the images chosen by the mask `kept`, [I], for the truth's part of these images."""
    some = table[kept[table.image_index]]
    position = np.cumsum(kept) - 1
    return replace(some, image_index=position[some.image_index])
