"""Training examples: the distribution of what is drawn, and each step against a slow version of its own (paper §6)."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from itertools import permutations
from math import log
from pathlib import Path
from re import escape
from typing import Any, NamedTuple

import albumentations as A
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from detector.classification.augment import (
    EIGENVALUES,
    EIGENVECTORS,
    INTERPOLATIONS,
    Distortion,
    Lighting,
    SamplingConfig,
    distort,
    example,
    sampler,
)
from detector.data.image import Image

Floats = NDArray[np.float64]

PLAIN: dict[str, Any] = {"mirror": False, "distortion": 0.0, "lighting": 0.0}
COUNT = 6000  # examples of the fixture `drawn`


def noise(height: int, width: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def flat(transforms: A.BaseCompose) -> Iterator[A.BasicTransform]:
    for transform in transforms.transforms:
        if isinstance(transform, A.BaseCompose):
            yield from flat(transform)
        else:
            yield transform


# ---- crops


def published_crops(count: int, side: int) -> tuple[Floats, Floats]:
    """Area shares and log-ratios by torchvision's published rule, on a square image: draw, and again if it sticks out.

    Its last resort after ten draws, the whole image, is left out: a draw fails in 14 % of cases.
    """
    generator = np.random.default_rng(7)
    areas = generator.uniform(0.08, 1, count)
    ratios = np.exp(generator.uniform(log(3 / 4), log(4 / 3), count))
    fits = (np.sqrt(areas * ratios) * side < side + 0.5) & (np.sqrt(areas / ratios) * side < side + 0.5)
    return areas[fits], np.log(ratios[fits])


def test_crops_are_distributed_as_published() -> None:
    """10^5 crops of a square; a share s at log-ratio l fits where s <= exp(-|l|), hence the mean share."""
    side = 1000
    crops = [transform for transform in flat(sampler(SamplingConfig(), 224)) if hasattr(transform, "scale")]
    assert len(crops) == len(INTERPOLATIONS)
    boxes = []
    for number, transform in enumerate(crops):
        transform.set_random_seed(number)
        shape = {"shape": (side, side, 3)}
        boxes += [transform.get_params_dependent_on_data(shape, {})["crop_coords"] for _ in range(100_000 // 4)]
    x1, y1, x2, y2 = np.array(boxes, np.float64).T
    width, height = x2 - x1, y2 - y1

    assert x1.min() >= 0
    assert y1.min() >= 0
    assert max(x2.max(), y2.max()) <= side
    assert ((width + 0.5) * (height + 0.5) / side**2 >= 0.08).all()  # sides are rounded to pixels
    assert ((width + 0.5) / (height - 0.5) >= 3 / 4).all()
    assert ((width - 0.5) / (height + 0.5) <= 4 / 3).all()

    shares, logs = width * height / side**2, np.log(width / height)
    published_shares, published_logs = published_crops(400_000, side)
    assert np.mean([0.08, 1]) == pytest.approx(0.54)  # were nothing to stick out
    bound = log(4 / 3)  # of |l|; below: the integrals of s and of 1 over the shares that fit, over l
    mean = ((1 - (3 / 4) ** 2) / 2 - 0.08**2 * bound) / 2 / (1 - 3 / 4 - 0.08 * bound)
    assert shares.mean() == pytest.approx(mean, abs=0.004)  # standard deviation 0.0008
    assert published_shares.mean() == pytest.approx(mean, abs=0.003)
    assert logs.mean() == pytest.approx(0, abs=0.003)  # standard deviation 0.0005
    tenths = np.linspace(0.1, 0.9, 9)
    assert np.quantile(shares, tenths) == pytest.approx(np.quantile(published_shares, tenths), abs=0.01)
    assert np.quantile(logs, tenths) == pytest.approx(np.quantile(published_logs, tenths), abs=0.01)

    for first, spare in ((x1, side - width), (y1, side - height)):  # anywhere with the same chance
        places = first[spare > 50] / spare[spare > 50]
        assert np.quantile(places, tenths) == pytest.approx(tenths, abs=0.03)


def test_limits_are_the_configs() -> None:
    """Wide patches of a quarter to a half: the sides of a ramp's crop tell its size."""
    config = SamplingConfig(area=(0.25, 0.5), ratio=(1.5, 2.0), interpolation="nearest", **PLAIN)
    transforms = sampler(config, 64)
    rows, columns = np.mgrid[:200, :200]
    ramp = np.stack([columns, rows, rows], axis=2).astype(np.uint8)
    for number in range(200):
        square = example(ramp, transforms, (number,))
        height, width = (np.ptp(square[:, :, colour].astype(int)) / 63 * 64 for colour in (1, 0))
        assert 0.23 < width * height / 200**2 < 0.53
        assert 1.4 < width / height < 2.15


# ---- what is drawn for an example


class Drawn(NamedTuple):
    """Of COUNT examples, each with a seed of its own, what was drawn."""

    shares: Floats
    logs: Floats
    interpolations: NDArray[np.int64]
    mirrored: NDArray[np.bool_]
    orders: NDArray[np.int64]
    factors: Floats
    amounts: Floats


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    transforms = sampler(SamplingConfig(), 8)
    parts = list(flat(transforms))
    image = np.zeros((100, 100, 3), np.uint8)
    rows: list[tuple[Any, ...]] = []
    for number in range(COUNT):
        for part in parts:
            part.params = {}  # else a crop that was not chosen keeps its last
        example(image, transforms, (5, 0, number))
        (crop,) = (part for part in parts if "crop_coords" in part.params)
        (flip,) = (part for part in parts if isinstance(part, A.HorizontalFlip))
        (distortion,) = (part for part in parts if isinstance(part, Distortion))
        (lighting,) = (part for part in parts if isinstance(part, Lighting))
        x1, y1, x2, y2 = crop.params["crop_coords"]
        share, ratio = (x2 - x1) * (y2 - y1) / 100**2, (x2 - x1) / (y2 - y1)
        rest = distortion.params["order"], distortion.params["factors"], lighting.params["amounts"]
        rows.append((share, log(ratio), crop.interpolation, bool(flip.params), *rest))
    return Drawn(*(np.array(column) for column in zip(*rows, strict=True)))


def test_interpolations_and_mirrors_are_drawn_equally_often(drawn: Drawn) -> None:
    counts = [(drawn.interpolations == flag).sum() for flag in INTERPOLATIONS.values()]
    assert sum(counts) == COUNT
    assert counts == pytest.approx([COUNT / 4] * 4, rel=0.12)  # standard deviation 2.2 %
    assert drawn.mirrored.mean() == pytest.approx(0.5, abs=0.03)  # standard deviation 0.006


def test_enhancers_come_in_any_order_with_uniform_factors(drawn: Drawn) -> None:
    counts = [(drawn.orders == order).all(axis=1).sum() for order in permutations(range(3))]
    assert sum(counts) == COUNT
    square = ((np.array(counts) - COUNT / 6) ** 2 / (COUNT / 6)).sum()
    assert square < 20.5  # chi-square of 5 degrees of freedom: exceeded once in a thousand seeds
    assert drawn.factors.min() >= 0.5
    assert drawn.factors.max() <= 1.5
    tenths = np.linspace(0.1, 0.9, 9)
    for factors in drawn.factors.T:
        assert np.quantile(factors, tenths) == pytest.approx(0.5 + tenths, abs=0.03)


def test_amounts_of_light_are_normal(drawn: Drawn) -> None:
    assert drawn.amounts.mean(axis=0) == pytest.approx([0, 0, 0], abs=0.006)  # standard deviation 0.0013
    assert drawn.amounts.std(axis=0) == pytest.approx([0.1] * 3, abs=0.005)  # standard deviation 0.0009
    within = (np.abs(drawn.amounts) < 0.1).mean()
    assert within == pytest.approx(0.683, abs=0.015)  # of a normal distribution, one deviation


def test_crops_through_the_whole_are_those_of_the_sampler(drawn: Drawn) -> None:
    shares, logs = published_crops(400_000, 100)
    tenths = np.linspace(0.1, 0.9, 9)
    assert np.quantile(drawn.shares, tenths) == pytest.approx(np.quantile(shares, tenths), abs=0.04)
    assert np.quantile(drawn.logs, tenths) == pytest.approx(np.quantile(logs, tenths), abs=0.04)


def test_draws_do_not_depend_on_each_other(drawn: Drawn) -> None:
    """A mirror that small patches get and large ones do not would be no mirror of the large ones."""
    large = drawn.shares > 0.6
    assert drawn.mirrored[large].mean() == pytest.approx(0.5, abs=0.06)
    assert drawn.mirrored[~large].mean() == pytest.approx(0.5, abs=0.06)
    flags = [drawn.interpolations == flag for flag in list(INTERPOLATIONS.values())[1:]]
    places = [drawn.orders.argsort(axis=1)[:, enhancer] for enhancer in (0, 1)]
    columns = [drawn.shares, drawn.logs, *flags, drawn.mirrored, *places, *drawn.factors.T, *drawn.amounts.T]
    names = [
        "share",
        "ratio",
        *(["interpolation"] * 3),
        "mirror",
        *(["place"] * 2),
        *(["factor"] * 3),
        *(["amount"] * 3),
    ]
    # Columns of one name: interpolations, and places in the order, exclude each other.
    found: Floats = np.asarray(np.corrcoef(np.array(columns, np.float64)))
    for i, j in np.argwhere(np.triu(np.abs(found) > 0.07, 1)).tolist():  # standard deviation 0.013
        assert names[i] == names[j], f"{names[i]} goes with {names[j]}: {found[i, j]:.2f}"


def test_mirrored_from_left_to_right() -> None:
    rows, columns = np.mgrid[:100, :100]
    ramp = np.stack([columns, rows, rows], axis=2).astype(np.uint8)
    steps = []
    for mirror in (True, False):
        transforms = sampler(SamplingConfig(mirror=mirror, distortion=0, lighting=0, interpolation="nearest"), 16)
        squares = [example(ramp, transforms, (number,)).astype(int) for number in range(200)]
        assert all((np.diff(square[:, :, 1], axis=0) > 0).all() for square in squares)  # never upside down
        steps.append([np.sign(np.diff(square[:, :, 0], axis=1)).mean() for square in squares])
    assert set(steps[0]) == {1, -1}
    assert np.mean(steps[0]) == pytest.approx(0, abs=0.3)  # standard deviation 0.07
    assert set(steps[1]) == {1}


# ---- distortion and light


def slow_enhance(image: Image, enhancer: int, factor: float) -> Floats:
    """Away from black, from the flat grey of the mean, from the grey picture: what Pillow says its enhancers do."""
    x = image.astype(np.float64)
    grey = np.rint(x @ [0.299, 0.587, 0.114])
    ground = (0.0, np.floor(grey.mean() + 0.5), grey[:, :, None])[enhancer]
    return np.clip(ground + factor * (x - ground), 0, 255)


@pytest.mark.parametrize("enhancer", [0, 1, 2])
def test_enhancers_do_what_they_are_named_after(enhancer: int) -> None:
    image = noise(30, 40)
    for factor in (0.5, 0.8, 1.1, 1.5):
        factors = [1.3, 1.3, 1.3]  # of others, which are not asked for
        factors[enhancer] = factor
        found = distort(image, [enhancer], factors)
        assert found.dtype == np.uint8
        assert np.abs(found - slow_enhance(image, enhancer, factor)).max() <= 1
    assert np.array_equal(distort(image, [enhancer], [1.0, 1.0, 1.0]), image)


def test_enhancers_follow_each_other_in_the_order() -> None:
    image, factors = noise(30, 40), [1.5, 0.6, 1.4]
    results = []
    for order in permutations(range(3)):
        expected = image
        for enhancer in order:
            expected = distort(expected, [enhancer], factors)
        results.append(distort(image, list(order), factors))
        assert np.array_equal(results[-1], expected)
    assert len({result.tobytes() for result in results}) == 6


def test_axes_are_orthonormal() -> None:
    np.testing.assert_allclose(EIGENVECTORS.T @ EIGENVECTORS, np.eye(3), atol=1e-3)
    assert (np.diff(EIGENVALUES) < 0).all()


@pytest.mark.parametrize(
    ("amounts", "shift"),
    [
        ((1, 0, 0), 255 * 0.2175 * np.array([-0.5675, -0.5808, -0.5836])),
        ((-1, 0, 0), 255 * 0.2175 * np.array([0.5675, 0.5808, 0.5836])),
        ((0, 2, 0), 255 * 2 * 0.0188 * np.array([0.7192, -0.0045, -0.6948])),
        ((0, 0, 3), 255 * 3 * 0.0045 * np.array([0.4009, -0.8140, 0.4203])),
        ((0, 0, 0), np.zeros(3)),
    ],
)
def test_light_moves_every_pixel_along_an_axis(amounts: tuple[float, ...], shift: Floats) -> None:
    levels = np.arange(256, dtype=np.uint8)
    image = np.stack([levels, levels[::-1], np.roll(levels, 99)], axis=1).reshape(8, 32, 3)
    found = Lighting(1.0).apply(image, np.array(amounts, np.float64))
    assert found.dtype == np.uint8
    assert np.array_equal(found, np.clip(np.rint(image + shift), 0, 255))


# ---- examples


def test_an_example_depends_on_image_and_seed_alone() -> None:
    images = [noise(60, 80, seed) for seed in range(3)]
    config = SamplingConfig()
    first, second = sampler(config, 32), sampler(config, 32)
    ahead = [example(image, first, (3, 0, number)) for number, image in enumerate(images)]
    for number in (2, 0, 1):  # in another order
        assert np.array_equal(example(images[number], second, (3, 0, number)), ahead[number])
    for seed in ((4, 0, 0), (3, 1, 0), (3, 0, 1), (0, 3, 0)):
        assert not np.array_equal(example(images[0], second, seed), ahead[0])


def test_an_example_depends_on_no_global_generator() -> None:
    image, transforms = noise(60, 80), sampler(SamplingConfig(), 32)
    expected = example(image, transforms, (1,))
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002 - that one
    assert np.array_equal(example(image, transforms, (1,)), expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (2, 3), (20, 30), (224, 224), (300, 70)])
@pytest.mark.parametrize("side", [32, 224])
def test_images_of_any_size(size: tuple[int, int], side: int) -> None:
    image = noise(*size)
    kept = image.copy()
    transforms = sampler(SamplingConfig(), side)
    for number in range(8):
        square = example(image, transforms, (number,))
        assert square.shape == (side, side, 3)
        assert square.dtype == np.uint8
    assert np.array_equal(image, kept)  # the caller's


def test_grey_stays_grey() -> None:
    """Under distortion; light has a colour."""
    grey = np.repeat(noise(50, 50)[:, :, :1], 3, axis=2)
    transforms = sampler(SamplingConfig(lighting=0), 32)
    for number in range(20):
        square = example(grey, transforms, (number,))
        assert np.ptp(square.astype(int), axis=2).max() == 0
    assert example(grey, sampler(SamplingConfig(), 32), (0,)).shape == (32, 32, 3)


@pytest.mark.parametrize("off", [{}, {"lighting": 0.0}, {"distortion": 0.0}, PLAIN])
def test_an_example_may_be_written_to(off: dict[str, Any]) -> None:
    """Else torch warns of it when it makes a tensor of it."""
    transforms = sampler(SamplingConfig(**off), 16)
    for number in range(4):
        square = example(noise(20, 30), transforms, (number,))
        assert square.flags.writeable


@pytest.mark.parametrize("name", list(INTERPOLATIONS))
def test_with_everything_off_it_is_a_resize(name: str) -> None:
    flag = {
        "bilinear": cv2.INTER_LINEAR,
        "area": cv2.INTER_AREA,
        "nearest": cv2.INTER_NEAREST,
        "cubic": cv2.INTER_CUBIC,
    }[name]
    transforms = sampler(SamplingConfig(area=(1, 1), ratio=(1, 1), interpolation=name, **PLAIN), 64)
    for side in (40, 64, 100, 131):
        image = noise(side, side)
        found = example(image, transforms, (side,))
        assert np.array_equal(found, cv2.resize(image, (64, 64), interpolation=flag))


# ---- settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("area", [0, 1]),
        ("area", [0.5, 0.4]),
        ("area", [0.5, 1.5]),
        ("ratio", [0, 1]),
        ("ratio", [2, 1]),
        ("interpolation", "lanczos"),
        ("distortion", 1.0),
        ("distortion", -0.1),
        ("lighting", -1),
    ],
)
def test_refuses_settings(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^sampling\.{name} .*{escape(str(value))}"):
        SamplingConfig(**{name: tuple(value) if isinstance(value, list) else value})


def test_importing_it_asks_no_server() -> None:
    """In a process of its own: albumentations looks for its newest version unless the environment forbids it."""
    script = """
import sys
touched = []
sys.addaudithook(lambda event, _: touched.append(event) if event.startswith(("socket.", "urllib.")) else None)
import os
assert "NO_ALBUMENTATIONS_UPDATE" not in os.environ
import detector.classification.augment
assert os.environ["NO_ALBUMENTATIONS_UPDATE"] == "1"
import albumentations.check_version
assert albumentations.check_version.opener is None
print("touched:", [event for event in touched if event in ("urllib.Request", "socket.connect", "socket.getaddrinfo")])
"""
    environment = {key: value for key, value in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"}
    command = [sys.executable, "-c", script]
    root = Path(__file__).parent.parent
    result = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "touched: []\n"
    assert "ersion" not in result.stderr  # albumentations' warning of a newer one
