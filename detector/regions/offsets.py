"""Bounding-box regression: move each box to where each class sees its object (R-CNN, appendix C).

In: boxes [N, 4] px, offsets [N, K, 4] that a linear layer predicts from a classifier's last map.
Out: boxes [N, K, 4] px.
Offsets are dx, dy, the shift of the centre in widths and heights of the box, and dw, dh, the logarithms of the ratios
of width and height. The layer is fitted by ridge regression, one for each class, on the trained network's features. The
paper's entry has none ("we did not use bounding box regression"), so a preset has to ask for it.

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
    """Offsets that move each box onto its object; [N, 4], [N, 4] px -> [N, 4].

    >>> offsets_to(np.array([[0, 0, 10, 10]]), np.array([[5, 0, 15, 10]])).tolist()
    [[0.5, 0.0, 0.0, 0.0]]
    """
    boxes, objects = boxes.astype(np.float64), objects.astype(np.float64)
    size, wanted = boxes[:, 2:] - boxes[:, :2], objects[:, 2:] - objects[:, :2]
    shift = (objects[:, :2] + objects[:, 2:] - boxes[:, :2] - boxes[:, 2:]) / 2 / size
    return np.concatenate([shift, np.log(wanted / size)], axis=1)


def apply_offsets(boxes: Boxes, offsets: NDArray[np.floating], width: float, height: float) -> NDArray[np.float64]:
    """Move each box to where each class's offsets place it, and clip it to the image.

    Args:
        boxes: [N, 4] px.
        offsets: [N, K, 4] dx, dy, dw, dh.
        width: Width of the image, px.
        height: Height of the image, px.

    Returns:
        [N, K, 4] px; a box of which nothing would remain inside the image stays where it is.
    """
    boxes = boxes.astype(np.float64)[:, None]  # [N, 1, 4]
    size = boxes[..., 2:] - boxes[..., :2]
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2 + offsets[..., :2] * size
    half = size / 2 * np.exp(np.clip(offsets[..., 2:], -LARGEST, LARGEST))
    inside = clip(np.concatenate([centre - half, centre + half], axis=-1), width, height)
    remains = (inside[..., 2:] > inside[..., :2]).all(axis=-1, keepdims=True)
    return np.where(remains, inside, boxes)


def fit_regression(
    features: Tensor, offsets: NDArray[np.float64], labels: NDArray[np.integer], classes: int, ridge: float
) -> nn.Linear:
    """Fit the layer from features to 4 K box offsets, each class by ridge regression on its own windows.

    Args:
        features: [W, F] float32.
        offsets: [W, 4] from each window to its object.
        labels: [W] in 0..K - 1. The offsets of a class without windows are 0.
        classes: K.
        ridge: Penalty of the squared weights for features scaled to a mean norm of 20; R-CNN's is 1,000.
    """
    factor = NORM / max(float(features.norm(dim=1).mean()), 1e-12) if len(features) else 1.0
    layer = nn.Linear(features.shape[1], 4 * classes)
    weight, bias = torch.zeros(classes, 4, features.shape[1]), torch.zeros(classes, 4)
    for label in np.unique(labels).tolist():
        rows = torch.from_numpy(np.flatnonzero(labels == label))
        x = features[rows] * factor
        y = torch.from_numpy(offsets[rows.numpy()])
        mean, middle = x.mean(dim=0), y.mean(dim=0)
        x, y = x - mean, y - middle
        # The smaller of two equal systems is solved, the primal [F, F] or its dual [W, W].
        if x.shape[0] > x.shape[1]:
            gram, right = (x.T @ x).double(), x.T.double() @ y
            gram.diagonal().add_(ridge)
            solution = torch.linalg.solve(gram, right).float().T  # [4, F]
        else:
            gram = (x @ x.T).double()
            gram.diagonal().add_(ridge)
            solution = (x.T @ torch.linalg.solve(gram, y).float()).T  # [4, F]
        weight[label] = solution * factor
        bias[label] = middle.float() - solution @ mean
    with torch.no_grad():
        layer.weight.copy_(weight.flatten(0, 1))
        layer.bias.copy_(bias.flatten())
    return layer
