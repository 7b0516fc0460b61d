"""The trace of an image: its detections are the detector's own, and its parts add up to them by other means."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from narrow import picture, regressing_classifier

from detector.pipeline import Detector
from detector.regions.maps import SharedConfig
from detector.scores import RegionScores
from detector.scoring import passes
from detector.settings import CascadeConfig, DetectorConfig, SuppressionConfig
from detector.trace import tracing
from detector.trace.tracing import ImageTrace, trace
from detector.trace.votes import Look
from proposals.settings import ProposalConfig

SHARED = SharedConfig(pyramid=[96, 192], region=64, grid=14)
CONFIG = DetectorConfig(
    regression=True,
    precision="float32",
    cascade=CascadeConfig(0.991, near=0.75),
    proposals=ProposalConfig(width=0, superpixel_scale=0.3, min_width=8, max_boxes=80),
    suppression=SuppressionConfig(min_score=0.01, soft_sigma=0.3),
)
IMAGE = picture()


def make(config: DetectorConfig = CONFIG) -> Detector:
    return Detector([regressing_classifier(0, SHARED), regressing_classifier(1)], config)


def mean_of(looks: list[Look]) -> RegionScores:
    return RegionScores.mean([look.scores for look in looks])


def replayed(found: ImageTrace) -> RegionScores:
    """The scores of all regions, put together from the looks by hand."""
    votes, classes = found.votes, found.detector.classes
    count = len(found.proposals.boxes) + len(votes.second)
    scores = RegionScores.background(count, len(classes), offsets=True)
    looks = list(votes.looks)
    first = looks.pop(0)
    scores = scores.updated(first.rows, first.scores)
    if votes.scored is not None:
        more = [look for look in looks if look.phase == 1]
        assert all(np.array_equal(look.rows, votes.scored) for look in more)
        of_first = Look(first.member, False, 0, votes.scored, scores[votes.scored])
        scores = scores.updated(votes.scored, mean_of([of_first, *more]))
        nothing = RegionScores.background(len(votes.copies), len(classes), offsets=True)
        scores = scores.updated(votes.copies, nothing)
    second = [look for look in looks if look.phase == 2]
    return scores.updated(second[0].rows, mean_of(second)) if second else scores


@pytest.mark.parametrize(
    "cascade",
    [
        CascadeConfig(0.991, near=0.75),
        CascadeConfig(0.991, mirror=True),
        CascadeConfig(0.991, near=0.75, second_pass=True),
        CascadeConfig(0.991, mirror=True, second_pass=True),
    ],
)
def test_the_looks_add_up_to_the_detections(cascade: CascadeConfig) -> None:
    detector = make(replace(CONFIG, cascade=cascade))
    found, expected = trace(detector, IMAGE), detector(IMAGE)
    for name in ("boxes", "scores", "labels"):
        np.testing.assert_array_equal(getattr(found.detections, name), getattr(expected, name))
    assert len(expected)
    scores = replayed(found)
    np.testing.assert_allclose(scores.probabilities, found.scored.scores.probabilities, atol=1e-6)
    np.testing.assert_allclose(scores.offsets, found.scored.scores.offsets, atol=1e-6)
    first = found.votes.looks[0]
    again = passes(first.scores, found.proposals.boxes, cascade)
    assert np.array_equal(again.scored, found.votes.scored)
    assert np.array_equal(again.copies, found.votes.copies)
    assert 0 < len(again.scored) < len(found.proposals.boxes)


def test_without_a_cascade_every_member_looks_at_all() -> None:
    detector = make(replace(CONFIG, cascade=CascadeConfig()))
    found = trace(detector, IMAGE)
    assert [(look.member, len(look.rows)) for look in found.votes.looks] == [
        (0, len(found.proposals.boxes)),
        (1, len(found.proposals.boxes)),
    ]
    mean = mean_of(list(found.votes.looks)).probabilities
    np.testing.assert_allclose(mean, found.scored.scores.probabilities, atol=1e-6)
    assert (found.votes.scored, len(found.passed_over), found.others) == (None, 0, ())


def test_the_best_regions_that_were_passed_over_are_scored_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "PASSED_OVER", 12)
    detector = make()
    found = trace(detector, IMAGE)
    rows = found.passed_over
    assert len(rows) == 12
    assert not np.isin(rows, found.votes.scored).any()
    copies = np.isin(found.votes.copies, rows)
    assert copies.all() or copies.sum() == 12
    objects = 1 - found.votes.looks[0].scores.probabilities[:, 0]
    left = np.setdiff1d(np.arange(len(objects)), np.concatenate([rows, found.votes.scored, found.votes.copies]))
    assert objects[np.setdiff1d(rows, found.votes.copies)].min(initial=2) >= objects[left].max()
    assert [look.member for look in found.others] == [0, 1]
    plain = make(replace(CONFIG, cascade=CascadeConfig()))
    expected = plain.score(IMAGE, found.proposals.boxes[rows]).scores
    np.testing.assert_allclose(mean_of(list(found.others)).probabilities, expected.probabilities, atol=1e-5)


def test_what_the_layer_rejects_no_member_has_seen() -> None:
    """The shipped detector: its layer, its maps and a warped member."""
    detector = Detector.load("default", device="cpu")
    found, expected = trace(detector, "examples/chelsea.jpg"), detector("examples/chelsea.jpg")
    assert found.name == "chelsea.jpg"
    np.testing.assert_array_equal(found.detections.boxes, expected.boxes)
    np.testing.assert_array_equal(found.detections.scores, expected.scores)
    assert found.votes.objects is not None
    first = found.votes.looks[0]
    assert np.array_equal(first.rows, np.flatnonzero(found.votes.objects >= found.votes.threshold))
    assert 0 < len(first.rows) < len(found.proposals.boxes)
    assert found.votes.scored is not None
    assert np.isin(found.votes.scored, first.rows).all()
    rejected = np.setdiff1d(found.passed_over, first.rows)
    assert len(rejected) > 50
    least = found.votes.objects[rejected].min()
    assert (found.votes.objects[np.setdiff1d(np.arange(len(found.proposals.boxes)), found.passed_over)] <= least)[
        ~np.isin(np.setdiff1d(np.arange(len(found.proposals.boxes)), found.passed_over), first.rows)
    ].all()
    np.testing.assert_allclose(replayed(found).probabilities, found.scored.scores.probabilities, atol=1e-6)
    assert found.search is not None
    assert len(found.search.ranked.boxes) == len(found.found["selective search"][0])
    width, height = found.search_size
    assert found.search.segmentations[0].labels.shape == (height, width)


def test_a_blank_image_has_a_trace() -> None:
    blank = np.full((40, 50, 3), 128, np.uint8)
    found = trace(make(), blank, "blank")
    assert (found.name, found.search_size) == ("blank", (50, 40))
    assert len(found.proposals.boxes) <= 1
