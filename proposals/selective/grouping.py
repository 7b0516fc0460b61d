"""Greedy hierarchical grouping: the two most similar neighbours merge until one region is left (IJCV 2013, alg. 1).

In: the superpixels of one segmentation, the similarities to use.  Out: the boxes of the n - 1 merged regions, in order.
"""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proposals.compiling import compiled
from proposals.selective.features import Superpixels

SIMILARITIES = "CTSF"
"""Colour, Texture, Size, Fill; a hierarchy uses the mean of some of them."""


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
    if not similarities or not set(similarities) <= set(SIMILARITIES):
        raise ValueError(f"similarities must be some of {SIMILARITIES!r}, not {similarities!r}")
    uses = np.array([letter in similarities for letter in SIMILARITIES])
    return _group(*superpixels, uses, image_area)


@compiled(fastmath={"reassoc", "nsz"})
def _shared(first: Any, second: Any) -> Any:
    """Compute a histogram intersection; reassociation lets the sum run in vector registers."""
    total = np.float32(0)
    for index in range(len(first)):
        total += min(first[index], second[index])
    return total


@compiled()
def similarity(a: int, b: int, sizes: Any, boxes: Any, colour: Any, texture: Any, uses: Any, image_area: int) -> float:
    """Return the mean of the similarities in use, in [0, 1] (IJCV 2013, §3.2.2). uses: [4] bool for C, T, S, F."""
    total = 0.0
    if uses[0]:
        total += _shared(colour[a], colour[b])
    if uses[1]:
        total += _shared(texture[a], texture[b])
    both = sizes[a] + sizes[b]
    if uses[2]:
        total += 1 - both / image_area
    if uses[3]:
        width = max(boxes[a, 2], boxes[b, 2]) - min(boxes[a, 0], boxes[b, 0])
        height = max(boxes[a, 3], boxes[b, 3]) - min(boxes[a, 1], boxes[b, 1])
        total += 1 - (np.int64(width) * height - both) / image_area
    return float(total / uses.sum())


@compiled()
def _current(successor: Any, region: int) -> int:
    """Return the region that contains a region by now."""
    while successor[region] != region:
        successor[region] = successor[successor[region]]
        region = successor[region]
    return region


@compiled()
def _group(
    sizes0: Any, boxes0: Any, colour0: Any, texture0: Any, pairs: Any, uses: Any, image_area: int
) -> NDArray[np.int32]:
    count = len(sizes0)
    total = 2 * count - 1
    sizes = np.empty(total, np.int64)
    boxes = np.empty((total, 4), np.int32)
    colour = np.empty((total, colour0.shape[1]), np.float32)
    texture = np.empty((total, texture0.shape[1]), np.float32)
    sizes[:count], boxes[:count], colour[:count], texture[:count] = sizes0, boxes0, colour0, texture0

    # Neighbours of region r: pool[start[r] : start[r] + degree[r]]; _current resolves those that have merged since.
    start = np.zeros(total, np.int64)
    degree = np.zeros(total, np.int64)
    for pair in pairs:
        degree[pair[0]] += 1
        degree[pair[1]] += 1
    start[1:count] = np.cumsum(degree[: count - 1])
    pool = np.empty(4 * len(pairs), np.int32)
    filled = start.copy()
    for pair in pairs:
        pool[filled[pair[0]]] = pair[1]
        filled[pair[0]] += 1
        pool[filled[pair[1]]] = pair[0]
        filled[pair[1]] += 1
    used = 2 * len(pairs)

    # The most similar pair is on top, the earliest of equal ones; pairs of regions that have merged since are skipped.
    heap = []
    for number, (a, b) in enumerate(pairs.astype(np.int64)):
        heap.append((-similarity(a, b, sizes, boxes, colour, texture, uses, image_area), number, a, b))
    heapq.heapify(heap)
    found = len(heap)

    successor = np.arange(total)
    seen = np.full(total, -1, np.int32)
    new = count
    while heap:
        _, _, a, b = heapq.heappop(heap)
        if successor[a] != a or successor[b] != b:
            continue
        sizes[new] = sizes[a] + sizes[b]
        share_a = np.float32(sizes[a] / sizes[new])
        share_b = np.float32(sizes[b] / sizes[new])
        colour[new] = share_a * colour[a] + share_b * colour[b]
        texture[new] = share_a * texture[a] + share_b * texture[b]
        boxes[new, 0] = min(boxes[a, 0], boxes[b, 0])
        boxes[new, 1] = min(boxes[a, 1], boxes[b, 1])
        boxes[new, 2] = max(boxes[a, 2], boxes[b, 2])
        boxes[new, 3] = max(boxes[a, 3], boxes[b, 3])
        successor[a] = successor[b] = new

        needed = used + degree[a] + degree[b]
        if needed > len(pool):
            pool = np.concatenate((pool, np.empty(needed, np.int32)))
        start[new] = used
        seen[new] = new
        for part in (a, b):
            for position in range(start[part], start[part] + degree[part]):
                neighbour = _current(successor, pool[position])
                if seen[neighbour] == new:
                    continue
                seen[neighbour] = new
                pool[used] = neighbour
                used += 1
                key = -similarity(new, neighbour, sizes, boxes, colour, texture, uses, image_area)
                heapq.heappush(heap, (key, found, np.int64(neighbour), new))
                found += 1
        degree[new] = used - start[new]
        new += 1
    return boxes[count:new].copy()
