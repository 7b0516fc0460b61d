"""Images as a network wants them: uint8 RGB -> [N, 3, S, S] float32, scaled by the weights' convention."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.device import upload


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
    regions: NDArray[np.uint8] | Tensor, convention: InputConvention, device: torch.device | str = "cpu"
) -> Tensor:
    """Scale images for a network: [N, S, S, 3] uint8 RGB -> [N, 3, S, S] float32, channels last in memory.

    An array is copied to the device; a tensor stays where it is.
    """
    there = regions if isinstance(regions, Tensor) else upload(regions, torch.device(device))
    x = there.flatten(2).float()  # [N, S, 3 S]: an inner loop over 3 channels is slow
    x -= upload(np.array(convention.mean, np.float32), x.device).repeat(regions.shape[2])
    if convention.std != (1.0, 1.0, 1.0):
        x /= upload(np.array(convention.std, np.float32), x.device).repeat(regions.shape[2])
    return x.view(regions.shape).permute(0, 3, 1, 2)
