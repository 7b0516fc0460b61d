"""Prior boxes: k-means finds the clusters of a sample, mirrored ones too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from proposals.boxes import mirrored
from proposals.multibox.priors import cluster_priors

Floats = NDArray[np.float64]


def random_boxes(count: int, seed: int) -> Floats:
    """[count, 4] shares of the image, corners in order."""
    generator = np.random.default_rng(seed)
    sides = generator.uniform(0.05, 0.5, (count, 2))
    corners = generator.uniform(0, 1 - sides)
    return np.concatenate([corners, corners + sides], axis=1)


def distances(first: Floats, second: Floats) -> Floats:
    """Of every pair of boxes, corner to corner; [N, 4], [M, 4] -> [N, M]."""
    result: Floats = np.sqrt(((first[:, None] - second[None]) ** 2).sum(axis=2))
    return result


def same_set(first: Floats, second: Floats, *, within: float) -> bool:
    """Whether each box has one of its own in the other set."""
    near = distances(first, second) <= within
    return first.shape == second.shape and bool((near.sum(axis=0) == 1).all() and (near.sum(axis=1) == 1).all())


def areas_of(boxes: Floats) -> Floats:
    result: Floats = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return result


def test_mirrored_boxes_are_those_of_the_mirrored_image() -> None:
    """Painted on an image of 64 px, flipped, and read off again."""
    for x1, y1, x2, y2 in ((0, 0, 64, 64), (0, 3, 16, 5), (10, 20, 63, 41), (31, 7, 33, 64)):
        image = np.zeros((64, 64), np.bool_)
        image[y1:y2, x1:x2] = True
        rows, columns = np.nonzero(image[:, ::-1])
        expected = [columns.min() / 64, rows.min() / 64, (columns.max() + 1) / 64, (rows.max() + 1) / 64]
        assert mirrored(np.array([[x1, y1, x2, y2]]) / 64, 1).tolist() == [expected]


# ---- clusters

CENTRES = np.array(
    [
        [0.0, 0.0, 1.0, 1.0],  # the first two are their own mirror images
        [0.375, 0.625, 0.625, 0.75],
        [0.125, 0.25, 0.375, 0.75],
        [0.5, 0.125, 1.0, 0.375],
        [0.0, 0.75, 0.25, 1.0],
    ]
)


def clustered(per_cluster: int, seed: int) -> tuple[Floats, NDArray[np.int64]]:
    """Boxes within 0.005 of a centre, and which."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat(np.arange(len(CENTRES)), per_cluster))
    return CENTRES[labels] + generator.uniform(-0.005, 0.005, (len(labels), 4)), labels


@pytest.mark.parametrize("seed", range(5))
def test_finds_the_clusters_and_their_mirror_images(seed: int) -> None:
    """Each prior is the mean of its cluster; boxes that lie on one side only are mirrored to the other."""
    boxes, labels = clustered(30, seed)
    means = np.array([boxes[labels == label].mean(axis=0) for label in range(len(CENTRES))])
    other_side = mirrored(means, 1)
    expected = np.concatenate([(means[:2] + other_side[:2]) / 2, means[2:], other_side[2:]])
    priors = cluster_priors(boxes, len(expected), seed=seed)
    assert same_set(priors, expected, within=1e-9)
    assert same_set(priors, mirrored(priors, 1), within=1e-9)
    assert (np.diff(areas_of(priors)) <= 0).all()


@pytest.mark.parametrize("count", [1, 2, 17, 200])
def test_priors_are_boxes_the_largest_first(count: int) -> None:
    boxes = random_boxes(300, seed=count)
    priors = cluster_priors(boxes, count)
    assert priors.shape == (count, 4)
    assert priors.dtype == np.float64
    assert (priors[:, :2] < priors[:, 2:]).all()
    assert priors.min() >= 0
    assert priors.max() <= 1
    assert (np.diff(areas_of(priors)) <= 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_priors_are_the_means_of_the_boxes_nearest_to_them(seed: int) -> None:
    """Where Lloyd's algorithm comes to rest; 50 steps are plenty for so few."""
    boxes = random_boxes(40, seed)
    both = np.concatenate([boxes, mirrored(boxes, 1)])
    priors = cluster_priors(boxes, 5, seed=seed)
    nearest = distances(both, priors).argmin(axis=1)
    means = np.array([both[nearest == number].mean(axis=0) for number in range(5)])
    assert priors == pytest.approx(means, abs=1e-9)


def test_priors_lie_closer_to_the_boxes_than_boxes_drawn_at_random() -> None:
    boxes = random_boxes(300, seed=0)
    error = distances(boxes, cluster_priors(boxes, 20)).min(axis=1).mean()
    for seed in range(5):
        drawn = np.random.default_rng(seed).choice(boxes, 20, replace=False)
        assert error < 0.9 * distances(boxes, drawn).min(axis=1).mean()


def test_mirror_symmetric_in_distribution() -> None:
    """Of boxes on the left half alone as many priors come to lie right as left: by chance within 4 deviations."""
    boxes = random_boxes(400, seed=0) * [0.5, 1, 0.5, 1]
    priors = cluster_priors(boxes, 100)
    centres = (priors[:, 0] + priors[:, 2]) / 2
    assert abs(int((centres < 0.5).sum()) - 50) <= 4 * 5
    assert centres.mean() == pytest.approx(0.5, abs=4 * centres.std() / 10)
    assert (priors[centres < 0.4, 2] <= 0.5).all()  # none is a mean over both sides, but in the middle
    assert (priors[centres > 0.6, 0] >= 0.5).all()


def test_the_same_seed_gives_the_same_priors() -> None:
    boxes = random_boxes(200, seed=0)
    kept = boxes.copy()
    first = cluster_priors(boxes, 30, seed=4)
    np.random.seed(9)  # noqa: NPY002 - the global generator decides nothing
    assert np.array_equal(cluster_priors(boxes, 30, seed=4), first)
    assert not np.array_equal(cluster_priors(boxes, 30, seed=5), first)
    assert np.array_equal(boxes, kept)  # the caller's


def test_as_many_priors_as_different_boxes() -> None:
    """Coordinates are eighths, so that mirroring is exact: the first box is its own mirror image."""
    boxes = np.array([[2, 1, 6, 7], [0, 0, 1, 2], [0, 0, 1, 2], [4, 3, 7, 4]]) / 8
    different = np.concatenate([boxes[[0, 1, 3]], mirrored(boxes[[1, 3]], 1)])
    assert same_set(cluster_priors(boxes, 5), different, within=1e-9)
    with pytest.raises(ValueError, match=r"^5 .*6 priors.* 5$"):
        cluster_priors(boxes, 6)


def test_refuses_no_boxes() -> None:
    with pytest.raises(ValueError, match=r"^0 .*1 priors.* 0$"):
        cluster_priors(np.zeros((0, 4)), 1)


def test_too_many_boxes_are_subsampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the seed, boxes and mirrored ones alike."""
    monkeypatch.setattr("proposals.multibox.priors.LARGEST", 100)
    seen: list[Floats] = []

    def spy(boxes: Floats, *arguments: Any, **settings: Any) -> Any:
        seen.append(boxes.copy())
        return kmeans2(boxes, *arguments, **settings)

    monkeypatch.setattr("proposals.multibox.priors.kmeans2", spy)
    boxes = random_boxes(1000, seed=0)
    priors = cluster_priors(boxes, 10, seed=3)
    assert np.array_equal(cluster_priors(boxes, 10, seed=3), priors)
    cluster_priors(boxes, 10, seed=4)
    assert [len(part) for part in seen] == [100, 100, 100]
    assert np.array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0], seen[2])
    known, others = set(map(tuple, boxes.tolist())), set(map(tuple, mirrored(boxes, 1).tolist()))
    drawn = set(map(tuple, seen[0].tolist()))
    assert len(drawn) == 100  # none twice
    assert drawn <= known | others
    assert 30 <= len(drawn & known) <= 70  # standard deviation 5


def test_a_centre_that_lost_its_boxes_takes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def losing(boxes: Floats, count: int, **_: Any) -> tuple[Floats, NDArray[np.int64]]:
        return np.concatenate([boxes[: count - 1], np.full((1, 4), np.nan)]), np.zeros(len(boxes), np.int64)

    monkeypatch.setattr("proposals.multibox.priors.kmeans2", losing)
    boxes = random_boxes(20, seed=0)
    priors = cluster_priors(boxes, 4)
    both = np.concatenate([boxes, mirrored(boxes, 1)])
    assert (distances(priors, both).min(axis=1) == 0).all()
