"""Rows of a text folder or a table -> checked detections: the layout of boxes is found from the objects."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detector.data.image import ImageError, read_size
from detector.evaluation.box_layouts import SHARED, TOLERATED, Evidence, Layout, better, cannot_tell, find_layout
from detector.evaluation.checking import (
    SAMPLE,
    Raw,
    Results,
    checked,
    known_sizes,
    no_detections,
    on_objects,
    unknown_image,
)
from detector.evaluation.names import UNKNOWN, Names
from detector.evaluation.results import DetectionTable, ResultsError
from detector.evaluation.row_truth import OPTION as TRUTH_OPTION
from detector.evaluation.row_truth import named_rows
from detector.evaluation.rows import Rows, names_near
from detector.evaluation.truth import Truth

OPTION = "--boxes"
"""The option that states the layout of detections' boxes."""

SLACK = 0.1  # share of the image by which detections, which nobody cut at its edge, may reach outside


class _Reading(NamedTuple):
    """One meaning of the numbers of rows."""

    layout: Layout
    scores: NDArray[np.float64]
    numbers: NDArray[np.float64]
    is_last: bool


def results_of_rows(rows: Rows, truth: Truth, layout: Layout | None = None) -> Results:
    """Make the detections of rows, with a warning of everything that was assumed.

    Args:
        rows: The rows, with scores.
        truth: The ground truth.
        layout: The layout of the boxes; None to find it.

    Raises:
        ResultsError: an unknown image or class, or two names of one image; the layout cannot be told; boxes are shares
            of images whose sizes are not known; a check failed (checking.py).
    """
    names = Names(truth)
    index = names.images_at(rows.images)
    filled = np.bincount(rows.of_image, minlength=len(index)) > 0
    for image in np.flatnonzero((index == UNKNOWN) & ~filled).tolist():  # of no row, so checked() cannot reject it
        raise ResultsError(f"{rows.path}: {unknown_image(rows.images[image], truth)}")
    name_of: dict[int, str] = {}
    for name, image in zip(rows.images, index.tolist(), strict=True):
        if image >= 0 and name_of.setdefault(image, name) != name:
            raise ResultsError(f"{rows.path}: {name_of[image]} and {name} are the same image of {truth.name}")
    if not len(rows.boxes):
        return no_detections(rows.path, truth)
    image_index = index[rows.of_image]
    labels, warnings = _labels(rows, truth, names)
    sizes = _sizes(rows, truth, index)[rows.of_image]
    reading = _reading(rows, truth, image_index, sizes, layout)
    if layout is None and (reading.layout.relative or len(rows.forms) > 1):
        score = "" if rows.last is None else f", the score is the {'last' if reading.is_last else 'first'} number"
        warnings.append(f"{rows.path}: boxes are read as {reading.layout}{score} ({OPTION} {reading.layout.option})")
    if reading.layout.relative and (unsized := np.flatnonzero(np.isnan(sizes).any(axis=1) & (image_index >= 0))).size:
        raise ResultsError(
            f"{rows.path}: {rows.where(int(unsized[0]))}: boxes are shares of their images, and {truth.name} does not "
            f"state the size of {rows.images[rows.of_image[unsized[0]]]}; put the images into a folder images beside it"
        )
    is_xywh = reading.layout.form == "xywh"
    scaled = np.where(np.isnan(sizes), 1, sizes)
    corners = reading.layout.corners(reading.numbers, scaled)
    given = reading.numbers * (np.tile(scaled, 2) if reading.layout.relative else 1) if is_xywh else corners
    raw = Raw(
        rows.path,
        describe=lambda i: (rows.where(i), rows.images[rows.of_image[i]]),
        image_index=image_index,
        labels=labels,
        class_name=rows.classes.__getitem__,
        given=np.ascontiguousarray(given),
        scores=np.ascontiguousarray(reading.scores),
        convention=reading.layout.convention,
        known_classes=list(names.classes),
        is_xywh=is_xywh,
        named=index[index >= 0],
        advice=f"; the options {OPTION} and {TRUTH_OPTION} state the layouts" if len(rows.forms) > 1 else "",
    )
    results = checked(raw, truth)
    return Results(results.table, (*warnings, *results.warnings))


def _labels(rows: Rows, truth: Truth, names: Names) -> tuple[NDArray[np.int64], list[str]]:
    """Return the label of each row, and a line on where the names of numbers come from."""
    if not rows.numbered or {*rows.classes} <= names.classes.keys():
        return names.labels(rows.classes, number=False), []
    if rows.last is None:  # a table, whose numbers are those of the ground truth
        return names.labels(rows.classes, number=True), []
    own, file = names_near(rows.path)
    if own:
        named = named_rows(rows, own)
        return names.labels(named.classes, number=False), [f"{rows.path}: class names are those of {file}"]
    count = len(truth.classes)
    if truth.classes.ids[0] == 0:  # numbered from 0 on both sides
        return names.labels(rows.classes, number=True), []
    labels = np.array([int(word) if int(word) < count else UNKNOWN for word in rows.classes], np.int64)
    line = f"{rows.path}: no data.yaml or classes.txt names the classes; 0, 1, ... are those of {truth.name} in order"
    return labels, [f"{line}: {truth.classes.names[0]}, {truth.classes.names[1]}, ..."] if count > 1 else []


def _sizes(rows: Rows, truth: Truth, index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the size of each image of the rows, [I, 2] px; NaN where neither truth, rows nor files have it."""
    stated = np.where((rows.sizes > 0).all(axis=1, keepdims=True), rows.sizes, np.nan)
    known = np.where((index >= 0)[:, None], known_sizes(truth)[np.maximum(index, 0)], np.nan)
    sizes = np.where(np.isnan(known), stated, known)
    for image in np.flatnonzero(np.isnan(sizes).any(axis=1) & (index >= 0)).tolist():
        path = next(filter(os.path.isfile, (truth.paths[index[image]], rows.files[image])), None)
        if path is not None:
            try:
                sizes[image] = read_size(path)
            except ImageError as error:
                raise ResultsError(f"{rows.path}: an image cannot be read: {error}") from error
    return sizes


def _reading(
    rows: Rows,
    truth: Truth,
    image_index: NDArray[np.int64],
    sizes: NDArray[np.float64],
    layout: Layout | None,
) -> _Reading:
    """Find the meaning of the numbers: by their form, then by the objects that the boxes lie on."""
    columns = _score_columns(rows)
    usual = "cxcywh" if rows.numbered else ""
    seen = {last: Evidence(numbers, sizes, rows.forms, usual, SLACK) for last, (_, numbers) in columns.items()}
    readings: list[_Reading] = []
    for last, (scores, numbers) in columns.items():
        relative = seen[last].relative
        forms = [*dict.fromkeys((*rows.forms, "cxcywh"))] if relative and len(rows.forms) > 1 else list(rows.forms)
        layouts = [layout] if layout else [Layout(form, relative) for form in forms]
        readings += [_Reading(one, scores, numbers, last) for one in layouts]
    if len(readings) == 1:
        return readings[0]
    if layout is None and len(columns) == 1:
        ((last, (scores, numbers)),) = columns.items()
        found = find_layout(replace(seen[last], usual=""))
        if found is not None:
            return _Reading(found, scores, numbers, last)
    count = len(rows.boxes)
    faults = [seen[one.is_last].faults(one.layout.form, one.layout.relative) for one in readings]
    possible = [one for one, wrong in zip(readings, faults, strict=True) if wrong <= TOLERATED * count]
    if len(possible) == 1:
        return possible[0]
    hits = [_hits(one, truth, image_index, sizes) for one in possible]
    for place, one in enumerate(possible):
        if all(better(hits[place], other) for rival, other in enumerate(hits) if rival != place):
            return one
    for one in possible:  # YOLO's form, which nothing speaks against
        in_order = len(columns) == 1 or one.is_last == rows.numbered
        if one.layout.relative and in_order and one.layout in (layout, Layout(usual or "xyxy", bool(usual))):
            return one
    evidence = next(iter(seen.values()))
    raise ResultsError(
        f"{rows.path}: {rows.where(0)}: {cannot_tell(evidence, OPTION, [one.layout for one in possible])}"
    )


def _score_columns(rows: Rows) -> dict[bool, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return scores and the numbers of boxes, keyed by whether the score is the last of five numbers."""
    if rows.last is None or rows.scores is None:
        return {False: (np.zeros(0) if rows.scores is None else rows.scores, rows.boxes)}
    choices = {False: (rows.last[:, 0], rows.last[:, 1:]), True: (rows.last[:, 4], rows.last[:, :4])}
    unit = {last: ((scores >= 0) & (scores <= 1)).mean() >= SHARED for last, (scores, _) in choices.items()}
    if unit[False] == unit[True]:  # shares of the image, too; only tools that number classes write the score last
        return choices if unit[False] and rows.numbered else {False: choices[False]}
    return {last: choices[last] for last in choices if unit[last]}


def _hits(one: _Reading, truth: Truth, image_index: NDArray[np.int64], sizes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which boxes of a sample lie on an object of any class."""
    usable = np.flatnonzero((image_index >= 0) & ~(np.isnan(sizes).any(axis=1) & one.layout.relative))
    usable = usable[np.isfinite(one.numbers[usable]).all(axis=1)]
    usable = usable[:: max(1, len(usable) // SAMPLE)]
    boxes = one.layout.corners(one.numbers[usable], sizes[usable])
    none = np.zeros(len(usable), np.int64)
    return on_objects(
        truth, DetectionTable(image_index[usable], none, np.zeros(len(none)), boxes, one.layout.convention)
    )
