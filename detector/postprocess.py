"""Scores -> detections: a score threshold, greedy non-maximum suppression within each class, a limit per image.

In: boxes [N, 4] px, scores [N, K + 1].  Out: Detections, best first.
R-CNN §2.2, whose overlap threshold is 0.3; the paper names none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detector.detections import Detections
from detector.nms import class_nms, class_soft_nms
from detector.settings import SuppressionConfig
from proposals.boxes import Boxes


def suppress(boxes: Boxes, scores: NDArray[np.floating], config: SuppressionConfig) -> Detections:
    """Keep the best boxes of each class and drop their near-copies.

    Args:
        boxes: [N, 4] px, or [N, K, 4] where regression has placed each class.
        scores: [N, K + 1] probabilities; column 0 is background, which is never returned.
        config: thresholds.

    Returns:
        at most config.limit detections; of equal scores the earlier box comes first, then the lower label.

    Raises:
        ValueError: boxes and scores differ in N, or a score is not finite (NMS would let NaN suppress good boxes).
    """
    rows, labels, values = surviving(boxes, scores, config)
    best = slice(config.limit)
    rows, labels, values = rows[best], labels[best], values[best]
    return Detections((boxes[rows] if boxes.ndim == 2 else boxes[rows, labels]).astype(np.float64), values, labels)


def surviving(
    boxes: Boxes, scores: NDArray[np.floating], config: SuppressionConfig
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Positions of the boxes that suppression keeps, labels, scores, best first, without the limit; see suppress."""
    if len(boxes) != len(scores):
        raise ValueError(f"{len(boxes)} boxes but {len(scores)} rows of scores")
    if not np.isfinite(scores).all():
        raise ValueError("a score is not finite")
    if config.soft_sigma:
        rows, labels, values = class_soft_nms(boxes, scores[:, 1:], config.min_score, config.soft_sigma)
    else:
        rows, labels = class_nms(boxes, scores[:, 1:], config.min_score, config.max_iou)
        values = scores[rows, labels + 1].astype(np.float64)
    best = np.lexsort((labels, rows, -values))
    return rows[best], labels[best], values[best]
