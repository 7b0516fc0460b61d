"""Histograms, sizes, boxes and neighbours of superpixels against scikit-image, SciPy and counting by hand."""

import numpy as np
import pytest
import scipy.ndimage
import skimage.data
import skimage.graph
import skimage.measure

from proposals.features import COLOUR_BINS, DIRECTIONS, TEXTURE_BINS, Superpixels, describe, texture_bins
from proposals.segmentation import segment


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


CASES = {
    "noise": noise(40, 33),
    "photograph": skimage.data.astronaut()[100:220, 180:330].copy(),
    "one pixel": noise(1, 1),
    "a row": noise(1, 50),
    "a column": noise(50, 1),
    "constant": np.full((20, 30, 3), 99, np.uint8),
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request):
    """(image, labels, superpixels)."""
    image = request.param
    labels = segment(image, 30, 10)
    return image, labels, describe(image, labels, texture_bins(image))


def responses(image):
    """Signed Gaussian derivatives along 0, 45, 90, 135 degrees; [H, W, 3] -> [H, W, 3, 4] float64, by SciPy."""
    values = image.astype(np.float64) / 255
    options = {"sigma": (0.8, 0.8, 0), "mode": "nearest", "radius": (4, 4, 0)}
    across = scipy.ndimage.gaussian_filter(values, order=(0, 1, 0), **options)
    down = scipy.ndimage.gaussian_filter(values, order=(1, 0, 0), **options)
    return np.stack([across, (across + down) / np.sqrt(2), down, (down - across) / np.sqrt(2)], axis=-1)


# ---- texture


@pytest.mark.parametrize("image", CASES.values(), ids=CASES)
def test_texture_bins_are_scipys_gaussian_derivatives(image):
    scaled = responses(image) * (TEXTURE_BINS - 1) / 0.43
    halves = np.concatenate([np.maximum(scaled, 0), np.maximum(-scaled, 0)], axis=-1)  # [H, W, 3, 8]
    bins = texture_bins(image)
    assert bins.dtype == np.uint8
    assert bins.shape == (*image.shape[:2], 3 * DIRECTIONS)
    assert bins.max() < TEXTURE_BINS
    distance = np.abs(bins - np.minimum(halves, TEXTURE_BINS - 1).reshape(bins.shape))
    assert distance.max() <= 0.5 + 1e-4  # each is the nearest bin


def test_a_full_step_just_fills_the_last_bin():
    image = np.zeros((9, 20, 3), np.uint8)
    image[:, 10:] = 255
    bins = texture_bins(image).reshape(9, 20, 3, DIRECTIONS)
    assert (bins[:, 9:11, :, 0] == TEXTURE_BINS - 1).all()  # dark to bright, left to right: direction 0
    assert (bins[:, :, :, [2, 4, 6]] == 0).all()
    assert (bins[:, :, :, 1] == bins[:, :, :, 7]).all()  # 45 degrees, and against 135
    assert (bins[:, :5] == 0).all()
    assert (bins[:, 15:] == 0).all()


def test_directions_turn_with_the_image():
    image = noise(12, 15)
    bins = texture_bins(image).reshape(12, 15, 3, DIRECTIONS)
    mirrored = texture_bins(image[:, ::-1].copy()).reshape(12, 15, 3, DIRECTIONS)[:, ::-1]
    transposed = texture_bins(image.transpose(1, 0, 2).copy()).reshape(15, 12, 3, DIRECTIONS).transpose(1, 0, 2, 3)
    negative = texture_bins(255 - image).reshape(12, 15, 3, DIRECTIONS)
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


def test_pairs_are_scikit_images_region_graph(case):
    _, labels, superpixels = case
    expected = sorted(sorted(edge) for edge in skimage.graph.RAG(labels, connectivity=2).edges)
    assert superpixels.pairs.tolist() == expected
    assert superpixels.pairs.shape == (len(expected), 2)


def test_corners_touch():
    labels = np.array([[0, 1], [2, 3]], np.int32)
    image = noise(2, 2)
    pairs = describe(image, labels, texture_bins(image)).pairs
    assert pairs.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]


def test_histograms_count_pixels(case):
    image, labels, superpixels = case
    bins = texture_bins(image).reshape(*image.shape, DIRECTIONS)
    colour_bins = np.rint(image / 255 * (COLOUR_BINS - 1)).astype(int)
    for region in range(len(superpixels.sizes)):
        inside = labels == region
        colour = [np.bincount(colour_bins[inside, channel], minlength=COLOUR_BINS) for channel in range(3)]
        texture = [
            np.bincount(bins[inside, channel, direction], minlength=TEXTURE_BINS)
            for channel in range(3)
            for direction in range(DIRECTIONS)
        ]
        area = inside.sum()
        assert superpixels.colour[region] == pytest.approx(np.concatenate(colour) / (3 * area), abs=1e-6)
        assert superpixels.texture[region] == pytest.approx(np.concatenate(texture) / (24 * area), abs=1e-6)


def test_the_outer_colour_bins_are_half_as_wide():
    image = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    histogram = describe(image, np.zeros((1, 256), np.int32), texture_bins(image)).colour[0, :COLOUR_BINS] * 256 * 3
    assert histogram[[0, -1]] == pytest.approx([6, 6])  # 0-5 and 250-255
    assert set(np.rint(histogram[1:-1])) == {10, 11}  # of 255 / 24 = 10.6


def test_histograms_sum_to_1_and_those_of_a_union_are_the_mean_by_size(case):
    image, labels, parts = case
    for histograms in (parts.colour, parts.texture):
        assert histograms.dtype == np.float32
        assert histograms.sum(axis=1) == pytest.approx(1, abs=1e-5)
    halves = np.random.default_rng(0).permutation(len(parts.sizes)) % 2 if len(parts.sizes) > 1 else np.zeros(1, int)
    unions: Superpixels = describe(image, halves[labels].astype(np.int32), texture_bins(image))
    for union in range(len(unions.sizes)):
        inside = halves == union
        weights = parts.sizes[inside] / parts.sizes[inside].sum()
        assert unions.sizes[union] == parts.sizes[inside].sum()
        assert unions.colour[union] == pytest.approx(weights @ parts.colour[inside], abs=1e-6)
        assert unions.texture[union] == pytest.approx(weights @ parts.texture[inside], abs=1e-6)
