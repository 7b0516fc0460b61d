"""Files of detections in every format against every kind of truth, and each silent mistake, named."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.data.ground_truth import ClassTable, DataError
from detector.evaluation import (
    DetectionTable,
    ResultsError,
    Truth,
    checking,
    evaluate_coco,
    evaluate_voc,
    read_results,
    text_results,
)
from detector.evaluation.matching import match
from detector.evaluation.truth import HALF_OPEN, ILSVRC, VOC
from detector.evaluation.truth_files import read_coco_truth, read_voc_truth
from detector.evaluation.writing import write_coco, write_results

WNIDS = ("n02672831", "n02691156", "n02219486")


def make_truth(*, numbers: bool = False, convention: Any = HALF_OPEN, ids: tuple[int, ...] = (1, 2, 3)) -> Truth:
    """Forty images of 100 x 80 px, each with three objects, one of each class, nowhere near the origin."""
    generator = np.random.default_rng(0)
    corner = generator.integers(30, 50, (120, 2)).astype(np.float64)
    boxes = np.concatenate([corner, corner + generator.integers(15, 30, (120, 2))], axis=1)
    names = tuple(f"2008_{index:06}" for index in range(40))
    return Truth(
        name="toy val",
        classes=ClassTable(("accordion", "airplane", "ant"), WNIDS, ids),
        image_ids=names,
        paths=tuple(Path(f"{name}.jpg") for name in names),
        sizes=np.tile([100, 80], (40, 1)),
        numbers=np.arange(101, 141) if numbers else None,
        image_index=np.repeat(np.arange(40), 3),
        labels=np.tile([0, 1, 2], 40),
        boxes=boxes,
        difficult=np.zeros(120, np.bool_),
        crowd=np.zeros(120, np.bool_),
        areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
        convention=convention,
    )


def perfect(truth: Truth) -> DetectionTable:
    scores = np.linspace(1, 0.1, len(truth.labels))
    return DetectionTable(truth.image_index, truth.labels, scores, truth.boxes, truth.convention)


def coco_entries(truth: Truth, **changes: Any) -> list[dict[str, Any]]:
    boxes = np.concatenate([truth.boxes[:, :2], truth.boxes[:, 2:] - truth.boxes[:, :2]], axis=1).tolist()
    entries = []
    for image, label, box in zip(truth.image_index.tolist(), truth.labels.tolist(), boxes, strict=True):
        entry = {"image_id": truth.image_ids[image], "category_id": truth.classes.ids[label], "bbox": box, "score": 0.5}
        entries.append({**entry, **{key: change(entry) for key, change in changes.items()}})
    return entries


def refusal(path: Path, truth: Truth, content: str | list[Any]) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ResultsError) as caught:
        read_results(path, truth)
    return str(caught.value).replace(f"{path}: ", "")


# ---- formats and conventions


@pytest.mark.parametrize("convention", [HALF_OPEN, VOC, ILSVRC])
@pytest.mark.parametrize("name", ["found.json", "found.txt", "found"])
def test_every_format_against_every_convention(tmp_path: Path, name: str, convention: Any) -> None:
    truth = make_truth(numbers=True, convention=convention)
    write_results(tmp_path / name, truth, perfect(truth))
    table, warnings = read_results(tmp_path / name, truth)
    assert warnings == ()
    assert evaluate_voc(truth, table).mean_ap == 1
    back = table.to(convention)
    order, other = (np.lexsort((t.labels, t.image_index)) for t in (back, perfect(truth)))
    assert np.array_equal(back.boxes[order], perfect(truth).boxes[other])


def test_other_endings_are_refused(tmp_path: Path) -> None:
    truth = make_truth()
    for name in ("found.csv", "found.txt"):
        with pytest.raises(ResultsError, match=name):
            write_results(tmp_path / name, truth, perfect(truth))
        assert not (tmp_path / name).exists()


def test_an_image_by_number_stem_or_name_and_a_class_by_number_name_or_wnid(tmp_path: Path) -> None:
    truth = make_truth(numbers=True)
    for change in (
        {"image_id": lambda entry: entry["image_id"] + ".jpg"},
        {"image_id": lambda entry: 101 + truth.image_ids.index(entry["image_id"])},
        {"category_id": lambda entry: truth.classes.names[entry["category_id"] - 1]},
        {"category_id": lambda entry: WNIDS[entry["category_id"] - 1]},
        {"category": lambda entry: truth.classes.names[entry["category_id"] - 1], "category_id": lambda _: 77},
        {"segmentation": lambda _: [[1, 2, 3]]},
    ):
        path = tmp_path / "found.json"
        path.write_text(json.dumps(coco_entries(truth, **change)))
        assert evaluate_voc(truth, read_results(path, truth).table).mean_ap == 1


def test_numbers_without_a_table_are_refused(tmp_path: Path) -> None:
    truth = replace(make_truth(), numbered=False)
    message = refusal(tmp_path / "found.json", truth, coco_entries(truth))
    assert message.startswith("detection 1: category 1 is a number, and the classes of toy val have none; name them")
    write_coco(tmp_path / "own.json", truth, perfect(truth))  # names them
    assert evaluate_voc(truth, read_results(tmp_path / "own.json", truth).table).mean_ap == 1


# ---- each silent mistake


def test_shifted_numbers(tmp_path: Path) -> None:
    truth = make_truth()
    content = coco_entries(truth, category_id=lambda entry: entry["category_id"] - 1)
    message = refusal(tmp_path / "found.json", truth, content)
    for part in ("detection 1: ", "category 0", "1, 2, 3", "from 0?", "40 of 120"):
        assert part in message
    # Where the shifted numbers all exist there is no error to make, but a warning.
    truth = make_truth(ids=(0, 1, 2))
    content = [entry for entry in coco_entries(truth) if entry["category_id"] < 2]
    (tmp_path / "found.json").write_text(json.dumps([{**e, "category_id": e["category_id"] + 1} for e in content]))
    (warning,) = read_results(tmp_path / "found.json", truth).warnings
    assert "class numbers look shifted" in warning
    assert warning.endswith("-1")


def test_consecutive_numbers_for_cocos_with_gaps(tmp_path: Path) -> None:
    truth = make_truth(ids=(1, 3, 90))
    content = coco_entries(truth, category_id=lambda entry: {1: 1, 3: 2, 90: 3}[entry["category_id"]])
    message = refusal(tmp_path / "found.json", truth, content)
    for part in ("detection 2: ", "category 2", "1, 3, 90", "gaps", "40 of 120"):
        assert part in message


def test_corners_for_width_and_height_even_within_the_image(tmp_path: Path) -> None:
    truth = replace(make_truth(), sizes=np.tile([1000, 800], (40, 1)))
    corners = dict(zip(map(str, coco_entries(truth)), truth.boxes.tolist(), strict=True))
    content = [{**entry, "bbox": corners[str(entry)]} for entry in coco_entries(truth)]
    message = refusal(tmp_path / "found.json", truth, content)
    for part in ("0% of", "100%", "x1, y1, x2, y2", "x, y, width, height"):
        assert part in message


def test_width_and_height_for_corners(tmp_path: Path) -> None:
    truth = make_truth(numbers=True)
    rows = [
        f"{101 + image} {label + 1} 0.5 {x1:g} {y1:g} {x2 - x1:g} {y2 - y1:g}\n"
        for image, label, (x1, y1, x2, y2) in zip(
            truth.image_index.tolist(), truth.labels.tolist(), truth.boxes.tolist(), strict=True
        )
    ]
    message = refusal(tmp_path / "found.txt", truth, "".join(rows))
    assert message.startswith("line 1: box [")
    assert "x, y, width, height" in message


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("101 1 nan 1 2 3 4", "line 3: score must be a finite number, not nan"),
        ("101 1 0.5 1 2 inf 4", "line 3: a box must be finite numbers, not [1.0, 2.0, inf, 4.0]"),
        ("101 1 0.5 9 2 3 4", "line 3: box [9.0, 2.0, 3.0, 4.0] ends before it begins; boxes are x1, y1, x2, y2"),
        ("7 1 0.5 1 2 3 4", "line 3: unknown image '7', not in toy val."),
        ("101 4 0.5 1 2 3 4", "line 3: unknown category '4'. toy val has 1 to 3"),
        ("101 0 0.5 1 2 3 4", "line 3: unknown category '0'. toy val has 1 to 3. Numbers from 0?"),
        ("101 1.5 0.5 1 2 3 4", "line 3: unknown category '1.5'. toy val has 1 to 3"),
        (
            "101 1 0.5 1 2 3",
            "line 3: expected 7 numbers, image number, class number, confidence, x1, y1, x2, y2; ",
        ),
        ("101 1 0.5 1 2 3 4 5", "line 3: expected 7 numbers, image number, class number"),
        ("101 ant 0.5 1 2 3 4", "line 3: expected 7 numbers, image number, class number"),
    ],
)
def test_lines_of_a_submission(tmp_path: Path, line: str, expected: str) -> None:
    good = "101 1 0.5 1 2 30 40\n"
    message = refusal(tmp_path / "found.txt", make_truth(numbers=True), f"{good}\n{line}\n{good}")
    assert message.startswith(expected)


def test_one_bad_line_in_a_hundred_thousand(tmp_path: Path) -> None:
    good = "101 1 0.5 1 2 30 40\n"
    message = refusal(
        tmp_path / "found.txt", make_truth(numbers=True), good * 70_000 + "101 1 0.5 1 2\n" + good * 30_000
    )
    assert message.startswith("line 70001: expected 7 numbers")
    assert message.endswith("found '101 1 0.5 1 2'")


def test_wrong_columns_everywhere(tmp_path: Path) -> None:
    message = refusal(tmp_path / "found.txt", make_truth(numbers=True), "101 1 0.5 1 2\n" * 3)
    for part in ("line 1: ", "7 numbers", "'101 1 0.5 1 2'", "3 such lines"):
        assert part in message


def test_a_submission_for_images_without_numbers(tmp_path: Path) -> None:
    message = refusal(tmp_path / "found.txt", make_truth(), "101 1 0.5 1 2 30 40\n")
    assert message.startswith("names images by ILSVRC's numbers, and those of toy val have none")


def test_truncated_json(tmp_path: Path) -> None:
    truth = make_truth()
    content = json.dumps(coco_entries(truth), indent=0)[:2000]
    message = refusal(tmp_path / "found.json", truth, content)
    assert message.startswith("malformed JSON at line ")
    assert ", column " in message


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (gzip.compress(b"[]", mtime=0), "gzip"),
        (b"PK\x03\x04rest", "zip"),
        ("[]".encode("utf-16"), "UTF-16"),
        (b'[{"image_id": ' + b"9" * 5000 + b"}]", "digits"),
        (b"[" * 100_000, "nested"),
    ],
)
def test_files_of_another_encoding_are_named(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "detections.json"
    path.write_bytes(content)
    with pytest.raises(ResultsError, match=word) as caught:
        read_results(path, make_truth())
    assert str(caught.value).startswith(str(path))


@pytest.mark.filterwarnings("error")
def test_a_box_that_ends_at_infinity_is_no_finite_box(tmp_path: Path) -> None:
    truth = make_truth()
    message = refusal(tmp_path / "d.json", truth, coco_entries(truth, bbox=lambda entry: [1e308, 1, 1e308, 5]))
    assert "finite" in message


def test_nan_in_json(tmp_path: Path) -> None:
    truth = make_truth()
    content = coco_entries(truth)
    content[7]["score"] = content[9]["score"] = float("nan")
    message = refusal(tmp_path / "found.json", truth, content)
    assert message == "detection 8: score must be a finite number, not nan (2 of 120 detections)"


def test_ground_truth_given_as_detections(tmp_path: Path) -> None:
    message = refusal(tmp_path / "found.json", make_truth(), json.dumps({"images": [], "annotations": []}))
    assert message == "holds ground truth ('annotations'), not detections"


def test_several_mistakes_are_named_together(tmp_path: Path) -> None:
    truth = make_truth()
    content = coco_entries(truth)
    content[3]["image_id"] = "2008_000099"
    content[5]["category_id"] = 4
    message = refusal(tmp_path / "found.json", truth, content)
    assert message.splitlines() == [
        "detection 4: unknown image '2008_000099', not in toy val. Did you mean '2008_000039'?",
        "detection 6: unknown category 4. toy val has 1, 2, 3",
    ]


def test_warnings(tmp_path: Path) -> None:
    truth = make_truth()
    content = coco_entries(truth)[3:]
    content[0]["bbox"] = [90, 10, 20, 20]
    content[1]["bbox"] = [-5, 10, 20, 20]
    content[2]["bbox"] = [5, 10, 0, 20]
    path = tmp_path / "found.json"
    path.write_text(json.dumps(content))
    expected = [("2 of 117", "outside", "detection 1"), ("1 of 117", "no area", "detection 3")]
    expected += [("1 of 40", "no detections", "2008_000000")]
    for line, parts in zip(read_results(path, truth).warnings, expected, strict=True):
        assert all(part in line for part in (str(path), *parts))


@pytest.mark.parametrize("content", ["[]", "", "\n\n"])
def test_no_detections_are_zero(tmp_path: Path, content: str) -> None:
    truth = make_truth()
    (tmp_path / "found.json").write_text(content)
    table, warnings = read_results(tmp_path / "found.json", truth)
    assert evaluate_voc(truth, table).mean_ap == evaluate_coco(truth, table).mean_ap == 0
    (warning,) = warnings
    assert "found.json" in warning


# ---- VOC's folder


def test_a_folder_of_vocs_files(tmp_path: Path) -> None:
    truth = make_truth(convention=VOC)
    write_results(tmp_path / "comp4", truth, perfect(truth))
    (tmp_path / "comp4/comp4_det_val_ant.txt").unlink()
    table, warnings = read_results(tmp_path / "comp4", truth)
    assert evaluate_voc(truth, table).ap == {"accordion": 1, "airplane": 1, "ant": 0}
    (warning,) = warnings
    assert "1 of 3 classes" in warning
    assert "ant" in warning
    alone = read_results(tmp_path / "comp4/comp4_det_val_airplane.txt", truth).table
    assert evaluate_voc(truth, alone).ap == {"accordion": 0, "airplane": 1, "ant": 0}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("comp4_det_val_bee.txt", "", "its name does not end with a class of toy val. Did you mean"),
        (
            "comp4_det_val_ant.txt",
            "2008_000001 0.5 1 2 3\n",
            "line 1: expected image, confidence, x1, y1, x2, y2;",
        ),
        ("comp4_det_val_ant.txt", "2008_000001 0.5 1 2 3 x\n", "line 1: expected image, confidence, x1, y1, x2, y2"),
        ("comp4_det_val_ant.txt", "2008_000099 0.5 1 2 30 40\n", "comp4_det_val_ant.txt line 1: unknown image"),
    ],
)
def test_mistakes_in_vocs_files(tmp_path: Path, name: str, content: str, expected: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ResultsError) as caught:
        read_results(tmp_path, make_truth(convention=VOC))
    text = str(caught.value).replace(f"{tmp_path / name}: ", "").replace(f"{tmp_path}: ", "")
    if expected.startswith("its name"):
        expected = "its name does not end with a class of toy val."
    assert text.startswith(expected)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"comp4_det_SPLIT_CLASS\.txt"):
        read_results(tmp_path, make_truth())


# ---- ground truth as it is written


def test_coco_annotations_are_taken_as_written(tmp_path: Path) -> None:
    """A box beyond the border is not cut; id 0, double ids and empty classes are named and cost nothing."""
    annotations = [
        {"id": 0, "image_id": 1, "category_id": 1, "bbox": [-10, 5, 60, 50], "area": 3000, "iscrowd": 0},
        {"id": 5, "image_id": 1, "category_id": 1, "bbox": [50, 50, 100, 100], "area": 10000, "iscrowd": 0},
        {"id": 5, "image_id": 2, "category_id": 2, "bbox": [10, 10, 30, 30], "area": 900, "iscrowd": 0},
    ]
    content = {
        "images": [{"id": number, "file_name": f"{number}.jpg", "width": 100, "height": 100} for number in (1, 2)],
        "categories": [{"id": number, "name": f"c{number}"} for number in (1, 2, 3)],
        "annotations": annotations,
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    truth = read_coco_truth(tmp_path / "truth.json")
    assert truth.boxes.tolist() == [[-10, 5, 50, 55], [50, 50, 150, 150], [10, 10, 40, 40]]
    assert any("annotation ids occur more than once" in line for line in truth.warnings)
    evaluation = evaluate_coco(truth, perfect(truth))
    assert evaluation.mean_ap == pytest.approx(1)
    assert evaluation.ap["c3"] is None
    assert evaluation.counts["classes_without_ground_truth"] == 1


def test_voc_annotations_are_taken_as_written(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(
        "<annotation><size><width>50</width><height>50</height></size>"
        "<object><name>cat</name><bndbox><xmin>1.5</xmin><ymin>2</ymin><xmax>80</xmax><ymax>40</ymax></bndbox></object>"
        "<object><name>dog</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>3</xmax><ymax>40</ymax></bndbox></object>"
        "</annotation>"
    )
    (tmp_path / "list.txt").write_text("a\n")
    truth = read_voc_truth(tmp_path, tmp_path / "list.txt")
    assert truth.boxes.tolist() == [[1.5, 2, 80, 40]]
    assert truth.warnings[0] == "boxes end before they begin and were left out: 1 (first: a.xml)"
    assert truth.sizes.tolist() == [[0, 0]]  # 50 px do not hold an object that ends at 80
    (tmp_path / "list.txt").write_text("b\n")
    with pytest.raises(DataError, match=r"b\.xml: .*list has b"):
        read_voc_truth(tmp_path, tmp_path / "list.txt")


def test_a_hand_written_coco_file_with_a_crowd(tmp_path: Path) -> None:
    """Two objects and a crowd; one hit, two boxes within the crowd that count for nothing, one wrong box, then a hit.

    Precision is 1 up to recall 1/2 and 2/3 up to 1: of 101 points 51 and 50.
    """
    content = {
        "images": [{"id": 7, "file_name": "7.jpg", "width": 640, "height": 480}],
        "categories": [{"id": 18, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 18, "bbox": [0, 0, 100, 100], "area": 10000, "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 18, "bbox": [200, 0, 100, 100], "area": 10000, "iscrowd": 0},
            {"id": 3, "image_id": 7, "category_id": 18, "bbox": [0, 200, 300, 200], "area": 60000, "iscrowd": 1},
        ],
    }
    boxes = [[0, 0, 100, 100], [10, 210, 50, 50], [100, 220, 60, 60], [500, 400, 50, 50], [200, 0, 100, 100]]
    found = [
        {"image_id": 7, "category_id": 18, "bbox": box, "score": 0.9 - place / 10} for place, box in enumerate(boxes)
    ]
    (tmp_path / "truth.json").write_text(json.dumps(content))
    (tmp_path / "found.json").write_text(json.dumps(found))
    truth = read_coco_truth(tmp_path / "truth.json")
    table = read_results(tmp_path / "found.json", truth).table
    evaluation = evaluate_coco(truth, table)
    assert evaluation.ap["dog"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert evaluation.counts["objects"] == 2
    assert match(truth, table, "coco").status.tolist() == [1, -1, -1, 0, 1]


def test_detections_of_classes_without_objects_are_named(tmp_path: Path) -> None:
    """pycocotools gives them no say in anything, and says nothing."""
    truth = make_truth()
    few = truth.labels != 2
    truth = replace(
        truth,
        **{key: getattr(truth, key)[few] for key in ("image_index", "labels", "boxes", "difficult", "crowd", "areas")},
    )
    content = coco_entries(make_truth())
    (tmp_path / "found.json").write_text(json.dumps(content))
    (warning,) = read_results(tmp_path / "found.json", truth).warnings
    assert warning.endswith(
        "40 of 120 detections are of classes without any object in toy val (first: ant) and do not affect the score"
    )


# ---- the fast way of reading plain texts


@pytest.mark.parametrize("form", ["{} {}\n", "{}  {}\n", "{}\t{}\n", "{} {}\r\n", " {} {}\n", "{} {}\n\n"])
@pytest.mark.parametrize("block", [30, 2**24])
def test_texts_in_any_form_have_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, block: int
) -> None:
    """NumPy's loadtxt and Python's float are the oracles; a block ends within a line."""
    monkeypatch.setattr(text_results, "BLOCK", block)
    generator = np.random.default_rng(0)
    numbers = generator.normal(0, 1, (50, 5)) * 10.0 ** generator.integers(-20, 20, (50, 5))
    rest = [" ".join(map(repr, row)) for row in numbers.tolist()]
    rest[7] = rest[7].replace(rest[7].split()[0], "5.")  # no number of JSON
    text = "".join(form.format(f"{101 + row % 40} {1 + row % 3}", words) for row, words in enumerate(rest))
    (tmp_path / "all.txt").write_bytes(text.encode())
    plain = "".join(form.format(f"{101 + row % 40} {1 + row % 3}", words) for row, words in enumerate(rest) if row != 7)
    (tmp_path / "plain.txt").write_bytes(plain.removesuffix("\n").encode())
    for name in ("all.txt", "plain.txt"):
        wanted = np.loadtxt(tmp_path / name, ndmin=2)
        assert (text_results._columns(tmp_path / name) == wanted).all()
        lines = [form.format(f"2008_{row:06}", words).removesuffix("\n") for row, words in enumerate(rest)]
        if name == "plain.txt":
            del lines[7]
        (tmp_path / "comp4_det_val_ant.txt").write_bytes("\n".join([*lines, ""]).encode())
        lines = (tmp_path / "comp4_det_val_ant.txt").read_text().split("\n")
        images, places, columns = text_results._plain_lines(lines) or text_results._any_lines(lines, tmp_path)
        assert columns.tolist() == [[float(word) for word in words.split()[1:]] for words in lines if words.strip()]
        assert [image.strip() for image in images] == [words.split()[0] for words in lines if words.strip()]
        assert places.tolist() == [number for number, words in enumerate(lines, 1) if words.strip()]


def test_a_short_line_and_a_long_one_are_no_two_lines(tmp_path: Path) -> None:
    message = refusal(tmp_path / "found.txt", make_truth(numbers=True), "101 1 0.5 1 2 30\n40 101 1 0.5 1 2 30 40\n")
    assert message.startswith("line 1: expected 7 numbers")
    assert text_results._plain_numbers(b"1 2 3\n4 5\n6 7 8 9\n", 3) is None
    assert text_results._plain_numbers(b"1 2 3\n4 5 6\n", 3) is not None


@pytest.mark.parametrize("word", ["nan", "+1", "1_0", "0x1", '"1"', "null", "true", "[1]", "1,1", "", "١"])
def test_what_is_no_plain_number_is_left_to_the_slow_way(word: str) -> None:
    assert text_results._plain_numbers(f"1 2\n3 {word}\n".encode(), 2) is None


def test_the_best_scores_without_sorting_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "SAMPLE", 10)
    for seed in range(50):
        generator = np.random.default_rng(seed)
        scores = generator.integers(0, 6, int(generator.integers(0, 40))) / 6  # many ties
        assert checking._best(scores).tolist() == np.argsort(-scores, kind="stable")[:10].tolist()
