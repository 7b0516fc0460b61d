"""Distillation: a network learns a teacher's probabilities beside the labels (Hinton et al., arXiv 1503.02531).

In: logits of a student, probabilities of a teacher, both [B, K + 1].  Out: a loss for each window.
For detectors Chen et al. (NIPS 2017) add the cross-entropy to the teacher's probabilities, with a weight for each class
(1.5 for background, 1 for others) and temperature 1. Weights for classes move the optimum away from the teacher. Ours
weighs windows instead, by the probability that the teacher gives to background, so that the student that minimises the
loss is the teacher; and down, because most windows of a batch are background.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from detector.config import check_range


@dataclass(frozen=True)
class DistillationConfig:
    """How much a training learns from its teacher.

    Attributes:
        weight: Weight of the distillation loss, which is added to the loss of the labels; 0 disables it.
        temperature: Temperature T: both sides' probabilities are raised to the power of 1 / T and normalised, and the
            loss is multiplied by T² so that its gradient keeps its size.
        background: Weight of a window that is certainly background to the teacher; one that is certainly an object
            has 1, others have a weight in between. In (0, inf).
    """

    weight: float = 0.0
    temperature: float = 1.0  # Chen et al.
    background: float = 0.5  # ours

    def __post_init__(self) -> None:
        check_range(self, "[0, inf)", "distillation.weight")
        check_range(self, "(0, inf)", "distillation.temperature", "distillation.background")


def soften(probabilities: Tensor, temperature: float) -> Tensor:
    """Raise probabilities [..., K + 1] to the power of 1 / T and normalise them: a softmax of the logits over T."""
    powers = probabilities.float() ** (1 / temperature)
    return powers / powers.sum(dim=-1, keepdim=True)


def distillation_loss(logits: Tensor, teacher: Tensor, config: DistillationConfig) -> Tensor:
    """Compute the weighted cross-entropy to the teacher's softened probabilities, without `config.weight`.

    Args:
        logits: [B, K + 1] of the student.
        teacher: [B, K + 1] probabilities, background first.
        config: Temperature and weight of background.

    Returns:
        [B].
    """
    teacher = teacher.float()
    student = torch.log_softmax(logits.float() / config.temperature, dim=1)
    entropy = -(soften(teacher, config.temperature) * student).sum(dim=1)
    return config.temperature**2 * (1 + (config.background - 1) * teacher[:, 0]) * entropy
