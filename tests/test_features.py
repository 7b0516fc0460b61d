"""Histograms, sizes, boxes and neighbours of superpixels against scikit-image, SciPy and counting by hand."""

import numpy as np
import pytest
import scipy.ndimage
import skimage.data
import skimage.measure

from proposals.selective.features import COLOUR_BINS, DIRECTIONS, TEXTURE_BINS, Superpixels, describe, texture_bins
from proposals.selective.segmentation import build_graph, merge_nodes, smooth

NO_PAIRS = np.empty((0, 2), np.int32)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


CASES = {
    "noise": noise(40, 33),
    "photograph": skimage.data.astronaut()[100:220, 180:330].copy(),
    "one pixel": noise(1, 1),
    "a row": noise(1, 50),
    "a column": noise(50, 1),
    "constant": np.full((20, 30, 3), 99, np.uint8),
    "one channel": noise(40, 33)[:, :, :1].copy(),
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request):
    """(image, labels, superpixels)."""
    image = request.param
    graph = build_graph(smooth(image, 0.8), 30)
    labels = merge_nodes(graph, 30, 10)[graph.nodes]
    return image, labels, describe(image, labels, texture_bins(image), NO_PAIRS)


def all_bins(image):
    """texture_bins with both halves of each orientation; -> [H, W, C, 8]."""
    codes = texture_bins(image)
    bins = np.zeros((*image.shape, DIRECTIONS), np.uint8)
    for code in codes:
        np.put_along_axis(bins, (code // TEXTURE_BINS)[..., None], (code % TEXTURE_BINS)[..., None], axis=-1)
    return bins


def responses(image):
    """Signed Gaussian derivatives along 0, 45, 90, 135 degrees; [H, W, C] -> [H, W, C, 4] float64, by SciPy."""
    values = image.astype(np.float64) / 255
    options = {"sigma": (0.8, 0.8, 0), "mode": "nearest", "radius": (4, 4, 0)}
    across = scipy.ndimage.gaussian_filter(values, order=(0, 1, 0), **options)
    down = scipy.ndimage.gaussian_filter(values, order=(1, 0, 0), **options)
    return np.stack([across, (across + down) / np.sqrt(2), down, (down - across) / np.sqrt(2)], axis=-1)


# ---- texture


@pytest.mark.parametrize("image", CASES.values(), ids=CASES)
def test_texture_bins_are_scipys_gaussian_derivatives(image):
    scaled = responses(image) * (TEXTURE_BINS - 1) / 0.43
    halves = np.concatenate([np.maximum(scaled, 0), np.maximum(-scaled, 0)], axis=-1)  # [H, W, C, 8]
    codes = texture_bins(image)
    assert codes.dtype == np.uint8
    assert codes.shape == (4, *image.shape)
    assert (codes // TEXTURE_BINS % 4 == np.arange(4)[:, None, None, None]).all()
    distance = np.abs(all_bins(image) - np.minimum(halves, TEXTURE_BINS - 1))
    assert distance.max() <= 0.5 + 1e-4  # each is the nearest bin


def test_a_full_step_just_fills_the_last_bin():
    image = np.zeros((9, 20, 3), np.uint8)
    image[:, 10:] = 255
    bins = all_bins(image)
    assert (bins[:, 9:11, :, 0] == TEXTURE_BINS - 1).all()  # dark to bright, left to right: direction 0
    assert (bins[:, :, :, [2, 4, 6]] == 0).all()
    assert (bins[:, :, :, 1] == bins[:, :, :, 7]).all()  # 45 degrees, and against 135
    assert (bins[:, :5] == 0).all()
    assert (bins[:, 15:] == 0).all()


def test_directions_turn_with_the_image():
    image = noise(12, 15)
    bins = all_bins(image)
    mirrored = all_bins(image[:, ::-1].copy())[:, ::-1]
    transposed = all_bins(image.transpose(1, 0, 2).copy()).transpose(1, 0, 2, 3)
    negative = all_bins(255 - image)
    assert np.array_equal(mirrored, bins[..., [4, 3, 2, 1, 0, 7, 6, 5]])
    assert np.array_equal(transposed, bins[..., [2, 1, 0, 7, 6, 5, 4, 3]])
    assert np.array_equal(negative, bins[..., [4, 5, 6, 7, 0, 1, 2, 3]])


# ---- superpixels


def test_sizes_and_boxes_are_scikit_images(case):
    _, labels, superpixels = case
    regions = skimage.measure.regionprops(labels + 1)
    assert superpixels.sizes.tolist() == [region.area for region in regions]
    assert superpixels.boxes.tolist() == [
        [left, top, right, low] for top, left, low, right in (r.bbox for r in regions)
    ]


def test_histograms_count_pixels(case):
    image, labels, superpixels = case
    bins = all_bins(image)
    channels = image.shape[2]
    colour_bins = np.rint(image / 255 * (COLOUR_BINS - 1)).astype(int)
    for region in range(len(superpixels.sizes)):
        inside = labels == region
        colour = [np.bincount(colour_bins[inside, channel], minlength=COLOUR_BINS) for channel in range(channels)]
        texture = [
            np.bincount(bins[inside, channel, direction], minlength=TEXTURE_BINS)
            for channel in range(channels)
            for direction in range(DIRECTIONS)
        ]
        area = inside.sum()
        assert superpixels.colour[region] == pytest.approx(np.concatenate(colour) / (channels * area), abs=1e-6)
        assert superpixels.texture[region] == pytest.approx(
            np.concatenate(texture) / (channels * DIRECTIONS * area), abs=1e-6
        )


def test_the_outer_colour_bins_are_half_as_wide():
    image = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    whole = describe(image, np.zeros((1, 256), np.int32), texture_bins(image), NO_PAIRS)
    histogram = whole.colour[0, :COLOUR_BINS] * 256 * 3
    assert histogram[[0, -1]] == pytest.approx([6, 6])  # 0-5 and 250-255
    assert set(np.rint(histogram[1:-1])) == {10, 11}  # of 255 / 24 = 10.6


def test_histograms_sum_to_1_and_those_of_a_union_are_the_mean_by_size(case):
    image, labels, parts = case
    for histograms in (parts.colour, parts.texture):
        assert histograms.dtype == np.float32
        assert histograms.sum(axis=1) == pytest.approx(1, abs=1e-5)
    halves = np.random.default_rng(0).permutation(len(parts.sizes)) % 2 if len(parts.sizes) > 1 else np.zeros(1, int)
    unions: Superpixels = describe(image, halves[labels].astype(np.int32), texture_bins(image), NO_PAIRS)
    for union in range(len(unions.sizes)):
        inside = halves == union
        weights = parts.sizes[inside] / parts.sizes[inside].sum()
        assert unions.sizes[union] == parts.sizes[inside].sum()
        assert unions.colour[union] == pytest.approx(weights @ parts.colour[inside], abs=1e-6)
        assert unions.texture[union] == pytest.approx(weights @ parts.texture[inside], abs=1e-6)
