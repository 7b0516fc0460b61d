"""The score from which a class's detections are best shown: the greatest F1 of its raw precision-recall curve.

In: detections and their matches, by any protocol.  Out: an OperatingPoint of each class, and one of all together.
Detections with a score of at least the point's are shown. Only a score that occurs is a threshold, and equal scores are
shown together or not at all. The curve is not interpolated: an envelope promises precision that no threshold gives. Of
thresholds with the same F1 the highest is taken, which shows the fewest false positives.

F1 = 2 TP / (2 TP + FP + missed) = 2 TP / (D + M), of D detections shown and M objects; ignored detections and objects
that do not count are left out, as in average precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.average import ranked_by_class
from detector.evaluation.matching import HIT, IGNORED, Matches
from detector.evaluation.results import DetectionTable

ENOUGH = 150
"""Objects from which a class is shown by its own threshold. With fewer, the best threshold of half of val has a lower
F1 on its other half than the pooled one (docs/evaluation.md)."""
FEW = 50
"""Objects of all classes below which every class is shown from SHOWN: the pooled threshold of few is chance too."""
SHOWN = 0.5  # ours
"""Score from which detections are shown where no operating point says otherwise."""


@dataclass(frozen=True)
class OperatingPoint:
    """A score threshold and what the detections from there on are worth.

    Attributes:
        score: Lowest score that is shown.
        precision: Share of the detections shown that are right, in [0, 1].
        recall: Share of the objects that are found, in [0, 1].
        f1: Harmonic mean of the two, in [0, 1].
    """

    score: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class OperatingPoints:
    """The operating points of a table of detections.

    Attributes:
        by_class: Of each of K classes; None for a class without objects, without detections or without a hit.
        pooled: Of all detections of classes with objects, by one threshold; None without a hit.
    """

    by_class: tuple[OperatingPoint | None, ...]
    pooled: OperatingPoint | None


def best_f1_points(matches: Matches, detections: DetectionTable) -> OperatingPoints:
    """Find the threshold with the greatest F1 for each class, and for all classes together.

    Args:
        matches: Matches of the detections, by any protocol.
        detections: The detections.
    """
    rows, bounds = ranked_by_class(matches, detections)
    positives = matches.positives.tolist()
    of_class = [rows[bounds[label] : bounds[label + 1]] for label in range(len(positives))]
    by_class = [
        best_f1_point(detections.scores[some], matches.status[some] == HIT, count)
        for some, count in zip(of_class, positives, strict=True)
    ]
    counted = matches.order[matches.status[matches.order] != IGNORED]
    counted = counted[matches.positives[detections.labels[counted]] > 0]
    pooled = best_f1_point(detections.scores[counted], matches.status[counted] == HIT, sum(positives))
    return OperatingPoints(tuple(by_class), pooled)


def best_f1_point(scores: NDArray[np.float64], hits: NDArray[np.bool_], positives: int) -> OperatingPoint | None:
    """Find the threshold with the greatest F1 of D detections, sorted best first; None without objects or hits.

    Args:
        scores: [D], falling.
        hits: [D] True for true positives, False for false positives.
        positives: Number of objects to find.

    >>> best_f1_point(np.array([0.9, 0.8, 0.8, 0.3]), np.array([True, False, True, False]), 2)
    OperatingPoint(score=0.8, precision=0.6666666666666666, recall=1.0, f1=0.8)
    """
    if positives < 1 or not hits.any():
        return None
    last = np.append(scores[1:] != scores[:-1], True)  # of each run of equal scores: a threshold shows all of them
    found, shown = np.cumsum(hits)[last], np.flatnonzero(last) + 1
    f1 = 2 * found / (shown + positives)
    best = int(f1.argmax())  # of equals the first, which has the highest score
    return OperatingPoint(
        float(scores[last][best]),
        float(found[best] / shown[best]),
        float(found[best] / positives),
        float(f1[best]),
    )


def shown_scores(points: OperatingPoints, objects: Sequence[int]) -> list[float] | None:
    """Choose the lowest score that is shown of each of K classes; None where no object of any class was found.

    Args:
        points: The operating points of a data set.
        objects: [K] its objects by class. A class with fewer than ENOUGH, or without a point, takes the pooled score;
            with fewer than FEW in all, every class takes SHOWN.
    """
    if points.pooled is None:
        return None
    if sum(objects) < FEW:
        return [SHOWN] * len(objects)
    pooled = points.pooled.score
    return [
        point.score if point and count >= ENOUGH else pooled
        for point, count in zip(points.by_class, objects, strict=True)
    ]


def points_at(
    matches: Matches, detections: DetectionTable, scores: Sequence[float]
) -> tuple[OperatingPoint | None, ...]:
    """Compute what each class's detections are worth from a given score on.

    Args:
        matches: Matches of the detections, by any protocol.
        detections: The detections.
        scores: [K] lowest score that is shown of each class.

    Returns:
        The K points, whose precision and recall are 0 where nothing that is shown is right; None for a class without
        objects, or of which nothing is shown.
    """
    classes = len(matches.positives)
    counted = (matches.status != IGNORED) & (detections.scores >= np.asarray(scores)[detections.labels])
    shown = np.bincount(detections.labels[counted], minlength=classes)
    found = np.bincount(detections.labels[counted & (matches.status == HIT)], minlength=classes)
    return tuple(
        OperatingPoint(float(score), hits / count, hits / objects, 2 * hits / (count + objects))
        if count and objects
        else None
        for score, hits, count, objects in zip(
            scores, found.tolist(), shown.tolist(), matches.positives.tolist(), strict=True
        )
    )
