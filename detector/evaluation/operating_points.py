"""The score from which a class's detections are shown: by the greatest F1 of its raw curve, a precision or a recall.

In: detections and their matches, by any protocol.  Out: an OperatingPoint of each class, and one of all together.
Detections with a score of at least the point's are shown. Only a score that occurs is a threshold, and equal scores are
shown together or not at all. The curve is not interpolated: an envelope promises precision that no threshold gives. Of
thresholds with the same F1 the highest is taken, which shows the fewest false positives.

F1 = 2 TP / (2 TP + FP + missed) = 2 TP / (D + M), of D detections shown and M objects; ignored detections and objects
that do not count are left out, as in average precision.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.data.ground_truth import listed
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
class ScoreCurve:
    """Precision, recall and F1 of N thresholds: the scores that occur, the highest first. Not interpolated.

    Attributes:
        scores: [N] the thresholds, falling and distinct.
        precision: [N] share of the detections from there on that are right, in [0, 1].
        recall: [N] share of the objects that they find, in [0, 1], rising.
        f1: [N] harmonic mean of the two, in [0, 1].
    """

    scores: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scores)

    def point(self, index: int) -> OperatingPoint:
        """Return the threshold at a position, with what it is worth."""
        columns = (self.scores, self.precision, self.recall, self.f1)
        return OperatingPoint(*(float(column[index]) for column in columns))


@dataclass(frozen=True)
class OperatingPoints:
    """The operating points of a table of detections.

    Attributes:
        by_class: Of each of K classes; None for a class without objects, without detections or without a hit, or that
            misses the wanted precision or recall.
        pooled: Of all detections of classes with objects, by one threshold; None without a hit, or where they miss it.
    """

    by_class: tuple[OperatingPoint | None, ...]
    pooled: OperatingPoint | None


def best_f1_points(matches: Matches, detections: DetectionTable) -> OperatingPoints:
    """Find the threshold with the greatest F1 for each class, and for all classes together.

    Args:
        matches: Matches of the detections, by any protocol.
        detections: The detections.
    """
    return wanted_points(matches, detections)


def wanted_points(
    matches: Matches, detections: DetectionTable, *, precision: float | None = None, recall: float | None = None
) -> OperatingPoints:
    """Find the threshold of each class and of all together that reaches a precision or a recall.

    Args:
        matches: Matches of the detections, by any protocol.
        detections: The detections.
        precision: Precision that each class, and all together, shall have, in (0, 1].
        recall: Recall that they shall have, in (0, 1]; without both the thresholds of the greatest F1 are found.

    Returns:
        the points; None where a class does not reach it.

    Raises:
        ValueError: both are given.
    """
    if precision is not None and recall is not None:
        raise ValueError("give a precision or a recall, not both")
    curves = _each_curve(matches, detections)
    *points, last = (None if curve is None else _chosen(curve, precision, recall) for curve in curves)
    return OperatingPoints(tuple(points), last)


def score_curves(matches: Matches, detections: DetectionTable) -> tuple[list[ScoreCurve | None], ScoreCurve | None]:
    """Compute the curve of each of K classes and of all together; None for what has no objects.

    Detections of classes without objects are in no curve.
    """
    *by_class, pooled = _each_curve(matches, detections)
    return by_class, pooled


def _each_curve(matches: Matches, detections: DetectionTable) -> Iterator[ScoreCurve | None]:
    """Compute the curve of one class after the other, at last that of all together: they are large."""
    rows, bounds = ranked_with_pooled(matches, detections)
    positives = [*matches.positives.tolist(), int(matches.positives.sum())]
    for start, end, count in zip(bounds[:-1].tolist(), bounds[1:].tolist(), positives, strict=True):
        own = rows[start:end]
        yield score_curve(detections.scores[own], matches.status[own] == HIT, count) if count else None


def ranked_with_pooled(matches: Matches, detections: DetectionTable) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sort the detections that count by class, best first, and behind them once more those of all classes with objects.

    Returns:
        positions in the table, and [K + 2] the start of each of the K classes, of all together, and the end.
    """
    rows, bounds = ranked_by_class(matches, detections)
    counted = matches.order[matches.status[matches.order] != IGNORED]
    counted = counted[matches.positives[detections.labels[counted]] > 0]
    return np.concatenate([rows, counted]), np.append(bounds, len(rows) + len(counted))


def score_curve(scores: NDArray[np.float64], hits: NDArray[np.bool_], positives: int) -> ScoreCurve:
    """Compute the curve of D detections, sorted best first.

    Args:
        scores: [D], falling.
        hits: [D] True for true positives, False for false positives.
        positives: Number of objects to find, at least 1.

    >>> score_curve(np.array([0.9, 0.8, 0.8, 0.3]), np.array([True, False, True, False]), 2).precision.round(2)
    array([1.  , 0.67, 0.5 ])
    """
    ends = run_ends(scores)  # of each run of equal scores: a threshold shows all of them
    found, shown = np.cumsum(hits)[ends], np.flatnonzero(ends) + 1
    return ScoreCurve(scores[ends], found / shown, found / positives, 2 * found / (shown + positives))


def run_ends(scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell of each of D sorted scores whether it is the last of its value, [D]."""
    return np.append(scores[1:] != scores[:-1], True)[: len(scores)]


def best_f1(curve: ScoreCurve) -> OperatingPoint | None:
    """Find the threshold with the greatest F1, the highest of equals; None without a hit.

    >>> best_f1(score_curve(np.array([0.9, 0.8, 0.8, 0.3]), np.array([True, False, True, False]), 2))
    OperatingPoint(score=0.8, precision=0.6666666666666666, recall=1.0, f1=0.8)
    """
    return curve.point(int(curve.f1.argmax())) if curve.f1.any() else None


def at_precision(curve: ScoreCurve, wanted: float) -> OperatingPoint | None:
    """Find the lowest threshold with at least the wanted precision, which has the greatest recall; None without one.

    Precision does not fall steadily: a higher threshold may have less of it.
    """
    reached = np.flatnonzero(curve.precision >= wanted)
    return curve.point(int(reached[-1])) if len(reached) else None


def at_recall(curve: ScoreCurve, wanted: float) -> OperatingPoint | None:
    """Find the highest threshold with at least the wanted recall; None without one."""
    reached = np.flatnonzero(curve.recall >= wanted)
    return curve.point(int(reached[0])) if len(reached) else None


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


def shortfalls(points: OperatingPoints, objects: Sequence[int], keys: Sequence[str], goal: str) -> list[str]:
    """Say where points that were chosen for a goal miss it, by the rules of shown_scores; one line a reason.

    Args:
        points: The K points and the pooled one.
        objects: [K] number of objects of each class.
        keys: K names of the classes.
        goal: The goal, such as "precision 0.9".
    """
    if points.pooled is None:
        return [f"no score of all classes together reaches {goal}, so there are no operating points"]
    if sum(objects) < FEW:
        return [f"{sum(objects)} objects are too few to choose for {goal}: every class is shown from {SHOWN:g}"]
    missing = [
        key
        for key, point, count in zip(keys, points.by_class, objects, strict=True)
        if point is None and count >= ENOUGH
    ]
    line = f"no score reaches {goal} of {listed(missing, 5)}: shown from {points.pooled.score:.3g}, the score of all"
    return [line] if missing else []


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


def _chosen(curve: ScoreCurve, precision: float | None, recall: float | None) -> OperatingPoint | None:
    if precision is not None:
        return at_precision(curve, precision)
    return best_f1(curve) if recall is None else at_recall(curve, recall)
