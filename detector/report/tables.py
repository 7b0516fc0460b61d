"""A report as tables for spreadsheets: a CSV file an analysis, one number a cell.

Rows of values that do not exist, such as the AP of a class without objects, have empty cells.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detector.evaluation.truth import Truth
from detector.report.answers import display_name
from detector.report.contents import Report
from proposals.files import write_whole

Rows = list[Sequence[Any]]

HEADS: dict[str, tuple[str, ...]] = {
    "classes": ("class", "name", "ap", "objects", "detections", "best_f1", "from_score", "precision", "recall"),
    "thresholds": (
        *("class", "score", "low", "high", "f1", "precision", "recall"),
        *("score_at_precision", "recall_there", "score_at_recall", "precision_there"),
    ),
    "errors": ("error", "number", "gain"),
    "causes": ("class", "score", "objects", "found", "cause", "number"),
    "confusion": ("object", "detected_as", "number"),
    "sizes": ("size", "low_px", "high_px", "objects", "ap", "ap_low", "ap_high", "recall", "recall_low", "recall_high"),
    "slices": (
        *("column", "value", "images", "objects", "ap", "ap_low", "ap_high"),
        *("recall", "recall_low", "recall_high"),
    ),
    "calibration": ("class", "low_score", "high_score", "detections", "mean_score", "precision", "error"),
    "label_errors": ("kind", "image", "class", "other", "score", "x1", "y1", "x2", "y2"),
    "comparison": ("first", "second", "class", "difference", "low", "high"),
}
"""Columns of each table, by the stem of its file."""


def write_tables(folder: Path, truth: Truth, report: Report) -> list[Path]:
    """Write the analyses of a report as CSV files, UTF-8, into a folder; each appears whole or not at all.

    Args:
        folder: The folder; it is created if needed.
        truth: The objects that were scored against.
        report: The numbers; an analysis that it lacks has no file.

    Returns:
        the files.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, rows in table_rows(truth, report).items():
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows([HEADS[name], *rows])
        paths.append(folder / f"{name}.csv")
        with write_whole(paths[-1]) as part:
            part.write_text(buffer.getvalue(), encoding="utf-8")
    return paths


def table_rows(truth: Truth, report: Report) -> dict[str, Rows]:
    """Return the rows of the tables of a report, by the keys of HEADS; without those that it lacks."""
    evaluation = report.evaluation
    keys = list(evaluation.ap)
    points = evaluation.operating_points
    result: dict[str, Rows] = {
        "classes": [
            (
                key,
                display_name(report, label),
                ap,
                evaluation.objects[key],
                evaluation.detections[key],
                *_point(points.get(key)),
            )
            for label, (key, ap) in enumerate(evaluation.ap.items())
        ]
    }
    if report.diagnosis:
        gains = report.diagnosis.gains
        result["errors"] = [(kind, count, gains[kind]) for kind, count in report.diagnosis.counts.items()]
    if report.causes:
        result["causes"] = [
            (keys[one.label], one.score, one.objects, one.found, name, count)
            for one in report.causes
            for name, count in (
                *one.missed.items(),
                *((f"false: {kind}", number) for kind, number in one.false.items()),
            )
        ]
    if found := report.thresholds:
        by_class = [*zip(keys, found.by_class, strict=True), ("(all classes)", found.pooled)]
        result["thresholds"] = [
            (
                key,
                *_threshold(one.best),
                *(one.interval or (None, None)),
                *_threshold(one.best, "f1", "precision", "recall"),
                *_threshold(one.at_precision, "score", "recall"),
                *_threshold(one.at_recall, "score", "precision"),
            )
            for key, one in by_class
            if one
        ]
    if report.confusion:
        rows, columns = [*keys, "(background)"], [*keys, "(missed)"]
        counts = report.confusion.matrix.tolist()
        result["confusion"] = [
            (rows[real], columns[taken], count)
            for real, of_row in enumerate(counts)
            for taken, count in enumerate(of_row)
            if count
        ]
    if report.sizes:
        result["sizes"] = [
            (
                row.name,
                row.low,
                row.high,
                row.objects,
                *_with_limits(row.mean_ap, row.ap_interval),
                *_with_limits(row.recall, row.recall_interval),
            )
            for row in report.sizes
        ]
    slices = [*(report.object_counts or ()), *(report.slices or ())]
    if slices:
        result["slices"] = [
            (
                row.column,
                row.value,
                row.images,
                row.objects,
                *_with_limits(row.mean_ap, row.ap_interval),
                *_with_limits(row.recall, row.recall_interval),
            )
            for row in slices
        ]
    if calibration := report.calibration:
        edges = calibration.edges.tolist()
        columns_of = (calibration.counts.tolist(), calibration.confidence.tolist(), calibration.precision.tolist())
        bins: Rows = [
            ("(all classes)", low, high, count, mean if count else None, share if count else None, None)
            for low, high, count, mean, share in zip(edges[:-1], edges[1:], *columns_of, strict=True)
        ]
        errors = zip([*keys, "(all classes)"], [*calibration.error_by_class, calibration.error], strict=True)
        result["calibration"] = [*bins, *((key, None, None, None, None, None, error) for key, error in errors)]
    if report.suspects is not None:
        result["label_errors"] = [
            (
                one.kind,
                truth.image_ids[one.image],
                keys[one.label],
                None if one.other is None else keys[one.other],
                one.score,
                *one.box,
            )
            for one in report.suspects
        ]
    if report.comparison:
        result["comparison"] = [
            (pair.first, pair.second, key, difference.value, difference.low, difference.high)
            for pair in report.comparison.pairs
            for key, difference in zip(("(mean)", *keys), (pair.difference, *pair.by_class), strict=True)
            if difference
        ]
    return result


def _point(point: Any) -> tuple[Any, ...]:
    return _threshold(point, "f1", "score", "precision", "recall")


def _threshold(point: Any, *names: str) -> tuple[Any, ...]:
    return tuple(getattr(point, name) if point else None for name in names or ("score",))


def _with_limits(value: float | None, limits: tuple[float, float] | None) -> tuple[Any, ...]:
    return value, *(limits or (None, None))
