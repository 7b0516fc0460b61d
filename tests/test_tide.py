"""Errors by kind, cases by hand: against TIDE's own program, tidecv, and ILSVRC's thresholds, which it does not have.

On random cases: test_parity.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from other_evaluators import tidecv_result

from detector.data.ground_truth import ClassTable
from detector.evaluation import DetectionTable, Truth
from detector.evaluation.diagnosis import Diagnosis, diagnose
from detector.evaluation.matching import match
from detector.evaluation.truth import HALF_OPEN

pytest.importorskip("tidecv", reason="tidecv is not installed")

Item = tuple[int, int, tuple[float, ...]]
BOX = (0.0, 0.0, 100.0, 100.0)
FAR = (300.0, 300.0, 400.0, 400.0)


def make_truth(objects: list[Item], images: int, classes: int, difficult: tuple[int, ...] = ()) -> Truth:
    """Objects as (image, label, box), images rising."""
    boxes = np.array([box for _, _, box in objects], np.float64).reshape(-1, 4)
    return Truth(
        name="toy",
        classes=ClassTable(tuple("abcdefgh"[:classes]), (None,) * classes, tuple(range(1, classes + 1))),
        image_ids=tuple(str(index) for index in range(images)),
        paths=tuple(Path(f"{index}.jpg") for index in range(images)),
        sizes=np.full((images, 2), 500),
        numbers=None,
        image_index=np.array([image for image, _, _ in objects], np.int64),
        labels=np.array([label for _, label, _ in objects], np.int64),
        boxes=boxes,
        difficult=np.isin(np.arange(len(objects)), difficult),
        crowd=np.zeros(len(objects), np.bool_),
        areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
        convention=HALF_OPEN,
    )


def make_table(rows: list[Item], scores: list[float] | None = None) -> DetectionTable:
    """Detections as (image, label, box), best first."""
    return DetectionTable(
        np.array([image for image, _, _ in rows], np.int64),
        np.array([label for _, label, _ in rows], np.int64),
        np.array(scores or [1 - place / (len(rows) + 1) for place in range(len(rows))]),
        np.array([box for _, _, box in rows], np.float64).reshape(-1, 4),
    )


TIDECV_POINTS = np.array([point / 100 for point in range(101)])  # NumPy's 0.29 and others differ by the last bit


def ours(truth: Truth, table: DetectionTable, protocol: str = "ilsvrc", min_iou: float = 0.5) -> Diagnosis:
    matches = match(truth, table, protocol, min_iou, relaxed=False)
    return diagnose(truth, table, matches, points=TIDECV_POINTS)


SHIFTED = (10.0, 0.0, 110.0, 100.0)  # IoU with BOX 9/11
TO_THE_LEFT = (-50.0, 0.0, 50.0, 100.0)  # 1/3
HAND = {
    "a copy on a found cat that also covers an unfound dog": (
        [(0, 0, BOX), (0, 1, SHIFTED)],
        [(0, 0, BOX), (0, 0, SHIFTED)],
        {"classification": 1},
    ),
    "a copy": ([(0, 0, BOX)], [(0, 0, BOX), (0, 0, SHIFTED)], {"duplicate": 1}),
    "a poor copy is poorly placed": ([(0, 0, BOX)], [(0, 0, BOX), (0, 0, TO_THE_LEFT)], {"localisation": 1}),
    "fifty boxes of background and a missed object": (
        [(0, 0, BOX), (1, 1, BOX)],
        [(0, 0, BOX), *[(1, 1, FAR)] * 50],
        {"background": 50, "missed": 1},
    ),
    "a class of which nothing is found": (
        [(0, 0, BOX), (1, 1, BOX)],
        [(0, 0, BOX)],
        {"missed": 1},
    ),
    "two kinds of error on one object, of which the better is mended": (
        [(0, 0, BOX), (1, 1, BOX)],
        [(0, 1, SHIFTED), (0, 0, TO_THE_LEFT), (1, 1, BOX)],
        {"classification": 1, "localisation": 1},
    ),
    "mending that costs AP": (
        [(0, 0, BOX), (1, 1, BOX), (2, 1, BOX)],
        [(2, 0, BOX), (0, 0, BOX), (1, 1, BOX), (2, 1, TO_THE_LEFT)],
        {"classification": 1, "localisation": 1},
    ),
}


@pytest.mark.parametrize("name", HAND)
def test_cases_by_hand_are_tidecvs(name: str) -> None:
    objects, rows, expected = HAND[name]
    truth, table = make_truth(objects, 3, 2), make_table(rows)
    counts, gains, _ = tidecv_result(truth, table, 0.5)
    result = ours(truth, table)
    assert {kind: count for kind, count in result.counts.items() if count} == expected
    assert result.counts == counts
    assert result.gains == pytest.approx(gains, abs=1e-9)
    assert min(result.gains.values()) >= 0


def test_ilsvrcs_own_thresholds() -> None:
    """An object of 10 x 10 px is found from IoU 1/4, so that a second box at 0.4 is a copy, not poorly placed."""
    small, copy = (0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 10.0, 4.0)
    truth, table = make_truth([(0, 0, small)], 1, 2), make_table([(0, 0, small), (0, 0, copy)])
    relaxed = diagnose(truth, table, match(truth, table, "ilsvrc"))
    assert {kind: count for kind, count in relaxed.counts.items() if count} == {"duplicate": 1}
    assert ours(truth, table).counts["localisation"] == 1
    other_class = make_table([(0, 1, copy)])
    relaxed = diagnose(truth, other_class, match(truth, other_class, "ilsvrc"))
    assert {kind: count for kind, count in relaxed.counts.items() if count} == {"classification": 1}
    assert relaxed.gains["classification"] == 1
    assert relaxed.confused == [("a", "b", 1)]


def test_objects_that_do_not_count_take_no_part() -> None:
    """A dog on a difficult cat is background, and a box on the difficult cat alone is no error at all."""
    truth = make_truth([(0, 0, BOX), (1, 1, BOX)], 2, 2, difficult=(0,))
    table = make_table([(0, 1, SHIFTED), (0, 0, SHIFTED), (1, 1, BOX)])
    result = diagnose(truth, table, match(truth, table, "voc"))
    assert {kind: count for kind, count in result.counts.items() if count} == {"background": 1}
    assert result.confused == []
    assert result.gains["background"] == pytest.approx(1 / 2)


def test_nothing_found_at_all() -> None:
    truth = make_truth([(0, 0, BOX)], 1, 1)
    result = ours(truth, make_table([]))
    assert result.counts["missed"] == 1
    assert result.gains["missed"] == 1
