"""The parts of an image that MultiBox sees, and the choice among the boxes found there.

In: an image's size; then boxes [M, 4] px with confidences [M].  Out: views; positions of the chosen boxes, best first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from proposals.boxes import iou


@dataclass(frozen=True)
class View:
    """A part of an image that the network sees (see `views`).

    Attributes:
        box: x1, y1, x2, y2 px.
        keep: Number of its best boxes that are kept.
    """

    box: tuple[int, int, int, int]
    keep: int


def views(width: int, height: int, keep: int, *, crops: int = 0) -> list[View]:
    """List the views of an image: all of it and, on request, overlapping squares within it.

    Crops are beyond the 2014 entry; MSC-MultiBox (arXiv 1412.1441) gains a tenth of its precision by them. The sizes
    are ours.

    Args:
        width: Width of the image, px.
        height: Height of the image, px.
        keep: Number of boxes kept of the whole image; a crop may add a quarter of it.
        crops: 0: no squares; 1: squares of 2/3 of the shorter side; 2: squares of 1/3 too.
    """
    found = [View((0, 0, width, height), keep)]
    for share in (2 / 3, 1 / 3)[:crops]:
        side = round(share * min(width, height))
        if side < 32:
            continue
        starts = [
            [round(step * (length - side) / count) for step in range(count + 1)] if length > side else [0]
            for length in (width, height)
            for count in [max(1, math.ceil(2 * (length - side) / side))]
        ]
        found += [View((x, y, x + side, y + side), max(1, keep // 4)) for y in starts[1] for x in starts[0]]
    return found


def select(
    boxes: NDArray[np.float32],
    confidences: NDArray[np.float32],
    *,
    limit: int,
    max_iou: float,
    min_side: float,
) -> NDArray[np.int64]:
    """Choose the boxes to propose, best first, by non-maximum suppression.

    Args:
        boxes: [M, 4] px.
        confidences: [M].
        limit: Most boxes.
        max_iou: A box that overlaps a better one by more than this IoU is dropped, in (0, 1]; 1 keeps all.
        min_side: Narrower or lower boxes are dropped, px.

    Returns:
        Positions in `boxes`.
    """
    large = np.min(boxes[:, 2:] - boxes[:, :2], axis=1) >= min_side
    order = np.argsort(-confidences, kind="stable")
    order = order[large[order]]
    if max_iou < 1 and len(order):
        order = order[_suppress(boxes[order], limit, max_iou)]
    return np.asarray(order[:limit])


def _suppress(boxes: NDArray[np.float32], limit: int, max_iou: float) -> list[int]:
    """Return the positions of the first `limit` boxes [M, 4] px that overlap no kept one before them by more.

    Equals `torchvision.ops.nms`, whose import takes seconds.
    """
    dropped = np.zeros(len(boxes), np.bool_)
    kept: list[int] = []
    for i in range(len(boxes)):
        if dropped[i]:
            continue
        kept.append(i)
        if len(kept) == limit:
            break
        dropped |= iou(boxes[i : i + 1], boxes)[0].astype(np.float64) > max_iou
    return kept


def inside_view(boxes: NDArray[np.float32], view: View, width: int, height: int) -> NDArray[np.bool_]:
    """Whether boxes [M, 4] px are a tenth of the view's side away from its sides inside the image.

    An object that touches such a side is probably cut by it (gvanhorn38/multibox).
    """
    x1, y1, x2, y2 = view.box
    margin_x, margin_y = 0.1 * (x2 - x1), 0.1 * (y2 - y1)
    low = np.array([x1 + margin_x if x1 > 0 else -np.inf, y1 + margin_y if y1 > 0 else -np.inf])
    high = np.array([x2 - margin_x if x2 < width else np.inf, y2 - margin_y if y2 < height else np.inf])
    away = np.concatenate([boxes[:, :2] - low, high - boxes[:, 2:]], axis=1)
    return np.asarray(away.min(axis=1) >= 0)
