"""Measures of proposals against counting by hand and by plain loops."""

import math

import numpy as np
import pytest

from proposals.recall import (
    average_best_overlap,
    average_recall,
    best_overlaps,
    best_overlaps_of_first,
    recall,
    unique_recall,
)


def random_boxes(count, seed):
    random = np.random.default_rng(seed)
    corner = random.random((count, 2)) * 60
    return np.concatenate([corner, corner + random.random((count, 2)) * 40], axis=1)


def test_recall_by_hand():
    objects = np.array([[0.0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]])
    found = np.array([[0.0, 0, 10, 5], [0, 0, 10, 8], [20, 20, 30, 25], [90, 90, 99, 99]], np.float32)
    overlaps = best_overlaps(objects, found)
    assert overlaps.tolist() == [0.8, 0.5, 0]
    assert recall(overlaps) == pytest.approx(2 / 3)  # an IoU of exactly 0.5 counts
    assert recall(overlaps, 0.7) == pytest.approx(1 / 3)
    assert recall(overlaps, 0.81) == 0


def test_recall_is_that_of_all_pairs():
    random = np.random.default_rng(0)
    objects, found = (
        np.concatenate([corner, corner + random.random((count, 2)) * 40], axis=1)
        for count in (15, 30)
        for corner in [random.random((count, 2)) * 60]
    )
    expected = []
    for x1, y1, x2, y2 in objects:
        best = 0.0
        for u1, v1, u2, v2 in found:
            shared = max(0, min(x2, u2) - max(x1, u1)) * max(0, min(y2, v2) - max(y1, v1))
            best = max(best, shared / ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - shared))
        expected.append(best)
    assert best_overlaps(objects, found) == pytest.approx(expected)


def test_recall_without_objects_or_proposals():
    nothing, some = np.zeros((0, 4)), np.array([[0.0, 0, 10, 10]])
    assert best_overlaps(some, nothing).tolist() == [0]
    assert best_overlaps(nothing, some).tolist() == []
    assert best_overlaps(nothing, nothing).tolist() == []
    assert recall(best_overlaps(some, nothing)) == 0
    assert math.isnan(recall(best_overlaps(nothing, some)))


@pytest.mark.parametrize("seed", range(5))
def test_the_first_proposals_alone(seed):
    objects, found = random_boxes(7, seed), random_boxes(40, seed + 100)
    counts = (0, 1, 3, 39, 40, 1000)
    expected = [best_overlaps(objects, found[:count]) for count in counts]
    assert np.array_equal(best_overlaps_of_first(objects, found, counts), expected)


def test_the_first_proposals_of_none():
    assert best_overlaps_of_first(random_boxes(3, 0), np.zeros((0, 4)), (1, 5)).tolist() == [[0] * 3] * 2
    assert best_overlaps_of_first(np.zeros((0, 4)), random_boxes(3, 0), (1, 5)).shape == (2, 0)


def test_average_recall_is_the_area_under_recall():
    overlaps = np.random.default_rng(0).random(50)
    thresholds = np.linspace(0.5, 1, 200_001)
    area = np.mean([recall(overlaps, threshold) for threshold in thresholds[::40]])
    assert average_recall(overlaps) == pytest.approx(area, abs=1e-3)
    assert average_recall(np.array([1.0, 0.75, 0.5, 0.2])) == pytest.approx((1 + 0.5) / 4)
    assert math.isnan(average_recall(np.zeros(0)))


def test_average_best_overlap_by_hand():
    abo = average_best_overlap(np.array([0.5, 0.7, 0.9, 0.1]), np.array([2, 0, 2, 2]), 4)
    assert abo[[0, 2]] == pytest.approx([0.7, 0.5])
    assert np.isnan(abo[[1, 3]]).all()


def test_unique_recall_by_hand():
    first, second, third = (
        np.array([0.9, 0.5, 0.4, 0.0]),
        np.array([0.8, 0.4, 0.6, 0.0]),
        np.array([0.7, 0.1, 0.1, 0.1]),
    )
    assert unique_recall([first, second, third]) == [0.25, 0.25, 0]
    assert unique_recall([first]) == [0.5]
    assert math.isnan(unique_recall([np.zeros(0)])[0])
