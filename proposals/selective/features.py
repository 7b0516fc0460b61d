"""Features of superpixels: colour and texture histograms, size, tight box, neighbours.

In: image [H, W, C] uint8 in a colour space, labels [H, W].  Out: Superpixels.
Colour: 25 bins a channel.  Texture: Gaussian derivatives (sigma 0.8) in 8 directions, 10 bins each, a channel.  Both
are L1-normalised over all channels, so that the features of a union are the size-weighted mean of its parts' (IJCV
2013, §3.3).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from proposals.compiling import compiled

COLOUR_BINS = 25
TEXTURE_BINS = 10
ORIENTATIONS = 4
DIRECTIONS = 2 * ORIENTATIONS

# bin = round(v * 24) for v in [0, 1]: the first and last bins are half as wide, as in the authors' code.
_COLOUR_BIN = np.floor(np.arange(256) / 255 * (COLOUR_BINS - 1) + 0.5).astype(np.int32)
# bin = round(g * 9 / 0.43), 0.43 being this derivative's response to a full step; stronger ones stay in the last bin.
_TEXTURE_FACTOR = np.float32((TEXTURE_BINS - 1) / 0.43)


class Superpixels(NamedTuple):
    """n regions of one segmentation.

    Attributes:
        sizes: [n] int64, px².
        boxes: [n, 4] int32, x1 y1 x2 y2 with the far edge exclusive.
        colour: [n, 25 * C] float32, each row sums to 1.
        texture: [n, 80 * C] float32, each row sums to 1.
        pairs: [m, 2] int32, regions that touch, smaller number first, sorted.
    """

    sizes: NDArray[np.int64]
    boxes: NDArray[np.int32]
    colour: NDArray[np.float32]
    texture: NDArray[np.float32]
    pairs: NDArray[np.int32]


def describe(
    image: NDArray[np.uint8], labels: NDArray[np.int32], bins: NDArray[np.uint8], pairs: NDArray[np.int32]
) -> Superpixels:
    """Compute the features of an image's superpixels.

    Args:
        image: [H, W, C] uint8, in the colour space of the segmentation.
        labels: [H, W] int32, 0..n-1.
        bins: [4, H, W, C] uint8 from texture_bins(image).
        pairs: [m, 2] int32, superpixels that touch.
    """
    height, width, channels = image.shape
    count = int(labels.max()) + 1
    sizes = np.zeros(count, np.int64)
    boxes = np.tile(np.array([width, height, 0, 0], np.int32), (count, 1))
    colour_count = np.zeros((count, channels * COLOUR_BINS), np.int32)
    texture_count = np.zeros((count, channels * DIRECTIONS * TEXTURE_BINS), np.int32)
    _accumulate(image, labels, bins, _COLOUR_BIN, sizes, boxes, colour_count, texture_count)
    colour, texture = np.empty(colour_count.shape, np.float32), np.empty(texture_count.shape, np.float32)
    _normalise(sizes, channels, colour_count, colour)
    _normalise(sizes, channels * DIRECTIONS, texture_count, texture)
    return Superpixels(sizes, boxes, colour, texture, pairs)


def texture_bins(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Compute the bin of each pixel's derivatives in the texture histogram of their channel.

    Of two opposite directions only one has a response. One number states both: 10 * direction + bin, where direction is
    o or o + 4 for orientation o, and bin is that of the response. The other direction has bin 0.

    Args:
        image: [H, W, C] uint8.

    Returns:
        [4, H, W, C] uint8, one plane per orientation: 0, 45, 90, 135 degrees.
    """
    sigma, radius = 0.8, 4
    offsets = np.arange(-radius, radius + 1)
    gaussian = np.exp(-(offsets**2) / (2 * sigma**2))
    gaussian /= gaussian.sum()
    derivative = offsets / sigma**2 * gaussian
    values = image.astype(np.float32) / np.float32(255)
    border = cv2.BORDER_REPLICATE
    across = np.asarray(cv2.sepFilter2D(values, cv2.CV_32F, derivative, gaussian, borderType=border))
    down = np.asarray(cv2.sepFilter2D(values, cv2.CV_32F, gaussian, derivative, borderType=border))
    bins = np.empty((ORIENTATIONS, image.size), np.uint8)
    _bin_gradients(across.ravel(), down.ravel(), _TEXTURE_FACTOR, bins)
    return bins.reshape(ORIENTATIONS, *image.shape)


@compiled()
def _texture_bin(response: Any) -> Any:
    """Bin of a response in orientation 0; those of orientation o are 10 * o further."""
    strength = np.int32(abs(response) + np.float32(0.5))
    if strength > TEXTURE_BINS - 1:
        strength = np.int32(TEXTURE_BINS - 1)
    return strength if response >= 0 else strength + np.int32(ORIENTATIONS * TEXTURE_BINS)


@compiled()
def _bin_gradients(across: Any, down: Any, factor: Any, bins: Any) -> None:
    """Steer two derivatives [M] to the four orientations, split each into its positive and negative half: [4, M]."""
    diagonal = np.float32(np.sqrt(0.5))
    for index in range(len(across)):
        gx, gy = across[index] * factor, down[index] * factor
        bins[0, index] = _texture_bin(gx)
        bins[1, index] = TEXTURE_BINS + _texture_bin((gx + gy) * diagonal)
        bins[2, index] = 2 * TEXTURE_BINS + _texture_bin(gy)
        bins[3, index] = 3 * TEXTURE_BINS + _texture_bin((gy - gx) * diagonal)


@compiled()
def _accumulate(
    image: Any,
    labels: Any,
    bins: Any,
    colour_bin: Any,
    sizes: Any,
    boxes: Any,
    colour_count: Any,
    texture_count: Any,
) -> None:
    """Accumulate sizes, boxes and both histograms, which begin empty, in one pass over the pixels."""
    height, width, channels = image.shape
    for y in range(height):
        start = 0
        for x in range(width):
            region = labels[y, x]
            if x + 1 == width or labels[y, x + 1] != region:  # a run of equal labels ends
                sizes[region] += x + 1 - start
                if start < boxes[region, 0]:
                    boxes[region, 0] = start
                if y < boxes[region, 1]:
                    boxes[region, 1] = y
                if x + 1 > boxes[region, 2]:
                    boxes[region, 2] = x + 1
                boxes[region, 3] = y + 1
                start = x + 1
            for channel in range(channels):
                colour_count[region, channel * COLOUR_BINS + colour_bin[image[y, x, channel]]] += 1
                for orientation in range(ORIENTATIONS):
                    bin_ = bins[orientation, y, x, channel]
                    texture_count[region, channel * (DIRECTIONS * TEXTURE_BINS) + bin_] += 1
    for region in range(len(sizes)):
        for direction in range(channels * DIRECTIONS):  # pixels counted in the opposite one have no response here
            counted = 0
            for bin_ in range(direction * TEXTURE_BINS, (direction + 1) * TEXTURE_BINS):
                counted += texture_count[region, bin_]
            texture_count[region, direction * TEXTURE_BINS] += sizes[region] - counted


@compiled(error_model="numpy")
def _normalise(sizes: Any, times: int, counts: Any, shares: Any) -> None:
    """Counts [n, B] of pixels that are counted several times each -> shares [n, B], whose rows sum to 1."""
    for region in range(len(sizes)):
        total = np.float32(times * sizes[region])
        for bin_ in range(counts.shape[1]):
            shares[region, bin_] = counts[region, bin_] / total
