"""MultiBox: head, views of an image, choice of boxes, each against a slow version; its file, and what is none."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from re import escape
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from detector.checkpoint import ImageClassifier, RegionClassifier, save_checkpoint
from detector.data.ground_truth import ClassTable
from detector.data.image import Image
from detector.model_files import CheckpointError
from detector.multibox import (
    BATCH,
    MultiBoxModel,
    find_multibox,
    load_multibox,
    load_source,
    save_multibox,
    trunk_of,
    warp_view,
    weights_sha256,
)
from detector.network.googlenet import GoogLeNet, GoogLeNetConfig
from detector.network.input import InputConvention, network_input
from detector.regions.warp import RegionConfig
from proposals.multibox.head import MultiBox, MultiBoxConfig, MultiBoxHead, decode, encode, pool
from proposals.multibox.views import View, inside_view, select, views
from proposals.settings import MultiBoxSettings

Floats = NDArray[np.float64]
Found = tuple[NDArray[np.float32], NDArray[np.float32]]

NETWORK = GoogLeNetConfig(classes=3, width=0.25)
CONVENTION = InputConvention((120.0, 115.0, 100.0), (60.0, 61.0, 62.0))


def noise(height: int, width: int, seed: int = 0) -> Image:
    """Coarse: of pixels alone all images would look the same from afar."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    rows, columns = np.arange(height) * 5 // height, np.arange(width) * 5 // width
    return np.ascontiguousarray(coarse[rows][:, columns])


def random_priors(count: int, seed: int = 0) -> Tensor:
    generator = np.random.default_rng(seed)
    sides = generator.uniform(0.1, 0.6, (count, 2))
    corners = generator.uniform(0, 1 - sides)
    return torch.from_numpy(np.concatenate([corners, corners + sides], axis=1)).float()


def random_boxes(count: int, seed: int, side: float = 100) -> NDArray[np.float32]:
    return random_priors(count, seed).numpy() * np.float32(side)


def head_of(channels: int, config: MultiBoxConfig) -> MultiBoxHead:
    """With weights large enough that boxes and confidences differ from image to image."""
    head = MultiBoxHead(channels, random_priors(config.priors), config)
    nn.init.normal_(head.locations.weight, std=2)
    nn.init.normal_(head.confidences.weight, std=1)
    return head


def tiny_model(priors: int = 30) -> MultiBoxModel:
    """On a trunk of one layer, for squares of 32 px."""
    torch.manual_seed(0)
    trunk = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 8, stride=8), relu=nn.ReLU()))
    network = MultiBox(trunk, head_of(4, MultiBoxConfig(priors, hidden=24))).eval()
    return MultiBoxModel(network, NETWORK, CONVENTION, 32)


# ---- boxes and offsets


def test_an_offset_is_a_hundredth_of_the_image() -> None:
    priors = torch.tensor([[0.2, 0.3, 0.5, 0.9]])
    boxes = torch.tensor([[0.21, 0.3, 0.5, 0.85]])
    assert encode(boxes, priors).numpy() == pytest.approx(np.array([[1, 0, 0, -5]]), abs=1e-4)
    assert decode(torch.tensor([[1.0, 0, 0, -5]]), priors).numpy() == pytest.approx(boxes.numpy())


@pytest.mark.parametrize("shape", [(4,), (7, 4), (3, 7, 4)])
def test_decode_is_the_inverse_of_encode(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    boxes, priors = torch.rand(shape, dtype=torch.float64), torch.rand(shape[-2:], dtype=torch.float64)
    assert decode(encode(boxes, priors), priors).numpy() == pytest.approx(boxes.numpy())
    assert encode(decode(boxes, priors), priors).numpy() == pytest.approx(boxes.numpy())


# ---- the network


def slow_pool(features: Floats, edges: Sequence[tuple[int, int]]) -> Floats:
    """[C, h, w] -> [9 C]; edges: first and last + 1 of the windows, down as across."""
    return np.array(
        [
            channel[top:bottom, left:right].mean()
            for channel in features
            for top, bottom in edges
            for left, right in edges
        ]
    )


@pytest.mark.parametrize(
    ("side", "edges"),
    [
        (7, [(0, 3), (2, 5), (4, 7)]),  # of 3 at stride 2
        (3, [(0, 1), (1, 2), (2, 3)]),
        (6, [(0, 2), (2, 4), (4, 6)]),
        (8, [(0, 3), (2, 6), (5, 8)]),  # i/3 to (i + 1)/3 of the side, rounded outwards
        (10, [(0, 4), (3, 7), (6, 10)]),
    ],
)
def test_maps_are_averaged_to_three_by_three(side: int, edges: list[tuple[int, int]]) -> None:
    features = np.random.default_rng(side).normal(size=(2, 5, side, side))
    pooled = pool(torch.from_numpy(features))
    assert pooled.shape == (2, 45)
    for row, image in zip(pooled.numpy(), features, strict=True):
        assert row == pytest.approx(slow_pool(image, edges))


def test_maps_need_not_be_square() -> None:
    """One of 3 × 6 is averaged in pairs across."""
    features = torch.arange(18.0).view(1, 1, 3, 6)
    assert pool(features).tolist() == [[0.5, 2.5, 4.5, 6.5, 8.5, 10.5, 12.5, 14.5, 16.5]]


@pytest.mark.parametrize(("priors", "hidden"), [(1, 1), (20, 7), (33, 64)])
def test_head_gives_four_offsets_and_a_logit_for_each_prior(priors: int, hidden: int) -> None:
    head = MultiBoxHead(5, random_priors(priors), MultiBoxConfig(priors, hidden))
    for images in (1, 3):
        offsets, logits = head(torch.randn(images, 9 * 5))
        assert offsets.shape == (images, priors, 4)
        assert logits.shape == (images, priors)
    assert torch.equal(head.priors, random_priors(priors))
    assert "priors" in head.state_dict()
    assert "priors" not in dict(head.named_parameters())


def test_network_is_trunk_pool_and_head() -> None:
    network = tiny_model().network
    x = torch.randn(2, 3, 32, 32)
    offsets, logits = network(x)
    assert offsets.shape == (2, 30, 4)
    pooled = pool(network.trunk(x))
    for ours, expected in zip((offsets, logits), network.head(pooled), strict=True):
        assert torch.equal(ours, expected)


def test_layers_are_those_of_the_release() -> None:
    """Two hidden layers cut off at 6, then linear; computed with matrices."""
    torch.manual_seed(0)
    head = head_of(2, MultiBoxConfig(3, hidden=8)).double().eval()
    nn.init.normal_(head.fc2.weight, std=0.5)
    pooled = torch.randn(100, 18, dtype=torch.float64) * 10
    weights = {name: tensor.numpy() for name, tensor in head.state_dict().items()}
    x = pooled.numpy()
    for name in ("fc1", "fc2"):
        x = np.clip(x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"], 0, 6)
        assert {(x == 0).any(), (x == 6).any(), ((x > 0) & (x < 6)).any()} == {True}
    offsets, logits = (tensor.detach().numpy() for tensor in head(pooled))
    located = x @ weights["locations.weight"].T + weights["locations.bias"]
    assert offsets == pytest.approx(located.reshape(100, 3, 4))
    assert logits == pytest.approx(x @ weights["confidences.weight"].T + weights["confidences.bias"])


def test_a_fresh_head_proposes_its_priors() -> None:
    torch.manual_seed(0)
    head = MultiBoxHead(16, random_priors(40), MultiBoxConfig(40, hidden=32))
    offsets, logits = head(torch.rand(3, 9 * 16))
    assert (decode(offsets, head.priors) - head.priors).abs().max() < 0.005
    assert logits.abs().max() < 0.5


def test_dropout_is_for_training() -> None:
    torch.manual_seed(0)
    head = MultiBoxHead(4, random_priors(5), MultiBoxConfig(5, hidden=64, dropout=0.5))
    x = torch.rand(1, 36)
    assert not torch.equal(head(x)[1], head(x)[1])
    head.eval()
    assert torch.equal(head(x)[1], head(x)[1])


@pytest.mark.parametrize(
    ("objects", "share"), [(1, 1 / 20), (2.5, 2.5 / 20), (10, 0.5), (300, 0.5), (0, 1e-4), (0.001, 1e-4)]
)
def test_confidences_begin_at_the_share_of_objects(objects: float, share: float) -> None:
    """None so sure that it cannot learn; 10⁻⁴ and a half are the limits."""
    head = MultiBoxHead(2, random_priors(20), MultiBoxConfig(20, hidden=4))
    head.set_confidence_prior(objects)
    assert torch.sigmoid(head.confidences.bias).tolist() == pytest.approx([share] * 20, rel=1e-5)
    assert (head.locations.bias == 0).all()


@pytest.mark.parametrize(
    ("priors", "shape"),
    [
        (random_priors(4), "[4, 4]"),
        (random_priors(6), "[6, 4]"),
        (random_priors(5)[:, :3], "[5, 3]"),
        (random_priors(5).flatten(), "[20]"),
        (random_priors(5)[None], "[1, 5, 4]"),
        (random_priors(5)[:, [2, 1, 0, 3]], "[5, 4]"),  # right of left
        (random_priors(5)[:, [0, 3, 2, 1]], "[5, 4]"),
        (random_priors(5)[:, [0, 1, 0, 3]], "[5, 4]"),  # no width
        (torch.full((5, 4), math.nan), "[5, 4]"),
    ],
)
def test_refuses_priors(priors: Tensor, shape: str) -> None:
    with pytest.raises(ValueError, match=rf"^priors .*\[5, 4\].*{escape(shape)}$"):
        MultiBoxHead(3, priors, MultiBoxConfig(5, hidden=8))


@pytest.mark.parametrize(
    ("name", "value"),
    [("priors", 0), ("hidden", 0), ("hidden", -3), ("dropout", 1.0), ("dropout", -0.1), ("dropout", math.nan)],
)
def test_refuses_settings(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name} .*{value}$"):
        MultiBoxConfig(**{name: value})  # type: ignore[arg-type]


# ---- views

SIZES = {
    "landscape": (640, 480),
    "portrait": (375, 500),
    "square": (500, 500),
    "just large enough for squares": (48, 48),
    "just too small": (47, 47),
    "tiny": (32, 32),
    "one pixel": (1, 1),
    "panorama": (2000, 101),
    "pole": (60, 1500),
    "a row": (900, 1),
}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_whole_image_alone_unless_asked(size: tuple[int, int]) -> None:
    assert views(*size, 200) == [View((0, 0, *size), 200)]
    assert views(*size, 200, crops=2)[0] == View((0, 0, *size), 200)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_squares_cover_the_image(size: tuple[int, int]) -> None:
    """Of each size every pixel is in one at least, and neighbours share about half: what one cuts, the next shows."""
    width, height = size
    _, *squares = views(width, height, 200, crops=2)
    sides = [x2 - x1 for x1, y1, x2, y2 in (view.box for view in squares)]
    expected = {round(min(size) * 2 / 3), round(min(size) / 3)}
    assert set(sides) == {side for side in expected if side >= 32}
    assert len(set(squares)) == len(squares)
    for side in set(sides):
        covered = np.zeros((height, width), np.int64)
        boxes = [view.box for view in squares if view.box[2] - view.box[0] == side]
        for x1, y1, x2, y2 in boxes:
            assert (x2 - x1, y2 - y1) == (side, side)
            assert min(x1, y1) >= 0
            assert x2 <= width
            assert y2 <= height
            covered[y1:y2, x1:x2] += 1
        assert covered.min() >= 1
        for places in ({x1 for x1, *_ in boxes}, {y1 for _, y1, *_ in boxes}):
            assert np.diff(sorted(places)).max(initial=0) <= side / 2 + 1


@pytest.mark.parametrize(("keep", "quarter"), [(200, 50), (7, 1), (3, 1), (1, 1)])
def test_a_square_adds_a_quarter(keep: int, quarter: int) -> None:
    whole, *squares = views(300, 200, keep, crops=2)
    assert whole.keep == keep
    assert {view.keep for view in squares} == {quarter}


# ---- which boxes


def slow_iou(first: Sequence[float], second: Sequence[float]) -> float:
    width = max(0.0, min(first[2], second[2]) - max(first[0], second[0]))
    height = max(0.0, min(first[3], second[3]) - max(first[1], second[1]))
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (first, second)]
    return width * height / (sum(areas) - width * height)


def slow_select(
    boxes: NDArray[np.float32], confidences: Sequence[float], limit: int, max_iou: float, min_side: float
) -> list[int]:
    """One after the other, best first, unless it is small or too much like one that was taken."""
    taken: list[int] = []
    for number in sorted(range(len(boxes)), key=lambda number: (-confidences[number], number)):
        x1, y1, x2, y2 = box = boxes[number].tolist()
        if min(x2 - x1, y2 - y1) >= min_side and all(
            slow_iou(box, boxes[other].tolist()) <= max_iou for other in taken
        ):
            taken.append(number)
    return taken[:limit]


@pytest.mark.parametrize("max_iou", [0.1, 0.5, 0.8, 0.99, 1.0])
@pytest.mark.parametrize("limit", [1, 20, 10_000])
@pytest.mark.parametrize("min_side", [0.0, 15.0])
def test_selects_what_the_slow_version_does(max_iou: float, limit: int, min_side: float) -> None:
    """Boxes in heaps, confidences with ties."""
    generator = np.random.default_rng(0)
    boxes = np.repeat(random_boxes(15, seed=1), 8, axis=0) + generator.uniform(-4, 4, (120, 4)).astype(np.float32)
    confidences = generator.integers(0, 60, 120).astype(np.float32) / np.float32(60)
    found = select(boxes, confidences, limit=limit, max_iou=max_iou, min_side=min_side)
    assert found.dtype == np.int64
    assert found.tolist() == slow_select(boxes, confidences.tolist(), limit, max_iou, min_side)


def test_the_first_of_equal_boxes_comes_first() -> None:
    boxes = random_boxes(40, seed=2)
    confidences = np.tile(np.array([0.5, 0.75], np.float32), 20)
    expected = [*range(1, 40, 2), *range(0, 40, 2)]
    assert select(boxes, confidences, limit=99, max_iou=1, min_side=0).tolist() == expected
    same = np.repeat(boxes[:1], 40, axis=0)
    assert select(same, confidences, limit=99, max_iou=0.9, min_side=0).tolist() == [1]


def test_an_overlap_of_just_the_limit_stays() -> None:
    """The second box is half of the first; 1 keeps even twins."""
    boxes = np.array([[0, 0, 20, 20], [0, 0, 20, 10], [0, 0, 20, 20]], np.float32)
    confidences = np.array([0.9, 0.8, 0.7], np.float32)
    for max_iou, expected in ((0.499, [0]), (0.5, [0, 1]), (0.999, [0, 1]), (1.0, [0, 1, 2])):
        assert select(boxes, confidences, limit=9, max_iou=max_iou, min_side=10).tolist() == expected


def test_a_box_of_just_the_least_side_stays() -> None:
    boxes = np.array([[0, 0, 10, 30], [0, 0, 9.75, 30], [5, 5, 40, 15], [5, 5, 40, 14]], np.float32)
    assert select(boxes, np.arange(4, dtype=np.float32), limit=9, max_iou=1, min_side=10).tolist() == [2, 0]


@pytest.mark.parametrize("max_iou", [0.5, 1.0])
def test_selection_from_no_boxes_is_empty(max_iou: float) -> None:
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
    assert select(*nothing, limit=5, max_iou=max_iou, min_side=10).shape == (0,)
    thin = np.array([[0, 0, 5, 90]], np.float32), np.ones(1, np.float32)
    assert select(*thin, limit=5, max_iou=max_iou, min_side=10).shape == (0,)


VIEWS = [(0, 0, 200, 100), (0, 0, 60, 60), (140, 40, 200, 100), (50, 20, 110, 80), (0, 30, 60, 90), (130, 0, 190, 60)]


@pytest.mark.parametrize("view", VIEWS)
def test_boxes_at_the_views_own_sides_are_cut_by_it(view: tuple[int, int, int, int]) -> None:
    """A side that is the image's cuts nothing."""
    x1, y1, x2, y2 = view
    boxes = random_boxes(500, seed=3, side=1) * np.array([x2 - x1, y2 - y1] * 2, np.float32)
    boxes += np.array([x1, y1] * 2, np.float32)
    expected = []
    for left, top, right, bottom in boxes.tolist():
        gaps = []
        gaps += [(left - x1) / (x2 - x1)] if x1 > 0 else []
        gaps += [(top - y1) / (y2 - y1)] if y1 > 0 else []
        gaps += [(x2 - right) / (x2 - x1)] if x2 < 200 else []
        gaps += [(y2 - bottom) / (y2 - y1)] if y2 < 100 else []
        expected.append(all(gap >= 0.1 for gap in gaps))
    found = inside_view(boxes, View(view, 9), 200, 100)
    assert found.tolist() == expected
    assert found.dtype == np.bool_
    assert found.any()
    assert found.all() == (view == (0, 0, 200, 100))


def test_a_tenth_of_the_side_is_away_enough() -> None:
    view = View((100, 50, 300, 150), 9)
    boxes = np.array([[120, 60, 280, 140], [119, 60, 280, 140], [120, 59, 280, 140], [120, 60, 281, 140]], np.float32)
    assert inside_view(boxes, view, 400, 300).tolist() == [True, False, False, False]
    assert inside_view(np.zeros((0, 4), np.float32), view, 400, 300).shape == (0,)


# ---- proposing


def test_a_view_is_warped_whatever_its_proportions() -> None:
    rows, columns = np.mgrid[:40, :60]
    image = np.stack([columns * 4, rows * 6, rows * 0], axis=2).astype(np.uint8)
    assert np.array_equal(warp_view(image, (10, 5, 42, 37), 32), image[5:37, 10:42])
    halved = warp_view(image, (0, 0, 60, 40), 20)  # pairs down, triples across
    assert halved.shape == (20, 20, 3)
    assert np.array_equal(halved[:, :, 0], np.tile(np.arange(20) * 12 + 4, (20, 1)))
    assert np.array_equal(halved[:, :, 1], np.tile(np.arange(20)[:, None] * 12 + 3, (1, 20)))
    assert (warp_view(image[3:4, 7:8], (0, 0, 1, 1), 32) == image[3, 7]).all()


def slow_propose(
    model: MultiBoxModel, image: Image, limit: int, max_iou: float, crops: int
) -> tuple[list[list[float]], list[float]]:
    """View by view, prior by prior."""
    height, width, _ = image.shape
    boxes: list[list[float]] = []
    scores: list[float] = []
    for view in views(width, height, len(model.network.head.priors), crops=crops):
        x1, y1, x2, y2 = view.box
        square = warp_view(image, view.box, model.size)
        with torch.no_grad():
            (offsets,), (logits,) = model.network(network_input(square[None], model.convention))
        rows = []
        for prior, offset, logit in zip(
            model.network.head.priors.tolist(), offsets.tolist(), logits.tolist(), strict=True
        ):
            shares = [min(max(corner + 0.01 * change, 0), 1) for corner, change in zip(prior, offset, strict=True)]
            box = [
                x1 + shares[0] * (x2 - x1),
                y1 + shares[1] * (y2 - y1),
                x1 + shares[2] * (x2 - x1),
                y1 + shares[3] * (y2 - y1),
            ]
            if inside_view(np.array([box], np.float32), view, width, height)[0]:
                rows.append((1 / (1 + math.exp(-logit)), box))
        rows.sort(key=lambda row: -row[0])
        boxes += [box for _, box in rows[: view.keep]]
        scores += [score for score, _ in rows[: view.keep]]
    chosen = slow_select(np.array(boxes, np.float32), scores, limit, max_iou, min(10, width, height))
    return [boxes[number] for number in chosen], [scores[number] for number in chosen]


IMAGES = {
    "photograph": noise(96, 100),  # squares of 64 and 32 px
    "upright": noise(80, 60, seed=1),  # of 40 px
    "one pixel": noise(1, 1, seed=2),
    "a strip": noise(5, 400, seed=3),
    "a pole": noise(400, 5, seed=4),
    "small": noise(9, 11, seed=5),
}


@pytest.fixture(scope="module")
def model() -> MultiBoxModel:
    return tiny_model()


def check(found: Found, image: Image, limit: int) -> None:
    height, width, _ = image.shape
    boxes, confidences = found
    assert boxes.shape == (len(confidences), 4)
    assert boxes.dtype == confidences.dtype == np.float32
    assert len(boxes) <= limit
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= [width, height]).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= min(10, width, height)).all()
    assert (np.diff(confidences) <= 0).all()
    assert ((confidences > 0) & (confidences < 1)).all()


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize("crops", [0, 1, 2], ids=["whole", "two thirds", "all"])
@pytest.mark.parametrize(("limit", "max_iou"), [(200, 1.0), (200, 0.4), (60, 1.0), (8, 0.7), (1, 1.0)])
def test_proposes_what_the_slow_version_does(
    model: MultiBoxModel, image: Image, crops: int, limit: int, max_iou: float
) -> None:
    (found,) = model.propose([image], limit=limit, max_iou=max_iou, crops=crops)
    check(found, image, limit)
    boxes, confidences = slow_propose(model, image, limit, max_iou, crops)
    assert len(found[0]) == len(boxes)
    assert bool(boxes) == (min(image.shape[:2]) > 10)
    np.testing.assert_allclose(found[0], np.reshape(boxes, (-1, 4)), atol=1e-3)
    np.testing.assert_allclose(found[1], confidences, atol=1e-5)


def test_images_differ_in_their_boxes(model: MultiBoxModel) -> None:
    """Else the tests above would compare priors."""
    first, second = (model.propose([noise(90, 90, seed)])[0] for seed in (0, 1))
    count = min(len(first[0]), len(second[0]))
    assert count > 15
    assert np.abs(first[0][:count] - second[0][:count]).max() > 5
    assert np.ptp(first[1]) > 0.2


@pytest.mark.parametrize("names", [("photograph",), ("one pixel", "a strip"), ("upright", "small", "photograph")])
@pytest.mark.parametrize("crops", [0, 1, 2], ids=["whole", "two thirds", "all"])
def test_images_together_are_as_alone(model: MultiBoxModel, names: tuple[str, ...], crops: int) -> None:
    images = [IMAGES[name] for name in names]
    kept = [image.copy() for image in images]
    together = model.propose(images, limit=50, max_iou=0.9, crops=crops)
    assert len(together) == len(images)
    for image, (boxes, confidences) in zip(images, together, strict=True):
        check((boxes, confidences), image, 50)
        ((alone, alone_confidences),) = model.propose([image], limit=50, max_iou=0.9, crops=crops)
        assert boxes.shape == alone.shape
        assert np.allclose(boxes, alone, atol=1e-3)
        assert np.allclose(confidences, alone_confidences, atol=1e-6)
    assert all(np.array_equal(image, before) for image, before in zip(images, kept, strict=True))


@pytest.mark.parametrize("count", [BATCH - 1, BATCH, BATCH + 1, 2 * BATCH + 3])
def test_any_number_of_images(model: MultiBoxModel, count: int) -> None:
    images = [noise(60, 40 + number, seed=number) for number in range(count)]
    found = model.propose(images)
    assert len(found) == count
    for image, (boxes, confidences) in zip(images, found, strict=True):
        expected, expected_confidences = slow_propose(model, image, 200, 1, False)
        assert boxes == pytest.approx(np.array(expected), abs=1e-3)
        assert confidences == pytest.approx(np.array(expected_confidences), abs=1e-5)


def test_no_images_give_no_proposals(model: MultiBoxModel) -> None:
    assert model.propose([]) == []


def test_crops_find_more(model: MultiBoxModel) -> None:
    """A square at a third of the side sees what is small in the whole; at most a quarter of the limit from each."""
    image = IMAGES["upright"]
    (whole,), (more,) = (model.propose([image], limit=16, crops=crops) for crops in (0, 2))
    assert len(whole[0]) == len(more[0]) == 16
    assert not np.array_equal(whole[0], more[0])
    assert more[1].sum() > whole[1].sum()


# ---- the file


def googlenet(config: GoogLeNetConfig = NETWORK, seed: int = 0) -> GoogLeNet:
    torch.manual_seed(seed)
    return GoogLeNet(config).eval()


def on_trunk(network: GoogLeNet, **more: Any) -> MultiBoxModel:
    head = head_of(network.fc.in_features, MultiBoxConfig(12, hidden=16, dropout=0.25))
    provenance = {"data": "toy – 12 Kästen", "recall": "0.5"}
    multibox = MultiBox(network.trunk, head).eval()
    return MultiBoxModel(multibox, network.config, CONVENTION, 64, provenance=provenance, **more)


@pytest.fixture(scope="module")
def own() -> MultiBoxModel:
    return on_trunk(googlenet())


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save_classifier(path: Path, network: GoogLeNet, *, regions: bool = False) -> str:
    """Write a classifier; returns its file's hash."""
    if regions:
        table = ClassTable(("cat", "dog"), (None, None), (1, 2))
        save_checkpoint(path, RegionClassifier(network, CONVENTION, RegionConfig(64, 4), table))
    else:
        save_checkpoint(path, ImageClassifier(network, CONVENTION, 64, ("cat", "cow", "dog")))
    return sha256(path)


def same_outputs(first: MultiBoxModel, second: MultiBoxModel) -> None:
    torch.manual_seed(3)
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        for ours, expected in zip(first.network(x), second.network(x), strict=True):
            assert torch.equal(ours, expected)


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_multibox(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def rewrite(
    path: Path,
    change: Callable[[dict[str, Any]], object] = lambda header: None,
    tensors: Callable[[dict[str, Tensor]], object] = lambda state: None,
    text: str = "",
) -> None:
    """Change the header of a file, or its tensors."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    header, state = json.loads(metadata["header"]), load_file(path)
    change(header)
    tensors(state)
    save_file(state, path, metadata={**metadata, "header": text or json.dumps(header)})


def test_round_trip_to_the_bit(own: MultiBoxModel, tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "box.safetensors"
    save_multibox(path, own)
    assert [file.name for file in path.parent.iterdir()] == ["box.safetensors"]
    loaded = load_multibox(path)
    for name in ("trunk", "convention", "size", "trunk_file", "trunk_sha256", "provenance"):
        assert getattr(loaded, name) == getattr(own, name)
    assert loaded.network.head.config == own.network.head.config
    assert not any(module.training for module in loaded.network.modules())
    state = loaded.network.state_dict()
    assert state.keys() == own.network.state_dict().keys()
    for name, tensor in own.network.state_dict().items():
        assert torch.equal(state[name], tensor)
        assert state[name].dtype == torch.float32
    same_outputs(loaded, own)
    image = IMAGES["photograph"]
    for ours, expected in zip(loaded.propose([image])[0], own.propose([image])[0], strict=True):
        assert np.array_equal(ours, expected)


def test_a_file_appears_whole_or_not_at_all(
    own: MultiBoxModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "box.safetensors"
    save_multibox(path, own)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match=r"^no space left on device$"):
        save_multibox(path, replace(own, size=96))
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_half_precision_rounds_all_but_the_priors(own: MultiBoxModel, tmp_path: Path) -> None:
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    save_multibox(whole, own)
    save_multibox(half, own, half=True)
    assert half.stat().st_size < 0.55 * whole.stat().st_size
    assert {tensor.dtype for name, tensor in load_file(half).items() if name != "head.priors"} == {torch.float16}
    state = load_multibox(half).network.state_dict()
    for name, tensor in own.network.state_dict().items():
        assert state[name].dtype == torch.float32
        if name == "head.priors":
            assert torch.equal(state[name], tensor)
        else:  # 11 significant bits, and 2⁻²⁵ below the smallest normal number
            assert ((state[name] - tensor).abs() <= tensor.abs() * 2**-11 + 2**-25).all()


@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16"])
def test_a_trunk_with_batch_normalisation(tmp_path: Path, half: bool) -> None:
    """Its count of batches is a whole number, beyond what float16 can hold."""
    network = googlenet(replace(NETWORK, norm="batch"))
    for name, buffer in network.named_buffers():
        if name.endswith("num_batches_tracked"):
            buffer.fill_(100_001)
    path = tmp_path / "box.safetensors"
    save_multibox(path, on_trunk(network), half=half)
    counts = [
        tensor.item() for name, tensor in load_multibox(path).network.state_dict().items() if name.endswith("tracked")
    ]
    assert set(counts) == {100_001}


@pytest.mark.parametrize("regions", [False, True], ids=["of images", "of regions"])
@pytest.mark.parametrize("place", ["beside", "shipped"])
def test_a_head_finds_its_classifier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, regions: bool, place: str
) -> None:
    network = googlenet()
    folder = tmp_path / place
    digest = save_classifier(folder / "net.safetensors", network, regions=regions)
    if place == "shipped":
        monkeypatch.setattr("detector.model_files.SHIPPED", folder)
    model = on_trunk(network, trunk_file="net", trunk_sha256=digest)
    path = (folder if place == "beside" else tmp_path) / "box.safetensors"
    save_multibox(path, model)
    assert load_file(path).keys() == model.network.head.state_dict().keys()
    loaded = load_multibox(path)
    assert (loaded.trunk_file, loaded.trunk_sha256) == ("net", digest)
    assert loaded.trunk == network.config
    assert not any(module.training for module in loaded.network.modules())
    same_outputs(loaded, model)

    save_multibox(path, model, half=True)
    assert torch.equal(load_multibox(path).network.head.priors, model.network.head.priors)
    for name, tensor in load_multibox(path).network.trunk.state_dict().items():
        assert torch.equal(tensor, network.trunk.state_dict()[name])


def test_the_classifier_beside_it_comes_before_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = googlenet()
    digest = save_classifier(tmp_path / "net.safetensors", network)
    save_classifier(tmp_path / "shipped" / "net.safetensors", googlenet(seed=1))
    monkeypatch.setattr("detector.model_files.SHIPPED", tmp_path / "shipped")
    model = on_trunk(network, trunk_file="net", trunk_sha256=digest)
    save_multibox(tmp_path / "box.safetensors", model)
    same_outputs(load_multibox(tmp_path / "box.safetensors"), model)


def test_a_head_is_not_taken_for_its_classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both may be called best.safetensors, each in the folder of its run."""
    network = googlenet()
    digest = save_classifier(tmp_path / "shipped" / "best.safetensors", network)
    monkeypatch.setattr("detector.model_files.SHIPPED", tmp_path / "shipped")
    model = on_trunk(network, trunk_file="best", trunk_sha256=digest)
    save_multibox(tmp_path / "run" / "best.safetensors", model)
    same_outputs(load_multibox(tmp_path / "run" / "best.safetensors"), model)


def test_refuses_a_head_whose_classifier_changed(tmp_path: Path) -> None:
    network = googlenet()
    classifier, path = tmp_path / "net.safetensors", tmp_path / "box.safetensors"
    digest = save_classifier(classifier, network)
    save_multibox(path, on_trunk(network, trunk_file="net", trunk_sha256=digest))
    save_classifier(classifier, googlenet(seed=1))
    assert refusal(path) == f"{path} needs the trunk of net, and {classifier} is another one; train MultiBox again"
    classifier.unlink()
    assert refusal(path).startswith("no checkpoint net (shipped: ")


def test_refuses_a_classifier_that_is_none(tmp_path: Path) -> None:
    network = googlenet()
    classifier, path = tmp_path / "net.safetensors", tmp_path / "box.safetensors"
    classifier.write_text("none")
    save_multibox(path, on_trunk(network, trunk_file="net", trunk_sha256=sha256(classifier)))
    assert refusal(path).startswith(f"{classifier} is no safetensors file: ")


def test_refuses_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.safetensors", tmp_path):
        assert f"no MultiBox weights {path}" in refusal(path)
        assert "python tools/train_multibox.py --config multibox_voc" in refusal(path)


def test_refuses_other_files(own: MultiBoxModel, tmp_path: Path) -> None:
    path = tmp_path / "box.safetensors"
    save_multibox(path, own)
    path.write_bytes(path.read_bytes()[:-100])  # a download that broke off
    assert refusal(path).startswith(f"{path} is no safetensors file: ")
    path.write_text("words")
    assert refusal(path).startswith(f"{path} is no safetensors file: ")
    path.write_bytes(b"")
    assert refusal(path).startswith(f"{path} is no safetensors file: ")

    message = f"{path} holds no MultiBox of this project; train_multibox writes them"
    save_classifier(path, googlenet())
    assert refusal(path) == message
    save_file({"weight": torch.zeros(3)}, path)  # without any header
    assert refusal(path) == message


KEYS = ("head", "channels", "network", "convention", "size", "trunk_file", "trunk_sha256", "provenance")
DAMAGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "other priors": lambda header: header["head"].update(priors=11),
    "other hidden": lambda header: header["head"].update(hidden=17),
    "unknown setting": lambda header: header["head"].update(layers=3),
    "impossible setting": lambda header: header["head"].update(dropout=2),
    "other channels": lambda header: header.update(channels=7),
    "channels in words": lambda header: header.update(channels="many"),
    "other width": lambda header: header["network"].update(width=0.5),
    "impossible network": lambda header: header["network"].update(norm="all"),
    "impossible input": lambda header: header["convention"].update(std=[0, 1, 1]),
    "input in words": lambda header: header.update(convention="none"),
    "head in words": lambda header: header.update(head="none"),
}
CHANGES: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "a tensor less": lambda state: state.pop("head.fc1.bias"),
    "no priors": lambda state: state.pop("head.priors"),
    "a tensor more": lambda state: state.update(more=torch.zeros(2)),
    "another shape": lambda state: state.update({"head.fc1.bias": torch.zeros(3)}),
    "priors upside down": lambda state: state.update({"head.priors": state["head.priors"].flip(1).contiguous()}),
}


@pytest.mark.parametrize("change", DAMAGES.values(), ids=DAMAGES)
def test_refuses_a_header_that_does_not_fit(
    own: MultiBoxModel, tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    path = tmp_path / "box.safetensors"
    save_multibox(path, own)
    rewrite(path, change)
    assert refusal(path).startswith(f"{path}: ")


@pytest.mark.parametrize("key", KEYS)
def test_refuses_a_header_without(own: MultiBoxModel, tmp_path: Path, key: str) -> None:
    path = tmp_path / "box.safetensors"
    save_multibox(path, own)
    rewrite(path, lambda header: header.pop(key))
    assert re.fullmatch(f"{escape(str(path))}: .*{key!r}", refusal(path))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_refuses_tensors_that_do_not_fit(
    own: MultiBoxModel, tmp_path: Path, change: Callable[[dict[str, Tensor]], object]
) -> None:
    path = tmp_path / "box.safetensors"
    save_multibox(path, own)
    rewrite(path, tensors=change)
    assert refusal(path).startswith(f"{path}: ")


@pytest.mark.parametrize("text", ["{", "[]", "null", "3", '"words"'])
def test_refuses_a_header_that_is_none(own: MultiBoxModel, tmp_path: Path, text: str) -> None:
    path = tmp_path / "box.safetensors"
    save_multibox(path, own)
    rewrite(path, text=text)
    assert refusal(path).startswith(f"{path}: ")


# ---- by name


def test_weights_are_a_file_or_shipped(own: MultiBoxModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "shipped" / "box.safetensors"
    save_multibox(path, own)
    assert find_multibox(str(path)) == path
    monkeypatch.setattr("detector.model_files.SHIPPED", path.parent)
    assert find_multibox("box") == path
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_multibox("~/shipped/box.safetensors") == path
    assert weights_sha256("box") == weights_sha256(str(path)) == sha256(path)
    before = weights_sha256("box")
    save_multibox(path, replace(own, provenance={}))
    assert weights_sha256("box") == sha256(path) != before


def test_refuses_weights_that_are_not_there(tmp_path: Path) -> None:
    for name in (str(tmp_path / "absent.safetensors"), "absent", str(tmp_path)):
        needed = "a folder without best" if name == str(tmp_path) else "=multibox_voc, .*--config multibox_voc,"
        for search in (find_multibox, weights_sha256, lambda name: load_source(MultiBoxSettings(name))):
            with pytest.raises(CheckpointError, match=rf"{escape(name)}[;:] .*{needed}"):
                search(name)


@pytest.mark.parametrize("crops", [0, 1, 2], ids=["whole", "two thirds", "all"])
def test_a_source_proposes_as_its_settings_say(own: MultiBoxModel, tmp_path: Path, crops: int) -> None:
    path = tmp_path / "box.safetensors"
    save_multibox(path, own)
    source = load_source(MultiBoxSettings(str(path), limit=5, max_iou=0.6, crops=crops, precision="float32"))
    for image in (noise(60, 80), IMAGES["one pixel"], IMAGES["a strip"]):
        found = source(image)
        check(found, image, 5)
        (expected,) = own.propose([image], limit=5, max_iou=0.6, crops=crops)
        for ours, its in zip(found, expected, strict=True):
            assert np.array_equal(ours, its)
    path.write_text("words")
    with pytest.raises(CheckpointError, match="safetensors"):
        load_source(MultiBoxSettings(str(path)))


def test_the_trunk_is_any_classifiers(tmp_path: Path) -> None:
    network = googlenet()
    for regions in (False, True):
        path = tmp_path / f"{regions}.safetensors"
        save_classifier(path, network, regions=regions)
        found, convention = trunk_of(str(path))
        assert convention == CONVENTION
        assert found.config == network.config
        for name, tensor in network.trunk.state_dict().items():
            assert torch.equal(found.trunk.state_dict()[name], tensor)
    with pytest.raises(CheckpointError, match="no pretrained weights absent"):
        trunk_of("absent")
    save_multibox(tmp_path / "box.safetensors", on_trunk(network))
    with pytest.raises(CheckpointError, match="Caffe"):
        trunk_of(str(tmp_path / "box.safetensors"))
