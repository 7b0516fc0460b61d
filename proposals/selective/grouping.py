"""Greedy hierarchical grouping: the two most similar neighbours merge until one region is left (IJCV 2013, alg. 1).

In: the superpixels of one segmentation, the similarities to use.  Out: the boxes of the n - 1 merged regions, in order;
on request also which regions merged, and how similar they were.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from proposals.compiling import compiled
from proposals.selective.features import Superpixels

SIMILARITIES = "CTSF"
"""Colour, Texture, Size, Fill; a hierarchy uses the mean of some of them."""


class Tree(NamedTuple):
    """The m merges of a hierarchy. Regions 0..n-1 are its superpixels, and merge i makes region n + i.

    Attributes:
        parts: [m, 2] int32, the two regions that merge.
        boxes: [m, 4] int32 x1 y1 x2 y2 of the region that they make.
        similarities: [m, 4] float64 of the two, by colour, texture, size and fill, each in [0, 1].
    """

    parts: NDArray[np.int32]
    boxes: NDArray[np.int32]
    similarities: NDArray[np.float64]


def group(superpixels: Superpixels, similarities: str, image_area: int) -> NDArray[np.int32]:
    """Merge regions and return the boxes of the merged ones.

    Args:
        superpixels: The n regions to start from.
        similarities: Letters of "CTSF"; the similarity of two regions is the mean of the named ones, in [0, 1].
        image_area: Area of the image, px², the unit of size and fill.

    Returns:
        [m, 4] int32 x1 y1 x2 y2, first merge first; m = n - 1 where all regions connect, as those of an image do.

    Raises:
        ValueError: `similarities` is empty or has a letter that is not in CTSF.
    """
    return _grouped(superpixels, similarities, image_area)[1][len(superpixels.sizes) :].copy()


def merge_tree(superpixels: Superpixels, similarities: str, image_area: int) -> Tree:
    """Merge regions as `group` does, and return all that decided it."""
    sizes, boxes, colour, texture, parts = _grouped(superpixels, similarities, image_area)
    singly = np.eye(len(SIMILARITIES), dtype=np.bool_)
    measured = [
        [similarity(a, b, sizes, boxes, colour, texture, uses, image_area) for uses in singly]
        for a, b in parts.tolist()
    ]
    merged = boxes[len(superpixels.sizes) :].copy()
    return Tree(parts, merged, np.array(measured, np.float64).reshape(-1, len(SIMILARITIES)))


def _grouped(
    superpixels: Superpixels, similarities: str, image_area: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
    """Return sizes, boxes, colour and texture of the n superpixels and the m merged regions, and the parts [m, 2]."""
    if not similarities or not set(similarities) <= set(SIMILARITIES):
        raise ValueError(f"similarities must be some of {SIMILARITIES!r}, not {similarities!r}")
    uses = np.array([letter in similarities for letter in SIMILARITIES])
    pairs = superpixels.pairs
    count = len(superpixels.sizes)
    total = 2 * count - 1
    sizes, boxes, colour, texture = (_longer(array, total) for array in superpixels[:4])
    parts = np.empty((count - 1, 2), np.int32)
    degree = np.bincount(pairs.ravel(), minlength=total)
    start = np.cumsum(degree) - degree
    seen = np.full(total, -1, np.int32)
    room = 2 * len(pairs)  # for pairs that arise by merging
    while True:
        edges = _longer(pairs, len(pairs) + room)
        pool, heap = np.empty(2 * len(pairs) + room, np.int32), np.empty(len(edges), np.int32)
        arrays = start.copy(), degree.copy(), pool, edges, np.empty(len(edges)), heap, np.arange(total), seen.copy()
        end = _group(count, len(pairs), sizes, boxes, colour, texture, uses, image_area, parts, *arrays)
        if end >= 0:
            return sizes[:end], boxes[:end], colour[:end], texture[:end], parts[: end - count]
        room *= 2  # as after a centre that takes in one leaf after the other


def _longer(array: NDArray[Any], length: int) -> NDArray[Any]:
    """Copy an array to the beginning of one of that length."""
    result = np.empty((length, *array.shape[1:]), array.dtype)
    result[: len(array)] = array
    return result


@compiled(fastmath={"reassoc", "nsz"})
def _shared(histograms: Any, a: int, b: int) -> Any:
    """Compute the intersection of two histograms; reassociation lets the sum run in vector registers."""
    total = np.float32(0)
    for bin_ in range(histograms.shape[1]):
        one, other = histograms[a, bin_], histograms[b, bin_]
        total += other if other < one else one
    return total


@compiled(error_model="numpy")
def similarity(a: Any, b: Any, sizes: Any, boxes: Any, colour: Any, texture: Any, uses: Any, image_area: int) -> float:
    """Return the mean of the similarities in use, in [0, 1] (IJCV 2013, §3.2.2). uses: [4] bool for C, T, S, F."""
    total = 0.0
    used = 0
    if uses[0]:
        total += _shared(colour, a, b)
        used += 1
    if uses[1]:
        total += _shared(texture, a, b)
        used += 1
    both = sizes[a] + sizes[b]
    if uses[2]:
        total += 1 - both / image_area
        used += 1
    if uses[3]:
        width = max(boxes[a, 2], boxes[b, 2]) - min(boxes[a, 0], boxes[b, 0])
        height = max(boxes[a, 3], boxes[b, 3]) - min(boxes[a, 1], boxes[b, 1])
        total += 1 - (np.int64(width) * height - both) / image_area
        used += 1
    return total / used


@compiled()
def _current(successor: Any, region: Any) -> Any:
    """Return the region that contains a region by now."""
    while successor[region] != region:
        successor[region] = successor[successor[region]]
        region = successor[region]
    return region


@compiled()
def _comes_first(keys: Any, one: Any, other: Any) -> bool:
    """Whether a pair is the more similar one, of equally similar ones the earlier one; keys are minus similarities."""
    return bool(keys[one] < keys[other] or (keys[one] == keys[other] and one < other))


@compiled()
def _push(heap: Any, size: int, keys: Any, pair: int) -> None:
    """Add a pair to a heap of `size` pairs."""
    at = size
    while at > 0:
        above = (at - 1) >> 1
        if not _comes_first(keys, pair, np.int64(heap[above])):
            break
        heap[at] = heap[above]
        at = above
    heap[at] = pair


@compiled()
def _drop_top(heap: Any, size: int, keys: Any) -> None:
    """Remove the first pair of a heap that keeps `size` others."""
    last = np.int64(heap[size])
    at = 0
    while True:
        below = 2 * at + 1
        if below >= size:
            break
        if below + 1 < size and _comes_first(keys, np.int64(heap[below + 1]), np.int64(heap[below])):
            below += 1
        if not _comes_first(keys, np.int64(heap[below]), last):
            break
        heap[at] = heap[below]
        at = below
    heap[at] = last


@compiled()
def _group(
    count: int,
    pairs: int,
    sizes: Any,
    boxes: Any,
    colour: Any,
    texture: Any,
    uses: Any,
    image_area: int,
    parts: Any,
    start: Any,
    degree: Any,
    pool: Any,
    edges: Any,
    keys: Any,
    heap: Any,
    successor: Any,
    seen: Any,
) -> int:
    """Merge regions; returns the end of the regions, or -1 where the arrays are too short for all pairs.

    The first `count` regions are superpixels, the first `pairs` edges their pairs; merged regions and theirs follow.
    sizes, boxes, colour and texture are those of all regions, parts [n - 1, 2] the two that make each merged one. The
    neighbours of region r are pool[start[r] : start[r] + degree[r]]; `_current` resolves those that have merged since.
    edges [E, 2] are two regions, keys [E] minus their similarity, heap [E] numbers of edges, the next one on top; edges
    of regions that have merged since are skipped. successor begins as each region's own number and becomes that of the
    region that it merged into; seen begins as -1.
    """
    used = 2 * pairs
    for edge in range(pairs):
        for side in range(2):
            region = edges[edge, side]
            pool[start[region] + seen[region] + 1] = edges[edge, 1 - side]
            seen[region] += 1
        a, b = np.int64(edges[edge, 0]), np.int64(edges[edge, 1])
        keys[edge] = -similarity(a, b, sizes, boxes, colour, texture, uses, image_area)
        _push(heap, edge, keys, edge)
    found = waiting = pairs
    new = count
    while waiting > 0:
        a, b = np.int64(edges[heap[0], 0]), np.int64(edges[heap[0], 1])
        waiting -= 1
        _drop_top(heap, waiting, keys)
        if successor[a] != a or successor[b] != b:
            continue
        if found + degree[a] + degree[b] > len(edges):
            return -1
        sizes[new] = sizes[a] + sizes[b]
        share_a = np.float32(sizes[a] / sizes[new])
        share_b = np.float32(sizes[b] / sizes[new])
        for bin_ in range(colour.shape[1]):
            colour[new, bin_] = share_a * colour[a, bin_] + share_b * colour[b, bin_]
        for bin_ in range(texture.shape[1]):
            texture[new, bin_] = share_a * texture[a, bin_] + share_b * texture[b, bin_]
        boxes[new, 0] = min(boxes[a, 0], boxes[b, 0])
        boxes[new, 1] = min(boxes[a, 1], boxes[b, 1])
        boxes[new, 2] = max(boxes[a, 2], boxes[b, 2])
        boxes[new, 3] = max(boxes[a, 3], boxes[b, 3])
        parts[new - count, 0], parts[new - count, 1] = a, b
        successor[a] = successor[b] = new
        start[new] = used
        seen[new] = new
        for side in range(2):
            part = b if side else a
            for position in range(start[part], start[part] + degree[part]):
                neighbour = _current(successor, np.int64(pool[position]))
                if seen[neighbour] == new:
                    continue
                seen[neighbour] = new
                pool[used] = neighbour
                used += 1
                edges[found, 0], edges[found, 1] = neighbour, new
                keys[found] = -similarity(new, neighbour, sizes, boxes, colour, texture, uses, image_area)
                _push(heap, waiting, keys, found)
                waiting += 1
                found += 1
        degree[new] = used - start[new]
        new += 1
    return new
