"""How far mean AP would move with other photographs: resampling of images, for one table or the difference of two.

In: Matches of tables on one Truth.  Out: an interval, and for two tables the chance of a difference as large by luck.
A resample draws as many images as there are, with replacement; an image drawn twice counts twice, its objects and its
detections. Both tables of a comparison get the same images, so that what is common to them cancels.
Source: Efron and Tibshirani, "An Introduction to the Bootstrap". Resampling itself raises average precision: images
drawn twice bring their hits twice, so that of many images the percentiles of the resamples lie above the value. The
resamples give the standard error only. The interval is the normal one on a scale without ends, log(v / (1 - v)) of a
mean AP and atanh(d) of a difference, where the error is s / (v (1 - v)) and s / (1 - d²) by the delta method; turned
back, it holds the value and stays within [0, 1] or [-1, 1] (chapter 12.6 there; for proportions, Brown, Cai and
DasGupta, "Interval Estimation for a Binomial Proportion", 2001, section 4.1.1). A value at an end of its scale has no
spread. A difference is tested against differences that are shifted to have none on average.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.average import ranked_by_class
from detector.evaluation.matching import HIT, Matches
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import Truth
from proposals.compiling import compiled

MEASURES = {"area": np.zeros(0), "11 points": np.linspace(0, 1, 11) - 1e-9, "101 points": np.linspace(0, 1, 101)}
"""Recalls at which precision is read; none for the area. As in average.py."""
NORMAL_95 = 1.959964  # the 97.5 % point of the normal distribution


@dataclass(frozen=True)
class Interval:
    """The 95 % confidence interval of a mean AP, within [0, 1], or of a difference, within [-1, 1].

    Attributes:
        value: on the images themselves.
        low: at most the value.
        high: at least the value.
        resamples: from which the standard error was computed.
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
        p_value: two-sided, of no difference: share of shifted resamples whose difference is as large; 1 / resamples at
            least.
        by_class: [K] difference of AP, None where a class has no ground truth.
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
    classes: Sequence[int] | None = None,
) -> Interval:
    """The 95 % confidence interval of mean AP over images.

    Args:
        truth: the objects.
        matches: of the detections.
        detections: the table.
        measure: one of MEASURES.
        resamples: how often images are drawn.
        seed: of the drawing.
        classes: labels of those that the mean is of; None for all.

    Raises:
        ValueError: fewer than one resample.
    """
    weights = _weights(len(truth), resamples, seed)
    value, means = _mean_ap(truth, matches, detections, measure, weights, classes)
    return _interval(value, means)


def compare(
    truth: Truth,
    tables: Sequence[tuple[Matches, DetectionTable]],
    *,
    measure: str = "area",
    resamples: int = 1000,
    seed: int = 0,
    classes: Sequence[int] | None = None,
) -> Comparison:
    """Two tables, each with its matches, on the same resamples; see bootstrap."""
    weights = _weights(len(truth), resamples, seed)
    (first, firsts), (second, seconds) = (_mean_ap(truth, *table, measure, weights, classes) for table in tables)
    differences = seconds - firsts
    around = np.abs(differences - np.nanmean(differences))
    as_large = float((around >= abs(second - first) - 1e-12).mean())
    unit = np.ones((1, len(truth)), np.int32)
    ap = [_class_ap(truth, *table, measure, unit)[0] for table in tables]
    by_class = [None if np.isnan(value) else value for value in (ap[1] - ap[0]).tolist()]
    return Comparison(
        first=_interval(first, firsts),
        second=_interval(second, seconds),
        difference=_difference_interval(second - first, differences),
        p_value=max(as_large, 1 / resamples),
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
    """Of a mean AP in [0, 1]: an interval of the difference 2 v - 1, as atanh(2 v - 1) = log(v / (1 - v)) / 2."""
    around = _difference_interval(2 * value - 1, 2 * means - 1)
    low, high = (around.low + 1) / 2, (around.high + 1) / 2
    return Interval(value, min(low, value), max(high, value), len(means))


def _difference_interval(value: float, differences: NDArray[np.float64]) -> Interval:
    spread = float(np.nanstd(differences))
    if not -1 < value < 1 or not spread > 0:
        return Interval(value, value, value, len(differences))
    reach = NORMAL_95 * spread / (1 - value**2)
    low, high = math.tanh(math.atanh(value) - reach), math.tanh(math.atanh(value) + reach)
    return Interval(value, min(low, value), max(high, value), len(differences))


def _mean_ap(
    truth: Truth,
    matches: Matches,
    detections: DetectionTable,
    measure: str,
    weights: NDArray[np.int32],
    classes: Sequence[int] | None,
) -> tuple[float, NDArray[np.float64]]:
    """Mean AP on the images themselves, and on each resample: over the classes with objects in it, NaN without any."""
    chosen = slice(None) if classes is None else list(classes)
    value = _class_ap(truth, matches, detections, measure, np.ones((1, len(truth)), np.int32))[:, chosen]
    ap = _class_ap(truth, matches, detections, measure, weights)[:, chosen]
    known = (~np.isnan(ap)).sum(axis=1)
    means = np.divide(np.nansum(ap, axis=1), known, out=np.full(len(ap), np.nan), where=known > 0)
    return float(np.nanmean(value)), means


def _class_ap(
    truth: Truth, matches: Matches, detections: DetectionTable, measure: str, weights: NDArray[np.int32]
) -> NDArray[np.float64]:
    """[resamples, K], NaN where a resample has no object of the class."""
    rows, bounds = ranked_by_class(matches, detections)
    hits, images = matches.status[rows] == HIT, detections.image_index[rows]
    objects = truth.image_index[matches.counted], truth.labels[matches.counted]

    def part(some: NDArray[np.int32]) -> NDArray[np.float64]:
        ap: NDArray[np.float64] = _weighted_ap(hits, images, bounds, *objects, some, MEASURES[measure])
        return ap

    threads = min(len(weights), os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as executor:
        return np.concatenate(list(executor.map(part, np.array_split(weights, threads))))


@compiled()
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
