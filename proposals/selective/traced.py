"""Selective search with all that it did: superpixels, merges with their similarities, and the rank of each box.

In: image [H, W, 3] uint8 RGB.  Out: SearchTrace, whose ranked boxes are those of `selective_search`. It takes a few
times as long, and is for looking at.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from proposals.selective.colour import to_rgb
from proposals.selective.features import Superpixels
from proposals.selective.grouping import Tree, merge_tree
from proposals.selective.search import Ranked, configured_search, divide, spectrum
from proposals.settings import MODES, ProposalConfig


class Segmentation(NamedTuple):
    """The n superpixels of one threshold in one colour space.

    Attributes:
        space: Name of the colour space.
        k: Threshold of the segmentation.
        min_size: Area of the smallest superpixel, px².
        labels: [H, W] int32, the superpixel of each pixel, 0..n-1.
        boxes: [n, 4] int32 x1 y1 x2 y2, px.
    """

    space: str
    k: float
    min_size: int
    labels: NDArray[np.int32]
    boxes: NDArray[np.int32]


class Hierarchy(NamedTuple):
    """The merges of a segmentation by some similarities.

    Attributes:
        segmentation: Position of its segmentation.
        similarities: Letters of "CTSF" whose mean decides.
        tree: The merges.
    """

    segmentation: int
    similarities: str
    tree: Tree


class SearchTrace(NamedTuple):
    """A selective search, in the pixels of the image that it saw.

    Attributes:
        segmentations: Colour space by colour space.
        hierarchies: Segmentation by segmentation.
        ranked: The boxes that it proposes, best first.
    """

    segmentations: tuple[Segmentation, ...]
    hierarchies: tuple[Hierarchy, ...]
    ranked: Ranked

    def ranks(self, boxes: NDArray[np.int32]) -> NDArray[np.int64]:
        """Find the place of boxes [m, 4] among the ranked ones, [m] from 0; -1 for a box that is too narrow or cut."""
        place = {tuple(box): index for index, box in enumerate(self.ranked.boxes.astype(np.int64).tolist())}
        return np.array([place.get(tuple(box), -1) for box in boxes.tolist()], np.int64)


def segmentations(image: NDArray[Any], mode: str, superpixel_scale: float) -> tuple[Segmentation, ...]:
    """Segment an image as `selective_search` does, in each colour space and by each threshold."""
    rgb = to_rgb(image)
    return tuple(found for found, _ in _divided(rgb, mode, superpixel_scale))


def trace_search(image: NDArray[Any], config: ProposalConfig) -> SearchTrace:
    """Search an image, at its own size, and keep all that was done.

    Args:
        image: [H, W, 3] uint8 RGB, or another array that proposals.selective.colour.to_rgb accepts.
        config: Settings of the native search.
    """
    rgb = to_rgb(image)
    divided = _divided(rgb, config.mode, config.superpixel_scale)
    hierarchies = tuple(
        Hierarchy(index, letters, merge_tree(superpixels, letters, rgb.shape[0] * rgb.shape[1]))
        for index, (_, superpixels) in enumerate(divided)
        for letters in MODES[config.mode].similarities
    )
    ranked = configured_search(rgb, config)
    return SearchTrace(tuple(found for found, _ in divided), hierarchies, ranked)


def _divided(rgb: NDArray[np.uint8], mode: str, scale: float) -> list[tuple[Segmentation, Superpixels]]:
    found = []
    for name in MODES[mode].colour_spaces:
        shown = spectrum(rgb, MODES[mode], scale, name)
        for k, min_size in shown.ks:
            labels, superpixels = divide(shown, k, min_size)
            found.append((Segmentation(name, k, min_size, labels, superpixels.boxes), superpixels))
    return found
