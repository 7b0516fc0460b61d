"""Which score threshold to set: best F1 with its interval, and the thresholds that reach a precision or a recall.

In: detections and their matches, by any protocol.  Out: Thresholds, for each class and for all classes together.
All are taken from the raw curve, at scores that occur (detector.evaluation.operating_points has the rules). The
interval of the best score is the bootstrap's over images: from the 2.5 % to the 97.5 % percentile of the best scores
of the resamples, widened to contain the best score. It shows how much the choice depends on the images at hand; where
F1 is flat it is wide. A threshold looks a little better on the images on which it was chosen than on others.
K classes, N thresholds, R resamples.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.cores import usable_cores
from detector.evaluation.average import Floats
from detector.evaluation.bootstrap import image_weights
from detector.evaluation.matching import HIT, Matches
from detector.evaluation.operating_points import (
    OperatingPoint,
    ScoreCurve,
    at_precision,
    at_recall,
    best_f1,
    ranked_with_pooled,
    run_ends,
    score_curves,
)
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import Truth
from proposals.compiling import compiled

LIMITS = (0.025, 0.975)


@dataclass(frozen=True)
class ClassThresholds:
    """The thresholds of a class, or of all classes together.

    Attributes:
        best: Threshold with the greatest F1; None without a hit.
        interval: 95 % bootstrap interval of its score, over images; None without a hit or without resamples.
        at_precision: Lowest threshold with at least the wanted precision, which has the greatest recall; None where
            none has, or none is wanted.
        at_recall: Highest threshold with at least the wanted recall; None where none has, or none is wanted.
        curve: Precision, recall and F1 of all thresholds.
    """

    best: OperatingPoint | None
    interval: tuple[float, float] | None
    at_precision: OperatingPoint | None
    at_recall: OperatingPoint | None
    curve: ScoreCurve


@dataclass(frozen=True)
class Thresholds:
    """The thresholds of a table of detections.

    Attributes:
        by_class: Those of each of K classes; None for a class without objects that count.
        pooled: Those of all detections of classes with objects, by one threshold; None without any object.
        precision: Wanted precision, in (0, 1], if any.
        recall: Wanted recall, in (0, 1], if any.
    """

    by_class: tuple[ClassThresholds | None, ...]
    pooled: ClassThresholds | None
    precision: float | None
    recall: float | None


def thresholds(
    truth: Truth,
    table: DetectionTable,
    matches: Matches,
    *,
    precision: float | None = None,
    recall: float | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Thresholds:
    """Find the score thresholds of best F1, and of a wanted precision or recall, for each class and for all together.

    Args:
        truth: The objects.
        table: The detections.
        matches: Their matches, by any protocol.
        precision: Wanted precision, in (0, 1]; None for none.
        recall: Wanted recall, in (0, 1]; None for none.
        resamples: Bootstrap resamples of the images; 0 leaves the intervals out.
        seed: Seed of the random resamples.

    Raises:
        ValueError: precision or recall is out of range, or resamples is negative.
    """
    for name, value in (("precision", precision), ("recall", recall)):
        if value is not None and not 0 < value <= 1:
            raise ValueError(f"the wanted {name} must be in (0, 1], not {value}")
    by_class, pooled = score_curves(matches, table)
    curves = [*by_class, pooled]
    samples = best_scores(truth, table, matches, resamples, seed) if resamples else np.zeros((0, len(curves)))
    *found, last = (
        None if curve is None else _thresholds_of(curve, samples[:, column], precision, recall)
        for column, curve in enumerate(curves)
    )
    return Thresholds(tuple(found), last, precision, recall)


def best_scores(truth: Truth, table: DetectionTable, matches: Matches, resamples: int, seed: int = 0) -> Floats:
    """Find the score of the greatest F1 in each resample of the images, of each class and of all together.

    Returns:
        [R, K + 1], NaN where a resample has no hit of the class.

    Raises:
        ValueError: fewer than one resample.
    """
    rows, bounds = ranked_with_pooled(matches, table)
    scores = table.scores[rows]
    ends = run_ends(scores)
    ends[bounds[1:][bounds[1:] > bounds[:-1]] - 1] = True  # a class ends its run, whatever the next begins with
    detections = matches.status[rows] == HIT, ends, table.image_index[rows].astype(np.int32), bounds
    objects = truth.image_index[matches.counted], truth.labels[matches.counted]
    weights = image_weights(len(truth), resamples, seed)[1:]
    threads = min(resamples, usable_cores())
    with ThreadPoolExecutor(threads) as executor:
        parts = executor.map(partial(_best_rows, *detections, *objects), np.array_split(weights, threads))
        best = np.concatenate(list(parts))
    result: Floats = np.append(scores, np.nan)[best]  # -1, no hit, is the last
    return result


def _thresholds_of(
    curve: ScoreCurve, samples: Floats, precision: float | None, recall: float | None
) -> ClassThresholds:
    best, samples = best_f1(curve), samples[~np.isnan(samples)]
    interval = None
    if best is not None and len(samples):
        low, high = np.quantile(samples, LIMITS, method="inverted_cdf").tolist()
        interval = min(low, best.score), max(high, best.score)
    return ClassThresholds(
        best,
        interval,
        None if precision is None else at_precision(curve, precision),
        None if recall is None else at_recall(curve, recall),
        curve,
    )


@compiled()
def _best_rows(
    hits: Any, ends: Any, images: Any, bounds: Any, object_images: Any, object_labels: Any, weights: Any
) -> NDArray[np.int64]:
    """Find the row of the greatest F1 by resample and class, the last column all classes together; -1 without a hit."""
    columns = len(bounds) - 1
    best_row = np.full((len(weights), columns), -1, np.int64)
    positives = np.empty(columns, np.int64)
    for resample in range(len(weights)):
        weight = weights[resample]
        positives[:] = 0
        for index in range(len(object_images)):
            positives[object_labels[index]] += weight[object_images[index]]
        positives[-1] = positives[:-1].sum()
        for column in range(columns):
            objects = positives[column]
            found, shown, best_found, best_size = 0, 0, 0, 1
            for row in range(bounds[column], bounds[column + 1]):
                times = weight[images[row]]
                shown += times
                if hits[row]:
                    found += times
                if not ends[row]:
                    continue
                # F1 = 2 found / size, compared in whole numbers. It cannot exceed 2 objects / size from here on.
                size = shown + objects
                if found * best_size > best_found * size:
                    best_row[resample, column], best_found, best_size = row, found, size
                if objects * best_size <= best_found * size:
                    break
    return best_row
