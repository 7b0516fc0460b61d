"""How far mean AP would move with other photographs: resampling of images, for one table or the difference of two.

In: Matches of tables on one Truth.  Out: an interval, and for two tables the chance of a difference as large by luck.
A resample draws as many images as there are, with replacement; an image drawn twice counts twice, its objects and its
detections. Both tables of a comparison get the same images, so that what is common to them cancels.
Source: Efron and Tibshirani, "An Introduction to the Bootstrap", percentile intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detector.evaluation.average import ranked_by_class
from detector.evaluation.matching import HIT, Matches
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import Truth

MEASURES = {"area": np.zeros(0), "11 points": np.linspace(0, 1, 11) - 1e-9, "101 points": np.linspace(0, 1, 101)}
"""Recalls at which precision is read; none for the area. As in average.py."""


@dataclass(frozen=True)
class Interval:
    """Of a mean AP or of a difference.

    Attributes:
        value: on the images themselves.
        low: 2.5 % of the resamples are below.
        high: 2.5 % are above.
        resamples: how many.
    """

    value: float
    low: float
    high: float
    resamples: int


@dataclass(frozen=True)
class Comparison:
    """Two tables on the same images.

    Attributes:
        first: mean AP of the first.
        second: of the other one.
        difference: second minus first.
        p_value: two-sided, of no difference: twice the share of resamples on the other side of zero.
        by_class: (class position, difference of AP), None where a class has no ground truth.
    """

    first: Interval
    second: Interval
    difference: Interval
    p_value: float
    by_class: list[float | None]


def bootstrap(
    truth: Truth,
    matches: Matches,
    detections: DetectionTable,
    *,
    measure: str = "area",
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """The 95 % interval of mean AP.

    Args:
        truth: the objects.
        matches: of the detections.
        detections: the table.
        measure: one of MEASURES.
        resamples: how often images are drawn.
        seed: of the drawing.

    Raises:
        ValueError: fewer than one resample.
    """
    weights = _weights(len(truth), resamples, seed)
    value, means = _mean_ap(truth, matches, detections, measure, weights)
    return _interval(value, means)


def compare(
    truth: Truth,
    tables: Sequence[tuple[Matches, DetectionTable]],
    *,
    measure: str = "area",
    resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Two tables, each with its matches, on the same resamples; see bootstrap."""
    weights = _weights(len(truth), resamples, seed)
    (first, firsts), (second, seconds) = (_mean_ap(truth, *table, measure, weights) for table in tables)
    differences = seconds - firsts
    above, below = float((differences >= 0).mean()), float((differences <= 0).mean())
    unit = np.ones((1, len(truth)), np.int32)
    ap = [_class_ap(truth, *table, measure, unit)[0] for table in tables]
    by_class = [None if np.isnan(value) else value for value in (ap[1] - ap[0]).tolist()]
    return Comparison(
        first=_interval(first, firsts),
        second=_interval(second, seconds),
        difference=_interval(second - first, differences),
        p_value=min(1.0, max(2 * min(above, below), 1 / resamples)),
        by_class=by_class,
    )


def _weights(images: int, resamples: int, seed: int) -> NDArray[np.int32]:
    """[resamples, images] how often each image was drawn."""
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")
    generator = np.random.default_rng(seed)
    weights = np.empty((resamples, images), np.int32)
    for row in weights:
        row[:] = np.bincount(generator.integers(0, images, images), minlength=images)
    return weights


def _interval(value: float, means: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(means, (0.025, 0.975)).tolist()
    return Interval(value, low, high, len(means))


def _mean_ap(
    truth: Truth, matches: Matches, detections: DetectionTable, measure: str, weights: NDArray[np.int32]
) -> tuple[float, NDArray[np.float64]]:
    """Mean AP on the images themselves, and on each resample: over the classes that have objects in it."""
    value = _class_ap(truth, matches, detections, measure, np.ones((1, len(truth)), np.int32))
    means = np.nanmean(_class_ap(truth, matches, detections, measure, weights), axis=1)
    return float(np.nanmean(value)), means


def _class_ap(
    truth: Truth, matches: Matches, detections: DetectionTable, measure: str, weights: NDArray[np.int32]
) -> NDArray[np.float64]:
    """[resamples, K], NaN where a resample has no object of the class."""
    rows, bounds = ranked_by_class(matches, detections)
    counted = matches.counted
    ap: NDArray[np.float64] = _weighted_ap(
        matches.status[rows] == HIT,
        detections.image_index[rows],
        bounds,
        truth.image_index[counted],
        truth.labels[counted],
        weights,
        MEASURES[measure],
    )
    return ap


@njit(cache=True, nogil=True)
def _weighted_ap(
    hits: Any, images: Any, bounds: Any, object_images: Any, object_labels: Any, weights: Any, points: Any
) -> Any:
    classes = len(bounds) - 1
    ap = np.full((len(weights), classes), np.nan)
    recall = np.empty(len(hits))
    precision = np.empty(len(hits))
    positives = np.empty(classes)
    for turn in range(len(weights)):
        weight = weights[turn]
        positives[:] = 0
        for index in range(len(object_images)):
            positives[object_labels[index]] += weight[object_images[index]]
        for label in range(classes):
            if positives[label] == 0:
                continue
            found, wrong, count = 0.0, 0.0, 0
            for row in range(bounds[label], bounds[label + 1]):
                times = weight[images[row]]
                if times == 0:
                    continue
                if hits[row]:
                    found += times
                    recall[count] = found / positives[label]
                    precision[count] = found / (found + wrong)
                    count += 1
                else:
                    wrong += times
            for place in range(count - 2, -1, -1):  # the envelope; between two hits precision only falls
                precision[place] = max(precision[place], precision[place + 1])
            total, before = 0.0, 0.0
            if len(points) == 0:
                for place in range(count):
                    total += (recall[place] - before) * precision[place]
                    before = recall[place]
                ap[turn, label] = total
            else:
                place = 0
                for level in points:
                    while place < count and recall[place] < level:
                        place += 1
                    if place < count:
                        total += precision[place]
                ap[turn, label] = total / len(points)
    return ap
