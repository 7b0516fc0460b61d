"""From hits and misses, best first, to precision-recall curves and average precision: area, 11 and 101 points.

Sources: VOCap.m of the VOC and ILSVRC devkits; VOCevaldet.m of 2007; pycocotools.
D detections, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.matching import HIT, IGNORED, Matches
from detector.evaluation.ordering import grouped
from detector.evaluation.results import DetectionTable

Floats = NDArray[np.float64]

AREA: Floats = np.zeros(0)
"""No points: the area under the precision envelope (VOC 2010 and later, ILSVRC)."""
ELEVEN_POINTS: Floats = np.linspace(0, 1, 11) - 1e-9
"""The recalls of VOC 2007. In binary 6 * 0.1 exceeds 3 / 5: without the tolerance recall 0.6 would miss its point."""
COCO_POINTS: Floats = np.linspace(0, 1, 101)


def precision_recall(hits: NDArray[np.bool_], positives: int) -> tuple[Floats, Floats]:
    """Compute recall and precision after each of D detections, sorted best first.

    Args:
        hits: [D] True for true positives, False for false positives.
        positives: Number of objects to find.

    Returns:
        [D] recall and [D] precision, in [0, 1].

    Raises:
        ValueError: there are no objects to find.
    """
    if positives < 1:
        raise ValueError(f"recall needs at least one ground truth, not {positives}")
    found = np.cumsum(hits, dtype=np.float64)
    return found / positives, found / np.arange(1, len(hits) + 1)


def average_precision(recall: Floats, precision: Floats, points: Floats = AREA) -> float:
    """Compute average precision in [0, 1] from [D] recall, ascending, and [D] precision.

    Args:
        recall: Recall after each detection.
        precision: Precision after each detection.
        points: Recalls at which the best precision is averaged; none for the area under the precision envelope.

    >>> recall, precision = np.array([0.5, 0.5, 1.0]), np.array([1.0, 0.5, 2 / 3])
    >>> [round(average_precision(recall, precision, points), 4) for points in (AREA, ELEVEN_POINTS)]
    [0.8333, 0.8485]
    """
    if len(points):
        return float(np.mean(precision_at(points, recall, precision)))
    return float(np.sum(np.diff(recall, prepend=0.0) * _envelope(precision)))


def precision_at(points: Floats, recall: Floats, precision: Floats) -> Floats:
    """Compute the best precision at each recall in points or a greater one; 0 beyond the greatest recall."""
    reached: Floats = np.append(_envelope(precision), 0.0)
    return reached[np.searchsorted(recall, points)]


def average_precisions(matches: Matches, detections: DetectionTable, points: Floats = AREA) -> list[float | None]:
    """Compute the AP of each of K classes; None for a class without ground truth."""
    curves = class_curves(matches, detections)
    return [None if curve is None else average_precision(*curve, points) for curve in curves]


def class_curves(matches: Matches, detections: DetectionTable) -> list[tuple[Floats, Floats] | None]:
    """Compute the recall and precision of each of K classes; None for a class without ground truth."""
    rows, bounds = ranked_by_class(matches, detections)
    hits = matches.status[rows] == HIT
    return [
        precision_recall(hits[bounds[label] : bounds[label + 1]], positives) if positives else None
        for label, positives in enumerate(matches.positives.tolist())
    ]


def ranked_by_class(matches: Matches, detections: DetectionTable) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sort the detections that count by class, and best first within a class.

    Returns:
        positions in the table, and [K + 1] the start of each class among them.
    """
    counted = matches.order[matches.status[matches.order] != IGNORED]
    return grouped(detections.labels, counted, len(matches.positives))


def mean_of_known(values: Sequence[float | None]) -> float | None:
    """Average the values that are not None; None where all are."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _envelope(precision: Floats) -> Floats:
    """Compute the best precision at each recall or a greater one, [D] -> [D]."""
    return np.maximum.accumulate(precision[::-1])[::-1]
