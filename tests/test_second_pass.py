"""Regions that pass: their mirror images and their second pass, against a loop over regions written out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from narrow import picture, regressing_classifier
from numpy.typing import NDArray

from detector.checkpoint import RegionClassifier
from detector.data.image import Image
from detector.pipeline import Detector
from detector.regions.maps import SharedConfig, SharedNetwork
from detector.regions.rejection import RejectionLayer, RejectionLayerConfig
from detector.rejection import RejectionModel, fingerprint
from detector.scores import RegionScores
from detector.scoring import Ensemble, RegionScorer
from detector.settings import CascadeConfig, DetectorConfig
from detector.views import View
from proposals.boxes import Boxes

CPU = torch.device("cpu")
K = 3
Number = NDArray[np.float64]


class Reader:
    """A member that reads a region's probabilities and offsets off the colours of its left and right halves."""

    def __init__(self, seed: int, networks: int = 1) -> None:
        self.networks, self.classifiers = networks, ()
        generator = np.random.default_rng(seed)
        self.weights, self.moves = generator.normal(size=(K + 1, 6)) / 40, generator.normal(size=(K * 4, 6)) / 1500
        self.asked: list[tuple[int, bool, bool]] = []

    def score(self, views: Sequence[View], *, reject: bool = True) -> RegionScores:
        self.asked += [(len(view), view.is_mirrored, reject) for view in views]
        each = [self.one(view.image, box) for view in views for box in view.boxes.tolist()]
        return RegionScores(
            np.array([one for one, _ in each], np.float32), np.array([offsets for _, offsets in each], np.float32)
        )

    def one(self, image: Image, box: Sequence[float]) -> tuple[Number, Number]:
        """Probabilities [K + 1] and offsets [K, 4] of one region."""
        x1, y1, x2, y2 = (round(corner) for corner in box)
        region = image[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 2)].astype(float)
        half = region.shape[1] // 2
        colours = np.concatenate([region[:, :half].mean(axis=(0, 1)), region[:, half:].mean(axis=(0, 1))]) - 128
        powers = np.exp(self.weights @ colours)
        return powers / powers.sum(), (self.moves @ colours).reshape(K, 4)

    def turned(self, image: Image, box: Sequence[float]) -> tuple[Number, Number]:
        """The same of the mirror image, in the coordinates of the image itself."""
        width = image.shape[1]
        found, offsets = self.one(
            np.ascontiguousarray(image[:, ::-1]), [width - box[2], box[1], width - box[0], box[3]]
        )
        return found, offsets * [-1, 1, 1, 1]


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    common = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def apart(candidates: list[tuple[float, int, Sequence[float]]], near: float) -> list[int]:
    """Rows of (probability of an object, row, box) without near-copies of a better one, ascending."""
    kept: list[tuple[int, Sequence[float]]] = []
    for _, row, box in sorted(candidates, key=lambda one: (-one[0], one[1])):
        if near == 1 or all(overlap(box, other) <= near for _, other in kept):
            kept.append((row, box))
    return sorted(row for row, _ in kept)


def mean(looks: list[tuple[int, tuple[Number, Number]]]) -> tuple[Number, Number]:
    total = sum(weight for weight, _ in looks)
    return (
        np.sum([weight * found for weight, (found, _) in looks], axis=0) / total,
        np.sum([weight * offsets for weight, (_, offsets) in looks], axis=0) / total,
    )


def by_hand(
    image: Image, boxes: Boxes, first: Reader, others: list[Reader], config: CascadeConfig
) -> tuple[list[Sequence[float]], list[tuple[Number, Number]]]:
    """Boxes and scores, one region after the other."""

    def of_all(box: Sequence[float]) -> tuple[Number, Number]:
        looks = [(one.networks, one.one(image, box)) for one in (first, *others)]
        if config.mirror:
            looks += [(one.networks, one.turned(image, box)) for one in (first, *others)]
        return mean(looks)

    def objects(rows: list[tuple[Number, Number]], places: list[Sequence[float]]) -> list[int]:
        best = sorted(range(len(rows)), key=lambda row: rows[row][0][0])[: config.best]
        passing = [row for row, (found, _) in enumerate(rows) if 1 - found[0] > config.threshold or row in best]
        return passing

    places = boxes.tolist()
    rows = [first.one(image, box) for box in places]
    if others or config.mirror:
        passing = objects(rows, places)
        scored = apart([(1 - rows[row][0][0], row, places[row]) for row in passing], config.near)
        for row in passing:
            rows[row] = of_all(places[row]) if row in scored else (np.eye(K + 1)[0], np.zeros((K, 4)))
    if not config.second_pass:
        return places, rows
    moved = []
    for (x1, y1, x2, y2), (found, offsets) in zip(places, rows, strict=True):
        dx, dy, dw, dh = offsets[found[1:].argmax()]
        width, height = x2 - x1, y2 - y1
        x, y = (x1 + x2) / 2 + dx * width, (y1 + y2) / 2 + dy * height
        wide, high = width * math.exp(dw) / 2, height * math.exp(dh) / 2
        corners = [max(x - wide, 0), max(y - high, 0), min(x + wide, image.shape[1]), min(y + high, image.shape[0])]
        moved.append([float(np.float32(corner)) for corner in corners])
    passing = [row for row in objects(rows, moved) if rows[row][0][0] < 1]
    again = apart([(1 - rows[row][0][0], row, moved[row]) for row in passing], config.near)
    return [*places, *(moved[row] for row in again)], [*rows, *(of_all(moved[row]) for row in again)]


def some_boxes(image: Image, count: int = 24, seed: int = 0) -> Boxes:
    """Whole pixels, half of them near-copies of others."""
    generator = np.random.default_rng(seed)
    corner = generator.integers(0, 50, (count, 2))
    boxes = np.concatenate([corner, corner + generator.integers(12, 40, (count, 2))], axis=1)
    boxes[1::2] = boxes[::2] + generator.integers(0, 3, (count // 2, 4))
    return boxes.astype(np.float32)


CASCADES = {
    "mirror": {"mirror": True},
    "mirror, near": {"mirror": True, "near": 0.7},
    "second pass": {"second_pass": True},
    "second pass, near": {"second_pass": True, "near": 0.6},
    "both": {"mirror": True, "second_pass": True, "near": 0.7, "best": 4},
    "neither": {"near": 0.7},
}


@pytest.mark.parametrize("others", [0, 1, 2])
@pytest.mark.parametrize("kind", list(CASCADES))
def test_equals_a_loop_over_regions(kind: str, others: int) -> None:
    settings: dict[str, Any] = CASCADES[kind]
    cascade = CascadeConfig(0.6, **settings)
    config = DetectorConfig(regression=True, cascade=cascade)
    readers = [Reader(0), *(Reader(seed, networks=seed) for seed in range(1, others + 1))]
    image = picture()
    boxes = some_boxes(image)
    places, rows = by_hand(image, boxes, readers[0], readers[1:], cascade)
    ((view, scores),) = Ensemble([readers[0]], list(readers[1:]), config, K).score([View(image, boxes)])
    np.testing.assert_allclose(view.boxes, places, atol=1e-4)
    np.testing.assert_allclose(scores.probabilities, [found for found, _ in rows], atol=1e-5)
    np.testing.assert_allclose(scores.offsets, [offsets for _, offsets in rows], atol=1e-5)
    added = len(places) - len(boxes)
    assert bool(added) == cascade.second_pass
    assert added < len(boxes)
    if added and "near" in kind:
        plain = by_hand(image, boxes, readers[0], readers[1:], replace(cascade, near=1.0))[0]
        assert added < len(plain) - len(boxes)


def test_only_regions_that_pass_are_mirrored_and_none_of_them_is_left_to_a_rejection_layer() -> None:
    image, first, other = picture(), Reader(0), Reader(1)
    boxes = some_boxes(image)
    config = DetectorConfig(regression=True, cascade=CascadeConfig(0.6, mirror=True))
    Ensemble([first], [other], config, K)([View(image, boxes)])
    objects = [1 - first.one(image, box)[0][0] for box in boxes.tolist()]
    passing = sum(one > 0.6 for one in objects)
    assert 0 < passing < len(boxes)
    assert first.asked == [(len(boxes), False, True), (passing, True, False)]
    assert other.asked == [(passing, False, False), (passing, True, False)]


def test_several_images_some_without_boxes_or_without_a_region_that_passes() -> None:
    image, blank = picture(), np.full((60, 60, 3), 128, np.uint8)  # of which each class has a quarter
    config = DetectorConfig(regression=True, cascade=CascadeConfig(0.76, mirror=True, second_pass=True))
    views = [View(image, some_boxes(image)), View(image, np.zeros((0, 4))), View(blank, some_boxes(blank, 4))]
    found = Ensemble([Reader(0)], [Reader(1)], config, K).score([*views, View(image, some_boxes(image, 6, 1))])
    assert [len(view) for view, _ in found][1:3] == [0, 4]
    assert len(found[0][0]) > 24
    for view, scores in found:
        alone = Ensemble([Reader(0)], [Reader(1)], config, K).score([View(view.image, view.boxes[:0])])
        assert len(scores) == len(view)
        assert len(alone[0][1]) == 0
    again = Ensemble([Reader(0)], [Reader(1)], config, K).score([View(image, some_boxes(image, 6, 1))])
    np.testing.assert_array_equal(again[0][0].boxes, found[3][0].boxes)
    np.testing.assert_allclose(again[0][1].probabilities, found[3][1].probabilities, atol=1e-6)


def test_a_box_moved_out_of_the_image_is_not_scored_again() -> None:
    """All but a sliver of less than a pixel: no network could see it."""

    class Away(Reader):
        def one(self, image: Image, box: Sequence[float]) -> tuple[Number, Number]:
            offsets = np.zeros((K, 4))
            offsets[:, 0] = (image.shape[1] - 0.5 - box[0]) / (box[2] - box[0])
            return np.array([0.1, 0.9, 0.0, 0.0]), offsets

    image = picture()
    config = DetectorConfig(regression=True, cascade=CascadeConfig(0.5, second_pass=True))
    ((view, scores),) = Ensemble([Away(0)], [], config, K).score([View(image, some_boxes(image))])
    assert len(view) == len(scores) == 24


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mirror": True}, r"cascade\.mirror=true .*cascade\.threshold"),
        ({"second_pass": True}, r"cascade\.second_pass=true .*cascade\.threshold"),
    ],
)
def test_regions_must_pass_something(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CascadeConfig(**settings)


def test_what_does_not_fit_together() -> None:
    with pytest.raises(ValueError, match=r"cascade\.second_pass=true .*regression=true"):
        DetectorConfig(cascade=CascadeConfig(0.1, second_pass=True))
    with pytest.raises(ValueError, match=r"mirror=true mirrors all .*cascade\.mirror=true"):
        DetectorConfig(mirror=True, cascade=CascadeConfig(0.1, mirror=True))


# ---- with networks


SHARED = SharedConfig(pyramid=[96, 192], region=64, grid=14)


def both() -> list[RegionClassifier]:
    return [regressing_classifier(0, SHARED), regressing_classifier(1)]


ALL = CascadeConfig(1e-6, mirror=True, second_pass=True)
EXACT = DetectorConfig(regression=True, precision="float32", backend="torch")


@pytest.mark.parametrize("cascade", [replace(ALL, second_pass=False), replace(ALL, mirror=False), ALL])
def test_both_kinds_of_members(cascade: CascadeConfig) -> None:
    """Where all pass, the scores are those of mirror=true; moved boxes have the scores that they have as proposals."""
    image = picture()
    boxes = some_boxes(image, 8)
    scored = Detector(both(), replace(EXACT, cascade=cascade)).score(image, boxes)
    plain = Detector(both(), replace(EXACT, mirror=cascade.mirror))
    for part in [slice(0, 8)] + [slice(8, None)] * cascade.second_pass:
        expected = plain.score(image, scored.boxes[part])
        assert len(expected.boxes)
        np.testing.assert_allclose(scored.scores.probabilities[part], expected.scores.probabilities, atol=1e-5)
        np.testing.assert_allclose(scored.class_boxes[part], expected.class_boxes, atol=1e-3)
    if cascade.second_pass:
        best = scored.scores.probabilities[:8, 1:].argmax(axis=1)
        np.testing.assert_allclose(scored.boxes[8:], scored.class_boxes[np.arange(8), best], atol=1e-4)


def test_maps_are_made_once() -> None:
    """A second pass adds no pixels to those that trunks have seen, but levels that only the moved boxes need."""
    image, one = picture(), replace(SHARED, pyramid=[96])
    boxes = some_boxes(image, 8)
    work = []
    for second_pass in (False, True):
        view = View(image, boxes)
        config = replace(EXACT, cascade=replace(ALL, second_pass=second_pass))
        RegionScorer([regressing_classifier(0, one), regressing_classifier(1)], config, CPU).score([view])
        work.append(view.counts)
    assert work[0]["trunk_pixels"] == work[1]["trunk_pixels"] > 0
    assert (work[0]["regions_cut"], work[1]["regions_cut"]) == (16, 32)
    assert (work[0]["network_passes"], work[1]["network_passes"]) == (16, 32)


def test_early_rejection_has_no_say_in_regions_that_have_passed() -> None:
    """The layer passes all proposals, just so, and would reject some of their mirror images."""
    one, image = regressing_classifier(0, SHARED), picture()
    boxes = some_boxes(image, 8)
    torch.manual_seed(0)
    depth = one.network.trunk_slice(None, "pool4")(torch.zeros(1, 3, 64, 64)).shape[1]
    layer = RejectionLayer(depth, RejectionLayerConfig(channels=8, grid=3, hidden=4)).eval()
    network = SharedNetwork(one.network, one.convention, one.regions, SHARED, CPU)
    plain, turned = (
        layer(maps.levels.__getitem__, view.boxes, maps.size, one.regions, SHARED).sigmoid().detach().numpy()
        for view in (View(image, boxes), View(image, boxes).mirrored())
        for maps in network.trunk([view])
    )
    assert turned.min() < plain.min()
    for threshold, cut in ((float(plain.min()), 32), (0.9999, 0)):
        view = View(image, boxes)
        model = RejectionModel(layer, threshold, fingerprint(one.network))
        RegionScorer([one], replace(EXACT, cascade=ALL), CPU, model).score([view])
        assert view.counts["regions_cut"] == cut
