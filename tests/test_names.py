"""Names and numbers as exporters and file systems write them."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from detector.data import ClassTable, DataConfig, DataError, DatasetKind, open_dataset
from detector.data.coco import read_coco
from detector.data.files import Files
from detector.data.ilsvrc import read_image_list
from detector.data.voc import read_voc
from detector.data.voc_classes import VOC_CLASSES, VOC_WNIDS, class_table
from detector.data.voc_xml import read_annotation
from detector.evaluation.names import Names
from detector.evaluation.truth_files import read_coco_truth, read_voc_truth

COMPOSED, DECOMPOSED = "Vélo 1", unicodedata.normalize("NFD", "Vélo 1")
OBJECT = "<object><name>{}</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>5</xmax><ymax>6</ymax></bndbox>{}</object>"


def xml(name: str = "cat", extra: str = "") -> str:
    size = "<size><width>8</width><height>8</height></size>"
    return f"<annotation>{size}{OBJECT.format(name, extra)}</annotation>"


def voc_tree(root: Path, lines: str, files: dict[str, str]) -> Path:
    """A tree whose list holds these lines, with photographs by annotation name: the file's suffix."""
    (root / "ImageSets/Main").mkdir(parents=True)
    (root / "ImageSets/Main/test.txt").write_bytes(lines.encode())
    for name, suffix in files.items():
        for path in (root / f"Annotations/{name}.xml", root / f"JPEGImages/{name}{suffix}"):
            path.parent.mkdir(parents=True, exist_ok=True)
        (root / f"Annotations/{name}.xml").write_text(xml())
        PIL.Image.new("RGB", (8, 8)).save(root / f"JPEGImages/{name}{suffix}", format="PNG")
    return root


@pytest.mark.parametrize(
    ("lines", "files", "names"),
    [
        ("IMG (1)\nIMG (2)\n", {"IMG (1)": ".jpg", "IMG (2)": ".JPG"}, ["IMG (1)", "IMG (2)"]),
        ("IMG (1) -1\nIMG (2)  1\n", {"IMG (1)": ".jpg", "IMG (2)": ".jpg"}, ["IMG (1)", "IMG (2)"]),
        ("a 1\nb -1\n", {"a": ".Jpeg", "b": ".png"}, ["a", "b"]),
        ("a 1\nb\n", {"a 1": ".jpg", "a": ".jpg", "b": ".jpg"}, ["a 1", "b"]),
        ("\ufeffa\r\nb\t \r\na\r\n\r\n", {"a": ".jpg", "b": ".jpg"}, ["a", "b"]),
        ("img.v2\n", {"img.v2": ".JPEG"}, ["img.v2"]),
        ("sub/a\nother sub/a b\n", {"sub/a": ".jpg", "other sub/a b": ".TIF"}, ["sub/a", "other sub/a b"]),
        ("sub\\a\n", {"sub/a": ".jpg"}, ["sub\\a"]),
        ("a.jpg\nb.v2.PNG\n", {"a": ".jpg", "b.v2": ".png"}, ["a", "b.v2"]),
        (f"{COMPOSED}\n", {DECOMPOSED: ".jpg"}, [COMPOSED]),
        (f"{DECOMPOSED}\n{COMPOSED} 1\n", {COMPOSED: ".jpg"}, [DECOMPOSED]),
        (f"{COMPOSED}/{COMPOSED}\n", {f"{DECOMPOSED}/{DECOMPOSED}": ".jpg"}, [f"{COMPOSED}/{COMPOSED}"]),
        ("фото 1\n写真\n", {"фото 1": ".jpg", "写真": ".jpg"}, ["фото 1", "写真"]),
        ("a\x85b\n", {"a\x85b": ".jpg"}, ["a\x85b"]),
    ],
)
def test_image_names_of_a_voc_list(tmp_path: Path, lines: str, files: dict[str, str], names: list[str]) -> None:
    root = voc_tree(tmp_path, lines, files)
    dataset = open_dataset(DataConfig(DatasetKind.voc, str(root), "test", classes=["cat"]))
    assert [record.image_id for record in dataset.records] == names
    assert all(record.path.is_file() and len(record.labels) == 1 for record in dataset.records)
    truth = read_voc_truth(root / "Annotations", root / "ImageSets/Main/test.txt", ["cat"])
    assert list(truth.image_ids) == names
    assert [path.is_file() for path in truth.paths] == [True] * len(names)


def test_a_name_without_files_is_said_in_full(tmp_path: Path) -> None:
    root = voc_tree(tmp_path, "IMG (1)\nIMG (3) 1\n", {"IMG (1)": ".jpg"})
    with pytest.raises(DataError, match=r"IMG \(3\)\.xml"):
        read_voc(root, "test", class_names=["cat"])


def test_detections_name_an_image_in_either_unicode_form(tmp_path: Path) -> None:
    root = voc_tree(tmp_path, f"{COMPOSED}\n", {COMPOSED: ".jpg"})
    truth = read_voc_truth(root / "Annotations", root / "ImageSets/Main/test.txt", ["cat"])
    assert Names(truth).image(DECOMPOSED) == Names(truth).image(COMPOSED) == 0


@pytest.mark.parametrize(("listed", "written"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED), ("a/b c", "a/b c")])
def test_class_names_meet_in_either_unicode_form(tmp_path: Path, listed: str, written: str) -> None:
    root = voc_tree(tmp_path, "a\n", {"a": ".jpg"})
    (root / "Annotations/a.xml").write_text(xml(written))
    dataset = read_voc(root, "test", class_names=["dog", listed])
    assert dataset.records[0].labels.tolist() == [1]
    assert dataset.classes.label_of[listed] == dataset.classes.label_of[written] == 1
    with pytest.raises(DataError, match="twice"):
        class_table(["x", COMPOSED, DECOMPOSED])


def test_a_list_of_ilsvrc_may_name_images_with_blanks(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a b 1\nc\t2\n")
    assert read_image_list(tmp_path / "list.txt") == [("a b", 1), ("c", 2)]


def test_files_of_one_name_come_in_one_order(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.jpg.png", "b.txt"):
        (tmp_path / name).touch()
    files = Files(tmp_path)
    assert [files.find(name) for name in ("a", "a.png", "a.jpg", "b", "c/d")] == [
        *(tmp_path / name for name in ("a.jpg", "a.png", "a.jpg.png")),
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("word", "difficult"),
    [("1", True), ("true", True), ("1.0", True), ("0", False), ("", False), ("Unspecified", False), ("false", False)],
)
def test_voc_flags(tmp_path: Path, word: str, difficult: bool) -> None:
    (tmp_path / "a.xml").write_text(xml(extra=f"<difficult>{word}</difficult>"))
    assert read_annotation(tmp_path / "a.xml").difficult.tolist() == [difficult]
    (tmp_path / "a.xml").write_text(xml(extra="<difficult>2</difficult>"))
    with pytest.raises(DataError, match=r"a\.xml.*difficult"):
        read_annotation(tmp_path / "a.xml")


# ---- COCO


def coco(folder: Path, **changes: Any) -> Path:
    """One image and two annotations, the second as it should be; `changes` are of image, category and annotation."""
    image = {"id": 2, "file_name": "2.jpg", "width": 100, "height": 80} | changes.get("image", {})
    category = {"id": 3, "name": "cat"} | changes.get("category", {})
    plain = {"id": 8, "image_id": 2, "category_id": 3, "bbox": [10, 20, 30, 40], "area": 7, "iscrowd": 0}
    first = plain | {"id": 7} | changes.get("annotation", {})
    first = {key: value for key, value in first.items() if value is not ...}
    second = plain | changes.get("second", {})
    path = folder / "a.json"
    path.write_text(json.dumps({"images": [image], "categories": [category], "annotations": [first, second]}))
    return path


@pytest.mark.parametrize(
    ("stated", "crowd"),
    [(word, False) for word in (0, "0", 0.0, "false", False, None, ...)]
    + [(word, True) for word in (1, "1", 1.0, "true", "True", True)],
)
def test_coco_crowds(tmp_path: Path, stated: object, crowd: bool) -> None:
    truth = read_coco_truth(coco(tmp_path, annotation={"iscrowd": stated}))
    assert truth.crowd.tolist() == [crowd, False]


@pytest.mark.parametrize(
    "annotation",
    [{"iscrowd": value} for value in (2, "no crowd", "", [], -1)]
    + [{"bbox": value} for value in ([1, 2, 3], [1, 2, 3, "x"], "1,2,3,4", [1, 2, 3, None], [1, 2, 3, True])]
    + [{"area": value} for value in ("large", [], True)]
    + [{"category_id": value} for value in (4, "cat", 3.5, None, True)],
)
def test_coco_refuses_what_is_no_number(tmp_path: Path, annotation: dict[str, object]) -> None:
    key = next(iter(annotation))
    with pytest.raises(DataError, match=rf"a\.json.*annotation 7.*{key}"):
        read_coco_truth(coco(tmp_path, annotation=annotation))


@pytest.mark.parametrize("number", [2, 0, -5, 2**53 + 1, 10**25])
def test_coco_ids_of_any_size_and_form(tmp_path: Path, number: int) -> None:
    """A number, the same as text, and as a float where that holds it, name one image and one class."""
    forms: list[object] = [number, str(number), f"{number}.0"] + [float(number)] * (float(number) == number)
    for stated in forms:
        for owner in forms:
            path = coco(
                tmp_path,
                image={"id": stated},
                category={"id": owner},
                annotation={"image_id": owner, "category_id": stated},
                second={"image_id": stated, "category_id": owner},
            )
            truth = read_coco_truth(path)
            assert truth.image_ids == (str(number),)
            assert truth.classes.ids == (number,)
            assert truth.image_index.tolist() == [0, 0]


def test_coco_ids_next_to_each_other_beyond_what_a_float_holds(tmp_path: Path) -> None:
    ids = [2**53, 2**53 + 1]
    content = {
        "images": [{"id": n, "file_name": "a.jpg", "width": 9, "height": 9} for n in ids],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": ids[1], "category_id": 1, "bbox": [1, 1, 2, 2]}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert read_coco_truth(tmp_path / "a.json").image_index.tolist() == [1]


def test_coco_names_as_ids(tmp_path: Path) -> None:
    path = coco(tmp_path, image={"id": "000012"}, annotation={"image_id": 12}, second={"image_id": "000012"})
    truth = read_coco_truth(path)
    assert truth.image_ids == ("000012",)
    assert truth.image_index.tolist() == [0, 0]
    assert truth.index_of_any_name["12"] == 0
    path = coco(tmp_path, image={"id": COMPOSED}, annotation={"image_id": DECOMPOSED}, second={"image_id": 3.5})
    assert read_coco_truth(path).image_index.tolist() == [0]


def test_coco_numbers_as_texts(tmp_path: Path) -> None:
    truth = read_coco_truth(coco(tmp_path, annotation={"bbox": ["10", "20.5", 30, "4e1"], "area": "12.5"}))
    assert truth.boxes[0].tolist() == [10, 20.5, 40, 60.5]
    assert truth.areas.tolist() == [12.5, 7]


@pytest.mark.parametrize("box", [[10, 20, -5, 10], [10, 20, 5, -1]])
def test_boxes_that_end_before_they_begin_are_left_out_and_counted(tmp_path: Path, box: list[int]) -> None:
    """The same of COCO and of VOC, in scoring and in training; a box without area is COCO's to count."""
    path = coco(tmp_path, annotation={"bbox": box})
    truth = read_coco_truth(path)
    assert truth.boxes.tolist() == [[10, 20, 40, 60]]
    assert [line for line in truth.warnings if ": 1 (first" in line and "before they begin" in line]
    dataset = read_coco(path, tmp_path)
    assert len(dataset.records[0].boxes) == 1
    assert len(dataset.warnings) == 1
    assert len(read_coco_truth(coco(tmp_path, annotation={"bbox": [10, 20, 0, 5]})).boxes) == 2


def test_a_number_of_thousands_of_digits_is_an_error_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"images": [{"id": ' + "1" * 5000 + "}]}")
    with pytest.raises(DataError, match=r"a\.json"):
        read_coco_truth(tmp_path / "a.json")


def test_coco_file_names_find_their_files(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (100, 80)).save(tmp_path / f"{DECOMPOSED}.png")
    (tmp_path / "sub").mkdir()
    PIL.Image.new("RGB", (100, 80)).save(tmp_path / "sub/b.png")
    for name in (f"{COMPOSED}.png", f"{DECOMPOSED}.png", "sub/b.png", "sub\\b.png"):
        dataset = read_coco(coco(tmp_path, image={"file_name": name}), tmp_path)
        assert dataset.records[0].path.is_file()


# ---- data sets and detectors meet


def table(names: str, wnids: str = "", first: int = 1) -> ClassTable:
    words = names.split()
    ids = [None if word == "-" else word for word in wnids.split()] or [None] * len(words)
    return ClassTable(tuple(words), tuple(ids), tuple(range(first, first + len(words))))


@pytest.mark.parametrize(
    ("one", "other", "labels"),
    [
        (table("cat dog"), table("dog cat", first=0), [1, 0]),
        (table("cat dog"), table("cat"), [0, -1]),
        (table("cat", "n00000001"), table("dog cat", "n00000001 n00000002"), [0]),  # the id decides
        (table("cat", "n00000001"), table("cat", "n00000002"), [-1]),
        (table("cat", "n00000001"), table("cat"), [0]),
        (table("crane crane", "n00000001 n00000002"), table("crane crane", "n00000002 n00000001"), [1, 0]),
        (table("crane"), table("crane crane", "n00000002 n00000001"), [-1]),  # which of the two?
        (table("crane crane", "n00000001 -"), table("crane crane", "n00000001 -"), [0, 1]),
        (table("n00000001"), table("dog", "n00000001"), [0]),
        (table("Cat"), table("cat"), [-1]),
        (
            ClassTable((COMPOSED,), (None,), (1,)),
            ClassTable(("x", DECOMPOSED), (None, None), (1, 2)),
            [1],
        ),
    ],
)
def test_classes_meet_by_wordnet_id_else_by_name(one: ClassTable, other: ClassTable, labels: list[int]) -> None:
    assert one.labels_in(other).tolist() == labels


def test_a_part_of_voc_in_any_order_meets_all_of_it() -> None:
    part = class_table(["dog", "cat"])
    assert part.labels_in(class_table(VOC_CLASSES)).tolist() == [list(VOC_WNIDS).index(name) for name in ("dog", "cat")]
    assert np.array_equal(class_table(VOC_CLASSES).labels_in(class_table(VOC_CLASSES)), np.arange(20))
