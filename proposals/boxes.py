"""Boxes: their convention, used everywhere in this project, and operations on them.

A box is (x1, y1, x2, y2) in pixels, 0-based, with the far edge exclusive: the whole image is (0, 0, width, height) and
a box's area is (x2 - x1) * (y2 - y1). Other conventions are converted only where a file is read or written.
Results are floating point, whatever the type of the boxes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.floating[Any]]
"""[N, 4] x1, y1, x2, y2 in pixels, far edge exclusive."""


def floating(boxes: NDArray[Any]) -> Boxes:
    """Return floating-point boxes as they are and integer boxes as float64, so that no result is rounded or wraps."""
    return boxes if np.issubdtype(boxes.dtype, np.floating) else boxes.astype(np.float64)


def check_boxes(boxes: Boxes, width: float, height: float) -> None:
    """Check that each box covers a part of an image.

    Args:
        boxes: [N, 4] px.
        width: Width of the image, px.
        height: Height of the image, px.

    Raises:
        ValueError: the boxes are not [N, 4], or one is not finite, has no area or lies outside the image; the message
            names the first.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must be [N, 4], not {list(boxes.shape)}")
    finite = np.isfinite(boxes).all(axis=1)
    whole = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    inside = (boxes[:, 2:] > 0).all(axis=1) & (boxes[:, :2] < (width, height)).all(axis=1)
    for good, fault in (
        (finite, "is not finite"),
        (whole, "has no area"),
        (inside, f"lies outside the image of {width} × {height} px"),
    ):
        if not good.all():
            first = int(np.flatnonzero(~good)[0])
            raise ValueError(f"box {first}, {boxes[first].tolist()}, {fault}")


def area(boxes: Boxes) -> Boxes:
    """Compute the area of each box; [N, 4] px -> [N] px². A box of negative width or height has area 0."""
    boxes = floating(boxes)
    size = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
    return size[:, 0] * size[:, 1]


def intersection(first: Boxes, second: Boxes) -> Boxes:
    """Compute the area shared by each pair of boxes; [N, 4], [M, 4] px -> [N, M] px²."""
    first, second = floating(first), floating(second)
    top_left = np.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = np.minimum(first[:, None, 2:], second[None, :, 2:])
    size = np.clip(bottom_right - top_left, 0, None)
    result: Boxes = size[..., 0] * size[..., 1]
    return result


def iou(first: Boxes, second: Boxes) -> Boxes:
    """Compute the IoU of each pair of boxes; [N, 4], [M, 4] px -> [N, M] in [0, 1], 0 for two empty boxes."""
    shared = intersection(first, second)
    union = area(first)[:, None] + area(second)[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def inside(first: Boxes, second: Boxes) -> Boxes:
    """Compute the share of each first box inside each second one; [N, 4], [M, 4] px -> [N, M] in [0, 1].

    The share of an empty box is 0.
    """
    shared, own = intersection(first, second), area(first)[:, None]
    return np.divide(shared, own, out=np.zeros_like(shared), where=own > 0)


def clip(boxes: Boxes, width: float, height: float) -> Boxes:
    """Cut boxes at the image's border; [N, 4] px -> [N, 4] px."""
    boxes = floating(boxes)
    limit = np.array([width, height, width, height], dtype=boxes.dtype)
    return np.clip(boxes, 0, limit)


def scale(boxes: Boxes, factor_x: float, factor_y: float) -> Boxes:
    """Scale boxes to an image that is resized by the factors; [N, 4] px -> [N, 4] px."""
    boxes = floating(boxes)
    return boxes * np.array([factor_x, factor_y, factor_x, factor_y], dtype=boxes.dtype)


def from_inclusive(boxes: Boxes, first_pixel: int) -> Boxes:
    """Convert from corner pixels that both belong to the box, counted from 1 (PASCAL VOC) or 0 (ILSVRC)."""
    boxes = floating(boxes)
    return boxes + np.array([-first_pixel, -first_pixel, 1 - first_pixel, 1 - first_pixel], dtype=boxes.dtype)


def from_xywh(boxes: Boxes) -> Boxes:
    """Convert from COCO's x, y, width, height; [N, 4] px -> [N, 4] px."""
    boxes = floating(boxes)
    with np.errstate(over="ignore"):  # the reader rejects a box that ends at infinity
        return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def to_xywh(boxes: Boxes) -> Boxes:
    """Convert to COCO's x, y, width, height; [N, 4] px -> [N, 4] px."""
    boxes = floating(boxes)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def mirrored(boxes: Boxes, width: float) -> Boxes:
    """Mirror boxes [N, 4] px with an image of this width, px."""
    boxes = floating(boxes)
    return np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
