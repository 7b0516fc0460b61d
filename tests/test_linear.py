"""The linear fit against plain gradient descent and the conditions of its optimum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from detector.training.linear import fit_linear


def clusters(spread: float, count: int = 300, channels: int = 6, outputs: int = 4) -> tuple[Tensor, Tensor]:
    """Features around one centre a class, on scales that differ a thousandfold between channels."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(outputs, channels, generator=generator) * 3
    labels = torch.arange(count) % outputs
    features = centres[labels] + spread * torch.randn(count, channels, generator=generator)
    return features * torch.logspace(-2, 1, channels) + 5, labels


def gradients(features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """Of the regularised objective, in float64 and in terms of the standardised features."""
    features, weight, bias = features.double(), weight.double(), bias.double()
    mean, std = features.mean(dim=0), features.std(dim=0)
    inner = (weight * std).requires_grad_()
    shift = (bias + weight @ mean).requires_grad_()
    loss = F.cross_entropy((features - mean) / std @ inner.T + shift, labels) + decay / 2 * inner.square().sum()
    loss.backward()
    assert inner.grad is not None
    assert shift.grad is not None
    return inner.grad, shift.grad


def test_separable_classes_are_told_apart() -> None:
    features, labels = clusters(0.2)
    weight, bias = fit_linear(features, labels, 4, weight_decay=1e-3)
    assert weight.shape == (4, 6)
    assert bias.shape == (4,)
    assert torch.equal((features @ weight.T + bias).argmax(dim=1), labels)


@pytest.mark.parametrize("decay", [1e-3, 1e-1])
def test_the_gradient_vanishes_at_the_solution(decay: float) -> None:
    features, labels = clusters(4.0)
    weight, bias = fit_linear(features, labels, 4, weight_decay=decay)
    for gradient in gradients(features, labels, weight, bias, decay):
        assert gradient.abs().max() < 2e-4


def test_equals_plain_gradient_descent() -> None:
    features, labels = clusters(4.0)
    decay = 0.05
    x = features.double().numpy()
    x = (x - x.mean(axis=0)) / x.std(axis=0, ddof=1)
    target = np.eye(4)[labels]
    weight, bias = np.zeros((4, 6)), np.zeros(4)
    for _ in range(2000):
        expected = np.exp(x @ weight.T + bias)
        expected /= expected.sum(axis=1, keepdims=True)
        error = (expected - target) / len(x)
        weight -= 0.5 * (error.T @ x + decay * weight)
        bias -= 0.5 * error.sum(axis=0)
    found_weight, found_bias = fit_linear(features, labels, 4, weight_decay=decay)
    found = (features @ found_weight.T + found_bias).softmax(dim=1)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    np.testing.assert_allclose(found_weight * features.std(dim=0), weight, atol=2e-3)


def test_dead_and_constant_features_get_no_weight() -> None:
    features, labels = clusters(1.0)
    features[:, 0], features[:, 1] = 0.0, 77.0
    weight, bias = fit_linear(features, labels, 4, weight_decay=1e-3)
    assert (weight[:, :2] == 0).all()
    assert torch.isfinite(weight).all()
    assert torch.isfinite(bias).all()


def test_an_output_without_examples_becomes_improbable() -> None:
    features, labels = clusters(1.0)
    weight, bias = fit_linear(features, labels, 5, weight_decay=1e-3)
    assert (features @ weight.T + bias).softmax(dim=1)[:, 4].max() < 0.01


def test_the_same_data_give_the_same_bits() -> None:
    features, labels = clusters(1.0)
    first, second = (fit_linear(features, labels, 4, weight_decay=1e-3) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
