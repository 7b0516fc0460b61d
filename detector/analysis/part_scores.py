"""AP and recall of a part of the objects or images, with intervals: what a row of every analysis by parts states.

In: a Truth, a DetectionTable and their Matches.  Out: PartScore.
Both are means over the classes that have objects to find, so that parts with other classes have means over others.
Recall is the share of the objects that any detection finds, whatever its score, as COCO's AR at one IoU threshold. The
intervals resample the images, the same ones for both (detector.evaluation.bootstrap has the method).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.evaluation.average import Floats
from detector.evaluation.bootstrap import (
    image_weights,
    mean_interval,
    mean_over_classes,
    resampled_ap,
    resampled_recall,
)
from detector.evaluation.matching import Matches
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import Truth

Limits = tuple[float, float] | None


@dataclass(frozen=True)
class PartScore:
    """AP and recall, each in [0, 1], of the objects that count.

    Attributes:
        objects: Number of objects that count.
        mean_ap: Mean AP over the classes with objects; None without any.
        ap_interval: Its 95 % interval; None without resamples, or where fewer than two images have objects.
        recall: Mean over the same classes of the share of objects found.
        recall_interval: Its 95 % interval.
        ap_by_class: AP of each of K classes; None for a class without objects.
    """

    objects: int
    mean_ap: float | None
    ap_interval: Limits
    recall: float | None
    recall_interval: Limits
    ap_by_class: tuple[float | None, ...]


def part_score(
    truth: Truth, table: DetectionTable, matches: Matches, *, points: Floats, resamples: int, seed: int = 0
) -> PartScore:
    """Compute AP and recall of the objects that count.

    Args:
        truth: The objects.
        table: The detections.
        matches: Their matches, which say which objects count.
        points: Recalls that average precision uses, as in detector.evaluation.average.
        resamples: Bootstrap resamples of the images; 0 for no intervals.
        seed: Seed of the random resamples.
    """
    objects = int(matches.positives.sum())
    if not objects:
        return PartScore(0, None, None, None, None, (None,) * len(matches.positives))
    several = len(np.unique(truth.image_index[matches.counted])) > 1
    weights = (
        image_weights(len(truth), resamples, seed) if resamples and several else np.ones((1, len(truth)), np.int32)
    )
    ap = resampled_ap(truth, matches, table, points, weights)
    mean_ap, ap_interval = _with_interval(ap)
    recall, recall_interval = _with_interval(resampled_recall(truth, matches, weights))
    by_class = tuple(None if np.isnan(value) else value for value in ap[0].tolist())
    return PartScore(objects, mean_ap, ap_interval, recall, recall_interval, by_class)


def _with_interval(values: Floats) -> tuple[float, Limits]:
    """Return the mean over the classes in the first row, and the interval by the resamples in the others."""
    means = mean_over_classes(values)
    value = float(means[0])
    if len(means) == 1:
        return value, None
    interval = mean_interval(value, means[1:])
    return value, (interval.low, interval.high)
