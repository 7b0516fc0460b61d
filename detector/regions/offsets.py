"""Bounding-box regression: where in its region an object is, for each class (R-CNN, appendix C).

In: boxes [N, 4] px, offsets [N, K, 4] that a classifier's last maps tell by a linear layer.  Out: boxes [N, K, 4] px.
An offset is (how far the object's middle is to the right, and below, in widths and heights of the box; the logarithm
of its width and height in those of the box). The layer is ridge regression, one for each class, on the trained
network's features. The paper's entry has none ("we did not use bounding box regression"), so that presets state it.

N boxes, K classes, W windows, F features.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from proposals.boxes import Boxes, clip

LARGEST = float(np.log(4.0))  # ours: no box grows or shrinks more than fourfold
NORM = 20.0  # R-CNN: features are scaled to this mean norm, which its ridge of 1,000 is meant for


def offsets_to(boxes: Boxes, objects: Boxes) -> NDArray[np.float64]:
    """What moves each box onto its object; [N, 4], [N, 4] px -> [N, 4].

    >>> offsets_to(np.array([[0, 0, 10, 10]]), np.array([[5, 0, 15, 10]])).tolist()
    [[0.5, 0.0, 0.0, 0.0]]
    """
    boxes, objects = boxes.astype(np.float64), objects.astype(np.float64)
    size, wanted = boxes[:, 2:] - boxes[:, :2], objects[:, 2:] - objects[:, :2]
    shift = (objects[:, :2] + objects[:, 2:] - boxes[:, :2] - boxes[:, 2:]) / 2 / size
    return np.concatenate([shift, np.log(wanted / size)], axis=1)


def moved(boxes: Boxes, offsets: NDArray[np.floating], width: float, height: float) -> NDArray[np.float64]:
    """Each box where each class wants it, cut at the image's border.

    Args:
        boxes: [N, 4] px.
        offsets: [N, K, 4].
        width: of the image, px.
        height: of the image, px.

    Returns:
        [N, K, 4] px; a box of which nothing would remain inside the image stays where it is.
    """
    boxes = boxes.astype(np.float64)[:, None]  # [N, 1, 4]
    size = boxes[..., 2:] - boxes[..., :2]
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2 + offsets[..., :2] * size
    half = size / 2 * np.exp(np.clip(offsets[..., 2:], -LARGEST, LARGEST))
    inside = clip(np.concatenate([centre - half, centre + half], axis=-1), width, height)
    there = (inside[..., 2:] > inside[..., :2]).all(axis=-1, keepdims=True)
    return np.where(there, inside, boxes)


def place(
    boxes: Boxes, rows: NDArray[np.float32], classes: int, width: float, height: float
) -> tuple[NDArray[np.float32], Boxes]:
    """What a scorer says of boxes, as scores and places.

    Args:
        boxes: [N, 4] px.
        rows: [N, K + 1] probabilities, or with each class's offset behind them [N, K + 1 + 4 K].
        classes: K.
        width: of the image, px.
        height: of the image, px.

    Returns:
        scores [N, K + 1], and boxes: [N, 4] as they are, or [N, K, 4] where each class places them.
    """
    scores, offsets = rows[:, : classes + 1], rows[:, classes + 1 :]
    if offsets.shape[1] == 0:
        return scores, boxes
    return scores, moved(boxes, offsets.reshape(len(boxes), classes, 4), width, height)


def fit_regression(
    features: Tensor, offsets: NDArray[np.float64], labels: NDArray[np.integer], classes: int, ridge: float
) -> nn.Linear:
    """The layer from features to 4 K offsets, each class by ridge regression on its own windows.

    Args:
        features: [W, F] float32.
        offsets: [W, 4] from each window to its object.
        labels: [W] 0..K - 1. A class without a window moves nothing.
        classes: K.
        ridge: factor of the squared weights, of features scaled to a mean norm of 20; R-CNN's is 1,000.
    """
    factor = NORM / max(float(features.norm(dim=1).mean()), 1e-12) if len(features) else 1.0
    layer = nn.Linear(features.shape[1], 4 * classes)
    weight, bias = torch.zeros(classes, 4, features.shape[1]), torch.zeros(classes, 4)
    for label in np.unique(labels).tolist():
        rows = torch.from_numpy(np.flatnonzero(labels == label))
        x = features[rows] * factor
        y = torch.from_numpy(offsets[rows.numpy()])
        mean, middle = x.mean(dim=0), y.mean(dim=0)
        x = x - mean
        # A class has fewer windows than features: its dual is the smaller system, [W, W].
        gram = (x @ x.T).double()
        gram.diagonal().add_(ridge)
        dual = torch.linalg.solve(gram, y - middle)  # [W, 4]
        solution = (x.T @ dual.float()).T  # [4, F]
        weight[label] = solution * factor
        bias[label] = middle.float() - solution @ mean
    with torch.no_grad():
        layer.weight.copy_(weight.flatten(0, 1))
        layer.bias.copy_(bias.flatten())
    return layer
