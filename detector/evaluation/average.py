"""Average precision of a class from which of its detections are hits, best first: area, 11 points and 101 points.

Sources: VOCap.m of the VOC and ILSVRC devkits; VOCevaldet.m of 2007; pycocotools.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.matching import HIT, IGNORED, Matches
from detector.evaluation.results import DetectionTable

Measure = Callable[[NDArray[np.float64], NDArray[np.float64]], float]
"""Recall [D], rising, and precision [D] -> AP in [0, 1]."""


def precision_recall(hits: NDArray[np.bool_], positives: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall and precision after each of D detections, best first; hits tells true from false positives.

    Returns:
        [D] recall and [D] precision, in [0, 1].

    Raises:
        ValueError: there is nothing to find, so that recall means nothing.
    """
    if positives < 1:
        raise ValueError(f"recall needs at least one ground truth, not {positives}")
    found = np.cumsum(hits, dtype=np.float64)
    return found / positives, found / np.arange(1, len(hits) + 1)


def average_precision(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> float:
    """Area under the precision envelope (VOC2010 and later, ILSVRC): [D] recall, rising, and [D] precision -> [0, 1].

    >>> round(average_precision(np.array([0.5, 0.5, 1.0]), np.array([1.0, 0.5, 2 / 3])), 4)
    0.8333
    """
    steps = np.diff(recall, prepend=0.0)
    return float(np.sum(steps * _envelope(precision)))


def eleven_point_average_precision(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> float:
    """Mean of the best precision at recall 0, 0.1, ..., 1 or more (VOC2007): [D], [D] -> [0, 1].

    >>> round(eleven_point_average_precision(np.array([0.5, 0.5, 1.0]), np.array([1.0, 0.5, 2 / 3])), 4)
    0.8485
    """
    # 6 * 0.1 is more than 3 / 5 in binary: without the tolerance a recall of exactly 0.6 would miss its point.
    return _mean_at(np.linspace(0, 1, 11) - 1e-9, recall, precision)


def coco_average_precision(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> float:
    """Mean of the best precision at recall 0, 0.01, ..., 1 or more (COCO): [D], [D] -> [0, 1]."""
    return _mean_at(np.linspace(0, 1, 101), recall, precision)


def average_precisions(
    matches: Matches, detections: DetectionTable, measure: Measure = average_precision
) -> list[float | None]:
    """AP of each of K classes; None without ground truth."""
    curves = class_curves(matches, detections)
    return [None if curve is None else measure(*curve) for curve in curves]


def class_curves(
    matches: Matches, detections: DetectionTable
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]] | None]:
    """(recall, precision) of each of K classes after each detection that counts; None without ground truth."""
    rows, bounds = ranked_by_class(matches, detections)
    hits = matches.status[rows] == HIT
    return [
        precision_recall(hits[bounds[label] : bounds[label + 1]], positives) if positives else None
        for label, positives in enumerate(matches.positives.tolist())
    ]


def ranked_by_class(matches: Matches, detections: DetectionTable) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Detections that count, class by class, best first.

    Returns:
        positions in the table, and [K + 1] where each class begins among them.
    """
    counted = matches.order[matches.status[matches.order] != IGNORED]
    labels = detections.labels[counted]
    by_class = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[by_class], np.arange(len(matches.positives) + 1))
    return counted[by_class], bounds


def _mean_at(points: NDArray[np.float64], recall: NDArray[np.float64], precision: NDArray[np.float64]) -> float:
    position = np.searchsorted(recall, points, side="left")
    reached = np.append(_envelope(precision), 0.0)  # 0 beyond the recall that was reached
    return float(np.mean(reached[position]))


def _envelope(precision: NDArray[np.float64]) -> NDArray[np.float64]:
    """The best precision at this recall or a greater one; [D] -> [D]."""
    return np.maximum.accumulate(precision[::-1])[::-1]
