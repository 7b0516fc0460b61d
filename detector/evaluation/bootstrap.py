"""Confidence intervals of mean AP, and the test of a difference between two tables, by resampling the images.

In: Matches of tables on one Truth.  Out: an Interval; for two tables also a p-value.
A resample draws as many images as there are, with replacement; an image drawn twice counts twice, its objects and its
detections. Both tables of a comparison get the same images, so that what they have in common cancels.
Source: Efron and Tibshirani, "An Introduction to the Bootstrap". Resampling itself raises average precision: images
drawn twice bring their hits twice, so for many images the percentiles of the resamples lie above the value. The
resamples therefore give the standard error s only. The interval is the normal one on an unbounded scale,
log(v / (1 - v)) of a mean AP and atanh(d) of a difference, where the delta method gives the errors s / (v (1 - v)) and
s / (1 - d²); transformed back, it contains the value and stays within [0, 1] or [-1, 1] (chapter 12.6 there; for
proportions, Brown, Cai and DasGupta, "Interval Estimation for a Binomial Proportion", 2001, section 4.1.1). A value at
an end of its scale has no spread. The p-value compares a difference with the resampled differences, shifted to have a
mean of 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.cores import usable_cores
from detector.evaluation.average import AREA, Floats, ranked_by_class
from detector.evaluation.matching import HIT, Matches
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import Truth
from proposals.compiling import compiled

NORMAL_95 = 1.959964  # the 97.5 % point of the normal distribution


@dataclass(frozen=True)
class Interval:
    """The 95 % confidence interval of a mean AP, within [0, 1], or of a difference, within [-1, 1].

    Attributes:
        value: The statistic of the images themselves.
        low: Lower limit, at most the value.
        high: Upper limit, at least the value.
        resamples: Number of bootstrap resamples.
    """

    value: float
    low: float
    high: float
    resamples: int


@dataclass(frozen=True)
class Comparison:
    """The paired comparison of two tables of detections on the same images.

    Attributes:
        first: Mean AP of the first table.
        second: Mean AP of the second table.
        difference: Second minus first.
        p_value: Two-sided bootstrap p-value for the null hypothesis of no difference, at least 1 / resamples.
        by_class: [K] differences of AP; None for a class without ground truth.
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
    points: Floats = AREA,
    resamples: int = 1000,
    seed: int = 0,
    classes: Sequence[int] | None = None,
) -> Interval:
    """Compute the 95 % confidence interval of mean AP by resampling the images.

    Args:
        truth: The objects.
        matches: Matches of the detections.
        detections: The detections.
        points: Recalls that average precision uses, as in average.py.
        resamples: Number of resamples.
        seed: Seed of the random resamples.
        classes: Labels of the classes to average over; None for all.

    Raises:
        ValueError: fewer than one resample.
    """
    weights = image_weights(len(truth), resamples, seed)
    value, means, _ = _mean_ap(truth, matches, detections, points, weights, classes)
    return mean_interval(value, means)


def compare(
    truth: Truth,
    tables: Sequence[tuple[Matches, DetectionTable]],
    *,
    points: Floats = AREA,
    resamples: int = 1000,
    seed: int = 0,
    classes: Sequence[int] | None = None,
) -> Comparison:
    """Compare two tables, each given with its matches, on the same resamples of the images; see bootstrap."""
    weights = image_weights(len(truth), resamples, seed)
    (first, means, ap), (second, other_means, other_ap) = (
        _mean_ap(truth, *table, points, weights, classes) for table in tables
    )
    differences = other_means - means
    return Comparison(
        first=mean_interval(first, means),
        second=mean_interval(second, other_means),
        difference=difference_interval(second - first, differences),
        p_value=p_value(second - first, differences),
        by_class=[None if np.isnan(value) else value for value in (other_ap - ap).tolist()],
    )


def image_weights(images: int, resamples: int, seed: int) -> NDArray[np.int32]:
    """Draw how often each resample contains each image, [1 + resamples, images]; the first row is the images once."""
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")
    generator = np.random.default_rng(seed)
    weights = np.ones((1 + resamples, images), np.int32)
    for row in weights[1:]:
        row[:] = np.bincount(generator.integers(0, images, images), minlength=images)
    return weights


def mean_interval(value: float, means: Floats) -> Interval:
    """Make the interval of a mean AP v in [0, 1] from that of 2 v - 1: atanh(2 v - 1) = log(v / (1 - v)) / 2."""
    around = difference_interval(2 * value - 1, 2 * means - 1)
    low, high = (around.low + 1) / 2, (around.high + 1) / 2
    return Interval(value, min(low, value), max(high, value), len(means))


def difference_interval(value: float, differences: Floats) -> Interval:
    """Make the interval of a difference in [-1, 1] from that of each resample; NaN for a resample without one."""
    known = differences[~np.isnan(differences)]
    spread = float(known.std()) if len(known) else 0.0
    if not -1 < value < 1 or not spread > 0:
        return Interval(value, value, value, len(differences))
    reach = NORMAL_95 * spread / (1 - value**2)
    low, high = math.tanh(math.atanh(value) - reach), math.tanh(math.atanh(value) + reach)
    return Interval(value, min(low, value), max(high, value), len(differences))


def p_value(value: float, differences: Floats) -> float:
    """Compute the two-sided p-value of a difference from that of each resample, at least 1 / resamples.

    Resamples without a difference, NaN, are left out; without any other the p-value is 1.
    """
    known = differences[~np.isnan(differences)]
    if not len(known):
        return 1.0
    around = np.abs(known - known.mean())
    return max(float((around >= abs(value) - 1e-12).mean()), 1 / len(differences))


def _mean_ap(
    truth: Truth,
    matches: Matches,
    detections: DetectionTable,
    points: Floats,
    weights: NDArray[np.int32],
    classes: Sequence[int] | None,
) -> tuple[float, Floats, Floats]:
    """Compute the mean AP of the images themselves, of each resample, and the AP of each class; NaN without objects."""
    by_class = resampled_ap(truth, matches, detections, points, weights)
    ap = by_class if classes is None else by_class[:, list(classes)]
    means = mean_over_classes(ap)
    return float(means[0]), means[1:], by_class[0]


def mean_over_classes(ap: Floats) -> Floats:
    """Average the AP of each resample over its classes with objects, [resamples, K] -> [resamples]; NaN without any."""
    known = (~np.isnan(ap)).sum(axis=1)
    means: Floats = np.divide(np.nansum(ap, axis=1), known, out=np.full(len(ap), np.nan), where=known > 0)
    return means


def resampled_ap(
    truth: Truth, matches: Matches, detections: DetectionTable, points: Floats, weights: NDArray[np.int32]
) -> Floats:
    """Compute AP by resample and class, [resamples, K]; NaN where a resample has no object of the class."""
    rows, bounds = ranked_by_class(matches, detections)
    ranked = matches.status[rows] == HIT, detections.image_index[rows], bounds
    objects = truth.image_index[matches.counted], truth.labels[matches.counted]
    threads = min(len(weights), usable_cores())
    with ThreadPoolExecutor(threads) as executor:
        parts = executor.map(partial(_weighted_ap, *ranked, *objects, points), np.array_split(weights, threads))
        return np.concatenate(list(parts))


def resampled_recall(truth: Truth, matches: Matches, weights: NDArray[np.int32]) -> Floats:
    """Compute the share of objects found by resample and class, [resamples, K]; NaN without objects of the class."""
    classes = len(matches.positives)
    counted = np.flatnonzero(matches.counted)
    found = matches.objects[matches.status == HIT]
    result = np.full((len(weights), classes), np.nan)
    for row, weight in zip(result, weights, strict=True):
        objects, hits = (
            np.bincount(truth.labels[some], weights=weight[truth.image_index[some]], minlength=classes)
            for some in (counted, found)
        )
        np.divide(hits, objects, out=row, where=objects > 0)
    return result


@compiled()
def _weighted_ap(
    hits: Any, images: Any, bounds: Any, object_images: Any, object_labels: Any, points: Any, weights: Any
) -> Any:
    classes = len(bounds) - 1
    ap = np.full((len(weights), classes), np.nan)
    recall = np.empty(len(hits))
    precision = np.empty(len(hits))
    positives = np.empty(classes)
    for resample in range(len(weights)):
        weight = weights[resample]
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
            for hit in range(count - 2, -1, -1):  # the envelope: between two hits precision only falls
                precision[hit] = max(precision[hit], precision[hit + 1])
            total, before = 0.0, 0.0
            if len(points) == 0:
                for hit in range(count):
                    total += (recall[hit] - before) * precision[hit]
                    before = recall[hit]
                ap[resample, label] = total
            else:
                hit = 0
                for level in points:
                    while hit < count and recall[hit] < level:
                        hit += 1
                    if hit < count:
                        total += precision[hit]
                ap[resample, label] = total / len(points)
    return ap
