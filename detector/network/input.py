"""Images as a network wants them: uint8 RGB -> [N, 3, S, S] float32, scaled by the weights' convention."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class InputConvention:
    """Scaling of a network's input: (image - mean) / std with RGB values in 0..255.

    Attributes:
        mean: Subtracted from red, green and blue.
        std: Divisor of red, green and blue, positive.
    """

    mean: tuple[float, float, float] = (123.0, 117.0, 104.0)  # BVLC; the paper: "RGB with zero mean", no scale given
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"input needs three means and three positive stds, got {self.mean}, {self.std}")


def network_input(
    regions: NDArray[np.uint8], convention: InputConvention, device: torch.device | str = "cpu"
) -> Tensor:
    """Scale images for a network: [N, S, S, 3] uint8 RGB -> [N, 3, S, S] float32, channels last in memory."""
    lines = torch.from_numpy(regions).to(device).flatten(2)  # [N, S, 3 S]: an inner loop over 3 channels is slow
    x = lines.float()
    x -= torch.tensor(convention.mean, device=x.device).repeat(regions.shape[2])
    if convention.std != (1.0, 1.0, 1.0):
        x /= torch.tensor(convention.std, device=x.device).repeat(regions.shape[2])
    return x.view(regions.shape).permute(0, 3, 1, 2)
