"""Scores -> detections: a score threshold, non-maximum suppression within each class, a limit per image.

In: boxes [N, K, 4] px, probabilities [N, K + 1].  Out: Detections, best first.
Greedy suppression is R-CNN's (§2.2), whose overlap threshold is 0.3; the paper names none. Soft-NMS, beyond the paper,
lowers scores instead (Bodla et al., arXiv 1704.04503). Box voting, beyond the paper too, moves each box that is kept to
the mean of those around it (MR-CNN, arXiv 1505.01749, §5).
Where all classes share their boxes, the overlaps of a box are computed once, when some class first keeps it, as a row
of bits; a class then drops boxes 64 at a time. Results are those of `torchvision.ops.nms` in float64, class by class.
200 classes of 1,200 shared boxes take 23 ms (timeit, best of 7, the arrays of tests/test_suppression.py's test of that
size; two AVX-512 cores).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.detections import Detections
from detector.settings import SuppressionConfig
from proposals.boxes import Boxes
from proposals.compiling import compiled


def suppress(
    boxes: Boxes,
    probabilities: NDArray[np.floating],
    config: SuppressionConfig,
    min_scores: NDArray[np.float64] | None = None,
) -> Detections:
    """Keep the best boxes of each class and drop their near-copies.

    Args:
        boxes: [N, K, 4] px, the box of each class in each region.
        probabilities: [N, K + 1]; column 0 is background, which is never returned.
        config: Thresholds.
        min_scores: [K] lowest score that is kept of each class, in place of config.min_score; None for that.

    Returns:
        At most config.limit detections; of equal scores the earlier box comes first, then the lower label.

    Raises:
        ValueError: Boxes and probabilities do not fit together, or a score is not finite (NMS would let NaN suppress
            good boxes).
    """
    if min_scores is not None:  # a little below the lowest: float32 rounds it, and equal scores are kept
        config = replace(config, min_score=float(min_scores.min()) * (1 - 1e-6))
    rows, labels, scores = surviving(boxes, probabilities, config)
    if min_scores is not None:
        kept = scores >= min_scores[labels]
        rows, labels, scores = rows[kept], labels[kept], scores[kept]
    found = Detections(boxes[rows, labels].astype(np.float64), scores, labels)[: config.limit]
    if not config.vote:
        return found
    return replace(found, boxes=voted(boxes, probabilities, found.boxes, found.labels, config.vote))


def surviving(
    boxes: Boxes, probabilities: NDArray[np.floating], config: SuppressionConfig
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return rows, labels and scores of the boxes that `suppress` keeps, best first, without the limit."""
    if boxes.shape != (len(probabilities), probabilities.shape[1] - 1, 4):
        raise ValueError(f"boxes {list(boxes.shape)} do not fit probabilities {list(probabilities.shape)}")
    if not np.isfinite(probabilities).all():
        raise ValueError("a score is not finite")
    if config.soft_sigma:
        rows, labels, scores = class_soft_nms(boxes, probabilities[:, 1:], config.lowest, config.soft_sigma)
    else:
        rows, labels = class_nms(boxes, probabilities[:, 1:], config.lowest, config.max_iou)
        scores = probabilities[rows, labels + 1].astype(np.float64)
    best = np.lexsort((labels, rows, -scores))
    return rows[best], labels[best], scores[best]


def voted(
    boxes: Boxes,
    probabilities: NDArray[np.floating],
    kept: NDArray[np.float64],
    labels: NDArray[np.int64],
    min_iou: float,
) -> NDArray[np.float64]:
    """Move each box that is kept to the mean of the boxes of its class around it, weighted by their probabilities.

    All regions vote, so that a detection's box does not depend on the score from which detections are wanted.

    Args:
        boxes: [N, K, 4] px, the box of each class in each region.
        probabilities: [N, K + 1]; column 0 is background.
        kept: [D, 4] px, the boxes that suppression keeps.
        labels: [D] their classes.
        min_iou: Overlap with a kept box from which a box votes, in (0, 1].

    Returns:
        [D, 4] px; a box without area stays as it is.
    """
    means = kept.copy()
    for label in np.unique(labels).tolist():
        rows = np.flatnonzero(labels == label)
        weights = probabilities[:, label + 1].astype(np.float64)
        means[rows] = _vote(boxes[:, label].astype(np.float64), weights, kept[rows], min_iou)
    return means


def class_nms(
    boxes: Boxes, scores: NDArray[np.floating], min_score: float, max_iou: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows and labels of the boxes that greedy suppression keeps, class by class, best first.

    Args:
        boxes: [N, K, 4] px.
        scores: [N, K], finite.
        min_score: A box takes part in a class where its score is above this.
        max_iou: Overlap with a better box of the class above this drops a box. Of equal scores the first box is better.
    """
    if boxes.strides[1]:  # each class has boxes of its own
        each = [
            _shared_nms(boxes[:, label], scores[:, [label]], min_score, max_iou)[0] for label in range(scores.shape[1])
        ]
        return np.concatenate(each), np.repeat(np.arange(len(each)), [len(rows) for rows in each])
    return _shared_nms(boxes[:, 0], scores, min_score, max_iou)


def _shared_nms(
    boxes: Boxes, scores: NDArray[np.floating], min_score: float, max_iou: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Run class_nms on boxes [N, 4] that all classes share."""
    above = scores > min_score  # [N, K]
    rows = np.flatnonzero(above.any(axis=1))
    columns, above = scores[rows].T, above[rows].T  # [K, N']
    order = np.argsort(np.where(above, -columns, np.inf), axis=1, kind="stable")  # boxes below min_score come last
    kept = np.zeros(order.shape, np.bool_)
    _suppress(boxes[rows].astype(np.float64), order, above.sum(axis=1), max_iou, kept)
    labels, ranks = np.nonzero(kept)
    return rows[order[labels, ranks]], labels


def class_soft_nms(
    boxes: Boxes, scores: NDArray[np.floating], min_score: float, sigma: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Lower scores by soft-NMS: each better box of the class multiplies a score by exp(-IoU² / sigma).

    Args:
        boxes: [N, K, 4] px.
        scores: [N, K], finite.
        min_score: A box is dropped when its score is not above this.
        sigma: Width of the Gaussian; the smaller, the more overlap lowers a score.

    Returns:
        Rows, labels and lowered scores, class by class, best first.
    """
    rows, labels, lowered = [], [], []
    for label, column in enumerate(scores.T):
        candidates = np.flatnonzero(column > min_score)
        own, values = boxes[candidates, label].astype(np.float64), column[candidates].astype(np.float64)
        order, areas = np.arange(len(own)), (own[:, 2] - own[:, 0]) * (own[:, 3] - own[:, 1])
        _soften(own, areas, order, values, sigma)
        order, values = order[values > min_score], values[values > min_score]
        rows.append(candidates[order])
        labels.append(np.full(len(order), label))
        lowered.append(values)
    return np.concatenate(rows), np.concatenate(labels), np.concatenate(lowered)


@compiled(error_model="numpy")
def _soften(boxes: Any, areas: Any, order: Any, scores: Any, sigma: float) -> None:
    """Boxes [N, 4], their areas [N] -> order [N], best first, and the scores [N] that they have when they are taken."""
    total = len(boxes)
    for taken in range(total):
        best = taken
        for i in range(taken + 1, total):  # of equal scores the first box
            if scores[i] > scores[best] or (scores[i] == scores[best] and order[i] < order[best]):
                best = i
        order[taken], order[best] = order[best], order[taken]
        scores[taken], scores[best] = scores[best], scores[taken]
        a = order[taken]
        for i in range(taken + 1, total):
            b = order[i]
            width = min(boxes[a, 2], boxes[b, 2]) - max(boxes[a, 0], boxes[b, 0])
            height = min(boxes[a, 3], boxes[b, 3]) - max(boxes[a, 1], boxes[b, 1])
            common = max(width, 0.0) * max(height, 0.0)
            if common > 0:
                overlap = common / (areas[a] + areas[b] - common)
                scores[i] *= np.exp(-overlap * overlap / sigma)


@compiled(error_model="numpy")
def _suppress(boxes: Any, order: Any, counts: Any, max_iou: float, kept: Any) -> None:
    """Boxes [N, 4], order [K, N] of the candidates, counts [K] of them -> kept [K, N] by rank in the order."""
    total = len(boxes)
    words = (total + 63) // 64
    one = np.uint64(1)
    overlaps = np.zeros((total, words), np.uint64)
    known = np.zeros(total, np.bool_)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    dropped = np.zeros(words, np.uint64)
    for label in range(len(order)):
        dropped[:] = 0
        for rank in range(counts[label]):
            i = order[label, rank]
            if (dropped[i >> 6] >> np.uint64(i & 63)) & one:
                continue
            kept[label, rank] = True
            if not known[i]:
                known[i] = True
                for j in range(total):
                    width = min(boxes[i, 2], boxes[j, 2]) - max(boxes[i, 0], boxes[j, 0])
                    height = min(boxes[i, 3], boxes[j, 3]) - max(boxes[i, 1], boxes[j, 1])
                    common = max(width, 0.0) * max(height, 0.0)
                    if common / (areas[i] + areas[j] - common) > max_iou:
                        overlaps[i, j >> 6] |= one << np.uint64(j & 63)
            for word in range(words):
                dropped[word] |= overlaps[i, word]


@compiled(error_model="numpy")
def _vote(boxes: Any, weights: Any, kept: Any, min_iou: float) -> Any:
    """Boxes [N, 4] of a class, their weights [N], boxes kept [D, 4] -> means [D, 4]."""
    means = kept.copy()
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for d in range(len(kept)):
        own = (kept[d, 2] - kept[d, 0]) * (kept[d, 3] - kept[d, 1])
        total = x1 = y1 = x2 = y2 = 0.0
        for n in range(len(boxes)):
            width = min(kept[d, 2], boxes[n, 2]) - max(kept[d, 0], boxes[n, 0])
            height = min(kept[d, 3], boxes[n, 3]) - max(kept[d, 1], boxes[n, 1])
            if width > 0 and height > 0:
                common = width * height
                if common / (own + areas[n] - common) >= min_iou:
                    total += weights[n]
                    x1 += weights[n] * boxes[n, 0]
                    y1 += weights[n] * boxes[n, 1]
                    x2 += weights[n] * boxes[n, 2]
                    y2 += weights[n] * boxes[n, 3]
        if total > 0:
            means[d] = x1 / total, y1 / total, x2 / total, y2 / total
    return means
