"""HSV against scikit-image's, Lab against the definition: sRGB light -> XYZ under D50 (Bradford) -> L*a*b*."""

import numpy as np
import PIL.Image
import pytest
import skimage.color

from proposals.selective.colour import COLOUR_SPACES, to_hsv, to_lab, to_rgb


def colours(count=40_000):
    """[1, N, 3]: random colours, then all of a coarse grid that has the corners, greys and equal channels in it."""
    steps = np.array([0, 1, 2, 15, 64, 127, 128, 200, 254, 255], np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    random = np.random.default_rng(0).integers(0, 256, (count, 3), dtype=np.uint8)
    return np.concatenate([random, grid])[None]


def xyz_of_linear_rgb():
    """Linear sRGB -> XYZ under D50, from the chromaticities of IEC 61966-2-1 and Bradford's cone responses."""
    primaries = np.array([[0.64, 0.33], [0.30, 0.60], [0.15, 0.06]])
    columns = np.stack([primaries[:, 0], primaries[:, 1], 1 - primaries.sum(axis=1)]) / primaries[:, 1]
    d65, d50 = np.array([0.95047, 1, 1.08883]), np.array([0.96422, 1, 0.82521])  # ASTM E308
    matrix = columns * np.linalg.solve(columns, d65)
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    adapt = np.linalg.inv(bradford) @ np.diag(bradford @ d50 / (bradford @ d65)) @ bradford
    return adapt @ matrix, d50


def lab(image):
    """[..., 3] bytes -> [..., 3] L* in 0-100, a*, b*, in the obvious way."""
    value = image / 255
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    matrix, white = xyz_of_linear_rgb()
    ratio = light @ matrix.T / white
    x, y, z = np.moveaxis(np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def lab_bytes(values):
    """Before rounding."""
    return np.clip(values * [2.55, 1, 1] + [0, 128, 128], 0, 255)


def test_hsv_is_scikit_images_in_bytes():
    image = colours()
    expected = skimage.color.rgb2hsv(image) * 255
    assert np.abs(to_hsv(image) - expected).max() <= 0.5 + 1e-9  # rounded, the nearer byte of two


def test_hsv_by_hand():
    image = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 255, 255], [90, 90, 90], [0, 0, 0], [255, 0, 1]]])
    expected = [[0, 255, 255], [85, 255, 255], [170, 255, 255], [128, 255, 255], [0, 0, 90], [0, 0, 0], [255, 255, 255]]
    assert to_hsv(image.astype(np.uint8))[0].tolist() == expected


def test_lab_is_the_definitions_in_bytes():
    image = colours()
    assert np.abs(to_lab(image) - lab_bytes(lab(image))).max() <= 0.5 + 0.001  # ours is in float32


@pytest.mark.parametrize(
    ("colour", "expected"),
    [  # CSS Color 4 states these for lab(), whose white is D50 as here
        ((255, 0, 0), (54.29, 80.81, 69.89)),
        ((0, 255, 0), (87.82, -79.27, 80.99)),
        ((0, 0, 255), (29.57, 68.30, -112.03)),
        ((255, 255, 255), (100, 0, 0)),
    ],
)
def test_lab_of_published_colours(colour, expected):
    image = np.array([[colour]], np.uint8)
    assert lab(image)[0, 0] == pytest.approx(expected, abs=0.03)
    assert to_lab(image)[0, 0].tolist() == np.rint(lab_bytes(np.array(expected))).tolist()


def test_grey_has_no_colour():
    levels = np.arange(256, dtype=np.uint8)
    greys = np.repeat(levels[None, :, None], 3, axis=2)
    assert (to_hsv(greys)[0, :, :2] == 0).all()
    assert to_hsv(greys)[0, :, 2].tolist() == levels.tolist()
    assert (to_lab(greys)[0, :, 1:] == 128).all()
    assert (np.diff(to_lab(greys)[0, :, 0].astype(int)) >= 0).all()


def test_the_other_spaces_are_the_authors():
    image = np.random.default_rng(3).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    found = {name: space.convert(image).astype(int) for name, space in COLOUR_SPACES.items()}
    grey = np.rint(image @ np.array([0.299, 0.587, 0.114]))[..., None]
    assert np.abs(found["i"] - grey).max() <= 1  # of two bytes equally near it may take either
    assert np.array_equal(found["h"], to_hsv(image)[..., :1])
    red, green = (image[..., channel] / image.sum(axis=2) * 255 for channel in (0, 1))
    assert np.abs(found["rgi"][..., 0] - red).max() <= 0.5 + 1e-3
    assert np.abs(found["rgi"][..., 1] - green).max() <= 0.5 + 1e-3
    assert np.array_equal(found["rgi"][..., 2:], found["i"])


def test_black_has_the_chromaticity_of_grey():
    black = np.zeros((2, 2, 3), np.uint8)
    assert COLOUR_SPACES["rgi"].convert(black)[0, 0].tolist() == [85, 85, 0]
    assert COLOUR_SPACES["rgi"].convert(black + np.uint8(90))[0, 0].tolist() == [85, 85, 90]


@pytest.mark.parametrize("name", COLOUR_SPACES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (5, 7)])
def test_shape_type_and_input_are_kept(name, shape):
    convert = COLOUR_SPACES[name].convert
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    before = image.copy()
    result = convert(image)
    assert result.shape[:2] == shape
    assert result.shape[2] == (1 if name.removeprefix("opencv-") in ("h", "i") else 3)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    assert np.array_equal(image, before)
    assert np.array_equal(result[-1:, -1:], convert(image[-1:, -1:].copy()))  # pixel by pixel


# ---- other arrays


def test_every_form_of_a_grey_picture_is_the_same_rgb():
    grey = np.random.default_rng(0).integers(0, 256, (5, 7), dtype=np.uint8)
    expected = np.stack([grey] * 3, axis=2)
    for same in (
        grey,
        grey[:, :, None],
        expected,
        np.dstack([expected, np.full_like(grey, 255)]),
        np.dstack([grey, np.full_like(grey, 255)]),
        np.dstack([grey, np.zeros_like(grey)]),  # alpha that says nothing
        np.dstack([expected, np.zeros_like(grey)]),
        (expected.astype(np.uint16) * 257).astype(">u2"),
        (expected / 255).astype(">f4"),
        expected / 255,
        (expected / 255).astype(np.float32),
        expected.astype(np.uint16) * 257,
        expected.astype(np.uint16) * 256,
        np.asfortranarray(expected),
        expected[:, ::-1][:, ::-1],
    ):
        converted = to_rgb(same)
        assert np.array_equal(converted, expected)
        assert converted.dtype == np.uint8
        assert converted.flags.c_contiguous
    assert np.array_equal(to_rgb(grey > 99), np.stack([np.where(grey > 99, 255, 0)] * 3, axis=2))


def test_alpha_is_laid_over_white():
    pixels = np.array([[[10, 200, 0, 255], [10, 200, 0, 0], [10, 200, 0, 128]]], np.uint8)
    expected = [[10, 200, 0], [255, 255, 255], [round(255 - 245 * 128 / 255), round(255 - 55 * 128 / 255), 127]]
    assert to_rgb(pixels).tolist() == [expected]
    assert to_rgb(pixels / 255).tolist() == [expected]
    grey = [[row[0]] * 3 for row in expected]
    assert to_rgb(np.ascontiguousarray(pixels[:, :, [0, 3]])).tolist() == [grey]


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (np.zeros((20, 30, 5), np.uint8), "uint8 [20, 30, 5]"),
        (np.zeros((20, 30, 3), np.int64), "int64 [20, 30, 3]"),
        (np.zeros((20, 30, 3), np.int8), "int8 [20, 30, 3]"),
        (np.zeros((20, 30, 3), np.uint32), "uint32 [20, 30, 3]"),
        (np.zeros((3, 20, 30), np.uint8), "uint8 [3, 20, 30]"),
        (np.zeros((20, 30, 3), object), "object [20, 30, 3]"),
        (np.zeros((20, 30, 3), np.complex64), "complex64 [20, 30, 3]"),
        (np.zeros((0, 30, 3), np.uint8), "uint8 [0, 30, 3]"),
        (np.zeros((2, 20, 30, 3), np.uint8), "uint8 [2, 20, 30, 3]"),
        (np.zeros(30, np.uint8), "uint8 [30]"),
    ],
)
def test_refuses_other_arrays(image, found):
    with pytest.raises(ValueError, match=r"^image .*\[H, W\]") as caught:
        to_rgb(image)
    assert str(caught.value).endswith(found)


def test_refuses_what_is_no_array():
    with pytest.raises(ValueError, match=r"PIL\.Image"):
        to_rgb(PIL.Image.new("RGB", (3, 2)))
    with pytest.raises(ValueError, match="list"):
        to_rgb([[0, 255]])


@pytest.mark.parametrize("value", [-0.01, 1.01, 255.0, np.nan, np.inf])
def test_refuses_floats_of_another_range(value):
    image = np.full((4, 4, 3), 0.5)
    image[2, 2, 1] = value
    with pytest.raises(ValueError, match=r"^a float image .*\[0, 1\]"):
        to_rgb(image)
