"""AP and recall by size: pycocotools' own ranges, a slow matcher for all protocols, and what lies on a limit."""

from __future__ import annotations

import contextlib
import io
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pycocotools.cocoeval import COCOeval
from scenes import make_table, make_truth, random_scene

from detector.analysis.sizes import SizeRow, by_size
from detector.evaluation import DetectionTable, Truth
from detector.evaluation.average import AREA, average_precision, precision_recall
from detector.evaluation.bootstrap import bootstrap
from detector.evaluation.coco import classes_of, in_memory
from detector.evaluation.matching import match, relaxed_thresholds
from detector.evaluation.protocols import RULES, Protocol
from detector.evaluation.truth import HALF_OPEN, VOC, convert

SMALL, LARGE = (0.0, 0.0, 30.0, 30.0), (0.0, 0.0, 200.0, 200.0)


def rows_of(truth: Truth, table: DetectionTable, protocol: str = "voc", **settings: Any) -> tuple[SizeRow, ...]:
    rule, points = RULES[Protocol[protocol]]
    return by_size(truth, table, rule=rule, points=points, **({"min_iou": 0.5, "resamples": 0} | settings))


def pycocotools_by_size(truth: Truth, table: DetectionTable, min_iou: float) -> Any:
    evaluator = COCOeval(*in_memory(classes_of("pycocotools")[0], truth, table), "bbox")
    evaluator.params.iouThrs = np.array([min_iou])
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator.eval


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("min_iou", [0.5, 0.75])
def test_cocos_ranges_are_pycocotools(seed: int, min_iou: float) -> None:
    """With ties, difficult objects and crowds, a class without objects, and areas that are not the boxes'."""
    truth, table = random_scene(seed, ties=True, crowd=True)
    expected = pycocotools_by_size(truth, table, min_iou)
    rows = rows_of(truth, table, "coco", min_iou=min_iou)
    assert [row.name for row in rows] == ["small", "medium", "large"]
    for place, row in enumerate(rows, 1):  # 0 is all
        curves, recalls = expected["precision"][0, :, :, place, -1], expected["recall"][0, :, place, -1]
        ap = [float(curve.mean()) if curve[0] >= 0 else None for curve in curves.T]
        assert [value is None for value in row.ap_by_class] == [value is None for value in ap]
        for value, wanted in zip(row.ap_by_class, ap, strict=True):
            assert value == pytest.approx(wanted, abs=1e-12)
        some = recalls >= 0
        assert row.recall == (pytest.approx(recalls[some].mean(), abs=1e-12) if some.any() else None)
        known = [value for value in ap if value is not None]
        assert row.mean_ap == (pytest.approx(np.mean(known), abs=1e-12) if known else None)


# ---- a slow matcher, for all protocols


def slow_row(
    truth: Truth, table: DetectionTable, rule: str, points: Any, low: float, high: float
) -> tuple[int, list[float | None]]:
    """Go through the detections of each class, best first, by the published rules; ignore what is out of the range."""

    def outside(area: float) -> bool:
        return area < low**2 or area > high**2

    def overlap(one: Any, other: Any) -> float:
        width = min(one[2], other[2]) - max(one[0], other[0])
        height = min(one[3], other[3]) - max(one[1], other[1])
        shared = max(width, 0) * max(height, 0)
        return float(
            shared / ((one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - shared)
        )

    ap: list[float | None] = []
    total = 0
    for label in range(len(truth.classes)):
        objects = [k for k in range(len(truth.labels)) if truth.labels[k] == label]
        ignored = {k for k in objects if outside(truth.areas[k]) or (rule == "voc" and truth.difficult[k])}
        positives, hits, taken = len(objects) - len(ignored), [], set()
        total += positives
        rows = [d for d in range(len(table)) if table.labels[d] == label]
        for d in sorted(rows, key=lambda d: (-table.scores[d], table.image_index[d] if rule == "ilsvrc" else 0, d)):
            box = table.boxes[d]
            own_area_outside = outside((box[2] - box[0]) * (box[3] - box[1]))
            near = [(overlap(box, truth.boxes[k]), k) for k in objects if truth.image_index[k] == table.image_index[d]]
            least = {k: 0.5 for k in objects}
            if rule == "ilsvrc":
                least = {k: min(0.5, relaxed_thresholds(truth.boxes[k : k + 1], 0.0)[0]) for k in objects}
                near = [(iou, k) for iou, k in near if k not in taken and iou >= least[k]]
                near = [
                    one for one in near if one[1] not in ignored
                ] or near  # one to be found comes before one ignored
            best = max(near, key=lambda one: (one[0], -one[1]), default=(0.0, -1))
            if rule == "ilsvrc" and best[1] in ignored:
                best = max(near)  # of ignored ones any: they are alike
            if best[0] <= 0 or best[0] < least[best[1]]:
                hits += [] if own_area_outside else [False]
            elif best[1] in ignored:
                taken.add(best[1])
            elif best[1] in taken:
                hits += [] if own_area_outside else [False]
            else:
                taken.add(best[1])
                hits.append(True)
        ap.append(average_precision(*precision_recall(np.array(hits, bool), positives), points) if positives else None)
    return total, ap


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("rule", ["voc", "ilsvrc"])
def test_voc_and_ilsvrc_by_a_slow_matcher(rule: str, seed: int) -> None:
    truth, table = random_scene(seed, ties=True)
    ranges = [(0.0, 25.0), (25.0, 60.0), (60.0, math.inf)]
    for row, (low, high) in zip(rows_of(truth, table, rule, ranges=ranges), ranges, strict=True):
        objects, ap = slow_row(truth, table, rule, AREA, low, high)
        assert (row.low, row.high, row.objects) == (low, high, objects)
        assert list(row.ap_by_class) == [None if value is None else pytest.approx(value, abs=1e-12) for value in ap]


# ---- by hand


def test_the_other_size_is_neither_right_nor_wrong() -> None:
    truth = make_truth([[(SMALL, 0)], [(LARGE, 0)]])
    far = (300.0, 300.0, 310.0, 310.0)  # a false positive, small
    table = make_table(
        [(1, 0, 0.9, LARGE), (0, 0, 0.8, SMALL), (0, 0, 0.95, far), (1, 0, 0.3, (0.0, 0.0, 190.0, 200.0))]
    )
    for protocol, last in (("voc", 1.0), ("ilsvrc", 1.0), ("coco", 1.0)):
        small, medium, large = rows_of(truth, table, protocol)
        assert (small.mean_ap, medium.mean_ap, large.mean_ap) == (pytest.approx(0.5), None, pytest.approx(last))
        assert (small.recall, medium.recall, large.recall) == (1, None, 1)
        assert (small.objects, medium.objects, large.objects) == (1, 0, 1)


def test_both_limits_belong_to_a_range() -> None:
    box = (0.0, 0.0, 32.0, 32.0)
    rows = rows_of(make_truth([[(box, 0)]]), make_table([(0, 0, 0.9, box)]))
    assert [row.objects for row in rows] == [1, 1, 0]
    assert [row.mean_ap for row in rows] == [1, 1, None]


@pytest.mark.parametrize("protocol", ["voc", "coco", "ilsvrc"])
def test_the_pixel_convention_of_the_files_changes_nothing(protocol: str) -> None:
    truth, table = random_scene(2, ties=True, crowd=True)
    inclusive = replace(truth, boxes=convert(truth.boxes, HALF_OPEN, VOC), convention=VOC)  # areas stay
    assert rows_of(inclusive, table, protocol) == rows_of(truth, table, protocol)


def test_coco_has_a_greatest_area_without_ranges_too() -> None:
    """pycocotools' range of all objects ends at 1e5² px²."""
    huge = (0.0, 0.0, 2e5, 1e5)
    truth, table = make_truth([[(huge, 0), (SMALL, 0)]]), make_table([(0, 0, 0.9, huge), (0, 0, 0.8, SMALL)])
    evaluated = pycocotools_by_size(truth, table, 0.5)
    matches = match(truth, table, "coco")
    assert matches.positives.tolist() == [1, 0, 0]
    assert matches.status.tolist() == [-1, 1]
    assert (evaluated["precision"][0, :, 0, 0, -1] > 0.999).all()


def test_own_ranges_have_names() -> None:
    truth = make_truth([[(SMALL, 0)]])
    rows = rows_of(truth, make_table([]), ranges=[(0, 30.5), (30.5, math.inf)])
    assert [row.name for row in rows] == ["0 to 30.5 px", "30.5 px or more"]
    assert [(row.mean_ap, row.recall) for row in rows] == [(0, 0), (None, None)]
    for wrong in ((10.0, 10.0), (-1.0, 5.0), (math.nan, 5.0)):
        with pytest.raises(ValueError, match="a range of sizes must begin at 0 px or more and end above that"):
            rows_of(truth, make_table([]), ranges=[wrong])


def test_one_range_of_everything_is_the_score_itself() -> None:
    truth, table = random_scene(3)
    for protocol in ("voc", "voc07", "ilsvrc"):
        rule, points = RULES[Protocol[protocol]]
        (row,) = rows_of(truth, table, protocol, ranges=[(0, math.inf)], resamples=50)
        matches = match(truth, table, rule)
        interval = bootstrap(truth, matches, table, points=points, resamples=50)
        assert row.mean_ap == pytest.approx(interval.value, abs=1e-12)
        assert row.ap_interval == pytest.approx((interval.low, interval.high), abs=1e-12)
        assert row.recall_interval is not None
        assert row.recall_interval[0] < (row.recall or 0) < row.recall_interval[1]
