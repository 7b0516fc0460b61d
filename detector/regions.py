"""Warp each proposed box to the classifier's input square; one code for training and test.

In: image [H, W, 3] uint8 RGB; boxes [N, 4] px.
Out: regions [N, S, S, 3] uint8, then the network's input [N, 3, S, S].

Paper §8 classifies regions one by one as R-CNN does: anisotropic warp with 16 px of context around the box, measured
in the warped frame, and the mean colour where the window leaves the image (R-CNN, appendix A). Ours is continuous where
R-CNN's code rounds corners to pixels, and a box that shrinks more than twofold is reduced by area first, so that it
does not alias.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detector.data.image import Image
from detector.googlenet import InputConvention
from proposals.boxes import Boxes

Regions = NDArray[np.uint8]
"""[N, S, S, 3] uint8 RGB."""


@dataclass(frozen=True)
class RegionConfig:
    """The square a box is warped to; a property of the trained weights.

    Attributes:
        size: side S of the square, px.
        context: px of the square, on each side, that show what surrounds the box.
    """

    size: int = 224  # §5
    context: int = 16  # R-CNN, appendix A, at its 227 px

    def __post_init__(self) -> None:
        if self.size < 32:
            raise ValueError(f"regions.size must be at least 32 px, not {self.size}")
        if not 0 <= 2 * self.context < self.size:
            raise ValueError(f"regions.context must be in 0..{(self.size - 1) // 2} px, not {self.context}")


def context_windows(boxes: Boxes, config: RegionConfig) -> NDArray[np.float64]:
    """The part of the image plane that each square shows: the box, larger by S / (S - 2 context) about its centre.

    >>> context_windows(np.array([[100, 50, 200, 250]]), RegionConfig()).round(3).tolist()
    [[91.667, 33.333, 208.333, 266.667]]
    """
    boxes = boxes.astype(np.float64)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) / 2 * (config.size / (config.size - 2 * config.context))
    return np.concatenate([centre - half, centre + half], axis=1)


def warp(image: Image, boxes: Boxes, config: RegionConfig, fill: tuple[float, float, float]) -> Regions:
    """Cut the boxes with their context out of an image and warp each to a square.

    Args:
        image: [H, W, 3] uint8 RGB.
        boxes: [N, 4] px, each of positive width and height and at least partly inside the image.
        config: size and context of the square.
        fill: RGB, 0..255, of what lies outside the image; the network's mean, so that it is 0 after normalisation.

    Returns:
        [N, S, S, 3] uint8.

    Raises:
        ValueError: a box is not finite, has no area or lies outside the image.
    """
    height, width, _ = image.shape
    if not np.isfinite(boxes).all() or (boxes[:, 2:] <= boxes[:, :2]).any():
        raise ValueError("a box to warp is not finite or has no area")
    if (boxes[:, 2:] <= 0).any() or (boxes[:, :2] >= (width, height)).any():
        raise ValueError(f"a box to warp lies outside the image of {width} × {height} px")
    regions = np.empty((len(boxes), config.size, config.size, 3), np.uint8)
    for region, window in zip(regions, context_windows(boxes, config), strict=True):
        _warp_one(image, window, region, fill)
    return regions


def _warp_one(image: Image, window: NDArray[np.float64], region: Regions, fill: tuple[float, float, float]) -> None:
    """Sample the window into region [S, S, 3], in place."""
    size = len(region)
    height, width, _ = image.shape
    x1, y1, x2, y2 = window
    step_x, step_y = (x2 - x1) / size, (y2 - y1) / size  # source px per region px
    source, offset_x, offset_y, scale_x, scale_y = image, 0, 0, 1.0, 1.0
    if step_x > 2 or step_y > 2:
        left, top = max(int(x1) - 1, 0), max(int(y1) - 1, 0)
        part = image[top : min(int(y2) + 2, height), left : min(int(x2) + 2, width)]
        part_height, part_width, _ = part.shape
        new_width = max(1, round(part_width / step_x)) if step_x > 2 else part_width
        new_height = max(1, round(part_height / step_y)) if step_y > 2 else part_height
        source = np.asarray(cv2.resize(part, (new_width, new_height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
        offset_x, offset_y, scale_x, scale_y = left, top, new_width / part_width, new_height / part_height
    # Pixel i covers [i, i + 1) and its centre is i + 0.5; warpAffine counts from centres, hence the halves.
    matrix = np.array(
        [
            [step_x * scale_x, 0, (x1 + step_x / 2 - offset_x) * scale_x - 0.5],
            [0, step_y * scale_y, (y1 + step_y / 2 - offset_y) * scale_y - 0.5],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cv2.warpAffine(source, matrix, (size, size), dst=region, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    # Border pixels were repeated, so that the image's own edge keeps its colour; what is centred outside becomes fill.
    colour = np.array(fill).round().astype(np.uint8)
    columns = x1 + (np.arange(size) + 0.5) * step_x
    rows = y1 + (np.arange(size) + 0.5) * step_y
    region[:, (columns < 0) | (columns >= width)] = colour
    region[(rows < 0) | (rows >= height)] = colour


def network_input(regions: Regions, convention: InputConvention, device: torch.device | str = "cpu") -> Tensor:
    """Regions [N, S, S, 3] uint8 -> what the network reads, [N, 3, S, S] float32, channels last in memory."""
    x = torch.from_numpy(regions).to(device).permute(0, 3, 1, 2).float()
    x -= torch.tensor(convention.mean, device=x.device).view(3, 1, 1)
    if convention.std != (1.0, 1.0, 1.0):
        x /= torch.tensor(convention.std, device=x.device).view(3, 1, 1)
    return x
