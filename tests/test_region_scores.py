"""RegionScores: the form that members, ensembles, the cascade and suppression exchange."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from detector.checkpoint import load_checkpoint
from detector.members import Batch, SharedMember, WarpedMember, build_members
from detector.regions.offsets import apply_offsets, offsets_to
from detector.scores import RegionScores
from detector.scoring import cascaded, passes
from detector.settings import CascadeConfig, DetectorConfig
from proposals.boxes import mirrored

CPU = torch.device("cpu")


def random_boxes(count: int, seed: int = 0) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    corner = generator.random((count, 2)) * 80
    return np.concatenate([corner, corner + 4 + generator.random((count, 2)) * 40], axis=1)


def random_scores(count: int, classes: int = 3, seed: int = 0, *, offsets: bool = True) -> RegionScores:
    generator = np.random.default_rng(seed)
    rows = generator.random((count, classes + 1)).astype(np.float32)
    moves = generator.normal(size=(count, classes, 4)).astype(np.float32) / 5
    return RegionScores(rows / rows.sum(axis=1, keepdims=True), moves if offsets else None)


def test_boxes_are_moved_by_the_offsets_of_each_class() -> None:
    boxes, scores = random_boxes(5).astype(np.float32), random_scores(5)
    assert scores.offsets is not None
    np.testing.assert_array_equal(scores.boxes(boxes, 500, 400), apply_offsets(boxes, scores.offsets, 500, 400))
    none = RegionScores.empty(3, offsets=True)
    assert none.boxes(boxes[:0], 500, 400).shape == (0, 3, 4)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_without_offsets_every_class_has_the_proposal(count: int) -> None:
    boxes = random_boxes(count)
    found = random_scores(count, offsets=False).boxes(boxes, 500, 400)
    assert found.shape == (count, 3, 4)
    assert found.dtype == np.float64
    assert found.strides[1] == 0  # one copy for all classes
    for label in range(3):
        np.testing.assert_array_equal(found[:, label], boxes)


def test_scores_of_mirror_images() -> None:
    """In a mirrored image an object to the right of its box is to the left of it."""
    boxes, objects = random_boxes(6), random_boxes(6, 1)
    rows = np.full((6, 3), 1 / 3, np.float32)
    here = np.stack([offsets_to(boxes, objects)] * 2, axis=1).astype(np.float32)
    there = np.stack([offsets_to(mirrored(boxes, 130), mirrored(objects, 130))] * 2, axis=1).astype(np.float32)
    found = RegionScores(rows, there).mirrored()
    np.testing.assert_allclose(found.offsets, here, atol=1e-5)
    assert RegionScores(rows).mirrored().offsets is None


def test_the_mean_of_parts_that_are_means_themselves() -> None:
    each = [random_scores(4, seed=seed) for seed in range(4)]
    grouped = [RegionScores.mean(each[:3]), each[3]]
    found, expected = RegionScores.mean(grouped, [3, 1]), RegionScores.mean(each)
    for name in ("probabilities", "offsets"):
        mean = np.mean([getattr(one, name) for one in each], axis=0)
        np.testing.assert_allclose(getattr(expected, name), mean, atol=1e-6)
        np.testing.assert_allclose(getattr(found, name), mean, atol=1e-6)
        assert getattr(found, name).dtype == np.float32
    np.testing.assert_array_equal(RegionScores.mean(each[:1]).probabilities, each[0].probabilities)


def test_a_mean_of_some_with_offsets_and_some_without_is_refused() -> None:
    with pytest.raises(ValueError, match="offsets"):
        RegionScores.mean([random_scores(4), random_scores(4, offsets=False)])


def test_it_is_indexed_like_an_array() -> None:
    scores = random_scores(6)
    for rows in (slice(1, 4), np.array([5, 0]), scores.probabilities[:, 0] > 0.2):
        part = scores[rows]
        np.testing.assert_array_equal(part.probabilities, scores.probabilities[rows])
        assert scores.offsets is not None
        np.testing.assert_array_equal(part.offsets, scores.offsets[rows])
        assert len(part) == len(part.probabilities)
    with pytest.raises(dataclasses.FrozenInstanceError):
        scores.probabilities = part.probabilities  # type: ignore[misc]


@pytest.mark.parametrize(
    ("rows", "offsets", "message"),
    [
        (np.ones(4), None, r"\[4\]"),
        (np.ones((2, 1)), None, r"\[2, 1\]"),
        (np.ones((2, 4)), np.zeros((2, 4, 4)), r"\[2, 3, 4\], not \[2, 4, 4\]"),
        (np.ones((2, 4)), np.zeros((1, 3, 4)), r"not \[1, 3, 4\]"),
        (np.full((2, 4), np.nan), None, "finite"),
        (np.ones((2, 4)), np.full((2, 3, 4), np.inf), "finite"),
    ],
)
def test_what_does_not_fit_is_refused(
    rows: NDArray[np.float32], offsets: NDArray[np.float32] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        RegionScores(rows, offsets)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (CascadeConfig(), [0, 1, 2, 3]),
        (CascadeConfig(best=1), [0, 1, 2, 3]),  # no threshold, no cascade
        (CascadeConfig(0.5), [1, 3]),
        (CascadeConfig(0.95, 1), [3]),
        (CascadeConfig(0.95), []),
        (CascadeConfig(0.95, 9), [0, 1, 2, 3]),
    ],
)
def test_what_passes_the_first_member(config: CascadeConfig, expected: list[int]) -> None:
    background = np.array([0.9, 0.3, 0.5, 0.1], np.float32)
    first = RegionScores(np.stack([background, 1 - background], axis=1))
    others = RegionScores(np.tile(np.array([0.4, 0.6], np.float32), (4, 1)))
    passing = passes(first, random_boxes(4), config)
    assert (passing.scored.tolist(), passing.copies.tolist()) == (expected, [])
    found = cascaded(first, passing, others[passing.scored], 2).probabilities
    for row in range(4):
        weight = 2 if row in expected else 0
        np.testing.assert_allclose(found[row, 1], (1 - background[row] + weight * 0.6) / (1 + weight), atol=1e-6)


def test_near_copies_of_a_better_region_become_background() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 8], [50, 0, 60, 10], [50, 0, 60, 9.9]])
    objects = np.array([0.8, 0.9, 0.7, 0.6, 0.1], np.float32)  # 1 is the best; IoU 0.9 with 0, 0.89 with 2
    first = RegionScores(np.stack([1 - objects, objects], axis=1), np.ones((5, 1, 4), np.float32))
    assert passes(first, boxes, CascadeConfig(0.5, near=0.895)).scored.tolist() == [1, 2, 3]
    passing = passes(first, boxes, CascadeConfig(0.5, near=0.85))
    assert (passing.scored.tolist(), passing.copies.tolist()) == ([1, 3], [0, 2])  # 4 does not pass, and copies nothing
    others = RegionScores(np.array([[0.5, 0.5]] * 2, np.float32), np.zeros((2, 1, 4), np.float32))
    found = cascaded(first, passing, others, 1)
    np.testing.assert_allclose(found.probabilities[:, 1], [0, 0.7, 0, 0.55, 0.1], atol=1e-6)
    assert found.offsets is not None
    np.testing.assert_allclose(found.offsets[:, 0, 0], [0, 0.5, 0, 0.5, 1])
    assert passes(first, boxes, CascadeConfig(0.5, best=5, near=0.85)).scored.tolist() == [1, 3]


def test_rejected_regions_are_not_among_the_best() -> None:
    first = RegionScores.background(4, 1, offsets=False).updated(np.array([2]), RegionScores(np.float32([[0.9, 0.1]])))
    assert passes(first, random_boxes(4), CascadeConfig(0.5, best=3)).scored.tolist() == [2]


def test_members_that_see_the_same_squares_share_them(toy_checkpoint: Path) -> None:
    one = load_checkpoint(toy_checkpoint)
    other = dataclasses.replace(one, regions=dataclasses.replace(one.regions, context=9))
    found = build_members([one, other, one], DetectorConfig(precision="float32"), CPU)
    assert [type(member) for member in found] == [WarpedMember, WarpedMember]
    assert [member.networks for member in found] == [2, 1]
    shared = build_members([one], DetectorConfig(), CPU)
    assert not isinstance(shared[0], SharedMember)


@pytest.mark.parametrize("room", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("size", [1, 4, 16])
def test_batches_are_halved_until_they_fit(size: int, room: int) -> None:
    batch = Batch(size, CPU)
    for count in (0, 1, 9):
        seen: list[int] = []

        def run(part: slice, seen: list[int] = seen) -> list[int]:
            if part.stop - part.start > room:
                raise MemoryError
            seen += range(part.start, part.stop)
            return list(range(part.start, part.stop))

        assert [row for part in batch.over(count, run) for row in part] == seen == list(range(count))
    assert batch.size <= max(room, 1) or size <= room


def test_one_region_that_does_not_fit_is_the_error() -> None:
    def full(_: slice) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        Batch(4, CPU).over(9, full)
