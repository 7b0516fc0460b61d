"""XML files in VOC's form without lists of splits, as labelImg, CVAT and Roboflow write them, and their classes."""

from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest

from detector.data.dataset import DataConfig, DatasetKind, open_dataset
from detector.data.ground_truth import DataError
from detector.data.voc import read_voc
from detector.data.voc_classes import VOC_CLASSES
from detector.evaluation import evaluate
from detector.evaluation.truth_files import read_truth


def mark(path: Path, *names: str, extra: str = "") -> None:
    items = "".join(
        f"<object><name>{name}</name>{extra}<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>50</xmax><ymax>60</ymax>"
        "</bndbox></object>"
        for name in names
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation><size><width>100</width><height>80</height></size>{items}</annotation>")


def photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (100, 80)).save(path)
    return path


def refusal(root: Path, split: str = "") -> str:
    with pytest.raises(DataError) as caught:
        read_voc(root, split)
    return str(caught.value)


@pytest.mark.parametrize(
    ("xml", "image"),
    [
        ("a.xml", "a.png"),
        ("Annotations/a.xml", "JPEGImages/a.jpg"),
        ("Annotations/a.xml", "a.jpg"),
        ("annotations/a.xml", "images/a.JPG"),
        ("annotations/north/a.xml", "images/north/a.jpg"),
        ("annotations/north/a.xml", "images/a.jpg"),
        ("labels/a.xml", "imgs/a.jpeg"),
        ("photos/a.xml", "photos/a.jpg"),
        ("images/a.xml", "images/a.jpg"),
    ],
)
def test_an_empty_split_takes_all_xml(tmp_path: Path, xml: str, image: str) -> None:
    mark(tmp_path / xml, "cat", "dog")
    path = photo(tmp_path / image)
    dataset = open_dataset(DataConfig(DatasetKind.voc, str(tmp_path)))
    (record,) = dataset.records
    assert (record.image_id, record.path) == ("a", path)
    assert record.boxes.tolist() == [[10, 20, 50, 60]] * 2
    assert (dataset.name, dataset.classes.names, dataset.warnings) == (tmp_path.name, VOC_CLASSES, ())


@pytest.mark.parametrize("pattern", ["{}/{}.xml", "annotations/{}/{}.xml", "{}/annotations/{}.xml"])
def test_parts_are_folders(tmp_path: Path, pattern: str) -> None:
    for part, name in (("train", "cell"), ("valid", "nucleus"), ("test", "cell")):
        file = tmp_path / pattern.format(part, f"{part}_1")
        mark(file, name)
        photo(Path(str(file).replace("annotations", "images").replace(".xml", ".jpg")))
    for split, label in (("train", 0), ("valid", 1), ("val", 1), ("test", 0)):
        dataset = open_dataset(DataConfig(DatasetKind.voc, str(tmp_path), split))
        assert dataset.classes.names == ("cell", "nucleus")  # of all parts
        assert [record.image_id[: len(split)] for record in dataset.records] == [split]
        assert dataset.records[0].labels.tolist() == [label]
    assert len(read_voc(tmp_path)) == 3
    message = refusal(tmp_path, "tset")
    assert "no split 'tset'" in message
    assert "there are: test, train, valid" in message
    assert f"{tmp_path}/ImageSets/Main" in message


def test_lists_go_before_folders_and_an_empty_split_before_lists(tmp_path: Path) -> None:
    for name in ("a", "b"):
        mark(tmp_path / f"Annotations/{name}.xml", "cat")
        photo(tmp_path / f"JPEGImages/{name}.jpg")
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/train.txt").write_text("b\n")
    assert [record.image_id for record in read_voc(tmp_path, "train").records] == ["b"]
    assert [record.image_id for record in read_voc(tmp_path).records] == ["a", "b"]


def test_absent_images_are_expected_in_the_folder_of_images(tmp_path: Path) -> None:
    mark(tmp_path / "Annotations/a.xml", "cat")
    (tmp_path / "JPEGImages").mkdir()
    assert read_voc(tmp_path).records[0].path == tmp_path / "JPEGImages/a.jpg"


def test_no_xml(tmp_path: Path) -> None:
    assert refusal(tmp_path).startswith(f"no XML files in {tmp_path}, nor lists in {tmp_path}/ImageSets/Main; check")


# ---- classes

PART = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"


@pytest.mark.parametrize("parts", ["", PART])
def test_names_of_the_whole_folder_make_the_classes(tmp_path: Path, parts: str) -> None:
    """train has VOC's names alone, and yet the classes of val; names of parts of objects are none."""
    mark(tmp_path / "train/a.xml", "person", extra=parts)
    assert read_voc(tmp_path, "train").classes.names == VOC_CLASSES
    mark(tmp_path / "val/b.xml", "person", "hat")
    expected = (
        "data.classes is empty: taken are the names in all 2 XML files, sorted: hat, person; 'hat' is none of VOC's 20",
    )
    for split in ("train", "val"):
        dataset = read_voc(tmp_path, split)
        assert (dataset.classes.names, dataset.classes.wnids) == (("hat", "person"), (None, None))
        assert dataset.warnings == expected
        truth = read_truth(DataConfig(DatasetKind.voc, str(tmp_path), split))
        assert (truth.classes, truth.warnings) == (dataset.classes, expected)
    assert read_voc(tmp_path, "val", class_names=["person", "hat"]).warnings == ()


def test_own_names_alone(tmp_path: Path) -> None:
    mark(tmp_path / "a.xml", "WBC", "RBC", "Wei\u00dfes")
    (line,) = read_voc(tmp_path).warnings
    assert line == "data.classes is empty: taken are the names in all 1 XML files, sorted: RBC, WBC, Wei\u00dfes"


def test_a_malformed_file_outside_the_split_costs_nothing(tmp_path: Path) -> None:
    mark(tmp_path / "train/a.xml", "cell")
    (tmp_path / "val").mkdir()
    (tmp_path / "val/b.xml").write_text("<annotation>")
    assert read_voc(tmp_path, "train").classes.names == ("cell",)
    assert refusal(tmp_path, "val").startswith(f"{tmp_path}/val/b.xml, line 1: malformed XML")


def test_evaluate_needs_no_names(tmp_path: Path) -> None:
    mark(tmp_path / "Annotations/a.xml", "cell")
    (tmp_path / "list.txt").write_text("a\n")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/comp4_det_val_cell.txt").write_text("a 0.9 11 21 50 60\n")
    result = evaluate(tmp_path / "Annotations", tmp_path / "results", protocol="voc", image_list=tmp_path / "list.txt")
    assert result.ap == {"cell": 1.0}
