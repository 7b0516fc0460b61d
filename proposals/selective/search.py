"""Selective search (Uijlings et al., IJCV 2013): image -> class-agnostic boxes, best first.

In: image [H, W, 3] uint8 RGB at its own size.  Out: boxes [N, 4] float32 px, scores [N] float32.
Every threshold k and colour space gives one segmentation, every set of similarities one hierarchy over it; the boxes of
all hierarchies are ranked, narrow ones and duplicates dropped. Fast mode is what R-CNN used. GoogLeNet (§8) made
superpixels "2x" larger, which we read as both k and minimum size doubled, because only that halves the number of boxes;
the paper says no more.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from proposals.selective.baselines import opencv_boxes, package_boxes
from proposals.selective.colour import COLOUR_SPACES, to_rgb
from proposals.selective.features import Superpixels, describe, texture_bins
from proposals.selective.grouping import group
from proposals.selective.segmentation import Graph, build_graph, merge_nodes, smooth, touching
from proposals.settings import MODES, Mode, check_search

SIGMA = 0.8


class Ranked(NamedTuple):
    """Boxes [N, 4] float32 (px, far edge exclusive) and scores [N] float32 in (0, 1], best first."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]


def selective_search(
    image: NDArray[Any],
    *,
    method: str = "native",
    mode: str = "fast",
    superpixel_scale: float = 1.0,
    ranking: str = "large-first",
    min_width: int = 20,
    max_boxes: int | None = None,
    seed: int = 0,
    threads: int = 1,
) -> Ranked:
    """Propose boxes; deterministic by seed, whatever the number of threads.

    Args:
        image: [H, W, 3] uint8 RGB; other arrays as proposals.selective.colour.to_rgb takes them.
        method: "native", or to compare with: "opencv" (where cv2.ximgproc exists), "selectivesearch" (PyPI's package).
        mode: "fast" (R-CNN's), "quality", "single", or OpenCV's settings as "opencv-fast" and "opencv-quality". Method
            opencv has the first three in its own meaning, selectivesearch has one setting, under the name of fast.
        superpixel_scale: multiplies k and the minimum superpixel size; 1 is R-CNN's, 2 is GoogLeNet's (§8).
        ranking: "large-first", the authors': the later a merge the sooner; or "small-first", the other way round.
            Both times a random number. The other methods have an order of their own.
        min_width: boxes narrower or lower than this are dropped, px.
        max_boxes: keep this many of the best; None keeps all. A prefix of the longer list.
        seed: of the random ranking.
        threads: colour spaces, segmentations and hierarchies run side by side on up to this many (native only).

    Returns:
        boxes and scores, best first. A score is 1 / (1 + priority), priority being the place of the box's merge,
        counted from the last (or first) one, times the random number; with the other methods the place in their list.

    Raises:
        ValueError: the image is none that to_rgb takes, or a setting is out of its range.
        ImportError: the method needs what is not installed.

    >>> picture = np.zeros((60, 80, 3), np.uint8)
    >>> selective_search(picture).boxes
    array([[ 0.,  0., 80., 60.]], dtype=float32)
    """
    check_search(method, mode, superpixel_scale, ranking)
    if max_boxes is not None and max_boxes < 1:
        raise ValueError(f"max_boxes must be at least 1, not {max_boxes}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, but is {seed}")
    if threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")
    rgb = to_rgb(image)

    if method == "opencv":
        boxes = opencv_boxes(rgb, mode, superpixel_scale, seed)
        priorities = np.arange(len(boxes), dtype=np.float64)
    elif method == "selectivesearch":
        boxes = package_boxes(rgb, superpixel_scale)
        priorities = np.arange(len(boxes), dtype=np.float64)
    else:
        hierarchies = _search(rgb, MODES[mode], superpixel_scale, threads)
        boxes = np.concatenate([part.boxes for part in hierarchies])
        steps = np.concatenate([part.steps for part in hierarchies])
        last = np.repeat([part.last for part in hierarchies], [len(part.boxes) for part in hierarchies])
        places = last + 1 - steps if ranking == "large-first" else steps + 1
        priorities = places * np.random.default_rng(seed).random(len(places))
    return _ranked(boxes, priorities, min_width=min_width, max_boxes=max_boxes)


class _Boxes(NamedTuple):
    """Boxes [n, 4] int32, the merge [n] that made each (0: none, it is a superpixel) and the number of the last one."""

    boxes: NDArray[np.int32]
    steps: NDArray[np.int64]
    last: int


class _Spectrum(NamedTuple):
    """What all k share in a colour space."""

    image: NDArray[np.uint8]
    graph: Graph
    bins: NDArray[np.uint8]
    ks: list[tuple[float, int]]  # threshold, minimum size


def _search(image: NDArray[np.uint8], mode: Mode, scale: float, threads: int) -> list[_Boxes]:
    """All boxes of a mode: for each segmentation its superpixels, then each hierarchy's merges.

    Colour spaces are taken a few at a time, as many as there are threads: their graphs are what needs memory.
    """
    height, width, _ = image.shape

    def prepare(name: str) -> _Spectrum:
        space = COLOUR_SPACES[name]
        converted = space.convert(image)
        ks = [(k * scale / math.sqrt(space.copies), round((mode.min_size or k) * scale)) for k in mode.ks]
        graph = build_graph(smooth(converted, SIGMA), min(ks)[0], mode.neighbours)
        return _Spectrum(converted, graph, texture_bins(converted), ks)

    def divide(spectrum: _Spectrum, k: float, min_size: int) -> Superpixels:
        nodes = merge_nodes(spectrum.graph, k, min_size)
        pairs = touching(spectrum.graph, nodes)
        return describe(spectrum.image, nodes[spectrum.graph.nodes], spectrum.bins, pairs)

    def merge(superpixels: Superpixels, similarities: str) -> _Boxes:
        boxes = group(superpixels, similarities, height * width)
        return _Boxes(boxes, np.arange(1, len(boxes) + 1), len(boxes))

    result = []
    run = _workers(threads, os.getpid()).map if threads > 1 else map
    for first in range(0, len(mode.colour_spaces), threads):
        spectra = list(run(prepare, mode.colour_spaces[first : first + threads]))
        parts = [(spectrum, *sizes) for spectrum in spectra for sizes in spectrum.ks]
        segmentations = list(run(divide, *zip(*parts, strict=True)))
        pairs = [(superpixels, letters) for superpixels in segmentations for letters in mode.similarities]
        merged = run(merge, *zip(*pairs, strict=True))
        for superpixels in segmentations:
            count = len(superpixels.sizes)
            result.append(_Boxes(superpixels.boxes, np.zeros(count, np.int64), count - 1))
            result.extend(islice(merged, len(mode.similarities)))
    return result


@cache
def _workers(count: int, process: int) -> ThreadPoolExecutor:
    """Threads of this process, made once; of one thread there are none, since the caller's own serves.

    They outlive the search: a thread that ends holds a lock of OpenCV's for a moment, and a process that is forked in
    that moment never gets it.
    """
    return ThreadPoolExecutor(count, thread_name_prefix="selective search")


def _ranked(
    boxes: NDArray[np.int32], priorities: NDArray[np.float64], *, min_width: int, max_boxes: int | None
) -> Ranked:
    """Order by priority, lowest first, then drop narrow boxes and all but the first of equal ones."""
    order = np.argsort(priorities, kind="stable")
    boxes, priorities = boxes[order], priorities[order]
    wide = ((boxes[:, 2] - boxes[:, 0]) >= min_width) & ((boxes[:, 3] - boxes[:, 1]) >= min_width)
    boxes, priorities = boxes[wide], priorities[wide]
    x1, y1, x2, y2 = boxes.T.astype(np.int64)
    width, height = (x2.max(initial=0) + 1), (y2.max(initial=0) + 1)
    _, first = np.unique(
        ((x1 * width + x2) * height + y1) * height + y2, return_index=True
    )  # axis=0 sorts records, slowly
    first.sort()
    keep = first[:max_boxes]
    return Ranked(boxes[keep].astype(np.float32), (1 / (1 + priorities[keep])).astype(np.float32))
