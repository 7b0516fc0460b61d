"""Several images scored together: the scores of each by itself, batches that cross images, what each has taken."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detector import members
from detector.checkpoint import RegionClassifier
from detector.data.ground_truth import ClassTable
from detector.data.image import Image
from detector.network.googlenet import GoogLeNet, GoogLeNetConfig, Heads
from detector.network.input import InputConvention
from detector.regions.maps import SharedConfig, SharedNetwork, choose_level, resize_to_area
from detector.regions.warp import RegionConfig, context_windows, warp
from detector.scores import RegionScores
from detector.scoring import RegionScorer
from detector.settings import CascadeConfig, DetectorConfig
from detector.views import STAGES, View, pieces, timed_together
from proposals.boxes import Boxes

CPU = torch.device("cpu")
CLASSES = ClassTable(("square", "disc"), (None, None), (1, 2))
CONVENTION = InputConvention(std=(60.0, 60.0, 60.0))
SHARED = SharedConfig(pyramid=[96, 192], region=64, grid=14)
EXACT = DetectorConfig(precision="float32", batch=3)


def picture(seed: int, height: int = 9, width: int = 12) -> Image:
    blocks = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return blocks.repeat(10, axis=0).repeat(10, axis=1).astype(np.uint8)


def random_boxes(count: int, image: Image, seed: int = 0) -> Boxes:
    generator = np.random.default_rng(seed)
    far = np.array([image.shape[1], image.shape[0]])
    corner = generator.random((count, 2)) * far / 2
    return np.concatenate([corner, corner + 4 + generator.random((count, 2)) * (far / 2 - 4)], axis=1).astype(
        np.float32
    )


def views_of(*counts: int) -> list[View]:
    """Of images of two sizes in turn, new at each call."""
    images = [picture(seed, *((9, 12), (12, 8))[seed % 2]) for seed in range(len(counts))]
    return [View(image, random_boxes(count, image, count)) for image, count in zip(images, counts, strict=True)]


def classifier(seed: int, shared: SharedConfig | None = None, *, regression: bool = False) -> RegionClassifier:
    """A narrow network whose logits over regions have a mean near 0 and a deviation near 1."""
    torch.manual_seed(seed)
    network = GoogLeNet(GoogLeNetConfig(classes=3, width=0.25, norm="none", initialisation="xavier")).eval()
    blocks = torch.randn(16, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = network(blocks.repeat_interleave(16, 2).repeat_interleave(16, 3))
        scale = logits.std(dim=0) * (10 if shared else 1)  # regions cut from maps differ more
        network.fc.weight.div_(scale[:, None])
        network.fc.bias.copy_(-logits.mean(dim=0) / scale)
    if regression:
        cells = 9 if shared else 1  # of maps of 7 × 7 and 2 × 2
        network.set_regression(nn.Linear(cells * network.fc.in_features, 8))
    return RegionClassifier(network, CONVENTION, RegionConfig(64, 4), CLASSES, shared=shared)


def both(*, regression: bool = False) -> list[RegionClassifier]:
    return [classifier(0, SHARED, regression=regression), *(classifier(seed, regression=regression) for seed in (1, 2))]


SETTINGS: dict[str, dict[str, Any]] = {
    "mean": {},
    "cascade": {"cascade": CascadeConfig(0.7, 2)},
    "cascade, mirrored": {"cascade": CascadeConfig(0.7, 2), "mirror": True},
    "regression": {"regression": True},
    "cascade, none passes": {"cascade": CascadeConfig(0.9999999)},
}


@pytest.mark.parametrize("kind", list(SETTINGS))
def test_together_as_each_by_itself(kind: str) -> None:
    config = replace(EXACT, **SETTINGS[kind])
    scorer = RegionScorer(both(regression=config.regression), config, CPU)
    counts = (5, 0, 1, 7, 4, 0)
    alone = views_of(*counts)
    expected = [scorer([view])[0] for view in alone]
    together = views_of(*counts)
    found = scorer(together)
    assert [len(scores) for scores in found] == list(counts)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
        if config.regression:
            np.testing.assert_allclose(one.offsets, other.offsets, atol=1e-4)
    assert np.concatenate([scores.probabilities for scores in expected]).std(axis=0).max() > 0.01
    assert [view.counts for view in together] == [view.counts for view in alone]  # exact, though batches cross images


def test_no_images_and_no_boxes() -> None:
    scorer = RegionScorer(both(), EXACT, CPU)
    assert scorer([]) == []
    assert [len(scores) for scores in scorer(views_of(0, 0))] == [0, 0]


def test_batches_cross_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """5 boxes that pass, of images of 2, 1 and 2: batches of 3 and 2. Regions cut are eight times as many at a time."""
    sizes: list[int] = []
    warped: list[int] = []
    heads = SharedNetwork.heads

    def counted(self: SharedNetwork, features: Tensor) -> Heads:
        sizes.append(len(features))
        return heads(self, features)

    def seen(image: Image, boxes: Boxes, *rest: Any) -> NDArray[np.uint8]:
        warped.append(len(boxes))
        return warp(image, boxes, *rest)

    monkeypatch.setattr(SharedNetwork, "heads", counted)
    monkeypatch.setattr(members, "warp", seen)
    config = replace(EXACT, cascade=CascadeConfig(0.99999, 2))
    RegionScorer(both(), config, CPU)(views_of(10, 1, 20))
    assert sizes == [24, 7]
    assert warped == [2, 1, 2]


def test_images_of_one_size_pass_the_trunk_together(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    one = classifier(0, SHARED)
    network = SharedNetwork(one.network, one.convention, one.regions, SHARED, CPU)
    part = network.network.trunk_slice

    def slices(start: str | None = None, stop: str | None = None) -> Any:
        layers = part(start, stop)

        def run(x: Tensor) -> Tensor:
            seen.append(len(x))
            result: Tensor = layers(x)
            return result

        return run

    views = views_of(8, 8, 8)
    expected = [network.trunk([view])[0] for view in views]
    monkeypatch.setattr(network.network, "trunk_slice", slices)
    assert [maps.levels.keys() for maps in network.trunk(views)] == [maps.levels.keys() for maps in expected]
    assert seen == []  # each view has kept its maps
    found = network.trunk(views_of(8, 8, 8))
    levels = [set(maps.levels) for maps in expected]
    assert levels[0] == levels[2]  # the first and the third image have one size
    assert sorted(seen) == [1] * len(levels[1]) + [2] * len(levels[0])
    for maps, alone in zip(found, expected, strict=True):
        assert maps.levels.keys() == alone.levels.keys()
        for level, (features, scale) in maps.levels.items():
            torch.testing.assert_close(features, alone.levels[level][0], rtol=1e-4, atol=1e-4)
            assert scale == alone.levels[level][1]


def test_what_is_counted() -> None:
    """From the boxes alone: each is cut; those that pass are warped, for two networks; levels that boxes need."""
    config = replace(EXACT, cascade=CascadeConfig(0.99999, 2), mirror=True)
    views = views_of(5, 1, 0)
    RegionScorer(both(), config, CPU)(views)
    for view, passing in zip(views[:2], (2, 1), strict=True):
        size = view.image.shape[:2]
        levels = set(choose_level(context_windows(view.boxes, RegionConfig(64, 4)), size, SHARED).tolist())
        pixels = sum(math.prod(resize_to_area(view.image, SHARED.pyramid[level])[0].shape[:2]) for level in levels)
        assert view.counts == {
            "regions_cut": 2 * len(view),
            "trunk_pixels": 2 * pixels,
            "regions_warped": 2 * passing,
            "network_passes": 4 * passing,
        }
        assert list(view.seconds) == ["trunk", "rejection", "regions", "warp", "network"]
        assert set(view.seconds) < set(STAGES)
    assert views[2].counts == views[2].seconds == {}


def test_time_is_shared_out_by_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 14.0, 20.0, 21.0])
    monkeypatch.setattr("detector.measuring.perf_counter", lambda: next(clock))
    views = views_of(3, 1)
    for some in (views, views[:1]):
        with timed_together(some, "warp"):
            pass
    assert [view.seconds for view in views] == [{"warp": 4.0}, {"warp": 1.0}]


@pytest.mark.parametrize("counts", [(), (3,), (0, 2, 0, 3), (4, 1, 1, 6)])
@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_pieces_hold_every_box_once_and_in_order(counts: tuple[int, ...], size: int) -> None:
    views = views_of(*counts)
    total, seen = sum(counts), []
    for start in range(0, total, size):
        part = pieces(views, slice(start, min(start + size, total)))
        assert sum(len(view) for _, view in part) == min(size, total - start)
        for index, view in part:
            assert view.image is views[index].image
            assert len(view)
            seen += [(index, box) for box in view.boxes.tolist()]
    assert seen == [(index, box) for index, view in enumerate(views) for box in view.boxes.tolist()]


def test_a_bad_box_in_one_of_several_images_is_refused() -> None:
    views = views_of(2, 2)
    views[1].boxes[1, 2] = np.nan
    with pytest.raises(ValueError, match="finite"):
        RegionScorer(both(), EXACT, CPU)(views)


def test_scores_of_one_image_are_its_own() -> None:
    """Not views of one array that the caller may change."""
    first, second = RegionScorer(both(), EXACT, CPU)(views_of(2, 2))
    kept = RegionScores(second.probabilities.copy())
    first.probabilities[:] = 0
    np.testing.assert_array_equal(second.probabilities, kept.probabilities)
