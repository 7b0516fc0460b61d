"""Whether scores are probabilities: the confidence of detections against their precision.

In: a DetectionTable and its Matches, by any protocol.  Out: a Calibration.
Detections are put in bins of equal width by their score. In each bin the mean score is compared with the precision,
the share that is a true positive. The expected calibration error is the mean absolute difference of the two, weighted
by the number of detections in the bin: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3,
for classification; Küppers et al., "Multivariate Confidence Calibration for Object Detection", CVPR workshops 2020,
for detection, where precision takes the place of accuracy. Of their measures this is the one by score alone.

Detections that the protocol ignores do not count; those that match no object are wrong, duplicates too. Classes without
objects that count are left out, as they are in mean AP. An object that nothing detects has no score and does not count
either. The error depends on the lowest score in the table: detections below 0.1 are many and mostly wrong, so that they
lower it; the bins show what holds at the scores that are used.
K classes, B bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.matching import HIT, IGNORED, Matches
from detector.evaluation.results import DetectionTable


@dataclass(frozen=True)
class Calibration:
    """The reliability of scores.

    Attributes:
        edges: [B + 1] float64 limits of the bins, from 0 to 1. A bin contains its upper limit, the first one 0 too.
        counts: [B] int64 number of detections.
        confidence: [B] float64 mean score, in [0, 1]; 0 in an empty bin.
        precision: [B] float64 share of true positives, in [0, 1]; 0 in an empty bin.
        error: Expected calibration error of all detections, in [0, 1].
        error_by_class: The error of each of K classes by its own detections in the same bins; None for a class without
            objects that count or without detections that count.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    precision: NDArray[np.float64]
    error: float
    error_by_class: tuple[float | None, ...]


def calibration(table: DetectionTable, matches: Matches, *, bins: int = 10) -> Calibration | None:
    """Compare confidence with precision, by the module's rule.

    Args:
        table: The detections.
        matches: Their matches, by any protocol.
        bins: Number of bins.

    Returns:
        The calibration; None where no detection counts, or where a score lies outside [0, 1], so that the scores are no
        probabilities.

    Raises:
        ValueError: fewer than one bin.
    """
    if bins < 1:
        raise ValueError(f"calibration needs at least one bin, not {bins}")
    counted = (matches.status != IGNORED) & (matches.positives[table.labels] > 0)
    scores, labels, hits = table.scores[counted], table.labels[counted], matches.status[counted] == HIT
    if not len(scores) or table.scores.min() < 0 or table.scores.max() > 1:
        return None
    edges = np.arange(bins + 1) / bins
    cells = labels * bins + np.searchsorted(edges[1:-1], scores)
    shape = len(matches.positives), bins
    counts, confidences, found = (
        np.bincount(cells, weights=weights, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)
        for weights in (np.ones(len(scores)), scores, hits)
    )
    by_class = [
        _error(*columns) if columns[0].any() else None for columns in zip(counts, confidences, found, strict=True)
    ]
    total, confidence, right = counts.sum(axis=0), confidences.sum(axis=0), found.sum(axis=0)
    shown = np.maximum(total, 1)
    error = _error(total, confidence, right)
    return Calibration(edges, total.astype(np.int64), confidence / shown, right / shown, error, tuple(by_class))


def _error(counts: NDArray[np.float64], confidences: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """Compute the error from [B] numbers of detections, sums of their scores, and numbers of true positives.

    A bin's share of the detections times the difference of its means is the difference of its sums by all detections.
    """
    return float(np.abs(confidences - found).sum() / counts.sum())
