"""Suppression against a brute-force greedy matcher, and its properties over seeds."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.ops import nms

from detector.settings import SuppressionConfig
from detector.suppression import class_nms, class_soft_nms, suppress, surviving
from proposals.boxes import iou


def random_case(seed: int, count: int = 60, classes: int = 3) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Crowded boxes on a coarse grid, so that IoUs and scores tie often."""
    generator = np.random.default_rng(seed)
    corner = generator.integers(0, 12, (count, 2)) * 5
    boxes = np.concatenate([corner, corner + generator.integers(1, 8, (count, 2)) * 5], axis=1).astype(np.float32)
    scores = generator.integers(0, 8, (count, classes + 1)) / 8
    return boxes, scores.astype(np.float32)


def shared(boxes: NDArray[np.floating], classes: int) -> NDArray[np.floating]:
    """[N, 4] -> [N, K, 4]: the same boxes for every class, as RegionScores.boxes gives them without offsets."""
    return np.broadcast_to(boxes[:, None], (len(boxes), classes, 4))


def both(boxes: NDArray[np.floating], classes: int) -> list[NDArray[np.floating]]:
    """The boxes shared by all classes, and as an own copy for each class, which takes another way."""
    return [shared(boxes, classes), shared(boxes, classes).copy()]


def greedy(boxes: NDArray[np.float32], scores: NDArray[np.float32], config: SuppressionConfig) -> list[tuple[int, int]]:
    """(row, label) of each survivor, best first; ties to the earlier row, then to the lower label."""
    survivors: list[tuple[float, int, int]] = []
    for label in range(scores.shape[1] - 1):
        kept: list[int] = []
        for row in sorted(range(len(boxes)), key=lambda row: (-scores[row, label + 1], row)):
            if scores[row, label + 1] <= config.min_score:
                continue
            if all(iou_of(boxes[row], boxes[other]) <= config.max_iou for other in kept):
                kept.append(row)
        survivors += [(-scores[row, label + 1], row, label) for row in kept]
    return [(row, label) for _, row, label in sorted(survivors)][: config.limit]


def iou_of(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    a, b = first.tolist(), second.tolist()
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    "config",
    [SuppressionConfig(), SuppressionConfig(0.3, 0.5, 9), SuppressionConfig(0.0, 0.0), SuppressionConfig(0, 1)],
)
def test_equals_brute_force(seed: int, config: SuppressionConfig) -> None:
    boxes, scores = random_case(seed)
    expected = greedy(boxes, scores, config)
    for class_boxes in both(boxes, 3):
        found = suppress(class_boxes, scores, config)
        assert found.labels.tolist() == [label for _, label in expected]
        assert np.array_equal(found.boxes, boxes[[row for row, _ in expected]])
        assert found.scores.tolist() == [scores[row, label + 1] for row, label in expected]


@pytest.mark.parametrize("seed", range(5))
def test_survivors_of_a_class_overlap_at_most_the_threshold(seed: int) -> None:
    generator = np.random.default_rng(seed)
    corner = generator.random((200, 2)) * 200
    boxes = np.concatenate([corner, corner + 5 + generator.random((200, 2)) * 100], axis=1)
    scores = generator.random((200, 5))
    config = SuppressionConfig(0.1, 0.3, 10_000)
    found = suppress(shared(boxes, scores.shape[1] - 1), scores, config)
    assert (np.diff(found.scores) <= 0).all()
    assert (found.scores > 0.1).all()
    for label in range(4):
        kept = found.boxes[found.labels == label]
        overlaps = iou(kept, kept)
        np.fill_diagonal(overlaps, 0)
        assert len(kept) > 1
        assert overlaps.max() <= 0.3
        left_out = boxes[(scores[:, label + 1] > 0.1) & ~(boxes[:, None] == kept[None]).all(axis=2).any(axis=1)]
        assert (iou(left_out, kept).max(axis=1) > 0.3).all()


def test_identical_boxes_of_different_classes_both_survive() -> None:
    boxes = np.array([[10, 10, 50, 60], [10, 10, 50, 60], [10, 10, 50, 60]], np.float32)
    scores = np.array([[0.1, 0.7, 0.2], [0.1, 0.1, 0.8], [0.2, 0.6, 0.2]], np.float32)
    found = suppress(shared(boxes, scores.shape[1] - 1), scores, SuppressionConfig(min_score=0.0))
    assert found.labels.tolist() == [1, 0]
    np.testing.assert_allclose(found.scores, [0.8, 0.7], rtol=1e-6)


@pytest.mark.parametrize("max_iou", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
def test_an_overlap_of_exactly_the_threshold_keeps_both(max_iou: float) -> None:
    tenths = round(max_iou * 10)
    boxes = np.array([[0, 0, 10, 1], [0, 0, tenths, 1]], np.float32)  # IoU tenths / 10
    scores = np.array([[0.1, 0.9], [0.2, 0.8]], np.float32)
    assert len(suppress(shared(boxes, scores.shape[1] - 1), scores, SuppressionConfig(max_iou=max_iou))) == 2
    assert len(suppress(shared(boxes, scores.shape[1] - 1), scores, SuppressionConfig(max_iou=max_iou - 1e-6))) == 1


def test_a_score_of_exactly_the_threshold_is_none() -> None:
    boxes = np.array([[0, 0, 10, 10], [50, 50, 60, 60]], np.float32)
    scores = np.array([[0.5, 0.5], [0.25, 0.75]], np.float32)
    assert suppress(shared(boxes, scores.shape[1] - 1), scores, SuppressionConfig(min_score=0.5)).scores.tolist() == [
        0.75
    ]


def test_background_is_never_returned() -> None:
    found = suppress(shared(np.array([[0, 0, 9, 9]]), 2), np.array([[0.99, 0.006, 0.004]]), SuppressionConfig())
    assert found.labels.tolist() == [0, 1]


def test_zero_boxes_and_the_limit() -> None:
    assert len(suppress(np.zeros((0, 2, 4)), np.zeros((0, 3)), SuppressionConfig())) == 0
    boxes, scores = random_case(0)
    everything = suppress(shared(boxes, scores.shape[1] - 1), scores, SuppressionConfig())
    few = suppress(shared(boxes, scores.shape[1] - 1), scores, SuppressionConfig(limit=4))
    assert np.array_equal(few.boxes, everything.boxes[:4])
    assert np.array_equal(few.labels, everything.labels[:4])


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(wrong: float) -> None:
    boxes, scores = random_case(0)
    scores[3, 1] = wrong
    with pytest.raises(ValueError, match="score"):
        suppress(shared(boxes, scores.shape[1] - 1), scores, SuppressionConfig())


def test_boxes_and_scores_must_match() -> None:
    for boxes in (np.zeros((2, 1, 4)), np.zeros((3, 2, 4)), np.zeros((3, 4)), np.zeros((3, 1, 5))):
        with pytest.raises(ValueError, match=r"boxes .*\[3, 2\]"):
            suppress(boxes, np.zeros((3, 2)), SuppressionConfig())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_score": 1.5}, r"suppression\.min_score .*1.5"),
        ({"max_iou": -0.1}, r"suppression\.max_iou .*-0.1"),
        ({"limit": 0}, r"suppression\.limit .*0"),
        ({"vote": 1.1}, r"suppression\.vote .*1.1"),
    ],
)
def test_settings_that_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SuppressionConfig(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(("count", "classes", "max_iou"), [(700, 30, 0.3), (65, 3, 0.5), (64, 2, 0.7), (1, 1, 0.3)])
def test_equals_torchvision_class_by_class(count: int, classes: int, max_iou: float) -> None:
    generator = np.random.default_rng(count)
    corner = generator.random((count, 2)) * 300
    boxes = np.concatenate([corner, corner + 5 + generator.random((count, 2)) * 200], axis=1)
    scores = generator.random((count, classes)).round(2)  # many ties
    rows, labels = class_nms(shared(boxes, classes), scores, 0.1, max_iou)
    own = class_nms(shared(boxes, classes).copy(), scores, 0.1, max_iou)
    assert np.array_equal(rows, own[0])
    assert np.array_equal(labels, own[1])
    for label in range(classes):
        candidates = np.flatnonzero(scores[:, label] > 0.1)
        candidates = candidates[np.argsort(-scores[candidates, label], kind="stable")]
        falling = torch.arange(len(candidates), 0, -1, dtype=torch.float64)
        expected = candidates[nms(torch.from_numpy(boxes[candidates]), falling, max_iou).numpy()]
        assert rows[labels == label].tolist() == expected.tolist()


def test_two_hundred_classes_cost_little() -> None:
    """About 0.02 s of the processor; torchvision class by class takes about 1 s, whatever else the machine does."""
    generator = np.random.default_rng(0)
    corner = generator.random((1_200, 2)) * 400
    boxes = np.concatenate([corner, corner + 10 + generator.random((1_200, 2)) * 200], axis=1)
    scores = generator.random((1_200, 200))
    class_nms(shared(boxes[:2], 200), scores[:2], 0.001, 0.3)  # compiles
    started = time.process_time()
    class_nms(shared(boxes, 200), scores, 0.001, 0.3)
    ours = time.process_time() - started
    started = time.process_time()
    for column in torch.from_numpy(scores).T:
        nms(torch.from_numpy(boxes), column, 0.3)
    assert 5 * ours < time.process_time() - started


def test_boxes_without_area_suppress_nothing() -> None:
    boxes = np.array([[5, 5, 5, 5], [5, 5, 5, 5], [0, 0, 9, 9]], np.float64)
    rows, _ = class_nms(shared(boxes, 1), np.array([[0.9], [0.8], [0.7]]), 0.0, 0.3)
    assert rows.tolist() == [0, 1, 2]


def slow_soft(
    boxes: NDArray[np.float64], scores: NDArray[np.float64], min_score: float, sigma: float
) -> list[tuple[int, int, float]]:
    """(row, label, lowered score), class by class, as arXiv 1704.04503's figure 2 says it."""
    found = []
    for label in range(scores.shape[1]):
        left = {row: float(score) for row, score in enumerate(scores[:, label]) if score > min_score}
        while left:
            best = min(left, key=lambda row: (-left[row], row))
            score = left.pop(best)
            if score > min_score:
                found.append((best, label, score))
            for row in left:
                left[row] *= float(np.exp(-(float(iou(boxes[[best]], boxes[[row]])[0, 0]) ** 2) / sigma))
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("min_score", "sigma"), [(0.0, 0.5), (0.2, 0.5), (0.05, 0.1)])
def test_soft_suppression_equals_a_slow_one(seed: int, min_score: float, sigma: float) -> None:
    boxes, scores = random_case(seed, count=40)
    expected = slow_soft(boxes.astype(np.float64), scores[:, 1:].astype(np.float64), min_score, sigma)
    rows, labels, lowered = class_soft_nms(shared(boxes, 3), scores[:, 1:], min_score, sigma)
    assert list(zip(rows.tolist(), labels.tolist(), strict=True)) == [(row, label) for row, label, _ in expected]
    assert lowered == pytest.approx([score for *_, score in expected])
    config = SuppressionConfig(min_score=min_score, soft_sigma=sigma, limit=7)
    found = suppress(shared(boxes, scores.shape[1] - 1), scores, config)
    best = sorted(((-score, row, label) for row, label, score in expected))[:7]
    assert found.scores == pytest.approx([-score for score, *_ in best])
    assert found.labels.tolist() == [label for *_, label in best]


def test_soft_suppression_of_nothing() -> None:
    found = suppress(np.zeros((0, 2, 4)), np.zeros((0, 3)), SuppressionConfig(soft_sigma=0.5))
    assert len(found) == 0
    with pytest.raises(ValueError, match=r"soft_sigma .*-1"):
        SuppressionConfig(soft_sigma=-1)


# ---- box voting


def slow_vote(
    boxes: NDArray[np.floating], scores: NDArray[np.floating], row: int, label: int, vote: float
) -> NDArray[np.floating]:
    """The mean of the class's boxes around box `row`, weighted by score, as arXiv 1505.01749's section 5 says it."""
    voters = [other for other in range(len(boxes)) if iou_of(boxes[row, label], boxes[other, label]) >= vote]
    weights = [float(scores[other, label + 1]) for other in voters]
    return np.sum([weight * boxes[n, label] for n, weight in zip(voters, weights, strict=True)], axis=0) / sum(weights)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("soft_sigma", [0.0, 0.3])
@pytest.mark.parametrize("vote", [0.2, 0.3, 0.5])
def test_a_box_that_is_kept_is_the_mean_of_those_around_it(seed: int, soft_sigma: float, vote: float) -> None:
    boxes, scores = random_case(seed)
    moved = shared(boxes, 3) + np.random.default_rng(seed).normal(size=(60, 3, 4)).astype(np.float32)
    config = SuppressionConfig(min_score=0.1, max_iou=0.5, limit=40, soft_sigma=soft_sigma)
    for class_boxes in (shared(boxes, 3), moved):
        rows, labels, _ = (column[:40] for column in surviving(class_boxes, scores, config))
        expected = [
            slow_vote(class_boxes, scores, row, label, vote)
            for row, label in zip(rows.tolist(), labels.tolist(), strict=True)
        ]
        plain, found = (suppress(class_boxes, scores, replace(config, vote=value)) for value in (0.0, vote))
        np.testing.assert_allclose(found.boxes, expected, rtol=1e-5)
        assert np.array_equal(found.scores, plain.scores)
        assert np.array_equal(found.labels, plain.labels)
        assert np.array_equal(plain.boxes, class_boxes[rows, labels])
        assert np.abs(found.boxes - plain.boxes).max() > 0.5


def test_an_overlap_of_exactly_the_threshold_votes() -> None:
    boxes = np.array([[0, 0, 10, 1], [0, 0, 5, 1], [40, 0, 50, 1]], np.float32)  # IoU 0.5
    scores = np.array([[0.25, 0.75], [0.75, 0.25], [0.5, 0.5]], np.float32)
    found = [
        suppress(shared(boxes, 1), scores, SuppressionConfig(vote=vote)).boxes[0].tolist() for vote in (0.5, 0.5 + 1e-6)
    ]
    assert found == [[0, 0, 8.75, 1], [0, 0, 10, 1]]


def test_a_box_does_not_depend_on_the_score_from_which_detections_are_wanted() -> None:
    boxes, scores = random_case(1)
    many, few = (suppress(shared(boxes, 3), scores, SuppressionConfig(low, vote=0.5)) for low in (0.0, 0.7))
    assert 0 < len(few) < len(many)
    assert few == many[: len(few)]


def test_boxes_without_area_and_no_boxes_at_all_stay() -> None:
    boxes = np.array([[5, 5, 5, 5], [0, 0, 9, 9]], np.float64)
    found = suppress(shared(boxes, 1), np.array([[0.1, 0.9], [0.3, 0.7]]), SuppressionConfig(vote=0.5))
    assert found.boxes.tolist() == boxes.tolist()
    assert len(suppress(np.zeros((0, 2, 4)), np.zeros((0, 3)), SuppressionConfig(vote=0.5))) == 0


def test_voting_costs_little() -> None:
    """About 2 ms of the processor for 200 detections of 20 classes among 1,300 boxes, a part of soft-NMS's time."""
    generator = np.random.default_rng(0)
    corner = generator.random((1_300, 1, 2)) * 400 + generator.random((1_300, 20, 2)) * 9
    boxes = np.concatenate([corner, corner + 10 + generator.random((1_300, 1, 2)) * 200], axis=2)
    scores = generator.random((1_300, 21)) ** 6
    times = []
    for config in (SuppressionConfig(soft_sigma=0.3), SuppressionConfig(soft_sigma=0.3, vote=0.5)):
        suppress(boxes[:2], scores[:2], config)  # compiles
        each = []
        for _ in range(3):
            started = time.process_time()
            assert len(suppress(boxes, scores, config)) == 200
            each.append(time.process_time() - started)
        times.append(min(each))
    assert times[1] - times[0] < 0.5 * times[0]
