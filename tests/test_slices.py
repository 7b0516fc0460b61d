"""Slices: each as a data set of its own; the table of images with all that may be wrong in it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scenes import make_table, make_truth, random_scene

from detector.analysis.slices import SliceRow, by_count, by_slice, read_slices
from detector.analysis.values import slices_of
from detector.evaluation import DetectionTable, Truth, evaluate_ilsvrc, evaluate_voc
from detector.evaluation.bootstrap import bootstrap, image_weights, resampled_recall
from detector.evaluation.matching import HIT, match
from detector.evaluation.protocols import RULES, Protocol
from detector.evaluation.results import ResultsError

BOX, FAR = (0.0, 0.0, 50.0, 50.0), (200.0, 200.0, 250.0, 250.0)


def rows_of(
    truth: Truth, table: DetectionTable, columns: dict[str, list[str]] | None, protocol: str = "voc", resamples: int = 0
) -> tuple[SliceRow, ...]:
    """By the columns, or by the number of objects."""
    rule, points = RULES[Protocol[protocol]]
    settings: dict[str, Any] = {"rule": rule, "points": points, "min_iou": 0.5, "resamples": resamples}
    return by_count(truth, table, **settings) if columns is None else by_slice(truth, table, columns, **settings)


def alone(truth: Truth, table: DetectionTable, images: Sequence[int]) -> tuple[Truth, DetectionTable]:
    """The images as a data set of its own, written out."""
    objects = [
        [(truth.boxes[k].tolist(), int(truth.labels[k])) for k in np.flatnonzero(truth.image_index == image)]
        for image in images
    ]
    difficult = [
        (place, position)
        for place, image in enumerate(images)
        for position, k in enumerate(np.flatnonzero(truth.image_index == image))
        if truth.difficult[k]
    ]
    rows = [
        (images.index(table.image_index[d]), int(table.labels[d]), float(table.scores[d]), table.boxes[d].tolist())
        for d in range(len(table))
        if table.image_index[d] in images
    ]
    ids = [truth.image_ids[image] for image in images]
    return make_truth(objects, len(truth.classes), ids=ids, difficult=difficult), make_table(rows)


@pytest.mark.parametrize("seed", range(6))
def test_a_slice_is_a_data_set_of_its_own(seed: int) -> None:
    truth, table = random_scene(seed, ties=True, images=30)
    values = np.random.default_rng(seed).choice(["day", "night", ""], len(truth)).tolist()
    for protocol, evaluate in (("voc", evaluate_voc), ("ilsvrc", evaluate_ilsvrc)):
        rows = rows_of(truth, table, {"light": values}, protocol, resamples=30)
        assert [(row.column, row.value) for row in rows] == [("light", name) for name in ("day", "night", "(none)")]
        for row, value in zip(rows, ("day", "night", ""), strict=True):
            images = [image for image, one in enumerate(values) if one == value]
            part, found = alone(truth, table, images)
            evaluation = evaluate(part, found)
            assert (row.images, row.objects) == (len(images), evaluation.counts["objects"])
            assert row.mean_ap == pytest.approx(evaluation.mean_ap, abs=1e-12)
            rule, points = RULES[Protocol[protocol]]
            interval = bootstrap(part, match(part, found, rule), found, points=points, resamples=30)
            assert row.ap_interval == pytest.approx((interval.low, interval.high), abs=1e-12)


@pytest.mark.parametrize("protocol", ["voc", "coco"])
def test_by_number_of_objects(protocol: str) -> None:
    """Difficult objects do not count; an image without objects has no AP."""
    truth, table = random_scene(5, images=60)
    number = [int((~truth.difficult[truth.image_index == image]).sum()) for image in range(60)]
    rows = rows_of(truth, table, None, protocol)
    assert [row.value for row in rows] == ["0", "1", "2 to 3", "4 to 7"]
    for row, (low, high) in zip(rows, ((0, 0), (1, 1), (2, 3), (4, 7)), strict=True):
        images = [image for image, count in enumerate(number) if low <= count <= high]
        assert (row.column, row.images, row.objects) == ("objects", len(images), sum(number[i] for i in images))
        if low == 0:
            assert (row.mean_ap, row.ap_interval, row.recall, row.recall_interval) == (None,) * 4
        elif protocol == "voc":
            assert row.mean_ap == pytest.approx(evaluate_voc(*alone(truth, table, images)).mean_ap, abs=1e-12)
    many = make_truth([[(BOX, 0)] * 16, [(BOX, 0)] * 40])
    assert [(row.value, row.images) for row in rows_of(many, make_table([]), None)] == [("16 or more", 2)]


def test_recall_is_the_mean_over_classes_whatever_the_score() -> None:
    truth = make_truth([[(BOX, 0), (FAR, 1)], [(BOX, 0)]])
    table = make_table([(0, 0, 0.001, BOX), (0, 1, 0.9, FAR)])
    (row,) = rows_of(truth, table, {"a": ["x", "x"]}, resamples=200)
    assert row.recall == pytest.approx((1 / 2 + 1) / 2)
    assert row.recall_interval is not None
    assert row.recall_interval[0] < 0.75 < row.recall_interval[1]


def test_recall_of_resamples_by_counting() -> None:
    """Object by object, an image that is drawn twice counting twice; NaN where a class is not drawn."""
    truth, table = random_scene(1)
    matches = match(truth, table, "voc")
    found = {int(k) for k, status in zip(matches.objects, matches.status, strict=True) if status == HIT}
    weights = image_weights(len(truth), 30, 0)
    weights[1] = 0
    weights[1, truth.image_index[0]] = 2
    for weight, row in zip(weights, resampled_recall(truth, matches, weights), strict=True):
        for label in range(4):
            drawn = [
                (k in found)
                for k in np.flatnonzero((truth.labels == label) & ~truth.difficult).tolist()
                for _ in range(weight[truth.image_index[k]])
            ]
            assert row[label] == (
                pytest.approx(sum(drawn) / len(drawn)) if drawn else pytest.approx(np.nan, nan_ok=True)
            )


def test_no_images_and_no_objects() -> None:
    none, empty = make_truth([]), make_truth([[], []])
    assert rows_of(none, make_table([]), None) == ()
    (row,) = rows_of(empty, make_table([(0, 0, 0.9, BOX)]), None, resamples=10)
    assert row == SliceRow("objects", "0", 2, 0, None, None, None, None)


def test_one_image_has_no_interval() -> None:
    truth = make_truth([[(BOX, 0), (FAR, 1)], []])
    table = make_table([(0, 0, 0.9, BOX), (1, 0, 0.95, BOX)])
    for values in (["x", "y"], ["x", "x"]):  # alone, and beside an image without objects
        row = rows_of(truth, table, {"a": values}, resamples=20)[0]
        assert (row.ap_interval, row.recall_interval) == (None, None)
        assert row.mean_ap is not None


# ---- values


def groups(values: list[str]) -> dict[str, list[int]]:
    return {value: np.flatnonzero(kept).tolist() for value, kept in slices_of("light", values)}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["b", "a", "b"], {"a": [1], "b": [0, 2]}),
        (["10", "9", "9.0", "", "x", "x"], {"10": [0], "9": [1], "9.0": [2], "x": [4, 5], "(none)": [3]}),
        (["10", "9", "9.0", ""], {"9": [1, 2], "10": [0], "(none)": [3]}),
        (["nan", "1", "1"], {"1": [1, 2], "nan": [0]}),
        (["3", "1", "2", "4", "5", "6"], {"1 to 2": [1, 2], "3 to 4": [0, 3], "5 to 6": [4, 5]}),
        (["0"] * 30 + [str(n) for n in range(1, 25)], {"0": list(range(30)), "1 to 6": list(range(30, 36))}),
        (["1.5", "-2", "1e1"], {"-2": [1], "1.5": [0], "10": [2]}),
    ],
)
def test_values_become_slices(values: list[str], expected: dict[str, list[int]]) -> None:
    found = groups(values)
    assert {value: found.get(value) for value in expected} == expected
    assert sorted(image for images in found.values() for image in images) == list(
        range(len(values))
    )  # each image is in one


def test_thirds_keep_equal_values_together() -> None:
    generator = np.random.default_rng(0)
    for most in (25, 100, 100_000):
        numbers = generator.integers(0, most, 300)
        found = groups([str(number) for number in numbers])
        assert len(found) == 3
        assert all(70 <= len(images) <= 130 for images in found.values())
        assert sum(len(set(numbers[images].tolist())) for images in found.values()) == len(set(numbers.tolist()))


def test_too_many_texts() -> None:
    message = r"column 'light' has 4 different values in 4 images \(a, b, c and 1 more\); a slice needs several images"
    with pytest.raises(ResultsError, match=message):
        slices_of("light", list("abcd"))
    with pytest.raises(ResultsError, match="has 21 different values in 42 images"):
        slices_of("light", 2 * [f"v{number}" for number in range(21)])
    assert len(slices_of("light", 2 * [f"v{number}" for number in range(20)])) == 20
    with pytest.raises(ResultsError, match="column 'light' has no values"):
        slices_of("light", ["", ""])


def test_a_column_of_another_length() -> None:
    truth = make_truth([[(BOX, 0)]])
    with pytest.raises(ValueError, match="column 'a' has 2 values for 1 images"):
        rows_of(truth, make_table([]), {"a": ["x", "y"]})


# ---- the file

TRUTH = replace(
    make_truth([[(BOX, 0)]] * 4, ids=["a", "münchen 1", "000012", "d"]),
    paths=(Path("in/a.jpg"), Path("in/münchen 1.png"), Path("in/000012.jpg"), Path("in/d.jpg")),
)


def read(folder: Path, text: str | bytes, truth: Truth = TRUTH) -> dict[str, list[str]]:
    path = folder / "images.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_slices(path, truth)


@pytest.mark.parametrize(
    "text",
    [
        "image,light\na,day\nmünchen 1,night\n12,night\nd,day\n",
        "light,File_Name\nday,a.jpg\nnight,münchen 1.png\nnight,000012.jpg\nday,d.jpg\n",  # the column by its name
        "photo;light\r\nin/a.jpg;day\r\nx/in/münchen 1.png;night\r\n000012;night\r\nd;day\r\n".replace("x/", ""),
        "\ufeffimage\tlight\na\tday\n\nmünchen 1\tnight\n000012\tnight\nd\t day\n",
        'image,light\n"a",day\n"münchen 1",night\n000012,night\nd,"day"\n',
    ],
)
def test_tables_of_images(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read(tmp_path, text) == {"light": ["day", "night", "night", "day"]}
    assert not caplog.records


def test_images_without_a_line_and_lines_without_an_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "image,light\na,day\nd,\nelsewhere,day\n"
    assert read(tmp_path, text) == {"light": ["day", "", "", ""]}
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "images.csv: 1 of 3 images are not in toy and are not used: elsewhere" in caplog.messages[0]
    lacks = "images.csv: 2 of 4 images of toy have no line, and are the slice (none): münchen 1, 000012"
    assert lacks in caplog.messages[1]


def test_images_that_an_image_list_leaves_out_are_no_oddity(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    part = replace(TRUTH.part(np.array([True, False, False, True])), whole=TRUTH)
    assert read(tmp_path, "image,light\na,day\nmünchen 1,day\n12,day\nd,night\n", part) == {"light": ["day", "night"]}
    assert not caplog.records
    with pytest.raises(ResultsError, match=r"names no image of toy: 1 lines, all of images that are left out"):
        read(tmp_path, "image,light\n12,day\n", part)


def test_a_column_with_a_value_an_image_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "image,remark,hour,light\na,p,1,day\nmünchen 1,q,2,day\n12,r,3,day\nd,s,4,night\n"
    assert list(read(tmp_path, text)) == ["hour", "light"]  # numbers are taken in thirds
    (message,) = caplog.messages
    assert "column 'remark' has 4 different values in 4 images" in message
    assert message.endswith("the column is left out")
    with pytest.raises(ResultsError, match="no column has values for slices; name one such as light"):
        read(tmp_path, "image,remark\na,p\nmünchen 1,q\n12,r\nd,s\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,light\na,day\nd,day\na.jpg,night\n", "image a is in line 2 and again in line 4; an image has one line"),
        ("image,light\nb,day\n", "column 'image' names no image of toy: unknown image 'b', not in toy."),
        ("image,light\nmünchen_1,day\n", r"unknown image 'münchen_1', not in toy. Did you mean 'münchen 1'\?"),
        ("image,light\na\n", "line 2: 1 columns, and the first line names 2"),
        ("image,light,light\na,day,day\n", "two columns are named 'light'"),
        ("image\na\n", "a first line of names such as image,light and a line for each image"),
        ("image,light\n", "a first line of names such as image,light"),
        ("", "a first line of names such as image,light"),
        ('image,light\n"a,day\n', "line 2: malformed CSV"),
        ("image,light\nm\xfcnchen 1,day\n".encode("latin-1"), "not a text in UTF-8"),
    ],
)
def test_tables_that_are_refused(text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=f"images.csv: .*{message}"):
        read(tmp_path, text)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"gone.csv: cannot be read \(no such file or directory\)"):
        read_slices(tmp_path / "gone.csv", TRUTH)
    with pytest.raises(ResultsError, match=r"cannot be read \(is a directory\)"):
        read_slices(tmp_path, TRUTH)
