"""Warping against a slow separable reference in NumPy, and the geometry against numbers worked out by hand."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from detector.data.dataset import DataConfig, DatasetKind, open_dataset
from detector.data.image import Image
from detector.network.input import InputConvention, network_input
from detector.network.pretrained import TORCHVISION_INPUT
from detector.regions.warp import RegionConfig, context_windows, warp

PAPER = RegionConfig()
FILL = (123.0, 117.0, 104.0)
ROUNDING = 0.5 + 0.01  # of 255; the second is what float32 may add


def noise(height: int, width: int, seed: int = 0) -> Image:
    """The sharpest image there is, over the full range."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


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


def reference_warp(image: Image, box: NDArray[np.float64], config: RegionConfig) -> NDArray[np.float64]:
    """[S, S, 3] with the fill where it belongs."""
    height, width, _ = image.shape
    factor = config.size / (config.size - 2 * config.context)
    x1, x2 = (box[0] + box[2]) / 2 + np.array([-1, 1]) * (box[2] - box[0]) / 2 * factor
    y1, y2 = (box[1] + box[3]) / 2 + np.array([-1, 1]) * (box[3] - box[1]) / 2 * factor
    across, inside_x = weights(x1, (x2 - x1) / config.size, config.size, width)
    down, inside_y = weights(y1, (y2 - y1) / config.size, config.size, height)
    result = np.einsum("ri,cj,ijk->rck", down, across, image.astype(np.float64), optimize=True)
    result[~(inside_y[:, None] & inside_x[None, :])] = FILL
    return result


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
    image = noise(300, 400)
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
    image = noise(500, 600)
    (region,) = warp(image, np.array([box]), config, FILL)
    assert np.abs(region - reference_warp(image, np.array(box, np.float64), config)).max() <= ROUNDING


@pytest.mark.parametrize("config", [PAPER, RegionConfig(size=33, context=0), RegionConfig(size=97, context=30)])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (50, 1), (2, 3), (3, 700), (900, 2), (211, 307), (640, 480)])
def test_random_boxes_are_the_slow_reference(shape: tuple[int, int], config: RegionConfig) -> None:
    """From a fraction of a pixel to several times the image, most of them partly outside."""
    generator = np.random.default_rng(shape)
    image = noise(*shape)
    extent = np.array(shape[::-1])
    sides = np.exp(generator.uniform(np.log(0.3), np.log(4 * extent), (5, 2)))
    corners = generator.uniform(0, extent, (5, 2)) - generator.random((5, 2)) * sides
    boxes = np.concatenate([corners, corners + sides], axis=1)
    for box, region in zip(boxes, warp(image, boxes, config, FILL), strict=True):
        assert np.abs(region - reference_warp(image, box, config)).max() <= ROUNDING


def test_a_point_is_enlarged_to_its_colour() -> None:
    image = noise(20, 30)
    across, down = 10.25, 7.75  # between the centres of pixels 9 and 10, 7 and 8
    corners = image[7:9, 9:11].astype(np.float64)
    expected = np.einsum("r,c,rck->k", [0.75, 0.25], [0.25, 0.75], corners)
    (region,) = warp(image, np.array([[across, down, across + 1e-7, down + 1e-7]]), PAPER, FILL)
    assert np.abs(region - expected).max() <= ROUNDING


def test_a_box_far_larger_than_the_image_shows_its_mean() -> None:
    image = noise(5, 8)
    config = RegionConfig(size=33, context=0)  # the middle one's centre is the box's
    (region,) = warp(image, np.array([[-1e9, -1e9, 1e9 + 8, 1e9 + 5]]), config, FILL)
    assert np.abs(region[16, 16] - image.mean(axis=(0, 1))).max() <= ROUNDING
    region[16, 16] = FILL
    assert (region == FILL).all()


def test_a_box_may_have_no_centre_in_the_image() -> None:
    config = RegionConfig(size=64, context=0)
    for box in ((-1000, -1000, 0.5, 0.5), (-1000, 0, 0.5, 40), (0, -1000, 60, 0.5)):
        assert (warp(noise(40, 60), np.array([box]), config, FILL) == FILL).all()


@pytest.mark.parametrize("value", [1, 200, 255])
def test_one_colour_stays_that_colour(value: int) -> None:
    image = np.full((700, 900, 3), value, np.uint8)
    sides = np.geomspace(1, 300, 20)[:, None]
    boxes = np.concatenate([400 - sides, 350 - sides * 0.9, 400 + sides, 350 + sides], axis=1)
    assert (warp(image, boxes, PAPER, FILL) == value).all()


VIEWS: dict[str, Callable[[Image], Image]] = {
    "mirrored": lambda image: image[:, ::-1],
    "every second row": lambda image: image[::2],
    "every second column": lambda image: image[:, ::2],
    "a part": lambda image: image[5:60, 20:100],
    "BGR": lambda image: image[:, :, ::-1],
    "on its side": lambda image: image.transpose(1, 0, 2),
    "Fortran order": np.asfortranarray,
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_an_image_may_lie_in_memory_anyhow(view: Callable[[Image], Image]) -> None:
    image = view(noise(90, 120))
    boxes = np.array([[5, 3, 40, 40], [-7, 2.5, 30, 90]])
    assert np.array_equal(warp(image, boxes, PAPER, FILL), warp(image.copy(order="C"), boxes, PAPER, FILL))


def test_an_image_may_be_read_only() -> None:
    image = noise(90, 120)
    expected = warp(image, np.array([[5, 3, 40, 40]]), PAPER, FILL)
    image.flags.writeable = False
    assert np.array_equal(warp(image, np.array([[5, 3, 40, 40]]), PAPER, FILL), expected)


MANY = np.random.default_rng(1).uniform((0, 0, 120, 90), (119, 89, 300, 200), (7, 4))


@pytest.mark.parametrize("threads", [2, 3, 16])
def test_threads_change_nothing(threads: int, set_threads: Callable[[int], None]) -> None:
    image = noise(90, 120)
    set_threads(1)
    expected = warp(image, MANY, PAPER, FILL)
    set_threads(threads)
    assert np.array_equal(warp(image, MANY, PAPER, FILL), expected)
    assert warp(image, MANY[:0], PAPER, FILL).shape == (0, 224, 224, 3)


def warp_into(result: torch.Tensor, threads: int) -> None:
    torch.set_num_threads(threads)
    result.numpy()[:] = warp(noise(90, 120), MANY, PAPER, FILL)


@pytest.mark.parametrize("threads", [1, 2])
def test_works_after_a_fork(threads: int, set_threads: Callable[[int], None]) -> None:
    set_threads(2)
    expected = warp(noise(90, 120), MANY, PAPER, FILL)  # the parent's threads exist
    result = torch.zeros(expected.shape, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
    child = multiprocessing.get_context("fork").Process(target=warp_into, args=(result, threads))
    child.start()
    child.join(timeout=60)
    assert child.exitcode == 0
    assert np.array_equal(result.numpy(), expected)


@pytest.mark.parametrize("period", [1, 2, 3])
def test_a_fine_checkerboard_comes_out_grey_not_aliased(period: int) -> None:
    rows, columns = np.mgrid[:1600, :1800] // period
    image = np.repeat((((rows + columns) % 2) * 255).astype(np.uint8)[:, :, None], 3, axis=2)
    box = np.array([3.0, 5.0, 1790.0, 1595.0])
    (region,) = warp(image, box[None], PAPER, FILL)
    assert region[17:-17, 17:-17].mean() == pytest.approx(127.5, abs=1)
    assert region[17:-17, 17:-17].std() < 40  # one sample a pixel would have 127
    assert np.abs(region - reference_warp(image, box, PAPER)).max() <= ROUNDING


def test_boxes_are_warped_one_by_one_and_the_image_stays() -> None:
    image = noise(90, 120)
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
    image = noise(90, 120)
    box = np.array([[11, 7, 63, 50]])
    flipped = np.array([[120 - 63, 7, 120 - 11, 50]])
    region = warp(image, box, PAPER, FILL)[0].astype(int)
    mirrored = warp(np.ascontiguousarray(image[:, ::-1]), flipped, PAPER, FILL)[0].astype(int)
    assert np.abs(region - mirrored[:, ::-1]).max() <= 1


def test_a_single_pixel_image() -> None:
    image = np.full((1, 1, 3), 9, np.uint8)
    (region,) = warp(image, np.array([[0, 0, 1, 1]]), PAPER, FILL)
    assert (region[16:-16, 16:-16] == 9).all()
    assert (region[:16] == FILL).all()


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((10, 10, 10, 20), "area"),
        ((10, 20, 30, 10), "area"),
        ((10, 10, np.nan, 20), "finite"),
        ((10, 10, np.inf, 20), "finite"),
        ((60, 10, 90, 20), "60 × 40"),
        ((-900, -900, 0, 900), "60 × 40"),
    ],
)
def test_boxes_that_are_refused(box: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"box 1, .*{message}"):
        warp(np.zeros((40, 60, 3), np.uint8), np.array([(0, 0, 9, 9), box]), PAPER, FILL)


@pytest.mark.parametrize(
    ("size", "context", "message"),
    [
        (31, 0, r"regions\.size .*31"),
        (224, 112, r"regions\.context .*111.*112"),
        (224, -1, r"regions\.context .*-1"),
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
    part = network_input(squares[1:, 3:33, 5:25], convention)  # of a larger array, and no square
    assert torch.equal(part, x[1:, :, 3:33, 5:25])
    assert part.is_contiguous(memory_format=torch.channels_last)


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
            assert np.abs(region - reference_warp(image, box, PAPER)).max() <= ROUNDING
