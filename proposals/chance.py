"""Chance baselines: sources of boxes that know nothing of the objects in an image, for comparisons.

In: image [H, W, 3] uint8 RGB.  Out: boxes [N, 4] px and scores [N], best first.
A config names them as own: {chance: "proposals.chance:gaussian"}. A method is worth what it finds beyond them at equal
numbers of boxes. Source: Hosang et al., "What makes for effective detection proposals?", PAMI 2016, §2.3, and the code
of its baselines.

    uniform         centre, area and aspect ratio drawn evenly from the range of 99 % of training boxes
    gaussian        the same drawn from a Gaussian that was fitted to training boxes
    sliding_window  28 sizes of window, BING's, each on a regular grid
    superpixels     the boxes of the regions that selective search starts from

Ours: an image's random numbers depend on its pixels alone, and windows come in random order, so that the first n of
them are a fair smaller set, as those of the random sources are.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from proposals.boxes import Boxes, clip
from proposals.merging import at_width
from proposals.result import Found, Source
from proposals.selective.search import search
from proposals.settings import MODES

COUNT = 2_000
"""Boxes per image of the random sources; at most so many windows."""

WINDOWS = tuple(
    (width, height)
    for height, widths in (
        (512, (512, 256, 128, 64)),
        (256, (512, 256, 128, 64, 32)),
        (128, (512, 256, 128, 64, 32, 16)),
        (64, (512, 256, 128, 64, 32, 16)),
        (32, (128, 64, 32, 16)),
        (16, (64, 32, 16)),
    )
    for width in widths
)
"""Width and height of the windows, px (baselines/sample_bing_windows.m)."""

WIDTH = 500
"""Width to which an image is resized before its superpixels are found, px; R-CNN's."""


class Fit(NamedTuple):
    """The distribution of a data set's boxes.

    Its four features are log2 of width / height, the square root of the box's share of the image's area, and the
    centre's x and y as shares of width and height.

    Attributes:
        mean: [4].
        covariance: [4, 4].
        low: [4], below which 0.5 % of the boxes lie.
        high: [4], above which 0.5 % of the boxes lie.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def fit(boxes: Boxes, sizes: NDArray[np.float64]) -> Fit:
    """Fit the distribution of boxes, as `gaussian_of` and `uniform_of` take it.

    Args:
        boxes: [N, 4] px, of any number of images.
        sizes: [N, 2] width and height of each box's image, px.

    Raises:
        ValueError: fewer than two boxes, or one without area.
    """
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    if len(boxes) < 2 or not (np.minimum(width, height) > 0).all():
        raise ValueError(f"a fit needs at least two boxes, all with an area; there are {len(boxes)}")
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 / sizes
    features = np.stack([np.log2(width / height), np.sqrt(width * height / sizes.prod(axis=1)), *centre.T])
    low, high = np.quantile(features, [0.005, 0.995], axis=1)
    return Fit(features.mean(axis=1), np.cov(features), low, high)


VOC = Fit(
    mean=np.array([-0.0988, 0.4194, 0.4978, 0.5342]),
    covariance=np.array(
        [
            [0.7292, 0.0533, 0.0019, 0.0043],
            [0.0533, 0.0696, 0.0005, 0.0021],
            [0.0019, 0.0005, 0.0426, -0.0008],
            [0.0043, 0.0021, -0.0008, 0.0249],
        ]
    ),
    low=np.array([-2.1069, 0.0415, 0.038, 0.0712]),
    high=np.array([2.1575, 1.0, 0.96, 0.9097]),
)
"""The fit of 7,544 objects, difficult ones left out, in 3,448 images of PASCAL VOC2007 and VOC2012 trainval."""


def uniform(image: NDArray[np.uint8]) -> Found:
    """Return COUNT boxes drawn evenly from the range of PASCAL VOC's training boxes."""
    return uniform_of(VOC)(image)


def gaussian(image: NDArray[np.uint8]) -> Found:
    """Return COUNT boxes drawn from a Gaussian around PASCAL VOC's training boxes."""
    return gaussian_of(VOC)(image)


def uniform_of(fitted: Fit, count: int = COUNT) -> Source:
    """Make a source that draws boxes evenly from the range of fitted boxes.

    Area and aspect ratio are drawn as square root and logarithm.
    """

    def source(image: NDArray[np.uint8]) -> Found:
        return _found(_boxes(_generator(image).uniform(fitted.low, fitted.high, (count, 4)), image))

    return source


def gaussian_of(fitted: Fit, count: int = COUNT) -> Source:
    """Make a source that draws boxes from the Gaussian of fitted boxes.

    Draws of an impossible area or a centre outside the image are repeated.
    """

    def source(image: NDArray[np.uint8]) -> Found:
        generator = _generator(image)
        features = np.zeros((0, 4))
        while len(features) < count:
            more = generator.multivariate_normal(fitted.mean, fitted.covariance, count, method="eigh")
            possible = (more[:, 1] > 0) & ((more[:, 1:] >= 0) & (more[:, 1:] <= 1)).all(axis=1)
            features = np.concatenate([features, more[possible]])
        return _found(_boxes(features[:count], image))

    return source


def sliding_window(image: NDArray[np.uint8]) -> Found:
    """Return the whole image and at most COUNT - 1 windows: all sizes that fit, in equal numbers.

    The grid of a size is as fine as its number of windows allows, with the same step in x and y, and centred.
    The whole image comes first, the windows in random order.
    """
    height, width, _ = image.shape
    fitting = [window for window in WINDOWS if window[0] < width and window[1] < height]
    parts = [np.zeros((0, 4))]
    for window in fitting:
        corners = _grid(width - window[0], height - window[1], (COUNT - 1) // len(fitting))
        parts.append(np.concatenate([corners, corners + window], axis=1))
    windows = _generator(image).permutation(np.concatenate(parts))
    return _found(np.concatenate([[[0.0, 0.0, width, height]], windows]))


def superpixels(image: NDArray[np.uint8]) -> Found:
    """Return the boxes of the regions of R-CNN's selective search before any is merged, largest first.

    Methods that merge superpixels start from them; this is the least that such a method finds.
    """
    return at_width(image, WIDTH, _regions)


def _generator(image: NDArray[np.uint8]) -> np.random.Generator:
    return np.random.default_rng([*image.shape, zlib.crc32(np.ascontiguousarray(image).data)])


def _boxes(features: NDArray[np.float64], image: NDArray[np.uint8]) -> Boxes:
    """Return the boxes of features [N, 4], cut at the image's border; [N, 4] px."""
    height, width = image.shape[:2]
    side, ratio = features[:, 1] * np.sqrt(width * height), 2.0 ** (features[:, 0] / 2)
    half = np.stack([side * ratio, side / ratio], axis=1) / 2
    centre = features[:, 2:] * (width, height)
    return clip(np.concatenate([centre - half, centre + half], axis=1), width, height)


def _grid(across: int, down: int, count: int) -> NDArray[np.float64]:
    """Return the finest centred square grid of at most `count` points in [0, across] × [0, down]; [n, 2]."""
    if count < 1:
        return np.zeros((0, 2))
    # A step s gives (across // s + 1) * (down // s + 1) points, which changes at whole fractions of the sides only.
    steps = np.unique([side / parts for side in (across, down) for parts in range(1, count + 1)])
    points = (np.floor(across / steps + 1e-9) + 1) * (np.floor(down / steps + 1e-9) + 1)
    step = steps[points <= count].min() if (points <= count).any() else 2.0 * max(across, down)
    x, y = (np.arange(0, side + 1e-6, step) for side in (across, down))
    x, y = x + (across - x[-1]) / 2, y + (down - y[-1]) / 2
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def _regions(image: NDArray[np.uint8]) -> Found:
    mode = MODES["fast"]._replace(similarities=("F",))  # one cheap hierarchy a segmentation, of which none is used
    merges = search(image, mode, 1.0, 1)
    boxes = np.unique(merges.boxes[merges.steps == 0], axis=0).astype(np.float32)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return _found(boxes[np.argsort(-area, kind="stable")])


def _found(boxes: Boxes) -> Found:
    """Score boxes by their order."""
    return boxes.astype(np.float32), (1 / (1 + np.arange(len(boxes)))).astype(np.float32)
