"""Text folders, tables and labelme's files as ground truth and as detections: values by hand, mixes, odd inputs."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from detector.data.ground_truth import DataError
from detector.detections import Detections
from detector.evaluation import DetectionTable, ResultsError, Truth, evaluate, evaluate_voc, read_results
from detector.evaluation.box_layouts import Evidence, find_layout, parse_layout
from detector.evaluation.protocols import ScoringConfig
from detector.evaluation.truth import HALF_OPEN, ILSVRC
from detector.evaluation.truth_paths import open_truth
from detector.formats import CSV_HEADER, csv_rows, labelme_json, yolo_txt
from proposals.errors import UserError

NAMES = ("traffic light", "dog")
SIZES = {"a": (200, 100), "b 2": (100, 200), "ü": (300, 300)}
BOXES = {  # image -> rows of label and corners
    "a": [(0, (10, 5, 60, 30)), (1, (100, 40, 190, 96))],
    "b 2": [(1, (50, 120, 98, 190))],
    "ü": [],
}


def folder(path: Path, files: dict[str, str], encoding: str = "utf-8") -> Path:
    path.mkdir(parents=True)
    for name, text in files.items():
        (path / f"{name}.txt").write_bytes(text.encode(encoding))
    return path


def images(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for name, size in SIZES.items():
        PIL.Image.new("RGB", size).save(path / f"{name}.png")


def truth_of(path: Path, **options: str) -> Truth:
    return open_truth(path, None, ScoringConfig(), (), **options)


def form(box: tuple[float, ...], layout: str, size: tuple[int, int]) -> str:
    """The four numbers of a box in a layout."""
    x1, y1, x2, y2 = box
    numbers = {
        "xyxy": (x1, y1, x2, y2),
        "xywh": (x1, y1, x2 - x1, y2 - y1),
        "cxcywh": ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1),
    }[layout.split(",")[0]]
    scale = (*size, *size) if "relative" in layout else (1, 1, 1, 1)
    return " ".join(repr(float(number / side)) for number, side in zip(numbers, scale, strict=True))


def lines(layout: str, score: str = "") -> dict[str, str]:
    return {
        image: "".join(f"{NAMES[label]} {score}{form(box, layout, SIZES[image])}\n" for label, box in rows)
        for image, rows in BOXES.items()
    }


def expected(truth: Truth) -> None:
    """The truth is BOXES."""
    assert truth.image_ids == tuple(BOXES)
    assert [truth.classes.names[label] for label in truth.labels] == ["traffic light", "dog", "dog"]
    assert truth.image_index.tolist() == [0, 0, 1]
    np.testing.assert_allclose(truth.boxes, [box for rows in BOXES.values() for _, box in rows], atol=1e-9)


# ---- layouts


@pytest.mark.parametrize("text", ["xyxy", "xywh", "cxcywh,relative", "XYXY, inclusive"])
def test_an_option_states_a_layout(text: str) -> None:
    layout = parse_layout(text, "--boxes")
    assert layout is not None
    assert layout.option == text.lower().replace(" ", "")
    assert layout.relative == ("relative" in text)
    assert layout.convention == (ILSVRC if "inclusive" in text else HALF_OPEN)


@pytest.mark.parametrize("text", ["xxyy", "relative", "xyxy,relative,inclusive", "xyxy,px"])
def test_another_option_is_refused_with_the_list(text: str) -> None:
    with pytest.raises(UserError, match="--boxes is xyxy, xywh, cxcywh, with ,relative"):
        parse_layout(text, "--boxes")


def test_no_random_boxes_are_taken_for_another_layout() -> None:
    """Whatever objects a sample has, the layout found is the true one or none."""
    generator = np.random.default_rng(0)
    found = {True: 0, False: 0}
    for _ in range(300):
        count = int(generator.integers(1, 60))
        sizes = generator.uniform(300, 600, (count, 2))
        corners = np.sort(generator.uniform(0, 1, (2, count, 2)), axis=0)
        corners = np.concatenate([corners[0], np.maximum(corners[1], corners[0] + 0.01).clip(max=1)], axis=1)
        extents = corners[:, 2:] - corners[:, :2]
        centres = (corners[:, :2] + corners[:, 2:]) / 2
        relative = bool(generator.integers(2))
        known = sizes if generator.integers(2) else np.full((count, 2), np.nan)
        scale = 1 if relative else np.tile(sizes, 2)
        true = generator.choice(["xyxy", "xywh", "cxcywh"] if relative else ["xyxy", "xywh"])
        first = {"xyxy": corners[:, :2], "xywh": corners[:, :2], "cxcywh": centres}[true]
        numbers = np.concatenate([first, corners[:, 2:] if true == "xyxy" else extents], axis=1) * scale
        layout = find_layout(Evidence(numbers, known))
        found[layout is not None] += 1
        assert layout is None or (layout.form, layout.relative) == (true, relative)
    assert found[True] > 250


# ---- ground truth


@pytest.mark.parametrize("layout", ["xyxy", "xywh", "cxcywh", "xyxy,relative", "xywh,relative", "cxcywh,relative"])
@pytest.mark.parametrize("stated", [True, False])
def test_text_folders_in_every_layout(tmp_path: Path, layout: str, stated: bool) -> None:
    images(tmp_path / "images")
    path = folder(tmp_path / "ground-truth", lines(layout))
    if not stated and layout == "cxcywh":  # which no script writes in px
        return
    truth = truth_of(path, boxes=layout if stated else "")
    expected(truth)
    assert truth.sizes.tolist() == [list(size) for size in SIZES.values()]
    assert truth.paths[0] == (tmp_path / "images" / "a.png")
    remarks = [line for line in truth.warnings if "boxes are read as" in line]
    assert len(remarks) == (not stated)
    assert all(f"(--truth-boxes {layout})" in line for line in remarks)


def test_inclusive_corners_are_those_of_the_scripts(tmp_path: Path) -> None:
    path = folder(tmp_path / "gt", {"a": "dog 110 110 119 129\n"})
    truth = truth_of(path, boxes="xyxy,inclusive")
    assert truth.convention == ILSVRC
    assert truth.areas.tolist() == [200]
    found = folder(tmp_path / "found", {"a": "dog 0.5 110 110 119 119\n"})  # IoU 100 / 200
    for boxes, value in (("xyxy,inclusive", 1.0), ("xyxy", 0.0)):  # as edges 81 / 200
        table = read_results(found, truth, boxes).table
        assert evaluate_voc(truth, table).mean_ap == value


def test_difficult_objects_and_names_with_blanks(tmp_path: Path) -> None:
    path = folder(
        tmp_path / "gt", {"a": "traffic light 1 2 3 4 difficult\r\nBoeing 747 5 6 7.5 8e0\r\n\r\n"}, "utf-8-sig"
    )
    truth = truth_of(path, boxes="xyxy")
    assert truth.classes.names == ("Boeing 747", "traffic light")
    assert truth.boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7.5, 8]]
    assert truth.difficult.tolist() == [True, False]
    assert not truth.numbered


def test_few_boxes_of_images_that_are_not_there_are_not_guessed(tmp_path: Path) -> None:
    path = folder(tmp_path / "gt", {"a": "dog 10 20 110 220\n"})
    with pytest.raises(
        DataError, match=r"a.txt line 1: .* --truth-boxes xyxy \(x1, y1, x2, y2\) or --truth-boxes xywh"
    ):
        truth_of(path)
    assert truth_of(path, boxes="xywh").boxes.tolist() == [[10, 20, 120, 240]]


def test_shares_of_images_without_a_size(tmp_path: Path) -> None:
    path = folder(tmp_path / "gt", lines("cxcywh,relative"))
    with pytest.raises(DataError, match="shares of their images, and the size of a is not known"):
        truth_of(path, boxes="cxcywh,relative")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("dog 1 2 3", "line 2: expected class and four numbers; found 'dog 1 2 3'"),
        ("1 2 3 4", "line 2: expected class and four numbers; found '1 2 3 4'"),
        ("dog 10,5 2 3 4", "line 2: expected class and four numbers, and 10,5 has a decimal comma"),
        ("dog,1,2,3,4", "line 2: columns are separated by commas"),
        ("dog 0.5 1 2 3 4", "line 2: expected class and four numbers, and this looks like a detection with its score"),
        ("dog 1 2 x 4", "line 2: expected class and four numbers, and 'x' is no number"),
        ("dog 1 2 nan 4", "a.txt line 2: a box must be finite numbers, not [1.0, 2.0, nan, 4.0]"),
    ],
)
def test_bad_rows_of_ground_truth_name_file_and_line(tmp_path: Path, line: str, reason: str) -> None:
    path = folder(tmp_path / "gt", {"a": f"dog 1 2 3 4\n{line}\n"})
    with pytest.raises(DataError) as caught:
        truth_of(path, boxes="xyxy")
    assert str(caught.value).startswith(str(path))
    assert reason in str(caught.value)


def test_files_that_hold_nothing(tmp_path: Path) -> None:
    for files, reason in (({}, "no ground truth in this folder"), ({"a": "", "b": "\n"}, "no boxes in 2 images")):
        path = folder(tmp_path / str(len(files)), files)
        with pytest.raises(DataError, match=reason):
            truth_of(path)


def test_a_folder_of_two_kinds_is_not_guessed(tmp_path: Path) -> None:
    path = folder(tmp_path / "gt", {"a": "dog 1 2 3 4\n"})
    shapes = {"shapes": [], "imagePath": "a.jpg", "imageHeight": 5, "imageWidth": 5}
    (path / "b.json").write_text(json.dumps(shapes))
    with pytest.raises(DataError, match=r"labelme's \(b.json\) and a folder of text files \(a.txt\)"):
        truth_of(path)


def test_yolo_labels_and_their_images(tmp_path: Path) -> None:
    """Labels alone, of a part, and with the file of names above them."""
    images(tmp_path / "data/images/val")
    labels = {
        name: text.replace("traffic light", "0").replace("dog", "1") for name, text in lines("cxcywh,relative").items()
    }
    path = folder(tmp_path / "data/labels/val", labels)
    (tmp_path / "data/data.yaml").write_text("names: [traffic light, dog]\n")
    for place in (path, path.parent, path.parent.parent):
        truth = truth_of(place)
        assert sorted(truth.image_ids) == sorted(BOXES)
        assert truth.classes.names == NAMES
        order = [truth.index_of[name] for name in ("a", "a", "b 2")]
        assert sorted(truth.image_index.tolist()) == sorted(order)
    own = folder(tmp_path / "alone", labels)
    with pytest.raises(DataError, match="shares of their images, and there are none"):
        truth_of(own)


def test_numbers_of_classes_are_named_by_a_file(tmp_path: Path) -> None:
    path = folder(tmp_path / "gt", {"a": "1 10 20 30 40\n0 1 2 3 4\n", "classes": "traffic light\ndog\ncat\n"})
    truth = truth_of(path, boxes="xyxy")
    assert truth.classes.names == ("traffic light", "dog", "cat")
    assert truth.labels.tolist() == [1, 0]
    (path / "a.txt").write_text("3 10 20 30 40\n")
    with pytest.raises(DataError, match=r"unknown class '3'; .*classes.txt names 3: traffic light, dog, cat; they are"):
        truth_of(path, boxes="xyxy")
    (path / "classes.txt").unlink()
    assert truth_of(path, boxes="xyxy").classes.names == ("class 0", "class 1", "class 2", "class 3")
    (path / "a.txt").write_text("123456 10 20 30 40\n")
    with pytest.raises(DataError, match="class 123456 is no number of a class"):
        truth_of(path, boxes="xyxy")


# ---- tables


def table(path: Path, rows: list[list[object]], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize(
    "header",
    [
        ["image", "class", "xmin", "ymin", "xmax", "ymax"],
        ["Filename", "label", "x1", "y1", "x2", "y2"],
        ["image_path", "category", "x", "y", "w", "h"],
        ["file_name", "class_name", "x_center", "y_center", "width", "height"],
    ],
)
def test_columns_of_a_table_are_found_by_name(tmp_path: Path, header: list[str], delimiter: str) -> None:
    layout = {"x": "xywh", "x_center": "cxcywh"}.get(header[2], "xyxy")
    rows: list[list[object]] = [["", *header, "difficult"]]
    for image, objects in BOXES.items():
        rows += [
            ["7", f"{image}.png", NAMES[label], *form(box, layout, (1, 1)).split(), int(label == 0)]
            for label, box in objects
        ] or [["7", f"{image}.png", "", "", "", "", "", ""]]
    rows += [[""] * len(rows[0]), []]  # as spreadsheets leave them
    truth = truth_of(table(tmp_path / "truth.csv", rows, delimiter))
    assert truth.image_ids == ("a.png", "b 2.png", "ü.png")
    assert truth.difficult.tolist() == [True, False, False]
    np.testing.assert_allclose(truth.boxes, [box for objects in BOXES.values() for _, box in objects])
    assert truth.warnings == ()


def test_a_table_of_shares_with_sizes(tmp_path: Path) -> None:
    """Open Images' columns, whose order is another, with the images' sizes."""
    rows: list[list[object]] = [["ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax", "width", "height"]]
    rows += [["a", "dog", 0.1, 0.3, 0.25, 0.75, 200, 100]]
    truth = truth_of(table(tmp_path / "truth.csv", rows))
    assert truth.boxes.tolist() == [[20, 25, 60, 75]]
    assert "(--truth-boxes xyxy,relative)" in truth.warnings[0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("image,class,x,y\na,dog,1,2\n", "no column of box among"),
        ("a,dog,1,2,3,4\n", "no column of image, class, box among"),
        ("image,class,x1,y1,x2,y2\na,dog,1,2,3\n", "line 2: 5 columns, and the first line names 6"),
        ("image;class;x1;y1;x2;y2\na;dog;1,5;2;3;4\n", "line 2: 1,5 has a decimal comma"),
        ("image,class,x1,y1,x2,y2\na,dog,1,2,,4\n", "line 2: '' is no number"),
        ("image,class,x1,y1,x2,y2\n,dog,1,2,3,4\n", "line 2: names no image"),
        ("image,class,x1,y1,x2,y2\na,,1,2,3,4\n", "line 2: names no class"),
        ("image,class,x1,y1,x2,y2,difficult\na,dog,1,2,3,4,maybe\n", "line 2: difficult is 'maybe'"),
        ("image,class,x1,y1,x2,y2\n", "no boxes in 0 images"),
        ("", "no column of image, class, box"),
    ],
)
def test_bad_tables_name_file_and_line(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "truth.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        truth_of(tmp_path / "truth.csv")
    assert str(caught.value).startswith(str(tmp_path / "truth.csv"))
    assert reason in str(caught.value)


def test_a_table_of_detections_needs_scores(tmp_path: Path) -> None:
    rows: list[list[object]] = [["image", "class", "x1", "y1", "x2", "y2"], ["a", "dog", 1, 2, 3, 4]]
    path = table(tmp_path / "t.csv", rows)
    with pytest.raises(ResultsError, match="no column of score"):
        read_results(path, truth_of(path))


# ---- detections


@pytest.fixture
def truth(tmp_path: Path) -> Truth:
    images(tmp_path / "images")
    return truth_of(folder(tmp_path / "ground-truth", lines("xyxy")))


LAYOUTS = ["xyxy", "xywh", "cxcywh", "xyxy,relative", "xywh,relative", "cxcywh,relative"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stated", [True, False])
def test_text_detections_in_every_layout(tmp_path: Path, truth: Truth, layout: str, stated: bool) -> None:
    if not stated and layout == "cxcywh":
        return
    path = folder(tmp_path / "found", lines(layout, "0.5 "))
    results = read_results(path, truth, layout if stated else "")
    np.testing.assert_allclose(results.table.boxes, truth.boxes, atol=1e-9)
    assert results.table.labels.tolist() == truth.labels.tolist()
    assert results.table.scores.tolist() == [0.5] * 3
    remarks = [line for line in results.warnings if "boxes are read as" in line]
    assert len(remarks) == (not stated)
    assert all(f"(--boxes {layout})" in line for line in remarks)


def test_the_objects_tell_what_numbers_alone_do_not(tmp_path: Path) -> None:
    """Boxes near the origin are possible as corners and as sizes; they lie on objects as one of them only."""
    path = folder(tmp_path / "gt", {f"i{n}": f"dog {n + 40} {n + 50} {n + 85} {n + 110}\n" for n in range(4)})
    truth = truth_of(path, boxes="xyxy")
    for layout in ("xyxy", "xywh"):
        far = {n: (n + 85, n + 110) if layout == "xyxy" else (45, 60) for n in range(4)}
        rows = {f"i{n}": f"dog 0.5 {n + 40} {n + 50} {far[n][0]} {far[n][1]}\n" for n in range(4)}
        results = read_results(folder(tmp_path / layout, rows), truth)
        assert results.table.boxes.tolist() == truth.boxes.tolist()
        assert f"(--boxes {layout})" in results.warnings[0]
    away = folder(tmp_path / "far", {"i0": "dog 0.5 200 210 300 400\n"})
    with pytest.raises(ResultsError, match=r"i0.txt line 1: .* --boxes xyxy .* or --boxes xywh"):
        read_results(away, truth)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("dog 1 2 3 4", "line 2: no score in 'dog 1 2 3 4'; detections have class, score and four numbers"),
        ("traffic light 1 2 3 4", "line 2: expected class, score and four numbers, and 'light' is no number"),
        ("dog 0,9 1 2 3 4", "line 2: expected class, score and four numbers, and 0,9 has a decimal comma"),
        ("dog,0.9,1,2,3,4", "line 2: columns are separated by commas"),
        ("0 0.9 1 2 3 4 5", "line 2: expected class, score and four numbers, and this row has more"),
        ("dog inf 1 2 30 40", "a.txt line 2: score must be a finite number"),
        ("cat 0.9 1 2 30 40", "a.txt line 2: unknown category 'cat'"),
    ],
)
def test_bad_rows_of_detections_name_file_and_line(tmp_path: Path, truth: Truth, line: str, reason: str) -> None:
    path = folder(tmp_path / "found", {"a": f"dog 0.5 1 2 30 40\n{line}\n"})
    with pytest.raises(ResultsError) as caught:
        read_results(path, truth, "xyxy")
    assert str(caught.value).startswith(str(path))
    assert reason in str(caught.value)


def test_files_of_images_are_matched_by_name(tmp_path: Path, truth: Truth) -> None:
    empty = read_results(folder(tmp_path / "empty", {"a": "", "ü": ""}), truth)
    assert len(empty.table) == 0
    assert "contains no detections" in empty.warnings[0]
    one = read_results(folder(tmp_path / "one", {"a": "", "b 2": "dog 0.5 50 120 98 190\n"}), truth, "xyxy")
    assert one.table.image_index.tolist() == [1]
    assert any("1 of 3 images have no detections (first: ü)" in line for line in one.warnings)
    for text in ("", "dog 0.5 1 2 3 4\n"):
        with pytest.raises(ResultsError, match="unknown image 'c'"):
            read_results(folder(tmp_path / f"other{len(text)}", {"c": text}), truth, "xyxy")
    path = folder(tmp_path / "twice", {"a": ""})
    folder(path / "sub", {"a": ""})
    with pytest.raises(ResultsError, match="a and sub/a are the same image"):
        read_results(path, truth)


def test_an_option_for_boxes_that_have_one_layout(tmp_path: Path, truth: Truth) -> None:
    (tmp_path / "found.json").write_text("[]")
    with pytest.raises(ResultsError, match="--boxes is for text folders and CSV"):
        read_results(tmp_path / "found.json", truth, "xyxy")


def test_the_file_of_one_image_is_no_data_set(tmp_path: Path, truth: Truth) -> None:
    found = folder(tmp_path / "found", {"a": "dog 0.5 1 2 3 4\n"})
    with pytest.raises(ResultsError, match=r"a.txt: begins like the text file of one image; give the folder"):
        read_results(found / "a.txt", truth)
    with pytest.raises(DataError, match=r"a.txt: no table of boxes; .* give the folder"):
        truth_of(found / "a.txt")


def test_a_stated_layout_that_is_not_theirs(tmp_path: Path) -> None:
    """Large objects near the origin lie on themselves in part even as x, y, width, height."""
    generator = np.random.default_rng(0)
    near = generator.uniform(5, 100, (40, 2))
    far = near + generator.uniform(60, 200, (40, 2))
    rows = {f"i{n}": form((*near[n], *far[n]), "xyxy", (1, 1)) for n in range(40)}
    truth = truth_of(folder(tmp_path / "gt", {name: f"dog {row}\n" for name, row in rows.items()}), boxes="xyxy")
    path = folder(tmp_path / "found", {name: f"dog 0.5 {row}\n" for name, row in rows.items()})
    with pytest.raises(
        ResultsError, match=r"must be x, y, width, height.*; the options --boxes and --truth-boxes state"
    ):
        read_results(path, truth, "xywh")
    assert read_results(path, truth).table.boxes.tolist() == truth.boxes.tolist()


@pytest.mark.parametrize("names", [True, False])
def test_yolo_predictions(tmp_path: Path, truth: Truth, names: bool) -> None:
    """As ultralytics writes them with save_txt and save_conf: the score is last, and classes are numbers."""
    number = {0: 1, 1: 0}  # of the names in data.yaml, and in the ground truth's order
    rows = {
        image: "".join(
            f"{number[label]} {form(box, 'cxcywh,relative', SIZES[image])} 0.{label + 7}\n" for label, box in objects
        )
        for image, objects in BOXES.items()
    }
    path = folder(tmp_path / "predict/labels", rows)
    if names:
        (tmp_path / "predict/data.yaml").write_text("names: {0: dog, 1: traffic light}\n")
    results = read_results(path, truth)
    np.testing.assert_allclose(results.table.boxes, truth.boxes, atol=1e-9)
    assert results.table.labels.tolist() == truth.labels.tolist()
    np.testing.assert_allclose(results.table.scores, [0.7, 0.8, 0.8])
    assert any("the score is the last number (--boxes cxcywh,relative)" in line for line in results.warnings)
    assert any(("data.yaml" if names else "0, 1, ... are those of") in line for line in results.warnings)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("last", [True, False])
def test_numbers_of_classes_on_both_sides(tmp_path: Path, layout: str, last: bool) -> None:
    """The place of the score and the layout are found from the objects, and the numbers are the same classes."""
    if layout == "cxcywh":
        return
    images(tmp_path / "images")
    generator = np.random.default_rng(0)
    objects = {}
    for name, (width, height) in SIZES.items():
        near = generator.uniform(0, 0.5, (6, 2)) * (width, height)
        far = near + generator.uniform(0.2, 0.5, (6, 2)) * (width, height)
        objects[name] = np.concatenate([near, far], axis=1).round(1).tolist()
    gt = {
        name: "".join(f"{3 + 2 * (n % 2)} {form(box, 'xyxy', (1, 1))}\n" for n, box in enumerate(rows))
        for name, rows in objects.items()
    }
    truth = truth_of(folder(tmp_path / "gt", gt))
    found = {}
    for name, rows in objects.items():
        boxes = [form(box, layout, SIZES[name]) for box in rows]
        found[name] = "".join(
            f"{3 + 2 * (n % 2)} {f'{box} 0.{n + 1}' if last else f'0.{n + 1} {box}'}\n" for n, box in enumerate(boxes)
        )
    results = read_results(folder(tmp_path / "found", found), truth)
    assert results.table.labels.tolist() == truth.labels.tolist()
    np.testing.assert_allclose(results.table.boxes, truth.boxes, atol=1e-6)
    assert results.table.scores.tolist() == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6] * 3
    assert f"the score is the {'last' if last else 'first'} number (--boxes {layout})" in results.warnings[0]


# ---- round trips with what detect writes


@pytest.fixture
def found(truth: Truth) -> dict[str, Detections]:
    """Two detections an image, at random near its objects."""
    generator = np.random.default_rng(0)
    result = {}
    for image, objects in BOXES.items():
        boxes = np.array([box for _, box in objects], np.float64).reshape(-1, 4)
        boxes = np.repeat(boxes, 2, axis=0) + generator.integers(-4, 5, (2 * len(boxes), 4)) / 4
        boxes = boxes.clip(0, [*SIZES[image], *SIZES[image]])
        labels = np.repeat([label for label, _ in objects], 2).astype(np.int64)
        result[image] = Detections(boxes, generator.random(len(boxes)).round(6), labels, NAMES)
    return result


def write_labelme(path: Path, found: dict[str, Detections]) -> None:
    path.mkdir()
    for name, one in found.items():
        content = labelme_json(one, SIZES[name], f"../images/{name}.png", confidence=True)
        (path / f"{name}.json").write_text(json.dumps(content))


def write_csv(path: Path, found: dict[str, Detections]) -> None:
    rows: list[list[object]] = [list(CSV_HEADER)]
    for name, one in found.items():
        rows += [list(row) for row in csv_rows(one, SIZES[name], f"photos/{name}.png")]
    table(path, rows)


def write_yolo(path: Path, found: dict[str, Detections]) -> None:
    folder(path, {name: yolo_txt(one, SIZES[name], confidence=True) for name, one in found.items()})
    (path / "classes.txt").write_text("".join(f"{name}\n" for name in NAMES))


def write_text(path: Path, found: dict[str, Detections]) -> None:
    rows = {
        name: "".join(f"{one.name} {one.score!r} {' '.join(map(repr, one.box))}\n" for one in some)
        for name, some in found.items()
    }
    folder(path, rows)


def write_dataset(path: Path, found: dict[str, Detections]) -> None:
    """Images and classes by names of its own, whose numbers are others."""
    entries = [
        {"image_id": 70 + image, "category_id": 9 - one.label, "score": one.score}
        | {"bbox": [one.box[0], one.box[1], one.box[2] - one.box[0], one.box[3] - one.box[1]]}
        for image, some in enumerate(found.values())
        for one in some
    ]
    content = {
        "images": [{"id": 70 + image, "file_name": f"{name}.png"} for image, name in enumerate(found)],
        "categories": [{"id": 9 - label, "name": name} for label, name in enumerate(NAMES)],
        "annotations": entries,
    }
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("write", [write_labelme, write_csv, write_yolo, write_text, write_dataset])
def test_what_detect_writes_is_read_again(
    tmp_path: Path, truth: Truth, found: dict[str, Detections], write: Callable[[Path, dict[str, Detections]], None]
) -> None:
    path = tmp_path / {write_csv: "found.csv", write_dataset: "found.json"}.get(write, "found")
    write(path, found)
    results = read_results(path, truth)
    swapped = {name: Detections(one.boxes, one.scores, 1 - one.labels) for name, one in found.items()}  # sorted names
    wanted = DetectionTable.from_images(truth, swapped)
    assert results.table.image_index.tolist() == wanted.image_index.tolist()
    assert results.table.labels.tolist() == wanted.labels.tolist()
    np.testing.assert_allclose(results.table.scores, wanted.scores, atol=1e-6)
    np.testing.assert_allclose(results.table.boxes, wanted.boxes, atol=3e-4)  # shares to six decimals
    assert evaluate_voc(truth, results.table).ap == evaluate_voc(truth, wanted).ap


def write_truths(root: Path) -> dict[str, Path]:
    """The objects of BOXES as ground truth in every form."""
    images(root / "images")
    result = {"text": folder(root / "text", lines("xyxy"))}
    rows: list[list[object]] = [["image", "class", "xmin", "ymin", "xmax", "ymax", "width", "height"]]
    for image, objects in BOXES.items():
        rows += [[f"{image}.png", NAMES[label], *box, *SIZES[image]] for label, box in objects] or [
            [f"{image}.png", *[""] * 5, *SIZES[image]]
        ]
    result["csv"] = table(root / "truth.csv", rows)
    truth = {
        name: Detections(
            np.array([box for _, box in objects], np.float64).reshape(-1, 4),
            np.zeros(len(objects)),
            np.array([label for label, _ in objects], np.int64),
            NAMES,
        )
        for name, objects in BOXES.items()
    }
    result["labelme"] = root / "labelme"
    result["labelme"].mkdir()
    result["yolo"] = folder(root / "labels", {name: yolo_txt(one, SIZES[name]) for name, one in truth.items()})
    (root / "labels/classes.txt").write_text("".join(f"{name}\n" for name in NAMES))
    result["voc"] = root / "Annotations"
    result["voc"].mkdir()
    for name, one in truth.items():
        shapes = labelme_json(one, SIZES[name], f"../images/{name}.png")
        (root / f"labelme/{name}.json").write_text(json.dumps(shapes))
        marked = "".join(
            f"<object><name>{item.name}</name><bndbox><xmin>{item.box[0] + 1:g}</xmin><ymin>{item.box[1] + 1:g}</ymin>"
            f"<xmax>{item.box[2]:g}</xmax><ymax>{item.box[3]:g}</ymax></bndbox></object>"
            for item in one
        )
        size = f"<size><width>{SIZES[name][0]}</width><height>{SIZES[name][1]}</height></size>"
        (root / f"Annotations/{name}.xml").write_text(f"<annotation>{size}{marked}</annotation>")
    write_dataset(root / "truth.json", truth)
    content = json.loads((root / "truth.json").read_text())
    for number, entry in enumerate(content["annotations"], 1):
        entry |= {"id": number, "iscrowd": 0, "area": entry["bbox"][2] * entry["bbox"][3]}
        del entry["score"]
    for image, (width, height) in zip(content["images"], SIZES.values(), strict=True):
        image |= {"width": width, "height": height}
    result["coco"] = root / "truth.json"
    result["coco"].write_text(json.dumps(content))
    return result


def test_every_mix_gives_the_same_average_precision(tmp_path: Path, found: dict[str, Detections]) -> None:
    truths = write_truths(tmp_path / "truth")
    writers = {
        "labelme": write_labelme,
        "csv": write_csv,
        "yolo": write_yolo,
        "text": write_text,
        "json": write_dataset,
    }
    paths = {}
    for name, write in writers.items():
        paths[name] = tmp_path / f"{name}{'.json' if name == 'json' else ''}"
        paths[name] = paths[name].with_suffix(".csv") if name == "csv" else paths[name]
        write(paths[name], found)
    values = {
        (kind, name, protocol): evaluate(truth, path, protocol).ap
        for kind, truth in truths.items()
        for name, path in paths.items()
        for protocol in ("voc", "coco")
    }
    assert len(values) == 60
    for protocol in ("voc", "coco"):
        mixes = [ap for (_, _, own), ap in values.items() if own == protocol]
        assert all(ap == mixes[0] for ap in mixes)
        assert min(filter(None, mixes[0].values())) > 0


def test_the_command_takes_any_mix(
    tmp_path: Path, tool: Callable[[str], Callable[[list[str]], int]], found: dict[str, Detections]
) -> None:
    truths = write_truths(tmp_path / "truth")
    write_text(tmp_path / "found", found)
    command = ["--protocol", "voc", "--detections", str(tmp_path / "found"), "resamples=0"]
    more = ["--annotations", str(truths["csv"]), "--json", str(tmp_path / "out.json")]
    assert tool("eval_map")([*command, *more]) == 0
    looked = json.loads((tmp_path / "out.json").read_text())["ap"]
    assert tool("eval_map")([*command, *more, "--boxes", "xyxy", "--truth-boxes", "xyxy"]) == 0
    assert json.loads((tmp_path / "out.json").read_text())["ap"] == looked
