"""Warping against a slow separable reference in NumPy, and the geometry against numbers worked out by hand."""

from __future__ import annotations

import doctest
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from detector import regions
from detector.data.dataset import DataConfig, DatasetKind, open_dataset
from detector.data.image import Image
from detector.googlenet import InputConvention
from detector.pretrained import TORCHVISION_INPUT
from detector.regions import RegionConfig, context_windows, network_input, warp

PAPER = RegionConfig()
FILL = (123.0, 117.0, 104.0)


def smooth_image(height: int, width: int, seed: int = 0) -> Image:
    """Blurred noise over the full range; on sharper ones OpenCV 4 differs, whose samples lie on a grid of 1/32 px."""
    noise = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    blurred = np.asarray(cv2.GaussianBlur(noise, (0, 0), 12))
    return np.asarray(cv2.normalize(blurred, None, 0, 255, cv2.NORM_MINMAX)).round().astype(np.uint8)


def weights(start: float, step: float, size: int, length: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """How much each source pixel counts for each sample of an axis, [size, length], and which samples are inside."""
    matrix = np.zeros((size, length))
    for sample in range(size):
        near, far = start + sample * step, start + (sample + 1) * step
        if step > 2:  # the mean over what the sample covers
            for pixel in range(length):
                matrix[sample, pixel] = max(0.0, min(far, pixel + 1) - max(near, pixel))
            matrix[sample] /= max(matrix[sample].sum(), 1e-9)
        else:  # linear between the two nearest centres, the border repeated
            place = (near + far) / 2 - 0.5
            below = int(np.floor(place))
            share = place - below
            matrix[sample, np.clip(below, 0, length - 1)] += 1 - share
            matrix[sample, np.clip(below + 1, 0, length - 1)] += share
    centres = start + (np.arange(size) + 0.5) * step
    return matrix, (centres >= 0) & (centres < length)


def reference_warp(image: Image, box: NDArray[np.float64], config: RegionConfig) -> tuple[NDArray[np.float64], int]:
    """[S, S, 3] with the fill where it belongs, and how many pixels are fill."""
    height, width, _ = image.shape
    factor = config.size / (config.size - 2 * config.context)
    x1, x2 = (box[0] + box[2]) / 2 + np.array([-1, 1]) * (box[2] - box[0]) / 2 * factor
    y1, y2 = (box[1] + box[3]) / 2 + np.array([-1, 1]) * (box[3] - box[1]) / 2 * factor
    across, inside_x = weights(x1, (x2 - x1) / config.size, config.size, width)
    down, inside_y = weights(y1, (y2 - y1) / config.size, config.size, height)
    result = np.einsum("ri,cj,ijk->rck", down, across, image.astype(np.float64), optimize=True)
    inside = inside_y[:, None] & inside_x[None, :]
    result[~inside] = FILL
    return result, int((~inside).sum())


def test_doctest() -> None:
    assert doctest.testmod(regions).failed == 0


def test_window_of_a_box() -> None:
    window = context_windows(np.array([[100, 50, 200, 250]]), PAPER)[0]
    np.testing.assert_allclose(window, (91.6667, 33.3333, 208.3333, 266.6667), atol=1e-4)
    no_context = RegionConfig(context=0)
    np.testing.assert_array_equal(context_windows(np.array([[3, 4, 9, 7]]), no_context), [[3, 4, 9, 7]])


def test_exactly_the_context_is_fill_at_the_image_corner() -> None:
    image = np.full((375, 500, 3), 200, np.uint8)
    boxes = np.array([[0, 0, 50, 50], [450, 325, 500, 375], [0, 0, 500, 375]])
    first, second, whole = (warp(image, boxes, PAPER, (1.0, 2.0, 3.0)) == (1, 2, 3)).all(axis=3)
    expected = np.ones((224, 224), bool)
    expected[16:, 16:] = False
    assert np.array_equal(first, expected)
    assert np.array_equal(second, expected[::-1, ::-1])
    frame = np.ones((224, 224), bool)
    frame[16:-16, 16:-16] = False
    assert np.array_equal(whole, frame)


@pytest.mark.parametrize("side", [24, 96, 192, 384, 960])
def test_a_white_box_is_centred_and_192_px(side: int) -> None:
    image = np.zeros((1400, 1400, 3), np.uint8)
    image[101 : 101 + side, 203 : 203 + side] = 255
    (region,) = warp(image, np.array([[203, 101, 203 + side, 101 + side]]), PAPER, FILL)
    expected = np.zeros(224, bool)
    expected[16:208] = True
    assert np.array_equal((region[:, 112] > 127).all(axis=1), expected)
    assert np.array_equal((region[112] > 127).all(axis=1), expected)


def test_a_box_of_192_px_is_copied_to_the_bit() -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8)
    (region,) = warp(image, np.array([[120, 60, 312, 252]]), PAPER, FILL)
    assert np.array_equal(region, image[44:268, 104:328])


BOXES = {
    "enlarged": (40, 30, 90, 110),
    "between pixels": (40.25, 30.5, 101.75, 95.125),
    "reduced a little": (20, 20, 320, 250),
    "reduced by area": (5, 10, 595, 490),
    "whole image": (0, 0, 600, 500),
    "at the left": (-60, 100, 60, 300),
    "at a corner, reduced": (300, 250, 900, 800),
    "larger than the image": (-300, -200, 900, 700),
    "one pixel": (77, 66, 78, 67),
    "one pixel at the border": (599, 499, 600, 500),
    "one pixel wide": (300, 2, 301, 498),
    "one pixel high": (2, 250, 598, 251),
    "flat and enlarged": (10, 10, 200, 16),
}


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES.keys())
@pytest.mark.parametrize("config", [PAPER, RegionConfig(size=64, context=0)], ids=["224", "64"])
def test_warp_is_the_slow_reference(box: tuple[float, ...], config: RegionConfig) -> None:
    image = smooth_image(500, 600)
    expected, filled = reference_warp(image, np.array(box, np.float64), config)
    region = warp(image, np.array([box]), config, FILL)[0].astype(np.float64)
    assert int((region == FILL).all(axis=2).sum()) >= filled
    difference = np.abs(region - expected)
    assert difference.mean() < 1.0
    assert difference.max() < 8  # of 255


@pytest.mark.parametrize("period", [1, 2, 3])
def test_a_fine_checkerboard_comes_out_grey_not_aliased(period: int) -> None:
    rows, columns = np.mgrid[:1600, :1800] // period
    image = np.repeat((((rows + columns) % 2) * 255).astype(np.uint8)[:, :, None], 3, axis=2)
    box = np.array([3.0, 5.0, 1790.0, 1595.0])
    (region,) = warp(image, box[None], PAPER, FILL)
    expected, _ = reference_warp(image, box, PAPER)
    inner = (slice(17, -17), slice(17, -17))
    assert region[inner].mean() == pytest.approx(expected[inner].mean(), abs=1)
    assert region[inner].std() < max(12, 1.5 * expected[inner].std())  # one sample a pixel would have 127


def test_boxes_are_warped_one_by_one_and_the_image_stays() -> None:
    image = smooth_image(90, 120)
    before = image.copy()
    boxes = np.array([[0, 0, 30, 40], [50, 20, 120, 90], [10, 10, 110, 30]], np.float32)
    together = warp(image, boxes, PAPER, FILL)
    assert together.shape == (3, 224, 224, 3)
    assert together.dtype == np.uint8
    for box, region in zip(boxes, together, strict=True):
        assert np.array_equal(warp(image, box[None], PAPER, FILL)[0], region)
    assert np.array_equal(image, before)
    assert np.array_equal(warp(image, boxes.astype(np.int64), PAPER, FILL), together)
    assert warp(image, np.zeros((0, 4)), PAPER, FILL).shape == (0, 224, 224, 3)


def test_a_flipped_image_gives_the_flipped_region() -> None:
    image = smooth_image(90, 120)
    box = np.array([[11, 7, 63, 50]])
    flipped = np.array([[120 - 63, 7, 120 - 11, 50]])
    region = warp(image, box, PAPER, FILL)[0].astype(int)
    mirrored = warp(np.ascontiguousarray(image[:, ::-1]), flipped, PAPER, FILL)[0].astype(int)
    assert np.abs(region - mirrored[:, ::-1]).max() <= 2


def test_a_single_pixel_image() -> None:
    image = np.full((1, 1, 3), 9, np.uint8)
    (region,) = warp(image, np.array([[0, 0, 1, 1]]), PAPER, FILL)
    assert (region[16:-16, 16:-16] == 9).all()
    assert (region[:16] == FILL).all()


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((10, 10, 10, 20), "a box to warp is not finite or has no area"),
        ((10, 20, 30, 10), "a box to warp is not finite or has no area"),
        ((10, 10, np.nan, 20), "a box to warp is not finite or has no area"),
        ((10, 10, np.inf, 20), "a box to warp is not finite or has no area"),
        ((60, 10, 90, 20), "a box to warp lies outside the image of 60 × 40 px"),
        ((-900, -900, 0, 900), "a box to warp lies outside the image of 60 × 40 px"),
    ],
)
def test_boxes_that_are_refused(box: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        warp(np.zeros((40, 60, 3), np.uint8), np.array([(0, 0, 9, 9), box]), PAPER, FILL)


@pytest.mark.parametrize(
    ("size", "context", "message"),
    [
        (31, 0, "regions.size must be at least 32 px, not 31"),
        (224, 112, r"regions.context must be in 0..111 px, not 112"),
        (224, -1, r"regions.context must be in 0..111 px, not -1"),
    ],
)
def test_settings_that_are_refused(size: int, context: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RegionConfig(size, context)


@pytest.mark.parametrize("convention", [InputConvention(), TORCHVISION_INPUT])
def test_network_input(convention: InputConvention) -> None:
    squares = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3)).astype(np.uint8)
    before = squares.copy()
    x = network_input(squares, convention)
    assert x.shape == (2, 3, 40, 40)
    assert x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
    expected = (squares.astype(np.float64) - convention.mean) / convention.std
    np.testing.assert_allclose(x.numpy(), expected.transpose(0, 3, 1, 2), rtol=1e-6, atol=1e-6)
    assert np.array_equal(squares, before)
    assert network_input(squares[:0], convention).shape == (0, 3, 40, 40)


def test_what_lies_outside_is_zero_to_the_network() -> None:
    convention = InputConvention()
    regions_of_black = warp(np.zeros((50, 50, 3), np.uint8), np.array([[0, 0, 50, 50]]), PAPER, convention.mean)
    x = network_input(regions_of_black, convention)
    assert (x[:, :, :16] == 0).all()
    assert (x[0, 0, 16:-16, 16:-16] == -convention.mean[0]).all()


@pytest.mark.data
def test_objects_of_photographs(data_dir: Path) -> None:
    dataset = open_dataset(DataConfig(DatasetKind.voc, str(data_dir / "voc12"), "val100"))
    for record in dataset.records[:5]:
        image = record.read()
        for box, region in zip(record.boxes, warp(image, record.boxes, PAPER, FILL), strict=True):
            expected, _ = reference_warp(image, box, PAPER)
            assert np.abs(region - expected).mean() < 3  # area and bilinear reduction differ on texture
