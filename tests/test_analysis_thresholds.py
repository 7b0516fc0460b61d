"""Thresholds against every score tried in turn, and their intervals against resampled data sets built one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_operating_points import counted, random_case

from detector.analysis.thresholds import Thresholds, best_scores, thresholds
from detector.evaluation import DetectionTable, OperatingPoint, Truth, best_f1_points
from detector.evaluation.bootstrap import image_weights
from detector.evaluation.matching import HIT, IGNORED, Matches, match
from detector.evaluation.operating_points import wanted_points

RULES = ["voc", "ilsvrc", "coco"]


def all_thresholds(truth: Truth, table: DetectionTable, rule: str, labels: set[int]) -> list[OperatingPoint]:
    """What every score of some classes is worth as a threshold, the highest first, each by a matching of its own."""
    result = []
    status = match(truth, table, rule).status
    scores = table.scores[np.isin(table.labels, list(labels)) & (status != IGNORED)]
    for score in sorted(set(scores.tolist()), reverse=True):
        hits, false, objects = counted(truth, table[table.scores >= score], rule, labels)
        f1 = 2 * hits / (2 * hits + false + objects - hits)
        result.append(OperatingPoint(score, hits / (hits + false), hits / objects, f1))
    return result


@pytest.mark.parametrize("wanted", [0.2, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(4))
def test_all_thresholds_tried_one_by_one(seed: int, rule: str, wanted: float) -> None:
    truth, table = random_case(seed)
    matches = match(truth, table, rule)
    found = thresholds(truth, table, matches, precision=wanted, recall=wanted, resamples=0)
    best = best_f1_points(matches, table)
    with_objects = {label for label in range(4) if matches.positives[label]}
    of_all = {label: {label} for label in with_objects} | {4: with_objects}
    for label, one in enumerate((*found.by_class, found.pooled)):
        if label not in of_all:
            assert one is None
            continue
        assert one is not None
        points = all_thresholds(truth, table, rule, of_all[label])
        assert [one.curve.point(index) for index in range(len(one.curve))] == points
        assert one.best == (best.pooled if label == 4 else best.by_class[label])
        precise = [point for point in points if point.precision >= wanted]
        assert one.at_precision == min(precise, key=lambda point: point.score, default=None)
        recalling = [point for point in points if point.recall >= wanted]
        assert one.at_recall == max(recalling, key=lambda point: point.score, default=None)
        assert one.interval is None
    assert (found.precision, found.recall) == (wanted, wanted)


def best_of_copies(table: DetectionTable, matches: Matches, labels: set[int], times: list[int], objects: int) -> float:
    """The score of the greatest F1 where each image's detections are there as often as the image was drawn."""
    columns = (table.scores, matches.status, table.image_index, table.labels)
    rows = [
        (score, status == HIT)
        for score, status, image, label in zip(*(column.tolist() for column in columns), strict=True)
        if label in labels and status != IGNORED
        for _ in range(times[image])
    ]
    best, best_f1 = float("nan"), 0.0
    for threshold in sorted({score for score, _ in rows}, reverse=True):
        shown = [hit for score, hit in rows if score >= threshold]
        f1 = 2 * sum(shown) / (len(shown) + objects) if sum(shown) else 0.0
        if f1 > best_f1:
            best, best_f1 = threshold, f1
    return best


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(3))
def test_resamples_built_one_by_one(seed: int, rule: str) -> None:
    truth, table = random_case(seed)
    if seed == 2:  # a class ends with the score with which the next begins
        table = replace(table, scores=np.full(len(table), 0.5))
    matches = match(truth, table, rule)
    scores = best_scores(truth, table, matches, 60, seed=seed)
    with_objects = {label for label in range(4) if matches.positives[label]}
    weights = image_weights(len(truth), 60, seed)[1:]
    for times, row in zip(weights.tolist(), scores.tolist(), strict=True):
        for column, labels in enumerate([{0}, {1}, {2}, {3}, with_objects]):
            mine = matches.counted & np.isin(truth.labels, list(labels))
            objects = sum(times[image] for image in truth.image_index[mine].tolist())
            expected = best_of_copies(table, matches, labels, times, objects)
            assert row[column] == pytest.approx(expected, nan_ok=True), (column, times)
    found = thresholds(truth, table, matches, resamples=60, seed=seed)
    for column, one in enumerate((*found.by_class, found.pooled)):
        if one is None or one.best is None:
            continue
        known = sorted(value for value in scores[:, column].tolist() if value == value)
        low, high = (next(v for i, v in enumerate(known, 1) if i >= share * len(known)) for share in (0.025, 0.975))
        assert one.interval == (min(low, one.best.score), max(high, one.best.score))


def test_ignored_detections_do_not_count() -> None:
    truth, table = random_case(0)
    for rule in ("voc", "coco"):
        matches = match(truth, table, rule)
        without = table[matches.status != IGNORED]
        assert len(without) < len(table)
        first, second = (
            thresholds(truth, some, match(truth, some, rule), precision=0.5, recall=0.5) for some in (table, without)
        )
        assert summary(first) == summary(second)


def summary(found: Thresholds) -> list[object]:
    return [
        one and (one.best, one.interval, one.at_precision, one.at_recall) for one in (*found.by_class, found.pooled)
    ]


def graded(generator: np.random.Generator, images: int) -> tuple[Truth, DetectionTable]:
    """Images with two objects each of one class, found with high scores if at all, and false positives with lower."""
    base, _ = random_case(0)
    corner = np.tile([[0.0, 0.0], [50.0, 0.0]], (images, 1))
    index = np.repeat(np.arange(images), 2)
    none = np.zeros(2 * images, np.bool_)
    truth = replace(
        base,
        image_ids=tuple(map(str, range(images))),
        paths=tuple(Path(f"{image}.jpg") for image in range(images)),
        sizes=np.full((images, 2), 100),
        numbers=None,
        image_index=index,
        labels=np.zeros(2 * images, np.int64),
        boxes=np.concatenate([corner, corner + 40], axis=1),
        difficult=none,
        crowd=none,
        areas=np.full(2 * images, 1600.0),
    )
    found = generator.random(2 * images) < 0.85
    false = generator.integers(images, size=3 * images)
    boxes = np.concatenate([truth.boxes[found], np.tile([0.0, 60, 40, 100], (len(false), 1))])
    scores = np.concatenate([generator.beta(4, 2, int(found.sum())), generator.beta(2, 4, len(false))])
    labels = np.zeros(len(scores), np.int64)
    return truth, DetectionTable(np.concatenate([index[found], false]), labels, scores, boxes)


def test_the_interval_covers_the_best_score_of_more_images() -> None:
    """Of 100 sets of 60 images nearly 95 have intervals that contain the best score of 20,000 images."""
    generator = np.random.default_rng(0)
    truth, table = graded(generator, 20_000)
    whole = thresholds(truth, table, match(truth, table, "voc"), resamples=0).pooled
    assert whole is not None
    assert whole.best is not None
    inside = 0
    for _ in range(100):
        truth, table = graded(generator, 60)
        found = thresholds(truth, table, match(truth, table, "voc"), resamples=200).pooled
        assert found is not None
        assert found.interval is not None
        inside += found.interval[0] <= whole.best.score <= found.interval[1]
    assert inside >= 88


def test_nothing_to_find_or_nothing_found() -> None:
    truth, table = random_case(0)
    matches = match(truth, table[:0], "voc")
    empty = thresholds(truth, table[:0], matches, precision=0.5, recall=0.5, resamples=20)
    assert empty.pooled is not None
    for one in (empty.by_class[0], empty.pooled):
        assert one is not None
        assert (one.best, one.interval, one.at_precision, one.at_recall, len(one.curve)) == (None,) * 4 + (0,)
    bare = truth.with_objects(np.zeros(len(truth.labels), np.bool_))
    nothing = thresholds(bare, table, match(bare, table, "voc"), resamples=20)
    assert (nothing.by_class, nothing.pooled) == ((None,) * 4, None)


@pytest.mark.parametrize("wanted", [0.0, 1.5, -1.0, float("nan")])
def test_out_of_range(wanted: float) -> None:
    truth, table = random_case(0)
    matches = match(truth, table, "voc")
    for name in ("precision", "recall"):
        with pytest.raises(ValueError, match=rf"the wanted {name} must be in \(0, 1\]"):
            thresholds(truth, table, matches, **{name: wanted})
    with pytest.raises(ValueError, match="resamples must be at least 1"):
        thresholds(truth, table, matches, resamples=-1)
    with pytest.raises(ValueError, match="not both"):
        wanted_points(matches, table, precision=0.5, recall=0.5)
