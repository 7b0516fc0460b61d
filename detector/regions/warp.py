"""Warp each proposed box to the classifier's input square, in training and at test.

In: image [H, W, 3] uint8 RGB; boxes [N, 4] px.
Out: regions [N, S, S, 3] uint8.

Paper §8 classifies regions one by one as R-CNN does: anisotropic warp with 16 px of context around the box, measured
in the warped frame, and the mean colour where the window leaves the image (R-CNN, appendix A). Ours is continuous where
R-CNN's code rounds corners to pixels. A sample is bilinear between pixel centres; along an axis that shrinks more than
twofold it is the mean over what it covers, so that it does not alias. Both are sums over rows, then over columns.

N boxes, S side of the square, H × W the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.data.image import Image
from detector.threads import spread
from proposals.boxes import Boxes, check_boxes
from proposals.compiling import compiled
from proposals.selective.colour import to_rgb

Regions = NDArray[np.uint8]
"""[N, S, S, 3] uint8 RGB."""


@dataclass(frozen=True)
class RegionConfig:
    """The square that a box is warped to; a property of the trained weights.

    Attributes:
        size: Side S of the square, px.
        context: Margin of the square, on each side, that shows the surroundings of the box, px.
    """

    size: int = 224  # §5
    context: int = 16  # R-CNN, appendix A, at its 227 px

    def __post_init__(self) -> None:
        if self.size < 32:
            raise ValueError(f"regions.size must be at least 32 px, not {self.size}")
        if not 0 <= 2 * self.context < self.size:
            raise ValueError(f"regions.context must be in 0..{(self.size - 1) // 2} px, not {self.context}")


def context_windows(boxes: Boxes, config: RegionConfig) -> NDArray[np.float64]:
    """Enlarge boxes by S / (S - 2 context) about their centres: the part of the image plane that each square shows.

    >>> context_windows(np.array([[100, 50, 200, 250]]), RegionConfig()).round(3).tolist()
    [[91.667, 33.333, 208.333, 266.667]]
    """
    boxes = boxes.astype(np.float64)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) / 2 * (config.size / (config.size - 2 * config.context))
    return np.concatenate([centre - half, centre + half], axis=1)


def warp(image: Image, boxes: Boxes, config: RegionConfig, fill: tuple[float, float, float]) -> Regions:
    """Cut the boxes with their context out of an image and warp each to a square.

    Args:
        image: [H, W, 3] uint8 RGB, or any other array that `to_rgb` converts.
        boxes: [N, 4] px, each of positive width and height and at least partly inside the image.
        config: Size and context of the square.
        fill: RGB value, 0..255, outside the image; the network's mean, so that it is 0 after normalisation.

    Returns:
        [N, S, S, 3] uint8.

    Raises:
        ValueError: `to_rgb` rejects the image, or a box is not finite, has no area or lies outside it.
    """
    image = to_rgb(image)
    height, width, _ = image.shape
    check_boxes(boxes, width, height)
    regions = np.empty((len(boxes), config.size, config.size, 3), np.uint8)
    lines = image.reshape(height, width * 3)
    outside = np.tile(np.array(fill).round().astype(np.uint8), config.size)  # a line of a square
    windows = context_windows(boxes, config)
    spread(partial(_warp, lines, outside), [windows, regions.reshape(len(boxes), config.size, config.size * 3)])
    return regions


# Without fastmath, which makes nothing here faster: the same bits on every processor.
_compiled = compiled(error_model="numpy")


@_compiled
def _warp(image: Any, outside: Any, windows: Any, regions: Any) -> None:
    """Image [H, 3 W], a line of the fill [3 S], windows [N, 4] px -> regions [N, S, 3 S]."""
    height, width, size = image.shape[0], image.shape[1] // 3, regions.shape[1]
    columns, rows = np.empty(size, np.int64), np.empty(size, np.int64)
    across, down = np.empty((max(width, 2), size), np.float32), np.empty((max(height, 2), size), np.float32)
    mixed = np.empty(3 * (width + 1), np.float32)
    line = np.empty(3 * size, np.float32)
    for n in range(len(windows)):
        left, right, taps_x = axis_samples(windows[n, 0], windows[n, 2], size, width, columns, across)
        top, bottom, taps_y = axis_samples(windows[n, 1], windows[n, 3], size, height, rows, down)
        for y in range(size):
            for c in range(3 * size):
                regions[n, y, c] = outside[c]
        if left == right:
            continue
        begin = columns[left]
        end = min(columns[right - 1] + taps_x, width)
        for c in range(3 * (end - begin), 3 * (end - begin + 1)):
            mixed[c] = 0  # one px more: a width of 1 has a second tap too
        for y in range(top, bottom):
            _mix_rows(image, 3 * begin, 3 * end, rows[y], down, y, taps_y, mixed)
            _mix_columns(mixed, begin, left, right, columns, across, taps_x, line)
            for c in range(3 * left, 3 * right):
                regions[n, y, c] = np.uint8(line[c] + np.float32(0.5))


@_compiled
def axis_samples(start: float, stop: float, size: int, length: int, firsts: Any, shares: Any) -> tuple[int, int, int]:
    """Place the samples of one axis of a window; those whose centres are inside the image count.

    Writes the first pixel that each of them reads, firsts [size], and the weights of that pixel and the next, shares
    [taps, size], whose sum is 1 for each sample.

    Returns:
        The numbers of the first sample inside and of the first one behind; taps.
    """
    step = (stop - start) / size  # px of the image from one sample to the next
    area = step > 2
    taps = max(2, min(int(min(step, length)) + 2, length)) if area else 2
    begin = end = 0
    for s in range(size):
        centre = start + (s + 0.5) * step
        if not 0 <= centre < length:
            continue
        if end == 0:
            begin = s
        end = s + 1
        near, far = max(start + s * step, 0.0), min(start + (s + 1) * step, length)
        position = min(max(centre - 0.5, 0.0), length - 1)  # in pixels counted from centres; the border is repeated
        first = max(0, min(int(near if area else position), length - taps))
        firsts[s] = first
        for tap in range(taps):
            pixel = first + tap
            if area:
                share = max(0.0, min(far, pixel + 1) - max(near, pixel)) / (far - near)
            else:
                share = max(0.0, 1 - abs(position - pixel))
            shares[tap, s] = share
    return begin, end, taps


@_compiled
def _mix_rows(image: Any, begin: int, end: int, first: int, shares: Any, sample: int, taps: int, mixed: Any) -> None:
    """The sum of rows of [H, C], from row `first` and value `begin` on, by a sample's shares -> mixed [C and more]."""
    share = shares[0, sample]
    for c in range(begin, end):
        mixed[c - begin] = share * image[first, c]
    for tap in range(1, taps):
        share = shares[tap, sample]
        if share > 0:  # else there may be no such row
            for c in range(begin, end):
                mixed[c - begin] += share * image[first + tap, c]


@_compiled
def _mix_columns(mixed: Any, begin: int, left: int, right: int, firsts: Any, shares: Any, taps: int, line: Any) -> None:
    """Sums of pixels of mixed [3 W], which begins at pixel `begin`, for the samples from left to right -> line."""
    for s in range(left, right):
        at, share, next_share = 3 * (firsts[s] - begin), shares[0, s], shares[1, s]
        for c in range(3):
            line[3 * s + c] = share * mixed[at + c] + next_share * mixed[at + 3 + c]
    for tap in range(2, taps):
        for s in range(left, right):
            at, share = 3 * (firsts[s] - begin + tap), shares[tap, s]
            for c in range(3):
                line[3 * s + c] += share * mixed[at + c]
