"""Selective search (Uijlings et al., IJCV 2013): image -> class-agnostic boxes, best first.

In: image [H, W, 3] uint8 RGB at its own size.  Out: boxes [N, 4] float32 px, scores [N] float32.
Every threshold k and colour space gives one segmentation, every set of similarities one hierarchy over it; the boxes of
all hierarchies are ranked, narrow ones and duplicates dropped. Fast mode is what R-CNN used: k 50 and 100 with the
minimum size equal to k, HSV and Lab, two sets of similarities. GoogLeNet (§8) made superpixels "2x" larger, which we
read as both k and minimum size doubled, because only that halves the number of boxes; the paper says no more.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from proposals.colour import COLOUR_SPACES
from proposals.features import describe, texture_bins
from proposals.grouping import group
from proposals.segmentation import merge_edges, smooth, sorted_edges

SIGMA = 0.8
FAST_KS = (50, 100)
FAST_COLOUR_SPACES = ("hsv", "lab")
FAST_SIMILARITIES = ("CTSF", "TSF")


class Ranked(NamedTuple):
    """Boxes [N, 4] float32 (px, far edge exclusive) and scores [N] float32 in (0, 1], best first."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]


def selective_search(
    image: NDArray[np.uint8],
    *,
    superpixel_scale: float = 1.0,
    min_width: int = 20,
    max_boxes: int | None = None,
    seed: int = 0,
    threads: int = 1,
) -> Ranked:
    """Propose boxes in fast mode; deterministic by seed, whatever the number of threads.

    Args:
        image: [H, W, 3] uint8 RGB.
        superpixel_scale: multiplies k and the minimum superpixel size; 1 is R-CNN's, 2 is GoogLeNet's (§8).
        min_width: boxes narrower or lower than this are dropped, px.
        max_boxes: keep this many of the best; None keeps all. A prefix of the longer list.
        seed: of the random ranking.
        threads: colour spaces run side by side on up to this many.

    Returns:
        boxes and scores, best first. A score is 1 / (1 + priority), the authors' priority being the merge's place
        counted from the last one, times a random number: large regions tend to come first.

    Raises:
        ValueError: image is not [H, W, 3] uint8 with at least one pixel, or a setting is out of its range.

    >>> picture = np.zeros((60, 80, 3), np.uint8)
    >>> selective_search(picture).boxes
    array([[ 0.,  0., 80., 60.]], dtype=float32)
    """
    check_image(image)
    if not 0 < superpixel_scale < math.inf:
        raise ValueError(f"superpixel_scale must be above 0 and finite, not {superpixel_scale}")
    if max_boxes is not None and max_boxes < 1:
        raise ValueError(f"max_boxes must be at least 1, not {max_boxes}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, but is {seed}")

    image = np.ascontiguousarray(image)

    def search(colour_space: str) -> list[tuple[NDArray[np.int32], NDArray[np.float64]]]:
        return _search_colour_space(image, colour_space, superpixel_scale)

    if threads > 1:
        with ThreadPoolExecutor(min(threads, len(FAST_COLOUR_SPACES))) as executor:
            found = list(executor.map(search, FAST_COLOUR_SPACES))
    else:
        found = [search(colour_space) for colour_space in FAST_COLOUR_SPACES]
    boxes = np.concatenate([part for parts in found for part, _ in parts])
    priorities = np.concatenate([part for parts in found for _, part in parts])
    return _rank(boxes, priorities, min_width=min_width, max_boxes=max_boxes, seed=seed)


def check_image(image: NDArray[np.uint8]) -> None:
    """Raise ValueError unless image is [H, W, 3] uint8 with at least one pixel."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"image must be [H, W, 3] uint8 with pixels, not {image.dtype} {list(image.shape)}")


def _search_colour_space(
    image: NDArray[np.uint8], colour_space: str, superpixel_scale: float
) -> list[tuple[NDArray[np.int32], NDArray[np.float64]]]:
    """Boxes and priorities of each hierarchy; the initial regions count once per segmentation."""
    height, width, _ = image.shape
    converted = COLOUR_SPACES[colour_space](image)
    first, second, weights = sorted_edges(smooth(converted, SIGMA))
    bins = texture_bins(converted)
    result = []
    for base in FAST_KS:
        k = base * superpixel_scale
        labels = merge_edges(first, second, weights, height, width, k, round(k))
        superpixels = describe(converted, labels, bins)
        count = len(superpixels.sizes)
        result.append((superpixels.boxes, np.full(count, float(count))))
        for similarities in FAST_SIMILARITIES:
            merged = group(superpixels, similarities, height * width)
            result.append((merged, np.arange(len(merged), 0, -1, dtype=np.float64)))
    return result


def _rank(
    boxes: NDArray[np.int32], priorities: NDArray[np.float64], *, min_width: int, max_boxes: int | None, seed: int
) -> Ranked:
    """Order by priority times chance, then drop narrow boxes and all but the first of equal ones."""
    rank = priorities * np.random.default_rng(seed).random(len(priorities))
    order = np.argsort(rank, kind="stable")
    boxes, rank = boxes[order], rank[order]
    wide = ((boxes[:, 2] - boxes[:, 0]) >= min_width) & ((boxes[:, 3] - boxes[:, 1]) >= min_width)
    boxes, rank = boxes[wide], rank[wide]
    _, first = np.unique(boxes, axis=0, return_index=True)
    first.sort()
    keep = first[:max_boxes]
    return Ranked(boxes[keep].astype(np.float32), (1 / (1 + rank[keep])).astype(np.float32))
