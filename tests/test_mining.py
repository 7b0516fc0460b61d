"""Hard negatives and unlabelled objects against loops over windows, and cases worked out by hand."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from test_windows import make_record

from detector.data.ground_truth import ClassTable, Dataset, Record
from detector.training.mining import Mined, MiningConfig, Unlabelled, mine, write_unlabelled
from detector.training.windows import Windows, collect_windows

CLASSES = ClassTable(("cat", "dog", "person"), (None, None, None), (1, 2, 3))
Box = tuple[float, ...]


def dataset_of(*records: Record) -> Dataset:
    return Dataset("toy", CLASSES, records)


def overlap(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def size(a: Box) -> float:
    return (a[2] - a[0]) * (a[3] - a[1])


def ratio(a: Box, b: Box) -> float:
    return overlap(a, b) / (size(a) + size(b) - overlap(a, b))


def slow(
    dataset: Dataset, windows: Windows, probabilities: NDArray[np.float16], config: MiningConfig, background_iou: float
) -> tuple[list[bool], list[bool], list[tuple[int, Box, int]]]:
    """Window by window; places in any order."""
    hard, left_out, places = [], [], []
    suspects: list[set[int]] = []
    boxes: list[Box] = [tuple(box) for box in windows.boxes.tolist()]
    labels = windows.labels.tolist()
    for box, label, image, row in zip(boxes, labels, windows.image.tolist(), probabilities.tolist(), strict=True):
        record = dataset.records[image]
        classes = set()
        for number in range(3) if label == 0 else ():
            own = [tuple(one) for one in record.boxes[record.labels == number].tolist()]
            known = any(ratio(box, one) >= config.unlabelled_iou or overlap(box, one) >= size(box) / 2 for one in own)
            if row[number + 1] > config.unlabelled and not known:
                classes.add(number)
        suspects.append(classes)
    for image in range(len(dataset)):
        for number in range(3):
            some = [i for i in range(len(boxes)) if windows.image[i] == image and number in suspects[i]]
            kept: list[int] = []
            for i in sorted(some, key=lambda i: -probabilities[i, number + 1]):
                if all(ratio(boxes[i], boxes[j]) <= 0.3 for j in kept):
                    kept.append(i)
            places += [(image, boxes[i], number) for i in kept]
    for i, box in enumerate(boxes):
        near = max([ratio(box, place) for image, place, _ in places if image == windows.image[i]], default=0)
        out = labels[i] == 0 and (bool(suspects[i]) or near >= background_iou)
        objects = dataset.records[windows.image[i]].boxes.tolist()
        far = all(ratio(box, tuple(one)) < config.max_iou for one in objects)
        wrong = labels[i] == 0 and 1 - float(probabilities[i, 0]) > config.threshold
        left_out.append(out)
        hard.append(wrong and far and near < config.max_iou and not out)
    return hard, left_out, places


def random_boxes(generator: np.random.Generator, count: int) -> NDArray[np.float64]:
    corner = generator.uniform(0, 200, (count, 2))
    return np.concatenate([corner, corner + generator.uniform(20, 100, (count, 2))], axis=1).round()


@pytest.mark.parametrize("seed", range(6))
def test_mined_windows_are_those_of_a_slow_loop(seed: int) -> None:
    generator = np.random.default_rng(seed)
    records = []
    for number in range(4):
        count = int(generator.integers(0, 4))
        objects = [tuple(box) for box in random_boxes(generator, count).tolist()]
        records.append(make_record(objects, generator.integers(0, 3, count).tolist(), difficult=(0,) * (number == 2)))
    dataset = dataset_of(*records)
    near = [
        (record.boxes[generator.integers(0, len(record.boxes), 30)] if len(record.boxes) else np.zeros((0, 4)))
        for record in records
    ]
    moved = [boxes + generator.uniform(-25, 25, boxes.shape) * np.array([1, 1, 1, 1]) for boxes in near]
    proposals = [np.concatenate([random_boxes(generator, 60), boxes]) for boxes in moved]
    proposals = [boxes[(boxes[:, 2:] > boxes[:, :2] + 1).all(axis=1)] for boxes in proposals]
    windows = collect_windows(dataset, proposals)
    logits = generator.normal(0, 3, (len(windows), 4))
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float16)
    config = MiningConfig(threshold=0.2, unlabelled=0.8)
    found = mine(dataset, windows, probabilities, config)
    hard, left_out, places = slow(dataset, windows, probabilities, config, 0.5)
    assert found.hard.tolist() == hard
    assert found.left_out.tolist() == left_out
    assert sorted((one.image, one.box, one.label) for one in found.unlabelled) == sorted(places)
    assert 0 < sum(hard) < len(hard)
    assert sum(left_out) > len(places) > 0
    scores = [one.score for one in found.unlabelled]
    assert scores == sorted(scores, reverse=True)


# ---- by hand

PERSON = (100.0, 0.0, 200.0, 300.0)
FACE = (130.0, 20.0, 160.0, 60.0)  # IoU 0.04 with the person
AWAY = (0.0, 0.0, 60.0, 60.0)


def mined(windows: list[tuple[Box, list[float]]], record: Record | None = None, **settings: float) -> Mined:
    """Mine windows of one image, each with the teacher's probabilities of cat, dog and person."""
    dataset = dataset_of(record or make_record([PERSON], [2]))
    table = collect_windows(dataset, [np.array([box for box, _ in windows])])
    table = table[int((~dataset.records[0].difficult).sum()) :]
    rows = np.array([[1 - sum(row), *row] for _, row in windows], np.float16)
    return mine(dataset, table, rows, replace(MiningConfig(), **settings))  # type: ignore[arg-type]


def test_what_the_teacher_passes_wrongly_is_a_hard_negative() -> None:
    near = (100.0, 0.0, 200.0, 120.0)  # IoU 0.4 with the person: loosely placed
    found = mined(
        [
            (AWAY, [0.5, 0, 0]),
            (AWAY, [0.05, 0.04, 0]),
            (AWAY, [0.05, 0.04, 0.04]),
            (near, [0, 0, 0.8]),
            (PERSON, [0, 0, 1]),
        ]
    )
    assert found.hard.tolist() == [True, False, True, False, False]
    assert not found.left_out.any()
    assert found.unlabelled == []
    assert mined([(near, [0, 0, 0.8])], max_iou=0.5).hard.tolist() == [True]
    assert mined([(AWAY, [0.5, 0, 0])], threshold=0.6).hard.tolist() == [False]


def test_a_confident_window_without_an_object_of_its_class_is_left_out() -> None:
    found = mined([(AWAY, [0.95, 0, 0]), (AWAY, [0, 0, 0.95]), (AWAY, [0.5, 0.45, 0])])
    assert found.left_out.tolist() == [True, True, True]  # the last lies where the others would be marked
    assert not found.hard.any()
    assert [(one.label, one.box) for one in found.unlabelled] == [(0, AWAY), (2, AWAY)]
    assert not mined([(AWAY, [1, 0, 0])], unlabelled=1.0).left_out.any()


def test_a_part_of_a_marked_object_is_a_hard_negative_and_no_object() -> None:
    found = mined([(FACE, [0, 0, 0.97])])
    assert (found.hard.tolist(), found.left_out.tolist()) == ([True], [False])
    found = mined([(FACE, [0.97, 0, 0])])  # no cat is marked there
    assert (found.hard.tolist(), found.left_out.tolist()) == ([False], [True])


@pytest.mark.parametrize("kind", ["difficult", "crowd"])
def test_what_is_marked_as_difficult_or_a_crowd_is_marked(kind: str) -> None:
    record = make_record([PERSON], [2], **{kind: (0,)})  # type: ignore[arg-type]
    dataset = dataset_of(record)
    table = collect_windows(dataset, [np.array([FACE])])
    found = mine(dataset, table, np.array([[0.02, 0, 0, 0.98]], np.float16), MiningConfig())
    assert found.unlabelled == []


def test_an_object_of_no_class_of_the_training_explains_nothing() -> None:
    """Objects of other classes are difficult, with label -1, which is no position of a class."""
    record = make_record([PERSON], [-1], difficult=(0,))
    assert [one.label for one in mined([(FACE, [0, 0, 0.97])], record).unlabelled] == [2]


def test_near_copies_are_listed_once_and_none_is_a_hard_negative() -> None:
    copies: list[tuple[Box, list[float]]] = [
        ((0.0, 0.0, 60.0, 60.0), [0.92, 0, 0]),
        ((4.0, 0.0, 60.0, 60.0), [0.99, 0, 0]),  # the best
        ((0.0, 0.0, 40.0, 60.0), [0.3, 0, 0]),  # IoU 0.6 with the best
        ((0.0, 0.0, 27.0, 60.0), [0.3, 0, 0]),  # 0.38
        ((0.0, 0.0, 20.0, 60.0), [0.3, 0, 0]),  # 0.27
    ]
    found = mined(copies)
    assert [one.box for one in found.unlabelled] == [(4, 0, 60, 60)]
    assert found.left_out.tolist() == [True, True, True, False, False]
    assert found.hard.tolist() == [False, False, False, False, True]


def test_the_list_in_a_file(tmp_path: Path) -> None:
    records = [replace(make_record([], []), image_id=name) for name in ("a, b", "c")]
    found = [Unlabelled(1, (1.0, 2.25, 3.0, 4.0), 2, 0.99), Unlabelled(0, (0.0, 0.0, 9.0, 9.0), 0, 0.9123)]
    write_unlabelled(tmp_path / "list.csv", dataset_of(*records), found)
    with (tmp_path / "list.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["image", "x1", "y1", "x2", "y2", "class", "score"],
        ["c", "1.0", "2.2", "3.0", "4.0", "person", "0.990"],
        ["a, b", "0.0", "0.0", "9.0", "9.0", "cat", "0.912"],
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"background": -1}, "mining.background must be at least 0, not -1"),
        ({"threshold": 1.0}, r"mining.threshold must be in \[0, 1\), not 1.0"),
        ({"max_iou": 0.0}, r"mining.max_iou must be in \(0, 1\], not 0.0"),
        ({"unlabelled": 0.4}, r"mining.unlabelled must be in \[0.5, 1\], not 0.4"),
        ({"unlabelled_iou": 2.0}, r"mining.unlabelled_iou must be in \(0, 1\], not 2.0"),
    ],
)
def test_thresholds_out_of_range_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MiningConfig(**values)  # type: ignore[arg-type]
