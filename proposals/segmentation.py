"""Over-segmentation into superpixels (Felzenszwalb and Huttenlocher, IJCV 2004), compiled.

In: image [H, W, 3] uint8 in any colour space.  Out: labels [H, W] int32, 0..n-1 in raster order of first appearance.
Selective search starts from these; the paper's "superpixel size" (§8) is the threshold k and the minimum size together.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

Labels = NDArray[np.int32]


def segment(image: NDArray[np.uint8], k: float, min_size: int, sigma: float = 0.8) -> Labels:
    """Superpixels of an image.

    Args:
        image: [H, W, 3] uint8.
        k: threshold of the merging rule; larger gives larger superpixels.
        min_size: smallest superpixel, px².
        sigma: standard deviation of the Gaussian blur that comes first, px.

    Returns:
        [H, W] int32 labels 0..n-1.
    """
    height, width, _ = image.shape
    first, second, weights = sorted_edges(smooth(image, sigma))
    labels: Labels = merge_edges(first, second, weights, height, width, k, min_size)
    return labels


def smooth(image: NDArray[np.uint8], sigma: float) -> NDArray[np.float32]:
    """Blur with the kernel of the authors' code: cut at ceil(4 sigma), border pixels repeated; -> [H, W, 3] float32."""
    size = 2 * int(np.ceil(4 * sigma)) + 1
    blurred = cv2.GaussianBlur(image.astype(np.float32), (size, size), sigma, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(blurred, dtype=np.float32)


@njit(cache=True, nogil=True)
def sorted_edges(image: Any) -> Any:
    """Edges of the 8-neighbourhood graph, lightest first (stable, so the result is the same everywhere).

    [H, W, 3] float32 -> (first [E] int32, second [E] int32, weights [E] float32); pixels are numbered in raster order
    and a weight is the Euclidean distance of two colours.
    """
    height, width, _ = image.shape
    count = 4 * height * width - 3 * height - 3 * width + 2
    first = np.empty(count, np.int32)
    second = np.empty(count, np.int32)
    weights = np.empty(count, np.float32)
    edge = 0
    for y in range(height):
        for x in range(width):
            here = y * width + x
            for direction in range(4):  # right, down, down right, up right
                to_y = y + (1 if direction in (1, 2) else (-1 if direction == 3 else 0))
                to_x = x + (0 if direction == 1 else 1)
                if to_y < 0 or to_y >= height or to_x >= width:
                    continue
                square = np.float32(0)
                for channel in range(3):
                    difference = image[y, x, channel] - image[to_y, to_x, channel]
                    square += difference * difference
                first[edge] = here
                second[edge] = to_y * width + to_x
                weights[edge] = np.sqrt(square)
                edge += 1
    order = _radix_argsort(weights)
    return first[order], second[order], weights[order]


@njit(cache=True, nogil=True)
def _radix_argsort(values: Any) -> Any:
    """Stable ascending argsort of non-negative float32: their bits, read as integers, have the same order."""
    bits = 11
    buckets = 1 << bits
    keys = values.view(np.uint32)
    order = np.arange(len(values)).astype(np.int32)
    other = np.empty_like(order)
    for shift in (0, bits, 2 * bits):
        starts = np.zeros(buckets + 1, np.int64)
        for key in keys:
            starts[((key >> shift) & (buckets - 1)) + 1] += 1
        starts = np.cumsum(starts)
        for item in order:
            bucket = (keys[item] >> shift) & (buckets - 1)
            other[starts[bucket]] = item
            starts[bucket] += 1
        order, other = other, order
    return order


@njit(cache=True, nogil=True)
def _find(parent: Any, pixel: int) -> int:
    while parent[pixel] != pixel:
        parent[pixel] = parent[parent[pixel]]
        pixel = parent[pixel]
    return pixel


@njit(cache=True, nogil=True)
def merge_edges(first: Any, second: Any, weights: Any, height: int, width: int, k: float, min_size: int) -> Any:
    """Segment a graph whose edges are sorted; the edges serve every k and min_size, so they are made once per image.

    Two components join where the lightest edge between them weighs at most min(Int(a) + k/|a|, Int(b) + k/|b|); then,
    in the same order, any component below min_size joins its neighbour. -> labels [height, width] int32.
    """
    count = height * width
    parent = np.arange(count).astype(np.int32)
    size = np.ones(count, np.int32)
    limit = np.full(count, np.float32(k))  # Int(component) + k / |component|
    for edge in range(len(weights)):
        a, b = _find(parent, first[edge]), _find(parent, second[edge])
        if a != b and weights[edge] <= limit[a] and weights[edge] <= limit[b]:
            if size[a] < size[b]:
                a, b = b, a
            parent[b] = a
            size[a] += size[b]
            limit[a] = weights[edge] + np.float32(k) / size[a]
    for edge in range(len(weights)):
        a, b = _find(parent, first[edge]), _find(parent, second[edge])
        if a != b and (size[a] < min_size or size[b] < min_size):
            if size[a] < size[b]:
                a, b = b, a
            parent[b] = a
            size[a] += size[b]
    labels = np.full(count, -1, np.int32)
    number = np.full(count, -1, np.int32)
    found = 0
    for pixel in range(count):
        root = _find(parent, pixel)
        if number[root] < 0:
            number[root] = found
            found += 1
        labels[pixel] = number[root]
    return labels.reshape(height, width)
