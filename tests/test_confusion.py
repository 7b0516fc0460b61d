"""The confusion matrix against its rule written out slowly, against the protocol's own counts, and by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from test_diagnosis import make_table, make_truth
from test_operating_points import random_case

from detector.analysis.confusion import Confusion, confusion
from detector.evaluation import DetectionTable, Truth
from detector.evaluation.matching import HIT, IGNORED, match
from detector.evaluation.truth import VOC, convert

RULES = ["voc", "ilsvrc", "coco"]


def overlap(one: list[float], other: list[float], pixel: int) -> float:
    """IoU of two boxes, in inclusive pixels where pixel is 1."""
    width = min(one[2], other[2]) - max(one[0], other[0]) + pixel
    height = min(one[3], other[3]) - max(one[1], other[1]) + pixel
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0] + pixel) * (box[3] - box[1] + pixel) for box in (one, other)]
    return shared / (sum(areas) - shared)


def slowly(truth: Truth, table: DetectionTable, rule: str, score: float, min_iou: float) -> Counter[tuple[int, int]]:
    """The pairs of (object, detection), -1 for none: lower scores do not exist, then each false positive in turn."""
    kept = np.flatnonzero(table.scores >= score)
    matches = match(truth, table[kept], rule, min_iou)
    boxes = table.to(truth.convention).boxes
    pairs = {}
    for row in matches.order.tolist():
        if matches.status[row] == HIT:
            pairs[int(matches.objects[row])] = int(kept[row])
    background = []
    for row in matches.order.tolist():
        if matches.status[row] in (HIT, IGNORED):
            continue
        detection = int(kept[row])
        candidates = {}
        for k in range(len(truth.labels)):
            same_image = truth.image_index[k] == table.image_index[detection]
            if same_image and truth.labels[k] != table.labels[detection] and matches.counted[k] and k not in pairs:
                value = overlap(boxes[detection].tolist(), truth.boxes[k].tolist(), truth.convention.inclusive)
                if value >= matches.thresholds[k]:
                    candidates[k] = value
        if candidates:
            pairs[max(candidates, key=candidates.__getitem__)] = detection  # the first of equals
        else:
            background.append(detection)
    missed = [k for k in np.flatnonzero(matches.counted).tolist() if k not in pairs]
    return Counter([*pairs.items(), *((-1, detection) for detection in background), *((k, -1) for k in missed)])


def crossed(seed: int) -> tuple[Truth, DetectionTable]:
    """A random case with many detections on objects of other classes, some objects of which share a box."""
    truth, table = random_case(seed)
    generator = np.random.default_rng(seed)
    labels = np.where(generator.random(len(table)) < 0.5, generator.integers(0, 4, len(table)), table.labels)
    doubled = generator.random(len(truth.labels)) < 0.3  # an object of each of two classes in the same place
    boxes = truth.boxes.copy()
    for k in np.flatnonzero(doubled[1:]) + 1:
        if truth.image_index[k] == truth.image_index[k - 1]:
            boxes[k] = boxes[k - 1]
    return Truth(**{**vars(truth), "boxes": boxes}), DetectionTable(
        table.image_index, labels, table.scores, table.boxes
    )


@pytest.mark.parametrize("score", [0.0, 0.375, 0.5, 1.1])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(6))
def test_the_rule_written_out(seed: int, rule: str, score: float) -> None:
    truth, table = crossed(seed)
    for min_iou in (0.5, 0.75):
        result = confusion(truth, table, rule=rule, score=score, min_iou=min_iou)
        pairs = list(zip(result.objects.tolist(), result.detections.tolist(), strict=True))
        assert Counter(pairs) == slowly(truth, table, rule, score, min_iou)
        check(result, truth, table, rule)
        confused = result.matrix[:-1, :-1].sum() - result.matrix.diagonal().sum()
        assert confused > 0 or score > 0


def check(result: Confusion, truth: Truth, table: DetectionTable, rule: str) -> None:
    """The sums that a matrix must have, counted without the pairs."""
    kept = table[table.scores >= result.score]
    matches = match(truth, kept, rule, result.min_iou)
    classes = len(truth.classes)
    hits = np.bincount(kept.labels[matches.status == HIT], minlength=classes)
    count = np.bincount(kept.labels[matches.status != IGNORED], minlength=classes)
    assert result.matrix.diagonal().tolist() == [*hits.tolist(), 0]
    assert result.matrix.sum(axis=1)[:-1].tolist() == matches.positives.tolist()
    assert result.matrix.sum(axis=0)[:-1].tolist() == count.tolist()
    # and the pairs are those that the matrix counts
    counted = np.zeros_like(result.matrix)
    for detection, position, (row, column) in zip(
        result.detections.tolist(), result.objects.tolist(), result.cells.tolist(), strict=True
    ):
        assert row == (truth.labels[position] if position >= 0 else classes)
        assert column == (table.labels[detection] if detection >= 0 else classes)
        assert detection < 0 or position < 0 or truth.image_index[position] == table.image_index[detection]
        counted[row, column] += 1
    assert (counted == result.matrix).all()
    for partners in (result.detections, result.objects):
        used = partners[partners >= 0]
        assert len(np.unique(used)) == len(used)
    scores = table.scores[result.detections[result.detections >= 0]]
    assert (np.diff(scores) <= 0).all()


def test_by_hand() -> None:
    near, far = (0.0, 0.0, 100.0, 100.0), (200.0, 0.0, 300.0, 100.0)
    truth = make_truth([[(near, 0), (far, 1)], [(near, 2)]])
    table = make_table(
        [
            (0, 1, 0.9, near),  # class 1 on the object of class 0, which a detection of its own class finds later
            (0, 0, 0.8, near),
            (0, 2, 0.7, far),  # class 2 on the object of class 1, which nothing else finds
            (0, 0, 0.6, far),  # it has a partner already
            (1, 2, 0.4, near),  # below the score
        ]
    )
    result = confusion(truth, table, rule="voc", score=0.5, min_iou=0.5)
    assert result.names == ("a", "b", "c")
    assert result.matrix.tolist() == [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0]]
    assert result.detections.tolist() == [0, 1, 2, 3, -1]
    assert result.objects.tolist() == [-1, 0, 1, -1, 2]
    assert result.cells.tolist() == [[3, 1], [0, 0], [1, 2], [3, 0], [2, 3]]
    assert confusion(truth, table, rule="voc", score=0.4, min_iou=0.5).matrix[2].tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("rule", RULES)
def test_nothing_detected_no_object_no_image(rule: str) -> None:
    truth, table = random_case(0)
    nothing = confusion(truth, table[:0], rule=rule, score=0.5, min_iou=0.5)
    check(nothing, truth, table[:0], rule)
    assert nothing.matrix[:, :-1].sum() == 0
    bare = truth.with_objects(np.zeros(len(truth.labels), np.bool_))
    false = confusion(bare, table, rule=rule, score=0.5, min_iou=0.5)
    check(false, bare, table, rule)
    assert false.matrix[:-1].sum() == 0
    assert false.matrix[-1].sum() == (table.scores >= 0.5).sum()


def test_a_blacklisted_class_and_inclusive_pixels() -> None:
    truth, table = crossed(1)
    boxes = np.asarray(convert(truth.boxes, truth.convention, VOC))
    listed = frozenset((image, label) for image in range(3) for label in (0, 1))
    other = replace(truth, boxes=boxes, convention=VOC, blacklist=listed)
    result = confusion(other, table, rule="ilsvrc", score=0.0, min_iou=0.5)
    pairs = Counter(zip(result.objects.tolist(), result.detections.tolist(), strict=True))
    assert pairs == slowly(other, table, "ilsvrc", 0.0, 0.5)
    check(result, other, table, "ilsvrc")
    with pytest.raises(ValueError, match="min_iou must be in"):
        confusion(truth, table, rule="voc", score=0.5, min_iou=0.0)
