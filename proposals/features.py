"""What selective search knows of a superpixel: colour and texture histograms, size, tight box, neighbours.

Colour: 25 bins a channel.  Texture: Gaussian derivatives (sigma 0.8) in 8 directions, 10 bins each, a channel.  Both
are L1-normalised over all channels, so that the features of a union are the size-weighted mean of its parts' (IJCV
2013, §3.3).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

COLOUR_BINS = 25
TEXTURE_BINS = 10
DIRECTIONS = 8
COLOUR_SIZE = 3 * COLOUR_BINS
TEXTURE_SIZE = 3 * DIRECTIONS * TEXTURE_BINS

# bin = round(v * 24) for v in [0, 1]: the first and last bins are half as wide, as in the authors' code.
_COLOUR_BIN = np.floor(np.arange(256) / 255 * (COLOUR_BINS - 1) + 0.5).astype(np.int32)
# bin = round(g * 9 / 0.43), 0.43 being this derivative's response to a full step; stronger ones stay in the last bin.
_TEXTURE_FACTOR = np.float32((TEXTURE_BINS - 1) / 0.43)


class Superpixels(NamedTuple):
    """n regions of one segmentation.

    Attributes:
        sizes: [n] int64, px².
        boxes: [n, 4] int32, x1 y1 x2 y2 with the far edge exclusive.
        colour: [n, 75] float32, each row sums to 1.
        texture: [n, 240] float32, each row sums to 1.
        pairs: [m, 2] int32, regions that touch (8-neighbourhood), smaller number first, sorted.
    """

    sizes: NDArray[np.int64]
    boxes: NDArray[np.int32]
    colour: NDArray[np.float32]
    texture: NDArray[np.float32]
    pairs: NDArray[np.int32]


def describe(image: NDArray[np.uint8], labels: NDArray[np.int32], bins: NDArray[np.uint8]) -> Superpixels:
    """Features of the superpixels of an image.

    Args:
        image: [H, W, 3] uint8, in the colour space of the segmentation.
        labels: [H, W] int32, 0..n-1.
        bins: [H, W, 24] uint8 from texture_bins(image).
    """
    count = int(labels.max()) + 1
    sizes, boxes, colour, texture = _accumulate(image, labels, bins, count, _COLOUR_BIN)
    return Superpixels(sizes, boxes, colour, texture, _touching(labels, count))


def texture_bins(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Texture bin of each pixel in each channel and direction; [H, W, 3] uint8 -> [H, W, 3 * 8] uint8, 0..9."""
    sigma, radius = 0.8, 4
    offsets = np.arange(-radius, radius + 1)
    gaussian = np.exp(-(offsets**2) / (2 * sigma**2))
    gaussian /= gaussian.sum()
    derivative = offsets / sigma**2 * gaussian
    values = image.astype(np.float32) / np.float32(255)
    border = cv2.BORDER_REPLICATE
    across = np.asarray(cv2.sepFilter2D(values, cv2.CV_32F, derivative, gaussian, borderType=border))
    down = np.asarray(cv2.sepFilter2D(values, cv2.CV_32F, gaussian, derivative, borderType=border))
    result: NDArray[np.uint8] = _bin_gradients(across, down, _TEXTURE_FACTOR)
    return result


@njit(cache=True, nogil=True)
def _bin_gradients(across: Any, down: Any, factor: Any) -> Any:
    """Steer the two derivatives to 0, 45, 90, 135 degrees and split each into its positive and negative half."""
    height, width, channels = across.shape
    result = np.zeros((height, width, channels * DIRECTIONS), np.uint8)
    diagonal = np.float32(np.sqrt(0.5))
    for y in range(height):
        for x in range(width):
            for channel in range(channels):
                gx, gy = across[y, x, channel] * factor, down[y, x, channel] * factor
                for orientation in range(4):
                    if orientation == 0:
                        response = gx
                    elif orientation == 1:
                        response = (gx + gy) * diagonal
                    elif orientation == 2:
                        response = gy
                    else:
                        response = (gy - gx) * diagonal
                    strength = min(np.int32(abs(response) + np.float32(0.5)), TEXTURE_BINS - 1)
                    half = 0 if response >= 0 else 4
                    result[y, x, channel * DIRECTIONS + half + orientation] = strength
    return result


@njit(cache=True, nogil=True)
def _accumulate(image: Any, labels: Any, bins: Any, count: int, colour_bin: Any) -> Any:
    """Sizes, boxes and both histograms in one pass over the pixels."""
    height, width, _ = image.shape
    sizes = np.zeros(count, np.int64)
    boxes = np.empty((count, 4), np.int32)
    boxes[:, 0], boxes[:, 1], boxes[:, 2], boxes[:, 3] = width, height, 0, 0
    colour_count = np.zeros((count, COLOUR_SIZE), np.int32)
    texture_count = np.zeros((count, TEXTURE_SIZE), np.int32)
    for y in range(height):
        for x in range(width):
            region = labels[y, x]
            sizes[region] += 1
            boxes[region, 0] = min(boxes[region, 0], x)
            boxes[region, 1] = min(boxes[region, 1], y)
            boxes[region, 2] = max(boxes[region, 2], x + 1)
            boxes[region, 3] = max(boxes[region, 3], y + 1)
            for channel in range(3):
                colour_count[region, channel * COLOUR_BINS + colour_bin[image[y, x, channel]]] += 1
            for direction in range(3 * DIRECTIONS):
                texture_count[region, direction * TEXTURE_BINS + bins[y, x, direction]] += 1
    colour = np.empty((count, COLOUR_SIZE), np.float32)
    texture = np.empty((count, TEXTURE_SIZE), np.float32)
    for region in range(count):
        colour[region] = colour_count[region] / np.float32(3 * sizes[region])
        texture[region] = texture_count[region] / np.float32(3 * DIRECTIONS * sizes[region])
    return sizes, boxes, colour, texture


@njit(cache=True, nogil=True)
def _touching(labels: Any, count: int) -> Any:
    """Pairs of different labels next to each other, sorted, each once; [H, W] -> [m, 2] int32."""
    height, width = labels.shape
    keys = np.empty(4 * height * width, np.int64)
    found = 0
    for y in range(height):
        for x in range(width):
            here = labels[y, x]
            for direction in range(4):
                to_y = y + (1 if direction in (1, 2) else (-1 if direction == 3 else 0))
                to_x = x + (0 if direction == 1 else 1)
                if to_y < 0 or to_y >= height or to_x >= width:
                    continue
                there = labels[to_y, to_x]
                if here != there:
                    keys[found] = np.int64(min(here, there)) * count + max(here, there)
                    found += 1
    keys = np.unique(keys[:found])
    pairs = np.empty((len(keys), 2), np.int32)
    for index in range(len(keys)):
        pairs[index, 0] = keys[index] // count
        pairs[index, 1] = keys[index] % count
    return pairs
