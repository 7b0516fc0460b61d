"""The package's one entry for a detector: image -> ranked boxes in the image's own pixels.

Selective search runs on the image resized to width 500, as R-CNN ran it on ILSVRC, so that superpixels mean the same on
every photograph; the boxes are mapped back. GoogLeNet (§8) doubles the superpixel size, the default here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from proposals.boxes import clip, scale
from proposals.colour import to_rgb
from proposals.search import selective_search
from proposals.settings import ProposalConfig

SOURCES = ("selective search",)
"""Where a box can come from; Proposals.sources counts from here."""

TALLEST = 8
"""Ours: the resized image is at most this many times config.width high; a column of pixels would fill the memory."""


class Proposals(NamedTuple):
    """N boxes of an image, best first.

    Attributes:
        boxes: [N, 4] float32 px, far edge exclusive.
        scores: [N] float32 in (0, 1].
        sources: [N] uint8, positions in SOURCES.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    sources: NDArray[np.uint8]


def propose(image: NDArray[Any], config: ProposalConfig, *, threads: int = 1) -> Proposals:
    """Boxes where objects might be, best first.

    Args:
        image: [H, W, 3] uint8 RGB; other arrays as proposals.colour.to_rgb takes them.
        config: the settings.
        threads: the result is the same for any number.

    Returns:
        boxes inside the image, in its own pixels; none for a tiny image.

    Raises:
        ValueError: the image is none that to_rgb takes.
        ImportError: the config's method needs what is not installed.
    """
    rgb = to_rgb(image)
    height, width, _ = rgb.shape
    factor = min(config.width / width, TALLEST * config.width / height) if config.width else 1.0
    if factor != 1:
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        rgb = np.asarray(cv2.resize(rgb, size, interpolation=method), dtype=np.uint8)
    boxes, scores = selective_search(
        rgb,
        method=config.method,
        mode=config.mode,
        superpixel_scale=config.superpixel_scale,
        ranking=config.ranking,
        min_width=config.min_width,
        max_boxes=config.max_boxes or None,
        seed=config.seed,
        threads=threads,
    )
    back = scale(boxes, width / rgb.shape[1], height / rgb.shape[0])
    return Proposals(clip(back, width, height).astype(np.float32), scores, np.zeros(len(boxes), np.uint8))
