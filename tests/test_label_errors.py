"""Labels that may be wrong: each kind by hand and by a slow version of the rules; planted errors come first."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scenes import Box, make_table, make_truth, random_scene

from detector.analysis.label_errors import Suspect, label_errors
from detector.data.dataset import DataConfig, DatasetKind
from detector.evaluation import DetectionTable, Truth
from detector.evaluation.truth import HALF_OPEN, VOC, convert
from detector.evaluation.truth_files import read_truth

BOX, FAR = (0.0, 0.0, 100.0, 100.0), (300.0, 300.0, 400.0, 400.0)


def shifted(by: float) -> tuple[float, ...]:
    """BOX moved to the right; its IoU with BOX is (100 - by) / (100 + by)."""
    return (by, 0.0, 100.0 + by, 100.0)


Short = tuple[str, int, int | None, tuple[int, ...], int, int | None, float]


def short(one: Suspect) -> Short:
    return one.kind, one.image, one.detection, one.objects, one.label, one.other, round(one.score, 9)


def suspects(truth: Truth, table: DetectionTable, score: float = 0.5) -> list[Short]:
    return [short(one) for one in label_errors(truth, table, score=score)]


# ---- by hand


def test_a_confident_detection_without_a_label() -> None:
    truth = make_truth([[(BOX, 0)], []])
    found = (0, 0, 0.9, BOX)
    there = [("unlabelled", 0, 1, (), 1, None, 0.8)]
    assert suspects(truth, make_table([found, (0, 1, 0.8, FAR)])) == there
    assert suspects(truth, make_table([found, (0, 1, 0.8, FAR), (0, 2, 0.7, FAR)])) == there  # one in a place
    assert suspects(truth, make_table([found, (0, 1, 0.5, FAR)]))[0][-1] == 0.5
    assert suspects(truth, make_table([found, (0, 1, 0.49, FAR)])) == []
    assert suspects(truth, make_table([found, (0, 1, 0.8, shifted(82))])) == there  # IoU 18 / 182, below 0.1
    assert suspects(truth, make_table([found, (0, 1, 0.8, shifted(81))])) == []
    assert suspects(truth, make_table([found, (1, 1, 0.8, BOX)])) == [("unlabelled", 1, 1, (), 1, None, 0.8)]


def test_a_part_of_an_object_is_labelled() -> None:
    face, beside = (10.0, 10.0, 30.0, 30.0), (90.0, 10.0, 110.0, 30.0)
    truth = make_truth([[(BOX, 0)]])
    found = (0, 0, 0.9, BOX)
    assert suspects(truth, make_table([found, (0, 0, 0.8, face)])) == []
    assert suspects(truth, make_table([found, (0, 0, 0.8, beside)])) == []  # half of it
    assert suspects(truth, make_table([found, (0, 1, 0.8, face)])) == [("unlabelled", 0, 1, (), 1, None, 0.8)]
    past = (91.0, 10.0, 111.0, 30.0)
    assert suspects(truth, make_table([found, (0, 0, 0.8, past)])) == [("unlabelled", 0, 1, (), 0, None, 0.8)]
    for flags in ({"difficult": [(0, 0)]}, {"crowd": [(0, 0)]}):
        assert suspects(make_truth([[(BOX, 0)]], **flags), make_table([(0, 0, 0.8, face)])) == []


def test_a_label_of_another_class() -> None:
    truth = make_truth([[(BOX, 0)]])
    swapped = [("swapped", 0, 0, (0,), 0, 2, 0.9)]
    assert suspects(truth, make_table([(0, 2, 0.9, shifted(33))])) == swapped  # IoU 67 / 133
    assert suspects(truth, make_table([(0, 2, 0.9, BOX), (0, 1, 0.8, BOX)])) == swapped
    (one,) = suspects(truth, make_table([(0, 2, 0.9, BOX), (0, 0, 0.3, BOX)]))
    assert one == ("swapped", 0, 0, (0,), 0, 2, pytest.approx(0.9 * 0.7))
    assert suspects(truth, make_table([(0, 2, 0.9, BOX), (0, 0, 0.9, BOX)])) == []  # the label holds
    assert suspects(truth, make_table([(0, 2, 0.4, BOX)])) == []
    both = make_truth([[(BOX, 0), (shifted(10), 2)]])  # a person on a horse, both labelled
    assert suspects(both, make_table([(0, 2, 0.9, BOX)])) == []
    assert suspects(make_truth([[(BOX, 0)]], difficult=[(0, 0)]), make_table([(0, 2, 0.9, BOX)])) == swapped
    assert suspects(make_truth([[(BOX, 0)]], crowd=[(0, 0)]), make_table([(0, 2, 0.9, BOX)])) == []


def test_a_label_twice() -> None:
    def found(truth: Truth) -> list[Short]:
        rows = [
            (int(i), int(c), 0.9, box) for i, c, box in zip(truth.image_index, truth.labels, truth.boxes, strict=True)
        ]
        return suspects(truth, make_table(rows))

    assert found(make_truth([[(BOX, 0), (FAR, 0), (BOX, 0)]])) == [("double", 0, None, (0, 2), 0, None, 1)]
    assert found(make_truth([[(BOX, 0), (shifted(11), 0)]])) == [  # 89 / 111
        ("double", 0, None, (0, 1), 0, None, pytest.approx(89 / 111))
    ]
    assert found(make_truth([[(BOX, 0), (shifted(12), 0)]])) == []
    assert found(make_truth([[(BOX, 0), (BOX, 1)], [(BOX, 0)]])) == []
    three = found(make_truth([[(BOX, 0), (shifted(2), 0), (shifted(3), 0)]]))
    assert [one[3] for one in three] == [(1, 2), (0, 1)]  # one for each copy, with the nearest before it
    assert found(make_truth([[(BOX, 0), (BOX, 0)]], crowd=[(0, 1)])) == []


def test_a_label_that_nothing_finds() -> None:
    truth = make_truth([[(BOX, 0)], [(BOX, 0)], [(BOX, 0)], [(BOX, 1)]])
    rows = [(0, 0, 0.9, BOX), (1, 0, 0.06, BOX), (3, 1, 0.9, BOX)]
    share = (2 + 3 / 4) / 3  # of class 0 two are found; instead of the third, one found as often as all are
    for more, near in (([], 0.0), ([(2, 2, 0.05, shifted(34))], 66 / 134), ([(2, 0, 0.04, BOX)], 0.0)):
        (one,) = suspects(truth, make_table([*rows, *more]))
        assert one == ("unfound", 2, None, (2,), 0, None, pytest.approx(share * (1 - near), abs=1e-8))
    assert suspects(truth, make_table([*rows, (2, 2, 0.05, shifted(33))])) == []  # of any class
    for flags in ({"difficult": [(0, 0)]}, {"crowd": [(0, 0)]}):
        assert suspects(make_truth([[(BOX, 0)]], **flags), make_table([])) == []


def test_what_a_detector_seldom_finds_is_less_suspicious() -> None:
    small, other = (0.0, 0.0, 20.0, 20.0), (0.0, 50.0, 100.0, 150.0)
    images = [[(small, 0), (other, 0), (FAR, 1)] for _ in range(10)]
    rows = [(image, 0, 0.9, other) for image in range(9)] + [(image, 1, 0.9, FAR) for image in range(4)]
    found = label_errors(make_truth(images), make_table([*rows, (0, 0, 0.9, small)]))
    assert found[0].objects == (28,)  # the large one of class 0 in image 9
    assert found[0].score == pytest.approx((9 + 14 / 30) / 10)
    assert sorted({round(one.score, 9) for one in found[1:]}) == pytest.approx([(1 + 14 / 30) / 10, (4 + 14 / 30) / 10])


def test_nothing_and_odd_scores() -> None:
    empty = make_truth([[], []])
    assert suspects(empty, make_table([])) == suspects(make_truth([]), make_table([])) == []
    assert suspects(make_truth([[(BOX, 0)]]), make_table([])) == [("unfound", 0, None, (0,), 0, None, 0)]
    assert suspects(empty, make_table([(1, 0, 17.0, BOX)])) == [("unlabelled", 1, 0, (), 0, None, 1)]
    assert suspects(empty, make_table([(1, 0, -3.0, BOX)])) == []
    with pytest.raises(ValueError, match="detections name image 2, toy has 2"):
        label_errors(empty, make_table([(2, 0, 0.9, BOX)]))


def test_the_blacklist_is_left_out() -> None:
    truth = make_truth([[(BOX, 0), (BOX, 0), (FAR, 1)]])
    table = make_table([(0, 1, 0.9, (200.0, 0.0, 260.0, 60.0)), (0, 0, 0.8, FAR)])
    assert Counter(one[0] for one in suspects(truth, table)) == {
        "unlabelled": 1,
        "double": 1,
        "swapped": 1,
        "unfound": 2,
    }
    listed = replace(truth, blacklist=frozenset({(0, 1)}))
    assert Counter(one[0] for one in suspects(listed, table)) == {"double": 1, "unfound": 2}


# ---- a slow version


def overlap(one: Any, other: Any) -> float:
    width, height = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    shared = max(width, 0) * max(height, 0)
    return float(shared / (size(one) + size(other) - shared))


def size(box: Any) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def slow(truth: Truth, table: DetectionTable, least: float) -> list[Short]:
    result: list[Short] = []
    objects = [
        (int(i), int(c), box, bool(d), bool(w), float(a))
        for i, c, box, d, w, a in zip(
            *(truth.image_index, truth.labels, truth.boxes, truth.difficult, truth.crowd, truth.areas), strict=True
        )
    ]
    found = list(
        zip(*(column.tolist() for column in (table.image_index, table.labels, table.scores, table.boxes)), strict=True)
    )
    kept: list[int] = []
    for d in sorted(range(len(found)), key=lambda d: (found[d][0], -found[d][2], d)):
        image, label, score, box = found[d]
        here = [one for one in objects if one[0] == image]
        near = any(overlap(box, one[2]) >= 0.1 for one in here)
        for one in here:
            width, height = (min(one[2][i + 2], box[i + 2]) - max(one[2][i], box[i]) for i in (0, 1))
            near |= one[1] == label and max(width, 0) * max(height, 0) >= 0.5 * size(box)
        if score < least or near or any(found[k][0] == image and overlap(found[k][3], box) >= 0.5 for k in kept):
            continue
        kept.append(d)
        result.append(("unlabelled", image, d, (), label, None, score))
    missed = []
    for k, (image, label, box, difficult, crowd, _) in enumerate(objects):
        on = [d for d in range(len(found)) if found[d][0] == image and overlap(found[d][3], box) >= 0.5]
        own = max((found[d][2] for d in on if found[d][1] == label), default=0.0)
        rivals = [
            d
            for d in on
            if found[d][1] != label
            and found[d][2] >= max(least, own + 1e-12)
            and not any(one[:2] == found[d][:2] and overlap(found[d][3], one[2]) >= 0.5 for one in objects)
        ]
        if rivals and not crowd:
            best = max(rivals, key=lambda d: (found[d][2], -d))
            result.append(("swapped", image, best, (k,), label, found[best][1], found[best][2] * (1 - own)))
        missed.append(not difficult and not crowd and not any(found[d][2] >= 0.05 for d in on))
        copies = [
            (overlap(box, one[2]), -place)
            for place, one in enumerate(objects[:k])
            if one[:2] == (image, label) and not crowd and not one[4]
        ]
        if copies and max(copies)[0] >= 0.8:
            result.append(("double", image, None, (-max(copies)[1], k), label, None, max(copies)[0]))
    counted = [k for k, one in enumerate(objects) if not one[3] and not one[4]]
    usual = sum(not missed[k] for k in counted) / max(len(counted), 1)

    def kind(k: int) -> tuple[int, int]:
        side = math.sqrt(objects[k][5])
        return objects[k][1], (side >= 32) + (side >= 96)

    for k in counted:
        if missed[k]:
            alike = [other for other in counted if kind(other) == kind(k) and other != k]
            share = (sum(not missed[other] for other in alike) + usual) / (len(alike) + 1)
            ious = [overlap(one[3], objects[k][2]) for one in found if one[0] == objects[k][0] and one[2] >= 0.05]
            result.append(
                ("unfound", objects[k][0], None, (k,), objects[k][1], None, share * (1 - max(ious, default=0)))
            )
    return result


@pytest.mark.parametrize("seed", range(12))
def test_by_a_slow_version(seed: int) -> None:
    truth, table = random_scene(seed, ties=seed % 3 == 0, crowd=True, images=25)
    doubled = np.sort(np.concatenate([np.arange(len(truth.labels)), np.arange(0, len(truth.labels), 9)]))
    truth = truth.with_objects(doubled)  # type: ignore[arg-type]
    truth.labels[::4] = (truth.labels[::4] + 1) % 3
    least = 0.3
    fast = suspects(truth, table, least)
    expected = [(*one[:-1], round(one[-1], 9)) for one in slow(truth, table, least)]
    assert sorted(fast, key=repr) == sorted(expected, key=repr)
    assert [one[-1] for one in fast] == sorted((one[-1] for one in fast), reverse=True)
    assert len({one[0] for one in fast}) == 4


# ---- planted errors


def plant(truth: Truth, generator: np.random.Generator, each: int, free: Box) -> tuple[Truth, list[tuple[str, int]]]:
    """Take labels away, change classes, copy labels and add labels of nothing at `free`, each in images of its own.

    Returns:
        The truth with these errors, and their kinds and images.
    """
    images = generator.permutation(np.unique(truth.image_index))[: 4 * each].reshape(4, each)
    labels, boxes = truth.labels.copy(), truth.boxes.copy()
    first = {int(image): int(np.flatnonzero(truth.image_index == image)[0]) for image in images.ravel()}
    gone = [first[int(image)] for image in images[0]]
    for image in images[1]:
        labels[first[int(image)]] = (labels[first[int(image)]] + 1) % len(truth.classes)
    copies = [first[int(image)] for image in images[2]]
    nothing = [first[int(image)] for image in images[3]]
    order = np.concatenate([np.arange(len(labels)), copies, nothing])
    boxes = boxes[order]
    boxes[len(labels) : len(labels) + each] += generator.integers(-1, 2, (each, 4))
    boxes[len(labels) + each :] = free
    changed = replace(
        truth,
        labels=labels[order],
        boxes=boxes,
        areas=(boxes[:, 2:] - boxes[:, :2] + truth.convention.inclusive).prod(axis=1),
        **{name: getattr(truth, name)[order] for name in ("image_index", "difficult", "crowd")},
    )
    kept = ~np.isin(np.arange(len(order)), gone)
    sort = np.argsort(changed.image_index, kind="stable")
    kinds = ("unlabelled", "swapped", "double", "unfound")
    planted = [(kind, int(image)) for kind, some in zip(kinds, images, strict=True) for image in some]
    return changed.with_objects(sort[kept[sort]]), planted


def detected(truth: Truth, generator: np.random.Generator, free: Box) -> DetectionTable:
    """A detector that finds classes 0 and 1 well and half of the last one, and has doubts and weak false positives."""
    rows: list[tuple[int, int, float, Box]] = []
    hard = len(truth.classes) - 1 if len(truth.classes) > 2 else -1
    boxes: NDArray[np.float64] = np.asarray(convert(truth.boxes, truth.convention, HALF_OPEN), np.float64)
    for image, label, box in zip(truth.image_index.tolist(), truth.labels.tolist(), boxes, strict=True):
        if label != hard or generator.random() < 0.5:
            near = (box + generator.normal(0, 1, 4)).tolist()
            rows.append((image, label, float(generator.uniform(0.85, 1)), near))
            rows.append((image, (label + 1) % len(truth.classes), float(generator.uniform(0, 0.2)), near))
        rows.append((image, label, float(generator.uniform(0, 0.04)), free))
    for image in range(0, len(truth), 3):
        corner = generator.uniform(400, 440, 2)
        rows.append((image, 0, float(generator.uniform(0.3, 0.6)), (*corner, *(corner + 40))))
    return make_table(rows)


@pytest.mark.parametrize("seed", range(6))
def test_planted_errors_come_first(seed: int) -> None:
    generator = np.random.default_rng(seed)
    places = [(x, y) for x in (10.0, 130.0, 250.0) for y in (10.0, 130.0)]
    images: list[list[tuple[Box, int]]] = []
    for _ in range(120):
        some = generator.permutation(len(places))[: generator.integers(1, 5)]
        sides = generator.uniform(40, 90, (len(some), 2))
        corners = [places[place] for place in some]
        images.append(
            [
                ((x, y, x + w, y + h), int(generator.integers(3)))
                for (x, y), (w, h) in zip(corners, sides.tolist(), strict=True)
            ]
        )
        images[-1][0] = (images[-1][0][0], int(generator.integers(2)))  # the errors are in classes found well
    truth, free = make_truth(images), (10.0, 300.0, 80.0, 380.0)
    wrong, planted = plant(truth, generator, 6, free)
    table = detected(truth, generator, free)
    found = label_errors(wrong, table)
    assert Counter((one.kind, one.image) for one in found[: len(planted)]) == Counter(planted)
    assert len(found) > len(planted) + 10  # doubts and misses of the detector follow


def test_planted_errors_in_vocs_files(shapes: Path) -> None:
    """VOC's boxes are inclusive and begin at 1, detections are not and begin at 0."""
    truth = read_truth(DataConfig(DatasetKind.voc, str(shapes), split="train", classes=["square", "disc"]))
    assert truth.convention == VOC
    generator = np.random.default_rng(0)
    free = (1.0, 60.0, 12.0, 80.0)
    table = detected(truth, generator, (0.0, 59.0, 12.0, 80.0))
    wrong, planted = plant(truth, generator, 1, free)
    found = label_errors(wrong, table)
    assert {(one.kind, one.image) for one in found[:4]} == set(planted)
    by_kind = {one.kind: one for one in found}
    assert by_kind["unfound"].box.tolist() == list(free)
    unlabelled = by_kind["unlabelled"]
    assert unlabelled.detection is not None
    expected = convert(table.boxes[unlabelled.detection][None], HALF_OPEN, VOC)[0]
    assert unlabelled.box == pytest.approx(expected)
    # The copy's IoU in whole pixels, as a count of them.
    earlier, copy = by_kind["double"].objects
    pixels = np.zeros((2, 200, 200), np.bool_)
    for mask, (x1, y1, x2, y2) in zip(pixels, wrong.boxes[[earlier, copy]].astype(int), strict=True):
        mask[y1 : y2 + 1, x1 : x2 + 1] = True
    assert by_kind["double"].score == pytest.approx(pixels.all(axis=0).sum() / pixels.any(axis=0).sum())
