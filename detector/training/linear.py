"""A linear classifier on frozen features, with which fine-tuning starts.

In: features [W, 1024] (inception_5b, averaged over positions), labels [W].
Out: weight [K + 1, 1024] and bias [K + 1] of the last layer.

Ours: R-CNN starts fine-tuning from a Gaussian last layer with ten times the learning rate of the others. With few
images and few processors it is faster to solve this convex part of the problem first.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def fit_linear(
    features: Tensor, labels: Tensor, outputs: int, *, weight_decay: float, iterations: int = 200
) -> tuple[Tensor, Tensor]:
    """Fit multinomial logistic regression by L-BFGS.

    Args:
        features: [W, C] float32.
        labels: [W] int64 in 0..outputs - 1.
        outputs: Number of classes, K + 1.
        weight_decay: Factor of half the squared weights for standardised features; biases have no penalty.
        iterations: Largest number of iterations.

    Returns:
        weight [outputs, C] and bias [outputs], for features that are not standardised.
    """
    mean, std = features.mean(dim=0), features.std(dim=0).clamp_min(1e-6)
    standard = (features - mean) / std
    weight = torch.zeros(outputs, features.shape[1], requires_grad=True)
    bias = torch.zeros(outputs, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=iterations, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimiser.zero_grad()
        value = F.cross_entropy(F.linear(standard, weight, bias), labels) + weight_decay / 2 * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        plain = weight / std
        return plain, bias - plain @ mean
