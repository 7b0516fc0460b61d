"""Confidence against precision, by a slow loop over the definition and by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scenes import make_table, make_truth, random_scene

from detector.analysis.calibration import Calibration, calibration
from detector.evaluation import DetectionTable, Truth
from detector.evaluation.matching import HIT, IGNORED, match

BOX, FAR = (0.0, 0.0, 50.0, 50.0), (200.0, 200.0, 250.0, 250.0)


def calibrated(truth: Truth, table: DetectionTable, rule: str = "voc", bins: int = 10) -> Calibration:
    result = calibration(table, match(truth, table, rule), bins=bins)
    assert result is not None
    return result


def slow_error(pairs: list[tuple[float, bool]], bins: int) -> tuple[float, list[tuple[int, float, float]]]:
    """The sum over bins of |B| / N times |mean score - precision|, as in the papers."""
    rows, error = [], 0.0
    for place in range(bins):
        low, high = place / bins, (place + 1) / bins
        inside = [one for one in pairs if low < one[0] <= high or (place == 0 and one[0] == 0)]
        confidence = sum(score for score, _ in inside) / len(inside) if inside else 0.0
        precision = sum(right for _, right in inside) / len(inside) if inside else 0.0
        error += len(inside) / len(pairs) * abs(confidence - precision)
        rows.append((len(inside), confidence, precision))
    return error, rows


@pytest.mark.parametrize("rule", ["voc", "ilsvrc", "coco"])
@pytest.mark.parametrize("bins", [1, 10, 15])
def test_by_a_slow_loop(rule: str, bins: int) -> None:
    """Ties on the limits of bins (scores of one decimal), ignored detections, a class without objects."""
    for seed in range(6):
        truth, table = random_scene(seed, ties=seed % 2 == 0, crowd=True)
        matches = match(truth, table, rule)
        counted = [d for d in range(len(table)) if matches.status[d] != IGNORED and table.labels[d] != 3]
        pairs = [(float(table.scores[d]), bool(matches.status[d] == HIT)) for d in counted]
        result = calibrated(truth, table, rule, bins)
        error, rows = slow_error(pairs, bins)
        assert result.error == pytest.approx(error, abs=1e-12)
        assert result.counts.tolist() == [count for count, _, _ in rows]
        assert result.confidence == pytest.approx([confidence for _, confidence, _ in rows], abs=1e-12)
        assert result.precision == pytest.approx([precision for _, _, precision in rows], abs=1e-12)
        assert len(result.edges) == bins + 1
        for label, value in enumerate(result.error_by_class):
            own = [pair for pair, d in zip(pairs, counted, strict=True) if table.labels[d] == label]
            assert value == (pytest.approx(slow_error(own, bins)[0], abs=1e-12) if own else None)
        assert result.error_by_class[3] is None


def test_by_hand() -> None:
    """Two at 0.9, one right: |0.9 - 1 / 2|. One at 0.3, which is a limit and wrong. A duplicate at 1 is wrong."""
    truth = make_truth([[(BOX, 0)], []], 2, difficult=[])
    table = make_table([(0, 0, 0.9, BOX), (1, 0, 0.9, FAR), (1, 0, 0.3, FAR), (0, 0, 0.85, BOX)])
    result = calibrated(truth, table)
    assert result.counts.tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 3, 0]
    assert result.error == pytest.approx((abs(2.65 - 1) + 0.3) / 4)
    assert result.error_by_class == (result.error, None)


def test_scores_that_are_the_precision_have_no_error() -> None:
    truth = make_truth([[(BOX, 0)] for _ in range(3)] + [[]], 1)
    table = make_table([*((image, 0, 0.75, BOX) for image in range(3)), (3, 0, 0.75, BOX)])
    assert calibrated(truth, table).error == 0


def test_a_difficult_object_changes_nothing() -> None:
    truth, difficult = (make_truth([[(BOX, 0), (FAR, 0)]], 1, difficult=some) for some in ([], [(0, 1)]))
    table = make_table([(0, 0, 0.9, BOX), (0, 0, 0.6, FAR)])
    assert calibrated(truth, table).counts.sum() == 2
    result = calibrated(difficult, table)
    assert (result.counts.sum(), result.error) == (1, pytest.approx(0.1))


def test_where_there_is_nothing_to_calibrate() -> None:
    truth = make_truth([[(BOX, 0)]], 2)
    empty = make_table([])
    of_absent = make_table([(0, 1, 0.9, BOX)])  # a class without objects
    for table in (empty, of_absent):
        assert calibration(table, match(truth, table, "voc")) is None
    table = make_table([(0, 0, 0.9, BOX)])
    for score in (1.5, -0.1):  # no probabilities
        other = replace(table, scores=np.array([score]))
        assert calibration(other, match(truth, other, "voc")) is None
    with pytest.raises(ValueError, match="at least one bin, not 0"):
        calibration(table, match(truth, table, "voc"), bins=0)
    both_ends = make_table([(0, 0, 0.0, FAR), (0, 0, 1.0, BOX)])
    result = calibrated(truth, both_ends)
    assert (result.counts[0], result.counts[-1], result.error) == (1, 1, 0)
