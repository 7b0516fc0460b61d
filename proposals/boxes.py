"""What a box is, everywhere in this project.

A box is (x1, y1, x2, y2) in pixels, 0-based, with the far edge exclusive: the whole image is (0, 0, width, height) and
a box's area is (x2 - x1) * (y2 - y1). Other conventions are converted where a file is read or written, nowhere else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.floating[Any]]
"""[N, 4] x1, y1, x2, y2 in pixels, far edge exclusive."""


def area(boxes: Boxes) -> Boxes:
    """Area of each box; [N, 4] px -> [N] px². A box of negative width or height has area 0."""
    size = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
    result: Boxes = size[:, 0] * size[:, 1]
    return result


def intersection(first: Boxes, second: Boxes) -> Boxes:
    """Area shared by every pair; [N, 4], [M, 4] px -> [N, M] px²."""
    top_left = np.maximum(first[:, None, :2], second[None, :, :2])
    bottom_right = np.minimum(first[:, None, 2:], second[None, :, 2:])
    size = np.clip(bottom_right - top_left, 0, None)
    result: Boxes = size[..., 0] * size[..., 1]
    return result


def iou(first: Boxes, second: Boxes) -> Boxes:
    """Jaccard overlap of every pair; [N, 4], [M, 4] px -> [N, M] in [0, 1]. Two empty boxes overlap by 0."""
    shared = intersection(first, second)
    union = area(first)[:, None] + area(second)[None, :] - shared
    result: Boxes = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return result


def clip(boxes: Boxes, width: float, height: float) -> Boxes:
    """Boxes cut at the image border; [N, 4] px -> [N, 4] px."""
    limit = np.array([width, height, width, height], dtype=boxes.dtype)
    result: Boxes = np.clip(boxes, 0, limit)
    return result


def scale(boxes: Boxes, factor_x: float, factor_y: float) -> Boxes:
    """Boxes of an image that is resized by the factors; [N, 4] px -> [N, 4] px."""
    result: Boxes = boxes * np.array([factor_x, factor_y, factor_x, factor_y], dtype=boxes.dtype)
    return result


def from_inclusive(boxes: Boxes, first_pixel: int) -> Boxes:
    """Corner pixels, both inside the box, as PASCAL VOC (first_pixel 1) and ILSVRC (0) write them -> our convention."""
    result: Boxes = boxes + np.array([-first_pixel, -first_pixel, 1 - first_pixel, 1 - first_pixel], dtype=boxes.dtype)
    return result


def to_inclusive(boxes: Boxes, first_pixel: int) -> Boxes:
    """The inverse of from_inclusive."""
    result: Boxes = boxes - np.array([-first_pixel, -first_pixel, 1 - first_pixel, 1 - first_pixel], dtype=boxes.dtype)
    return result


def from_xywh(boxes: Boxes) -> Boxes:
    """COCO's x, y, width, height -> our convention; [N, 4] px -> [N, 4] px."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def to_xywh(boxes: Boxes) -> Boxes:
    """The inverse of from_xywh."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def mirrored(boxes: Boxes, width: float) -> Boxes:
    """The boxes [N, 4] in the mirror image of an image that is so wide."""
    result: Boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
    return result
