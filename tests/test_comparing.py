"""Comparisons of several tables: intervals against those of two, lists of cases against their definition in loops."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from test_confusion import overlap
from test_diagnosis import make_table, make_truth
from test_operating_points import random_case

from detector.analysis.comparing import Alone, compare_many
from detector.evaluation import DetectionTable, ResultsError, Truth
from detector.evaluation.average import AREA, COCO_POINTS, ELEVEN_POINTS
from detector.evaluation.bootstrap import bootstrap, compare
from detector.evaluation.matching import HIT, MISS, match
from detector.evaluation.truth import VOC

RULES = {"voc": ELEVEN_POINTS, "ilsvrc": AREA, "coco": COCO_POINTS}


def three_tables(seed: int) -> tuple[Truth, dict[str, DetectionTable]]:
    """A table, one with jittered boxes and other scores, in VOC's pixels, and one of part of its detections."""
    truth, table = random_case(seed)
    generator = np.random.default_rng(seed)
    moved = replace(
        table,
        boxes=table.boxes + generator.normal(0, 2, (len(table), 4)) * [1, 1, 0, 0],
        scores=generator.integers(0, 9, len(table)) / 8,
    )
    tables = {"one": table, "moved": moved.to(VOC), "part": table[generator.random(len(table)) < 0.6]}
    return truth, tables


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(3))
def test_each_pair_as_two_tables_are_compared(seed: int, rule: str) -> None:
    truth, tables = three_tables(seed)
    points = RULES[rule]
    result = compare_many(truth, tables, rule=rule, points=points, min_iou=0.5, resamples=50, seed=seed)
    assert result.names == ("one", "moved", "part")
    assert [(pair.first, pair.second) for pair in result.pairs] == [
        ("one", "moved"),
        ("one", "part"),
        ("moved", "part"),
    ]
    matched = {name: (match(truth, table, rule), table) for name, table in tables.items()}
    for name, interval in zip(result.names, result.mean_ap, strict=True):
        assert interval == bootstrap(truth, *matched[name], points=points, resamples=50, seed=seed)
    for pair in result.pairs:
        both = [matched[pair.first], matched[pair.second]]
        expected = compare(truth, both, points=points, resamples=50, seed=seed)
        assert (pair.difference, pair.p_value) == (expected.difference, expected.p_value)
        assert [one and one.value for one in pair.by_class] == expected.by_class
        for label, one in enumerate(pair.by_class):
            if one is not None:
                alone = compare(truth, both, points=points, resamples=50, seed=seed, classes=[label])
                assert one == alone.difference
        assert pair.by_class[2] is None


def slowly(
    truth: Truth, own: DetectionTable, other: DetectionTable, rule: str, score: float
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Rows (margin in eighths, object or -1, detection) of both lists, unsorted; scores are whole eighths."""
    first, second = match(truth, own, rule), match(truth, other, rule)
    own, other = own.to(truth.convention), other.to(truth.convention)
    found, false = [], []
    for k in range(len(truth.labels)):
        mine, theirs = (
            [(table.scores[d], d) for d in range(len(table)) if matches.status[d] == HIT and matches.objects[d] == k]
            for matches, table in ((first, own), (second, other))
        )
        best = max((value for value, _ in theirs), default=0.0)
        if mine and mine[0][0] >= score and not (theirs and best >= score):
            found.append((int(8 * (mine[0][0] - best)), k, mine[0][1]))
    for d in range(len(own)):
        if first.status[d] != MISS or own.scores[d] < score:
            continue
        there = [
            other.scores[e]
            for e in range(len(other))
            if second.status[e] == MISS
            and other.image_index[e] == own.image_index[d]
            and other.labels[e] == own.labels[d]
            and overlap(own.boxes[d].tolist(), other.boxes[e].tolist(), truth.convention.inclusive) >= 0.5
        ]
        if max(there, default=-1.0) < score:
            false.append((int(8 * (own.scores[d] - max(there, default=0.0))), -1, d))
    return found, false


def rows_of(truth: Truth, alone: Alone, table: DetectionTable) -> list[list[tuple[int, ...]]]:
    result = []
    for cases in (alone.found, alone.false):
        assert cases.images.tolist() == table.image_index[cases.detections].tolist()
        columns = ((8 * cases.margins).astype(int).tolist(), cases.objects.tolist(), cases.detections.tolist())
        result.append(list(zip(*columns, strict=True)))
    return result


@pytest.mark.parametrize("score", [0.0, 0.5, 0.875])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(3))
def test_cases_by_their_definition(seed: int, rule: str, score: float) -> None:
    truth, tables = three_tables(seed)
    result = compare_many(truth, tables, rule=rule, points=AREA, min_iou=0.5, resamples=2, score=score)
    lengths = 0
    for pair in result.pairs:
        for own, other, alone in (
            (pair.first, pair.second, pair.first_alone),
            (pair.second, pair.first, pair.second_alone),
        ):
            expected = slowly(truth, tables[own], tables[other], rule, score)
            for rows, wanted in zip(rows_of(truth, alone, tables[own]), expected, strict=True):
                assert rows == sorted(wanted, key=lambda row: (-row[0], row[2]))
                lengths += len(rows)
    assert lengths > 0


def test_by_hand() -> None:
    left, right = (0.0, 0.0, 100.0, 100.0), (200.0, 0.0, 300.0, 100.0)
    nowhere, beside = (0.0, 300.0, 100.0, 400.0), (10.0, 300.0, 110.0, 400.0)
    truth = make_truth([[(left, 0), (right, 1)], [(left, 2)]])
    first = make_table([(0, 0, 0.7, left), (0, 1, 0.6, right), (1, 2, 0.9, left), (1, 0, 0.8, nowhere)])
    second = make_table(
        [
            (0, 0, 0.4, left),  # below 0.5: the first finds it alone, by 0.3
            (1, 2, 0.5, left),  # both find it
            (1, 0, 0.5, beside),  # the same false positive
            (0, 0, 0.8, nowhere),
            (0, 1, 0.9, nowhere),
        ]
    )
    (pair,) = compare_many(truth, {"a": first, "b": second}, rule="voc", points=AREA, min_iou=0.5, resamples=20).pairs
    found = pair.first_alone.found
    assert (found.images.tolist(), found.objects.tolist(), found.detections.tolist()) == ([0, 0], [1, 0], [1, 0])
    assert found.margins.tolist() == pytest.approx([0.6, 0.3])
    assert len(pair.first_alone.false) == 0
    false = pair.second_alone.false
    assert (false.images.tolist(), false.objects.tolist(), false.detections.tolist()) == ([0, 0], [-1, -1], [4, 3])
    assert false.margins.tolist() == pytest.approx([0.9, 0.8])
    assert len(pair.second_alone.found) == 0


def test_a_table_and_itself_and_an_empty_one() -> None:
    truth, tables = three_tables(0)
    table = tables["one"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = compare_many(
            truth,
            {"one": table, "again": table, "nothing": table[:0]},
            rule="voc",
            points=AREA,
            min_iou=0.5,
            resamples=20,
            score=0.0,
        )
    same, nothing, _ = result.pairs
    assert (same.difference.low, same.difference.value, same.difference.high, same.p_value) == (0, 0, 0, 1)
    assert not any(map(len, (same.first_alone.found, same.first_alone.false, same.second_alone.found)))
    matches = match(truth, table, "voc")
    assert len(nothing.first_alone.found) == (matches.status == HIT).sum()
    assert len(nothing.first_alone.false) == (matches.status == MISS).sum()
    assert not len(nothing.second_alone.found)
    assert not len(nothing.second_alone.false)


def test_scores_below_zero() -> None:
    """A detection with a score of -3 is more than none."""
    box, other = (0.0, 0.0, 100.0, 100.0), (200.0, 0.0, 300.0, 100.0)
    truth = make_truth([[(box, 0), (other, 0)]])
    first = make_table([(0, 0, 2.0, box), (0, 0, 2.0, other)])
    second = make_table([(0, 0, -3.0, box)])
    (pair,) = compare_many(
        truth, {"a": first, "b": second}, rule="voc", points=AREA, min_iou=0.5, resamples=2, score=1.0
    ).pairs
    assert pair.first_alone.found.objects.tolist() == [0, 1]
    assert pair.first_alone.found.margins.tolist() == [5.0, 5.0]


def test_what_cannot_be_compared() -> None:
    truth, tables = three_tables(0)
    options = {"rule": "voc", "points": AREA, "min_iou": 0.5}
    with pytest.raises(ValueError, match="two tables of detections or more, not 1"):
        compare_many(truth, {"one": tables["one"]}, **options)
    with pytest.raises(ValueError, match="resamples must be at least 1"):
        compare_many(truth, tables, resamples=0, **options)
    bare = truth.with_objects(np.zeros(len(truth.labels), np.bool_))
    with pytest.raises(ResultsError, match="nothing to compare against"):
        compare_many(bare, tables, **options)


def test_a_class_that_most_resamples_lack() -> None:
    """One object in one of 40 images: a few resamples may have it in none, and nothing warns."""
    box = (0.0, 0.0, 100.0, 100.0)
    truth = make_truth([[(box, 0)], [(box, 1)]] + [[(box, 0)]] * 38)
    first = make_table([(image, int(image == 1), 0.5, box) for image in range(40)])
    second = first[np.arange(40) != 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (pair,) = compare_many(
            truth, {"a": first, "b": second}, rule="voc", points=AREA, min_iou=0.5, resamples=1, seed=1
        ).pairs
    one = pair.by_class[1]
    assert one is not None
    assert one.value == -1
    assert pair.by_class[2] is None
