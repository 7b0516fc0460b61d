"""The distillation loss against NumPy, and what minimises it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from detector.training.distillation import DistillationConfig, distillation_loss, soften


def softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_softened_probabilities_are_a_softmax_of_divided_logits(temperature: float) -> None:
    logits = np.random.default_rng(0).normal(0, 2, (20, 7))
    found = soften(torch.from_numpy(softmax(logits)), temperature)
    np.testing.assert_allclose(found, softmax(logits / temperature), rtol=1e-5)
    certain = torch.tensor([[1.0, 0.0, 0.0]])
    assert torch.equal(soften(certain, temperature), certain)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("background", [0.25, 1.0, 1.5])
def test_the_loss_by_hand(temperature: float, background: float) -> None:
    generator = np.random.default_rng(1)
    logits, teacher = generator.normal(0, 2, (2, 30, 5))
    teacher = softmax(teacher)
    config = DistillationConfig(0.5, temperature, background)
    found = distillation_loss(torch.from_numpy(logits).float(), torch.from_numpy(teacher), config)
    for row in range(30):
        target = teacher[row] ** (1 / temperature)
        target /= target.sum()
        entropy = -sum(
            t * np.log(s) for t, s in zip(target, softmax(logits[row : row + 1] / temperature)[0], strict=True)
        )
        share = teacher[row, 0]
        weight = background * share + 1 * (1 - share)
        assert float(found[row]) == pytest.approx(temperature**2 * weight * entropy, rel=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_student_that_minimises_it_is_the_teacher(temperature: float) -> None:
    """Also with background weighed down; a weight for each class would move it."""
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    teacher = torch.softmax(logits.detach(), dim=1)
    distillation_loss(logits, teacher, DistillationConfig(1.0, temperature, 0.3)).sum().backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6
    other = (logits.detach() + torch.eye(6, 4)).requires_grad_()
    distillation_loss(other, teacher, DistillationConfig(1.0, temperature, 0.3)).sum().backward()
    assert other.grad is not None
    assert other.grad.abs().max() > 1e-2


def test_the_gradient_keeps_its_size_at_a_high_temperature() -> None:
    """Of small logits it is the same at 20 and at 40 (Hinton et al., §2.1)."""
    sizes = []
    for temperature in (20.0, 40.0):
        logits = (0.1 * torch.randn(50, 4, generator=torch.Generator().manual_seed(0))).requires_grad_()
        teacher = torch.softmax(0.1 * torch.randn(50, 4, generator=torch.Generator().manual_seed(1)), dim=1)
        distillation_loss(logits, teacher, DistillationConfig(1.0, temperature, 1.0)).sum().backward()
        assert logits.grad is not None
        sizes.append(float(logits.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weight": -1.0}, "distillation.weight must be at least 0, not -1.0"),
        ({"temperature": 0.0}, "distillation.temperature must be above 0, not 0.0"),
        ({"background": 0.0}, "distillation.background must be above 0, not 0.0"),
    ],
)
def test_settings_that_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistillationConfig(**values)
