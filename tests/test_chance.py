"""Chance baselines: their distributions and grids against slow versions, the shipped fit against its data."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import skimage.data

from detector.data import open_dataset
from detector.data.dataset import DataConfig, DatasetKind
from proposals import chance
from proposals.chance import COUNT, VOC, WINDOWS, Fit, fit, gaussian_of, uniform_of
from proposals.merging import propose
from proposals.result import Source
from proposals.selective.colour import COLOUR_SPACES
from proposals.selective.search import SIGMA
from proposals.selective.segmentation import build_graph, merge_nodes, smooth
from proposals.settings import MODES, ProposalConfig

Array = np.ndarray[Any, Any]
SOURCES = {"uniform": chance.uniform, "gaussian": chance.gaussian, "sliding_window": chance.sliding_window}
SMALL = Fit(  # boxes that no border cuts
    np.array([0.3, 0.2, 0.5, 0.45]),
    np.array([[0.3, 0.01, 0, 0], [0.01, 0.001, 0, 0.0005], [0, 0, 0.004, 0.001], [0, 0.0005, 0.001, 0.003]]),
    np.array([-1.0, 0.05, 0.3, 0.35]),
    np.array([1.0, 0.3, 0.7, 0.6]),
)


@pytest.fixture(scope="module")
def image() -> Array:
    return np.ascontiguousarray(skimage.data.astronaut()[:333, :500])


def features(boxes: Array, width: int, height: int) -> list[list[float]]:
    """log2 of the aspect ratio, root of the share of the area, centre; box by box."""
    rows = []
    for x1, y1, x2, y2 in boxes.tolist():
        w, h = x2 - x1, y2 - y1
        rows.append(
            [math.log2(w / h), math.sqrt(w * h / (width * height)), (x1 + x2) / 2 / width, (y1 + y2) / 2 / height]
        )
    return rows


def test_fit_by_hand() -> None:
    generator = np.random.default_rng(0)
    sizes = generator.integers(100, 900, (300, 2)).astype(float)
    corners = np.sort(generator.uniform(0, 1, (300, 2, 2)), axis=1) * sizes[:, None]
    boxes = corners.reshape(300, 4)
    rows = [features(box[None], *size)[0] for box, size in zip(boxes, sizes.tolist(), strict=True)]
    columns = list(zip(*rows, strict=True))
    found = fit(boxes, sizes)
    for place, column in enumerate(columns):
        assert found.mean[place] == pytest.approx(statistics.fmean(column))
        for other, more in enumerate(columns):
            assert found.covariance[place, other] == pytest.approx(statistics.covariance(column, more))
        below = sum(value < found.low[place] for value in column), sum(value > found.high[place] for value in column)
        assert below == (2, 2)  # 0.5 % of 300 is 1.5


def test_a_fit_needs_boxes() -> None:
    for boxes in (np.array([[0.0, 0, 2, 2]]), np.array([[0.0, 0, 2, 2], [1, 1, 1, 3]])):
        with pytest.raises(ValueError, match="a fit needs at least two boxes, all with an area"):
            fit(boxes, np.full((len(boxes), 2), 9.0))


def test_boxes_that_are_all_alike(image: Array) -> None:
    found, _ = gaussian_of(fit(np.array([[50.0, 60, 150, 110]] * 3), np.full((3, 2), (500.0, 333.0))), 20)(image)
    np.testing.assert_allclose(found, [[50, 60, 150, 110]] * 20, atol=1e-3)


def test_the_shipped_fit(data_dir: Path) -> None:
    boxes, sizes = [], []
    for folder, split in (("voc12", "train2"), ("voc07", "train")):
        for record in open_dataset(DataConfig(DatasetKind.voc, str(data_dir / folder), split)).records:
            boxes.append(record.boxes[~record.difficult])
            sizes.append(np.full((len(boxes[-1]), 2), (record.width, record.height), float))
    every = np.concatenate(boxes)
    assert len(every) == 7_544
    for shipped, own in zip(VOC, fit(every, np.concatenate(sizes)), strict=True):
        np.testing.assert_allclose(shipped, own, atol=5.1e-5)


def test_uniform_fills_its_range(image: Array) -> None:
    boxes, scores = uniform_of(SMALL, 20_000)(image)
    assert boxes.shape == (20_000, 4)
    assert (np.diff(scores) < 0).all()
    for column, low, high in zip(np.array(features(boxes, 500, 333)).T, SMALL.low, SMALL.high, strict=True):
        assert scipy.stats.kstest(column, "uniform", args=(low, high - low)).pvalue > 1e-3


def test_gaussian_has_its_moments(image: Array) -> None:
    found = np.array(features(gaussian_of(SMALL, 40_000)(image)[0], 500, 333))
    error = np.sqrt(np.diag(SMALL.covariance) / len(found))
    np.testing.assert_array_less(np.abs(found.mean(axis=0) - SMALL.mean), 4 * error)
    np.testing.assert_allclose(np.cov(found.T), SMALL.covariance, atol=0.01)
    assert abs(np.cov(found.T)[1, 3] - 0.0005) < 5e-5


def test_gaussian_against_one_draw_at_a_time(image: Array) -> None:
    """The shipped fit, whose impossible draws are repeated and whose boxes are cut."""
    draws = scipy.stats.multivariate_normal(VOC.mean, VOC.covariance)
    generator = np.random.default_rng(5)
    wanted = []
    while len(wanted) < COUNT:
        ratio, root, x, y = draws.rvs(random_state=generator)
        if not (0 < root <= 1 and 0 <= x <= 1 and 0 <= y <= 1):
            continue
        area = root**2 * 500 * 333
        h = math.sqrt(area / 2**ratio)
        w = area / h
        x1, y1, x2, y2 = x * 500 - w / 2, y * 333 - h / 2, x * 500 + w / 2, y * 333 + h / 2
        wanted.append([max(x1, 0), max(y1, 0), min(x2, 500), min(y2, 333)])
    boxes, _ = chance.gaussian(image)
    assert boxes.shape == (COUNT, 4)
    for column, other in zip(boxes.T, np.array(wanted).T, strict=True):
        assert scipy.stats.ks_2samp(column, other).pvalue > 1e-3


@pytest.mark.parametrize("source", [uniform_of, gaussian_of])
def test_fewer_boxes_are_the_first(source: Any, image: Array) -> None:
    many, _ = source(VOC, 500)(image)
    np.testing.assert_array_equal(source(VOC, 60)(image)[0], many[:60])


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_an_image_has_its_own_boxes(source: Source, image: Array) -> None:
    first, again = source(image)[0], source(image.copy())[0]
    np.testing.assert_array_equal(first, again)
    other = image.copy()
    other[0, 0, 0] ^= 1
    assert not np.array_equal(first, source(other)[0])
    turned, upright = source(np.zeros((300, 200, 3), np.uint8))[0], source(np.zeros((200, 300, 3), np.uint8))[0]
    assert not np.array_equal(turned, upright)


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (640, 480), (90, 70), (1500, 40), (3, 2), (1, 1)])
def test_windows(size: tuple[int, int]) -> None:
    """Each size that fits has a centred square grid, no position is farther than half a step from it, in x or y."""
    width, height = size
    boxes, _ = chance.sliding_window(np.zeros((height, width, 3), np.uint8))
    assert boxes[0].tolist() == [0, 0, width, height]
    fitting = [(w, h) for w, h in WINDOWS if w < width and h < height]
    found: dict[tuple[int, int], list[list[float]]] = {}
    for x1, y1, x2, y2 in boxes[1:].tolist():
        assert x1 > -1e-3
        assert y1 > -1e-3
        assert x2 < width + 1e-3
        assert y2 < height + 1e-3
        found.setdefault((round(x2 - x1), round(y2 - y1)), []).append([x1, y1])
    assert set(found) == set(fitting)
    assert len(boxes) <= COUNT
    for window, corners in found.items():
        across, down = width - window[0], height - window[1]
        limit = (COUNT - 1) // len(fitting)
        columns, rows = (np.unique(np.round(side, 3)) for side in np.array(corners).T)
        assert len(columns) * len(rows) == len(corners) <= limit
        steps = np.concatenate([np.diff(columns), np.diff(rows)])
        step = steps.mean() if len(steps) else math.inf
        np.testing.assert_allclose(steps, step, atol=2e-3)
        for places, side in ((columns, across), (rows, down)):
            assert places[0] + places[-1] == pytest.approx(side, abs=2e-3)
            positions = np.linspace(0, side, 101)
            assert np.abs(positions[:, None] - places).min(axis=1).max() <= step / 2 + 2e-3
        for finer in min(step, max(across, down)) * np.linspace(0.05, 0.999, 200):
            count = (across // finer + 1) * (down // finer + 1)
            assert count > limit or count == len(corners)


def test_superpixels_by_counting_pixels(image: Array) -> None:
    """The boxes of the regions of fast mode's four segmentations, pixel by pixel; the image has width 500."""
    wanted = set()
    for name in MODES["fast"].colour_spaces:
        space = COLOUR_SPACES[name]
        ks = [k / math.sqrt(space.copies) for k in MODES["fast"].ks]
        graph = build_graph(smooth(space.convert(image), SIGMA), min(ks))
        for k, size in zip(ks, MODES["fast"].ks, strict=True):
            regions = merge_nodes(graph, k, size)[graph.nodes]
            for region in range(regions.max() + 1):
                rows, columns = np.nonzero(regions == region)
                wanted.add((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    boxes, scores = chance.superpixels(image)
    assert {tuple(box) for box in boxes.tolist()} == wanted
    assert len(boxes) == len(wanted)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    assert (np.diff(areas) <= 0).all()
    assert (np.diff(scores) < 0).all()


@pytest.mark.parametrize("name", [*SOURCES, "superpixels"])
@pytest.mark.parametrize("shape", [(333, 500), (1, 1), (40, 3)])
def test_as_a_source_of_proposals(name: str, shape: tuple[int, int], image: Array) -> None:
    config = ProposalConfig(selective_search=False, own={"chance": f"proposals.chance:{name}"}, max_boxes=100)
    found = propose(image[: shape[0], : shape[1]], config)
    assert 1 <= len(found.boxes) <= 100
    assert (found.boxes[:, :2] >= 0).all()
    assert (found.boxes[:, 2:] <= (shape[1], shape[0])).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
