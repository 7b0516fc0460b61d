"""What is said of the number of examples before a training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detector.data.counts import check_objects, describe_counts, warn_if_smaller, warn_of_counts
from detector.data.ground_truth import ClassTable, DataError, Dataset, Record


def dataset(name: str, *images: list[int], classes: str = "cat dog cow", difficult: bool = False) -> Dataset:
    """Images by the labels of their objects."""
    names = tuple(classes.split())
    records = []
    for number, labels in enumerate(images):
        count = len(labels)
        boxes = np.tile(np.array([1.0, 1.0, 5.0, 5.0]), (count, 1))
        flags = np.zeros(count, np.bool_)
        records.append(
            Record(
                str(number),
                Path("x.jpg"),
                9,
                9,
                boxes,
                np.array(labels, np.int64),
                flags | difficult,
                flags,
                np.full(count, 16.0),
            )
        )
    return Dataset(name, ClassTable(names, (None,) * len(names), tuple(range(len(names)))), tuple(records))


def test_a_class_without_examples_is_named_with_the_numbers_of_the_others() -> None:
    train = dataset("a train", [0] * 12, [0, 2])
    lines = check_objects(train, dataset("a val", [0, 1]))
    table = {line.split()[0]: line.split()[-2:] for line in lines if "warning" not in line}
    assert table["cat"] == ["13", "1"]
    assert table["dog"] == ["0", "1"]
    assert table["cow"] == ["1", "0"]
    warnings = [line for line in lines if "warning" in line]
    assert [line for line in warnings if "dog" in line and "train" in line]
    assert [line for line in warnings if "cow: no object in val" in line]
    assert [line for line in warnings if "few" in line and "cow 1" in line and "cat" not in line]


def test_the_splits_meet_by_name() -> None:
    lines = check_objects(dataset("t", [0, 1, 2]), dataset("v", [0, 0], classes="cow horse"))
    assert next(line for line in lines if line.startswith("cow")).split() == ["cow", "1", "2"]


@pytest.mark.parametrize("bad", [dataset("none of these", [], []), dataset("none of these", [0], difficult=True)])
def test_no_object_at_all_is_an_error(bad: Dataset) -> None:
    good = dataset("good", [0])
    for train, val in ((bad, good), (good, bad)):
        with pytest.raises(DataError, match="none of these"):
            check_objects(train, val)


def test_fewer_images_with_objects_than_a_batch_takes() -> None:
    good, small = dataset("good", [0], [1], [2], [0]), dataset("small", [0], [1], [], [])
    with pytest.raises(DataError, match=r"small: 2 images .* 4"):
        check_objects(good, small, images=4)
    assert check_objects(good, small, images=2)


def test_many_classes_show_their_rarest() -> None:
    names = [f"c{label}" for label in range(200)]
    train = np.arange(200)[::-1].copy()  # c199 has none
    lines = describe_counts(names, [("train", train), ("val", train)])
    assert len(lines) == 1 + 30 + 1 + 1
    assert lines[1].split() == ["c199", "0", "0"]
    assert lines[-1].startswith("170 other classes have 30 to 199")
    (absent, *_) = warn_of_counts(names, train, train + 1)
    assert "c199" in absent


def test_a_batch_larger_than_the_data() -> None:
    assert warn_if_smaller("train", 4, 4, "images") == []
    assert "4" in warn_if_smaller("train", 4, 32, "images")[0]
