"""Steps of an optimiser with gradients in float16, which has no values above 65,504 and none between 0 and 6e-8.

In: the loss of each part of a batch.  Out: a step of the optimiser, or none.
The loss is multiplied by a scale, so that small gradients do not vanish, and the gradients are divided by it before
the step (Micikevicius et al., arXiv 1710.03740). Where one of them is not finite the step is skipped and the scale
halved; after 2,000 steps without it the scale doubles. In other precisions nothing is scaled and each step is taken.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

MOST_IN_A_ROW = 32
"""Batches in a row without a step after which a training has diverged: the first scale is 2^16, and 2^-16 is below what
any gradient needs."""


class ScaledSteps:
    """An optimiser's steps, with scaled gradients where the precision needs it.

    Args:
        optimiser: The optimiser.
        device: Device of its weights.
        precision: Type in which the layers compute.

    Attributes:
        scales: Whether the precision needs it.
        skipped: Steps skipped since this was last set to 0.
        in_a_row: Batches in a row without a step, or with a loss that is not finite.
    """

    def __init__(self, optimiser: torch.optim.Optimizer, device: torch.device, precision: torch.dtype) -> None:
        self.scales = precision == torch.float16
        self.skipped = self.in_a_row = 0
        self._optimiser, self._taken = optimiser, False
        self._scaler = torch.amp.GradScaler(device.type, enabled=self.scales)
        # Comparing the scale before and after a step would make a GPU wait for the step.
        optimiser.register_step_post_hook(self._note)

    def backward(self, loss: Tensor) -> None:
        """Add the scaled gradients of a loss to those of the parameters."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, loss: float) -> bool:
        """Take a step and return True, or skip it, lower the scale and return False; `loss` is counted (in_a_row)."""
        self._taken = False
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self.skipped += not self._taken
        self.in_a_row = 0 if self._taken and math.isfinite(loss) else self.in_a_row + 1
        return self._taken

    @property
    def scale(self) -> float:
        """The factor on the loss."""
        return self._scaler.get_scale()

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on; empty where nothing is scaled."""
        counts = {"skipped": self.skipped, "in_a_row": self.in_a_row}
        return self._scaler.state_dict() | counts if self.scales else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state; that of another precision changes nothing."""
        if self.scales and state:
            self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]
            self._scaler.load_state_dict(state)

    def _note(self, *_: object) -> None:
        self._taken = True
