"""Scores -> detections: a score threshold, greedy non-maximum suppression within each class, a limit per image.

In: boxes [N, 4] px, scores [N, K + 1].  Out: Detections, best first.
R-CNN §2.2, whose overlap threshold is 0.3; the paper names none.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import nms

from detector.detections import Detections
from detector.settings import SuppressionConfig
from proposals.boxes import Boxes


def suppress(boxes: Boxes, scores: NDArray[np.floating], config: SuppressionConfig) -> Detections:
    """Keep the best boxes of each class and drop their near-copies.

    Args:
        boxes: [N, 4] px.
        scores: [N, K + 1] probabilities; column 0 is background, which is never returned.
        config: thresholds.

    Returns:
        at most config.limit detections; of equal scores the earlier box comes first, then the lower label.

    Raises:
        ValueError: boxes and scores differ in N, or a score is not finite (NMS would let NaN suppress good boxes).
    """
    rows, labels = surviving(boxes, scores, config)
    rows, labels = rows[: config.limit], labels[: config.limit]
    return Detections(boxes[rows].astype(np.float64), scores[rows, labels + 1].astype(np.float64), labels)


def surviving(
    boxes: Boxes, scores: NDArray[np.floating], config: SuppressionConfig
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the boxes that suppression keeps, and labels, best first, without the limit; see suppress."""
    if len(boxes) != len(scores):
        raise ValueError(f"{len(boxes)} boxes but {len(scores)} rows of scores")
    if not np.isfinite(scores).all():
        raise ValueError("a score is not finite")
    found = []
    for label in range(scores.shape[1] - 1):
        column = scores[:, label + 1]
        candidates = np.flatnonzero(column > config.min_score)
        candidates = candidates[np.argsort(-column[candidates], kind="stable")]  # ties: nms alone promises no order
        kept = nms(
            # In float32 an IoU of 3/10 is above 0.3.
            torch.from_numpy(np.ascontiguousarray(boxes[candidates], dtype=np.float64)),
            # Sorted already: falling numbers keep that order where scores tie.
            torch.arange(len(candidates), 0, -1, dtype=torch.float64),
            config.max_iou,
        ).numpy()
        found.append((candidates[kept], np.full(len(kept), label)))
    rows = np.concatenate([row for row, _ in found])
    labels = np.concatenate([label for _, label in found])
    best = np.lexsort((labels, rows, -scores[rows, labels + 1]))
    return rows[best], labels[best]
