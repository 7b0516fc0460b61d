"""Ours against pycocotools, hotcoco, tidecv and the devkits' rules written out slowly, on random cases.

RCNN_PARITY_CASES sets their number, 100 by default. With `-rP` each test prints the greatest difference that it found.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from other_evaluators import (
    ap_of,
    area_under,
    coco_evaluator,
    eleven_points,
    slow_ilsvrc,
    slow_voc,
    tidecv_result,
    versions,
)
from random_cases import random_case

from detector.evaluation import (
    DetectionTable,
    Truth,
    evaluate_coco,
    evaluate_ilsvrc,
    evaluate_voc,
    read_coco_truth,
    read_voc_truth,
)
from detector.evaluation.average import COCO_POINTS, average_precisions
from detector.evaluation.coco import SUMMARY
from detector.evaluation.diagnosis import diagnose
from detector.evaluation.matching import match
from detector.evaluation.truth import HALF_OPEN, ILSVRC, VOC, Convention, convert

pytestmark = pytest.mark.timeout(0)  # 10,000 cases take minutes

CASES = int(os.environ.get("RCNN_PARITY_CASES", "100"))
TOLERANCE = 1e-12
TIDECV_POINTS = np.array([point / 100 for point in range(101)])  # NumPy's 0.29 and others differ by the last bit

Values = list[float | None]


def difference(ours: Values, theirs: Values) -> float:
    """The greatest difference; infinite where one of two has no value."""
    pairs = list(zip(ours, theirs, strict=True))
    if any((one is None) != (other is None) for one, other in pairs):
        return float("inf")
    return max((abs(one - other) for one, other in pairs if one is not None and other is not None), default=0.0)


def ilsvrcs_rules(truth: Truth, table: DetectionTable) -> float:
    evaluation = evaluate_ilsvrc(truth, table)
    assert evaluation.plain_ap is not None
    greatest = 0.0
    for relaxed, ours in ((True, evaluation.ap), (False, evaluation.plain_ap)):
        labels = range(len(truth.classes))
        expected = [ap_of(slow_ilsvrc(truth, table, label, relaxed=relaxed)) for label in labels]
        greatest = max(greatest, difference(list(ours.values()), expected))
    return greatest


def vocs_rules(truth: Truth, table: DetectionTable) -> float:
    outcomes = [slow_voc(truth, table, label) for label in range(len(truth.classes))]
    greatest = 0.0
    for eleven, ap in ((False, area_under), (True, eleven_points)):
        ours = evaluate_voc(truth, table, eleven_point=eleven)
        greatest = max(greatest, difference(list(ours.ap.values()), [ap_of(outcome, ap) for outcome in outcomes]))
    return greatest


def cocos_program(program: str) -> Callable[[Truth, DetectionTable], float]:
    """Its twelve numbers and AP50 of each class; and our own matching at all ten thresholds."""

    def compare(truth: Truth, table: DetectionTable) -> float:
        evaluator = coco_evaluator(program, truth, table)
        precision = np.asarray(evaluator.eval["precision"])[:, :, :, 0, -1]  # [10, 101, K]; -1 without objects
        expected = [[None if curve[0] < 0 else float(curve.mean()) for curve in at.T] for at in precision]
        evaluation = evaluate_coco(truth, table, backend=program)
        stats = [None if value < 0 else float(value) for value in evaluator.stats]
        greatest = difference([evaluation.summary[name] for name in SUMMARY], stats)
        greatest = max(greatest, difference(list(evaluation.ap.values()), expected[0]))
        for threshold, theirs in zip(np.linspace(0.5, 0.95, 10).tolist(), expected, strict=True):
            ours = average_precisions(match(truth, table, "coco", threshold), table, COCO_POINTS)
            greatest = max(greatest, difference(ours, theirs))
        return greatest

    return compare


def tidecvs_errors(truth: Truth, table: DetectionTable) -> float:
    """Infinite where a count of errors differs.

    Without what tidecv does not have or treats otherwise: objects that do not count, detections of classes without
    objects, which are an AP of 0 there; equal scores, among which it puts hits last when it mends errors, and scores
    below -1, on which it fails.
    """
    truth = truth.with_objects(~truth.ignored)
    table = table[np.isin(table.labels, truth.labels)]
    ranks = np.argsort(np.argsort(-table.scores, kind="stable"))
    table = replace(table, scores=1 - ranks / (len(table) + 1))
    min_iou = (0.5, 0.3, 0.75)[len(table) % 3]
    try:
        counts, gains, mean_ap = tidecv_result(truth, table, min_iou)
    except ZeroDivisionError:  # no class is left once the missed objects do not count
        return 0.0
    matches = match(truth, table, "ilsvrc", min_iou, relaxed=False)
    result = diagnose(truth, table, matches, points=TIDECV_POINTS)
    ours = [value for value in average_precisions(matches, table, TIDECV_POINTS) if value is not None]
    if result.counts != counts:
        return float("inf")
    return difference([float(np.mean(ours)), *(result.gains[kind] for kind in gains)], [mean_ap, *gains.values()])


PEERS: dict[str, tuple[Callable[[Truth, DetectionTable], float], tuple[Convention, ...], str]] = {
    "rules of ILSVRC": (ilsvrcs_rules, (ILSVRC,), ""),
    "rules of VOC": (vocs_rules, (VOC,), ""),
    "pycocotools": (cocos_program("pycocotools"), (HALF_OPEN, VOC), "pycocotools"),
    "hotcoco": (cocos_program("hotcoco"), (HALF_OPEN, VOC), "hotcoco"),
    "tidecv": (tidecvs_errors, (HALF_OPEN,), "tidecv"),
}


@pytest.mark.parametrize("peer", PEERS)
def test_random_cases(peer: str) -> None:
    compare, conventions, package = PEERS[peer]
    if package:
        pytest.importorskip(package, reason=f"{package} is not installed")
    greatest = 0.0
    for seed in range(CASES):
        truth, table = random_case(seed, conventions[seed % len(conventions)])
        found = compare(truth, table)
        assert found <= TOLERANCE, f"case {seed}"
        greatest = max(greatest, found)
    print(f"{peer}: {CASES:,} cases, greatest difference {greatest:.1e}; {versions('numpy', *filter(None, [package]))}")


def moved_objects(truth: Truth) -> tuple[Truth, DetectionTable]:
    """Detections near two thirds of the real objects, each sixth of another class; images numbered anew."""
    numbers = np.arange(1, len(truth) + 1)
    truth = replace(truth, numbers=numbers, image_ids=tuple(map(str, numbers.tolist())))
    generator = np.random.default_rng(0)
    near = generator.permutation(np.repeat(np.arange(len(truth.boxes)), 2))[: 4 * len(truth.boxes) // 3]
    reach = (truth.boxes[near, 2:] - truth.boxes[near, :2]).mean(axis=1, keepdims=True) / 8
    boxes = truth.boxes[near] + (generator.normal(size=(len(near), 4)) * reach).round()
    others = generator.random(len(near)) < 1 / 6
    labels = np.where(others, generator.integers(0, len(truth.classes), len(near)), truth.labels[near])
    scores = generator.random(len(near)).round(2)
    return truth, DetectionTable(truth.image_index[near], labels, scores, boxes, truth.convention)


@pytest.mark.data
@pytest.mark.parametrize("peer", PEERS)
def test_real_objects(peer: str, data_dir: Path) -> None:
    """VOC2007 with its difficult objects, BCCD with its two boxes without area, COCO with its crowds."""
    compare, conventions, package = PEERS[peer]
    if package:
        pytest.importorskip(package, reason=f"{package} is not installed")
    truths = (
        read_voc_truth(data_dir / "voc07/Annotations", data_dir / "voc07/ImageSets/Main/test500.txt"),
        read_voc_truth(data_dir / "bccd/Annotations", data_dir / "bccd/ImageSets/Main/trainval.txt"),
        read_coco_truth(data_dir / "coco-sample/instances.json"),
    )
    for truth in truths:
        given, table = moved_objects(truth)
        if given.convention not in conventions:
            wanted = conventions[0]
            boxes = np.asarray(convert(given.boxes, given.convention, wanted))
            given, table = replace(given, boxes=boxes, convention=wanted), table.to(wanted)
        found = compare(given, table)
        assert found <= TOLERANCE, truth.name
        print(f"{peer}, {truth.name}, {len(table):,} detections: greatest difference {found:.1e}")
