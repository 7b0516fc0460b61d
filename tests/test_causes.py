"""Why objects of a class are missed, and what its false positives are: by hand, and against a slow obvious version."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from test_evaluation import make_dataset, make_table, random_case

from detector.analysis.causes import MISSED, ClassCauses, class_causes
from detector.evaluation.matching import HIT, IGNORED, MISS, Matches, match
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import Truth

BOX = (0, 0, 100, 100)
FAR = (300, 300, 400, 400)
SCORE = 0.4


def causes_of(
    objects: list[list[tuple[tuple[int, ...], int]]],
    found: list[tuple[int, int, float, tuple[int, ...]]],
    score: float = 0.5,
) -> ClassCauses:
    truth = make_dataset(objects, 3)
    table = make_table(found)
    return class_causes(truth, table, match(truth, table, "voc"), 0, score)


@pytest.mark.parametrize(
    ("found", "cause"),
    [
        ([], "unseen"),
        ([(0, 0, 0.4, BOX)], "low score"),
        ([(0, 0, 0.9, (0, 0, 100, 45))], "misplaced"),
        ([(0, 0, 0.4, (0, 0, 100, 45))], "unseen"),  # its box is not shown
        ([(0, 1, 0.9, BOX)], "other class"),
        ([(0, 1, 0.4, BOX)], "unseen"),
        ([(0, 1, 0.9, (0, 0, 100, 45))], "unseen"),
        ([(0, 1, 0.9, BOX), (0, 0, 0.4, BOX)], "other class"),
        ([(0, 1, 0.9, BOX), (0, 0, 0.9, (0, 0, 100, 45))], "misplaced"),
        ([(1, 0, 0.9, BOX)], "unseen"),  # in another image
    ],
)
def test_a_missed_object_has_the_first_cause_that_applies(
    found: list[tuple[int, int, float, tuple[int, ...]]], cause: str
) -> None:
    result = causes_of([[(BOX, 0)], []], found)
    assert (result.objects, result.found) == (1, 0)
    assert result.missed == {name: int(name == cause) for name in MISSED}
    assert result.taken_for == (1 if cause == "other class" else None)
    assert result.recall == 0.0


def test_a_found_object_has_none_and_the_false_positives_have_their_types() -> None:
    found = [
        (0, 0, 0.9, BOX),
        (0, 0, 0.8, BOX),  # once more
        (0, 0, 0.7, (200, 200, 290, 290)),  # on nothing
        (0, 0, 0.6, FAR),  # on an object of another class
        (0, 0, 0.3, FAR),  # not shown
        (0, 1, 0.9, FAR),
    ]
    result = causes_of([[(BOX, 0), (FAR, 1)]], found)
    assert (result.objects, result.found, sum(result.missed.values())) == (1, 1, 0)
    assert result.false == {"classification": 1, "localisation": 0, "both": 0, "duplicate": 1, "background": 1}
    assert (result.precision, result.recall) == (0.25, 1.0)


def slow_iou(first: np.ndarray, second: np.ndarray, pixel: int) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0]) + pixel
    height = min(first[3], second[3]) - max(first[1], second[1]) + pixel
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0] + pixel) * (box[3] - box[1] + pixel) for box in (first, second)]
    return float(width * height / (sum(areas) - width * height))


def slow_missed(truth: Truth, table: DetectionTable, matches: Matches, label: int, score: float) -> Counter[str]:
    """Ask each object of the class for its cause, one detection after the other."""
    boxes = table.to(truth.convention).boxes
    pixel = truth.convention.inclusive
    mine = [k for k in range(len(truth.labels)) if truth.labels[k] == label and matches.counted[k]]
    finder = {int(matches.objects[d]): d for d in range(len(table)) if matches.status[d] == HIT}
    missed = [k for k in mine if k not in finder or table.scores[finder[k]] < score]
    result: Counter[str] = Counter()
    for k in missed:
        misplaced = taken = False
        for d in range(len(table)):
            if table.image_index[d] != truth.image_index[k] or table.scores[d] < score:
                continue
            overlap = slow_iou(boxes[d], truth.boxes[k], pixel)
            rivals = [
                slow_iou(boxes[d], truth.boxes[other], pixel)
                for other in missed
                if truth.image_index[other] == truth.image_index[k]
            ]
            if overlap < max(rivals):
                continue  # it is an error on another object, which it overlaps more
            if table.labels[d] == label:
                misplaced |= matches.status[d] == MISS and overlap >= 0.1
            else:
                taken |= overlap >= matches.thresholds[k]
        cause = "misplaced" if misplaced else "other class" if taken else "low score" if k in finder else "unseen"
        result[cause] += 1
    return result


@pytest.mark.parametrize("rule", ["voc", "ilsvrc", "coco"])
def test_equal_to_the_slow_version(rule: str) -> None:
    seen: Counter[str] = Counter()
    for seed in range(40):
        truth, table = random_case(seed)
        matches = match(truth, table, rule)
        for label in range(4):
            result = class_causes(truth, table, matches, label, SCORE)
            expected = slow_missed(truth, table, matches, label, SCORE)
            assert result.missed == {name: expected[name] for name in MISSED}
            shown = (table.labels == label) & (table.scores >= SCORE)
            assert sum(result.false.values()) == int((shown & (matches.status == MISS)).sum())
            assert result.found == int((shown & (matches.status == HIT)).sum())
            assert result.objects == result.found + sum(result.missed.values())
            assert int((shown & (matches.status != IGNORED)).sum()) == result.found + sum(result.false.values())
            seen += expected
    assert set(seen) == set(MISSED)  # every cause occurs
