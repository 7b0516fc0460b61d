"""Recall of proposals: how many objects they cover, and how well. The paper's "coverage" (§8) is recall at IoU 0.5.

In: objects and proposals, or the highest IoU of each object.  Out: recall and its averages.
Sources: ABO and MABO: Uijlings et al., IJCV 2013, §5. Average recall: Hosang et al., "What makes for effective
detection proposals?", PAMI 2016. Recall on annotated classes only can be raised by boxes that fit nothing else
(Chavali et al., arXiv 1505.05836): compare methods at equal numbers of boxes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from proposals.boxes import Boxes, iou

Overlaps = NDArray[np.float64]
"""[M], the highest IoU of any proposal with each object, in [0, 1]."""


def best_overlaps(objects: Boxes, proposals: Boxes) -> Overlaps:
    """Find the highest IoU of any proposal with each object; [M, 4], [N, 4] px -> [M] in [0, 1], 0 where N is 0."""
    best: Overlaps = best_overlaps_of_first(objects, proposals, [len(proposals)])[0]
    return best


def best_overlaps_of_first(objects: Boxes, proposals: Boxes, counts: Sequence[int]) -> NDArray[np.float64]:
    """Do the same for the first n proposals only, for each n of `counts`; [M, 4], [N, 4] px -> [len(counts), M]."""
    if len(proposals) == 0 or len(objects) == 0:
        return np.zeros((len(counts), len(objects)))
    overlaps = iou(objects.astype(np.float64), proposals.astype(np.float64))  # [M, N]
    best: NDArray[np.float64] = np.maximum.accumulate(overlaps, axis=1)
    last = np.minimum(np.asarray(counts), len(proposals)) - 1
    return np.where(last >= 0, best[:, last], 0.0).T


def covered(overlaps: Overlaps, min_iou: float = 0.5) -> Overlaps:
    """Return 1 for each object that is covered at an IoU or better, else 0; their mean is recall."""
    return (overlaps >= min_iou).astype(np.float64)


def recall_share(overlaps: Overlaps) -> Overlaps:
    """Return the share of all IoU from 0.5 to 1 at which each object is covered; their mean is average recall."""
    share: Overlaps = 2 * np.maximum(overlaps - 0.5, 0)
    return share


def recall(overlaps: Overlaps, min_iou: float = 0.5) -> float:
    """Return the share of objects that are covered at an IoU or better, in [0, 1]; NaN without objects."""
    return float(covered(overlaps, min_iou).mean()) if len(overlaps) else float("nan")


def average_recall(overlaps: Overlaps) -> float:
    """Return the mean of recall over all IoU from 0.5 to 1, 2 / M * sum(max(overlap - 0.5, 0)); NaN without objects."""
    return float(recall_share(overlaps).mean()) if len(overlaps) else float("nan")


def average_best_overlap(overlaps: Overlaps, labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Return ABO, the mean best overlap of each class; [M], labels [M] in 0..K-1 -> [K], NaN without objects.

    MABO is the mean over the classes that have objects.
    """
    total = np.bincount(labels, weights=overlaps, minlength=classes)
    count = np.bincount(labels, minlength=classes)
    result: NDArray[np.float64] = np.divide(total, count, out=np.full(classes, np.nan), where=count > 0)
    return result


def unique_recall(overlaps: Sequence[Overlaps], min_iou: float = 0.5) -> list[float]:
    """Return for each of several proposal sets the share of objects that it alone covers; NaN without objects."""
    covered = np.array([part >= min_iou for part in overlaps])  # [S, M]
    alone = covered & (covered.sum(axis=0) == 1)
    return [float(row.mean()) if len(row) else float("nan") for row in alone]
