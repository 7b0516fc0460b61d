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
    for n in range(len(windows)):
        left, columns, across = axis_samples(windows[n, 0], windows[n, 2], size, width)
        top, rows, down = axis_samples(windows[n, 1], windows[n, 3], size, height)
        for y in range(size):
            for c in range(3 * size):
                regions[n, y, c] = outside[c]
        if len(columns) == 0:
            continue
        begin = columns[0]
        end = min(columns[-1] + len(across), width)
        mixed = np.zeros(3 * (end - begin + 1), np.float32)  # one px more: a width of 1 has a second tap too
        line = np.empty(3 * len(columns), np.float32)
        columns -= begin
        for y in range(len(rows)):
            _mix_rows(image[:, 3 * begin : 3 * end], rows[y], down[:, y], mixed)
            _mix_columns(mixed, columns, across, line)
            _round(line, regions[n, top + y, 3 * left : 3 * left + len(line)])


@_compiled
def axis_samples(start: float, stop: float, size: int, length: int) -> tuple[int, Any, Any]:
    """The samples of one axis of a window whose centres are inside the image.

    Returns:
        The number of the first of them; the first pixel that each reads [s]; the weights of that pixel and the next
        [taps, s], whose sum is 1 for each sample.
    """
    step = (stop - start) / size  # px of the image from one sample to the next
    area = step > 2
    taps = max(2, min(int(min(step, length)) + 2, length)) if area else 2
    first = np.zeros(size, np.int64)
    shares = np.zeros((taps, size), np.float32)
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
        first[s] = max(0, min(int(near if area else position), length - taps))
        for tap in range(taps):
            pixel = first[s] + tap
            if area:
                shares[tap, s] = max(0.0, min(far, pixel + 1) - max(near, pixel)) / (far - near)
            else:
                shares[tap, s] = max(0.0, 1 - abs(position - pixel))
    return begin, first[begin:end], shares[:, begin:end]


@_compiled
def _mix_rows(image: Any, first: int, shares: Any, mixed: Any) -> None:
    """The sum of rows of [H, C] by their shares [taps], from row `first` on -> mixed [C and more]."""
    share, row = shares[0], image[first]
    for c in range(len(row)):
        mixed[c] = share * row[c]
    for tap in range(1, len(shares)):
        if shares[tap] > 0:  # else there may be no such row
            share, row = shares[tap], image[first + tap]
            for c in range(len(row)):
                mixed[c] += share * row[c]


@_compiled
def _mix_columns(mixed: Any, first: Any, shares: Any, line: Any) -> None:
    """Sums of pixels of mixed [3 W] by their shares [taps, s], from the pixels `first` [s] on -> line [3 s]."""
    for s in range(len(first)):
        at, share, next_share = 3 * first[s], shares[0, s], shares[1, s]
        for c in range(3):
            line[3 * s + c] = share * mixed[at + c] + next_share * mixed[at + 3 + c]
    for tap in range(2, len(shares)):
        for s in range(len(first)):
            at, share = 3 * (first[s] + tap), shares[tap, s]
            for c in range(3):
                line[3 * s + c] += share * mixed[at + c]


@_compiled
def _round(line: Any, region: Any) -> None:
    """[C] -> [C] uint8."""
    for c in range(len(line)):
        region[c] = np.uint8(line[c] + np.float32(0.5))
