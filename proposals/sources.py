"""The package's one entry for a detector: image -> ranked boxes in the image's own pixels.

Selective search runs on the image resized to width 500, as R-CNN ran it on ILSVRC, so that superpixels mean the same on
every photograph; the boxes are mapped back. GoogLeNet (§8) doubles the superpixel size, the default here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from proposals.boxes import clip, scale
from proposals.search import Ranked, check_image, selective_search

TALLEST = 8
"""Ours: the resized image is at most this many times config.width high; a column of pixels would fill the memory."""


@dataclass(frozen=True)
class ProposalConfig:
    """How boxes are proposed.

    Attributes:
        superpixel_scale: 1 is R-CNN's selective search, 2 GoogLeNet's (§8).
        width: images are resized to this width first, px; 0 keeps their own (R-CNN: 500 on ILSVRC).
        min_width: boxes narrower or lower than this in the resized image are dropped, px (R-CNN: 20).
        max_boxes: keep the best of each image; 0 keeps all.
        seed: of the random ranking.
    """

    superpixel_scale: float = 2.0
    width: int = 500
    min_width: int = 20
    max_boxes: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.superpixel_scale < math.inf:
            raise ValueError(f"proposals.superpixel_scale must be above 0 and finite, not {self.superpixel_scale}")
        for name in ("width", "min_width", "max_boxes", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"proposals.{name} must not be negative, but is {getattr(self, name)}")


def propose(image: NDArray[np.uint8], config: ProposalConfig, *, threads: int = 1) -> Ranked:
    """Boxes where objects might be, best first.

    Args:
        image: [H, W, 3] uint8 RGB.
        config: the settings.
        threads: the result is the same for any number.

    Returns:
        boxes [N, 4] float32 in pixels of the given image, inside it; scores [N] float32. N may be 0 for a tiny image.

    Raises:
        ValueError: image is not [H, W, 3] uint8 with at least one pixel.
    """
    check_image(image)
    height, width, _ = image.shape
    factor = min(config.width / width, TALLEST * config.width / height) if config.width else 1.0
    if factor == 1:
        resized = image
    else:
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        resized = np.asarray(cv2.resize(image, size, interpolation=method), dtype=np.uint8)
    boxes, scores = selective_search(
        resized,
        superpixel_scale=config.superpixel_scale,
        min_width=config.min_width,
        max_boxes=config.max_boxes or None,
        seed=config.seed,
        threads=threads,
    )
    back = scale(boxes, width / resized.shape[1], height / resized.shape[0])
    return Ranked(clip(back, width, height).astype(np.float32), scores)
