"""Selective search (Uijlings et al., IJCV 2013): image -> class-agnostic boxes, best first.

In: image [H, W, 3] uint8 RGB at its own size.  Out: boxes [N, 4] float32 px, scores [N] float32.
Each threshold k in each colour space gives one segmentation, each set of similarities one hierarchy over it. The boxes
of all hierarchies are ranked; narrow ones and duplicates are dropped. Fast mode is R-CNN's. GoogLeNet (§8) made
superpixels "2x" larger; the paper says no more. We double both k and the minimum size, because only that halves the
number of boxes.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from proposals.selective.colour import COLOUR_SPACES, to_rgb
from proposals.selective.features import Superpixels, describe, texture_bins
from proposals.selective.grouping import group
from proposals.selective.segmentation import Graph, build_graph, merge_nodes, smooth, touching
from proposals.settings import MODES, Mode, ProposalConfig, check_search

SIGMA = 0.8


class Ranked(NamedTuple):
    """Boxes [N, 4] float32 (px, far edge exclusive) and scores [N] float32 in (0, 1], best first."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]


def selective_search(
    image: NDArray[Any],
    *,
    mode: str = "fast",
    superpixel_scale: float = 1.0,
    min_width: int = 20,
    max_boxes: int = 0,
    seed: int = 0,
    threads: int = 1,
) -> Ranked:
    """Propose boxes by selective search; the result depends on the seed and not on the number of threads.

    Args:
        image: [H, W, 3] uint8 RGB, or another array that proposals.selective.colour.to_rgb accepts.
        mode: "fast" (R-CNN's), "quality" or "single".
        superpixel_scale: Factor for k and the minimum superpixel size; 1 is R-CNN's, 2 is GoogLeNet's (§8).
        min_width: Boxes narrower or lower than this are dropped, px.
        max_boxes: Most boxes to return, the best ones; 0 returns all.
        seed: Seed of the random ranking.
        threads: Threads over which colour spaces, segmentations and hierarchies are spread.

    Returns:
        Boxes and scores, best first. A score is 1 / (1 + priority). The priority of a box is a random number in [0, 1)
        times the rank of its merge, counted from the last one, so that large regions tend to come first.

    Raises:
        ValueError: `image` is not accepted by to_rgb, or a setting is out of its range.

    >>> picture = np.zeros((60, 80, 3), np.uint8)
    >>> selective_search(picture).boxes
    array([[ 0.,  0., 80., 60.]], dtype=float32)
    """
    check_search(mode, superpixel_scale)
    for name, value, least in (("max_boxes", max_boxes, 0), ("seed", seed, 0), ("threads", threads, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")
    merges = search(to_rgb(image), MODES[mode], superpixel_scale, threads)
    factors = np.random.default_rng(seed).random(len(merges.boxes))
    return rank(merges.boxes, (merges.last + 1 - merges.steps) * factors, min_width=min_width, max_boxes=max_boxes)


def configured_search(image: NDArray[Any], config: ProposalConfig, threads: int = 1) -> Ranked:
    """Propose boxes by selective search with a config's settings, at the image's own size."""
    return selective_search(
        image,
        mode=config.mode,
        superpixel_scale=config.superpixel_scale,
        min_width=config.min_width,
        max_boxes=config.max_boxes,
        seed=config.seed,
        threads=threads,
    )


class Merges(NamedTuple):
    """The boxes of all hierarchies.

    Attributes:
        boxes: [n, 4] int32.
        steps: [n] int64, number of the merge that made the box; 0 is a superpixel.
        last: [n] int64, number of the last merge of the box's hierarchy.
    """

    boxes: NDArray[np.int32]
    steps: NDArray[np.int64]
    last: NDArray[np.int64]


class Spectrum(NamedTuple):
    """The data that all thresholds k share in one colour space.

    Attributes:
        space: Name of the colour space.
        image: [H, W, C] uint8, the image in it.
        graph: Its graph, for all thresholds.
        bins: [4, H, W, C] uint8, its texture.
        ks: Threshold and smallest size of each segmentation.
    """

    space: str
    image: NDArray[np.uint8]
    graph: Graph
    bins: NDArray[np.uint8]
    ks: list[tuple[float, int]]


def spectrum(image: NDArray[np.uint8], mode: Mode, scale: float, name: str) -> Spectrum:
    """Convert an image [H, W, 3] to a colour space, and prepare its segmentations there."""
    space = COLOUR_SPACES[name]
    converted = space.convert(image)
    ks = [(k * scale / math.sqrt(space.copies), round((mode.min_size or k) * scale)) for k in mode.ks]
    graph = build_graph(smooth(converted, SIGMA), min(ks)[0], mode.neighbours)
    return Spectrum(name, converted, graph, texture_bins(converted), ks)


def divide(spectrum: Spectrum, k: float, min_size: int) -> tuple[NDArray[np.int32], Superpixels]:
    """Segment an image; returns the superpixel of each pixel [H, W], 0..n-1, and their features."""
    nodes = merge_nodes(spectrum.graph, k, min_size)
    labels: NDArray[np.int32] = nodes[spectrum.graph.nodes]
    return labels, describe(spectrum.image, labels, spectrum.bins, touching(spectrum.graph, nodes))


def search(image: NDArray[np.uint8], mode: Mode, scale: float, threads: int) -> Merges:
    """Find all boxes of a mode: for each segmentation its superpixels, then the merges of each hierarchy.

    Colour spaces are processed a few at a time, as many as there are threads, because their graphs take the memory.
    """
    height, width, _ = image.shape

    def superpixels_of(part: Spectrum, k: float, min_size: int) -> Superpixels:
        return divide(part, k, min_size)[1]

    def merge(superpixels: Superpixels, similarities: str) -> NDArray[np.int32]:
        return group(superpixels, similarities, height * width)

    boxes, steps, last = [], [], []
    run = _workers(threads, os.getpid()).map if threads > 1 else map
    for first in range(0, len(mode.colour_spaces), threads):
        spectra = list(run(partial(spectrum, image, mode, scale), mode.colour_spaces[first : first + threads]))
        parts = [(part, *sizes) for part in spectra for sizes in part.ks]
        segmentations = list(run(superpixels_of, *zip(*parts, strict=True)))
        pairs = [(superpixels, letters) for superpixels in segmentations for letters in mode.similarities]
        merged = run(merge, *zip(*pairs, strict=True))
        for superpixels in segmentations:
            count = len(superpixels.sizes)
            hierarchies = list(islice(merged, len(mode.similarities)))
            boxes += [superpixels.boxes, *hierarchies]
            steps += [np.zeros(count, np.int64), *(np.arange(1, len(part) + 1) for part in hierarchies)]
            last += [np.full(count, count - 1), *(np.full(len(part), len(part)) for part in hierarchies)]
    return Merges(np.concatenate(boxes), np.concatenate(steps), np.concatenate(last))


@cache
def _workers(count: int, process: int) -> ThreadPoolExecutor:
    """Return this process's thread pool, made once; a search on one thread has none and uses the caller's own.

    The pool outlives the search: a thread that ends holds a lock of OpenCV's for a moment, and a process forked in that
    moment never gets it.
    """
    return ThreadPoolExecutor(count, thread_name_prefix="selective search")


def rank(boxes: NDArray[np.int32], priorities: NDArray[np.float64], *, min_width: int, max_boxes: int) -> Ranked:
    """Order boxes by priority, lowest first, then drop narrow boxes and all but the first of equal ones.

    Args:
        boxes: [n, 4] int32 px.
        priorities: [n]; the score of a box is 1 / (1 + priority).
        min_width: Boxes narrower or lower than this are dropped, px.
        max_boxes: Most boxes to return; 0 returns all.
    """
    order = np.argsort(priorities, kind="stable")
    boxes, priorities = boxes[order], priorities[order]
    wide = ((boxes[:, 2] - boxes[:, 0]) >= min_width) & ((boxes[:, 3] - boxes[:, 1]) >= min_width)
    boxes, priorities = boxes[wide], priorities[wide]
    x1, y1, x2, y2 = boxes.T.astype(np.int64)
    width, height = (x2.max(initial=0) + 1), (y2.max(initial=0) + 1)
    # One number a box: np.unique with axis=0 sorts records, slowly.
    _, first = np.unique(((x1 * width + x2) * height + y1) * height + y2, return_index=True)
    first.sort()
    keep = first[: max_boxes or None]
    return Ranked(boxes[keep].astype(np.float32), (1 / (1 + priorities[keep])).astype(np.float32))
