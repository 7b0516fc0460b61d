"""How many objects a set of proposals covers. The paper's "coverage" (§8) is recall at IoU 0.5."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from proposals.boxes import Boxes, iou


def best_overlaps(objects: Boxes, proposals: Boxes) -> NDArray[np.float64]:
    """For each object the highest IoU of any proposal; [M, 4], [N, 4] px -> [M] in [0, 1], 0 where N is 0."""
    if len(proposals) == 0:
        return np.zeros(len(objects))
    best: NDArray[np.float64] = iou(objects.astype(np.float64), proposals.astype(np.float64)).max(axis=1)
    return best


def recall(overlaps: NDArray[np.float64], min_iou: float = 0.5) -> float:
    """Share of objects covered at an IoU or better; [M] best overlaps -> [0, 1], NaN without objects."""
    return float((overlaps >= min_iou).mean()) if len(overlaps) else float("nan")
