"""A text file that names the images to read, for every kind of data set; and names in it that are not there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest

from detector.config import load_config
from detector.data.dataset import DataConfig, DatasetKind, open_dataset
from detector.data.ground_truth import DataError
from detector.data.image_list import chosen
from detector.data.labelled_images import ImagesConfig, ImagesKind, open_images
from detector.evaluation import read_results
from detector.evaluation.truth_files import read_truth

NAMES = ("a", "b b", "ç.1", "d")


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (100, 80)).save(path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def voc(root: Path) -> DataConfig:
    for name in NAMES:
        photo(root / f"{name}.jpg")
        box = "<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>50</xmax><ymax>60</ymax></bndbox>"
        size = "<size><width>100</width><height>80</height></size>"
        write(root / f"{name}.xml", f"<annotation>{size}<object><name>cat</name>{box}</object></annotation>")
    return DataConfig(DatasetKind.voc, str(root))


def voc_list(root: Path) -> DataConfig:
    voc(root)
    for name in NAMES:
        for suffix, folder in ((".jpg", "JPEGImages"), (".xml", "Annotations")):
            (root / folder).mkdir(exist_ok=True)
            (root / f"{name}{suffix}").rename(root / folder / f"{name}{suffix}")
    write(root / "ImageSets/Main/val.txt", "".join(f"{name}\n" for name in NAMES))
    return DataConfig(DatasetKind.voc, str(root), "val")


def coco(root: Path) -> DataConfig:
    images, objects = [], []
    for number, name in enumerate(NAMES, 1):
        photo(root / "images" / f"{name}.jpg")
        images.append({"id": number, "file_name": f"{name}.jpg", "width": 100, "height": 80})
        objects.append({"id": number, "image_id": number, "category_id": 1, "bbox": [10, 20, 40, 40], "iscrowd": 0})
    content = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "cat"}]}
    write(root / "boxes.json", json.dumps(content))
    return DataConfig(DatasetKind.coco, str(root), annotations="boxes.json", images="images")


def yolo(root: Path) -> DataConfig:
    for name in NAMES:
        photo(root / "images" / f"{name}.jpg")
        write(root / "labels" / f"{name}.txt", "0 0.3 0.5 0.4 0.5\n")
    write(root / "classes.txt", "cat\n")
    return DataConfig(DatasetKind.yolo, str(root))


def labelme(root: Path) -> DataConfig:
    for name in NAMES:
        photo(root / f"{name}.jpg")
        shape = {"label": "cat", "points": [[10, 20], [50, 60]], "shape_type": "rectangle", "flags": {}}
        content = {"shapes": [shape], "imagePath": f"{name}.jpg", "imageWidth": 100, "imageHeight": 80}
        write(root / f"{name}.json", json.dumps(content))
    return DataConfig(DatasetKind.labelme, str(root))


def ilsvrc(root: Path) -> DataConfig:
    for name in NAMES:
        photo(root / "Data/DET/val" / f"{name}.JPEG")
        box = "<bndbox><xmin>10</xmin><ymin>20</ymin><xmax>49</xmax><ymax>59</ymax></bndbox>"
        size = "<size><width>100</width><height>80</height></size>"
        item = f"<object><name>n02391049</name>{box}</object>"
        write(root / "Annotations/DET/val" / f"{name}.xml", f"<annotation>{size}{item}</annotation>")
    lines = [f"{name} {number}\n" for number, name in enumerate(NAMES, 1)]
    write(root / "ImageSets/DET/val.txt", "".join(lines))
    return DataConfig(DatasetKind.ilsvrc, str(root), "val")


KINDS = [voc, voc_list, coco, yolo, labelme, ilsvrc]


@pytest.fixture(params=KINDS)
def config(request: pytest.FixtureRequest, tmp_path: Path) -> DataConfig:
    build: Callable[[Path], DataConfig] = request.param
    return build(tmp_path / "data")


def with_list(config: DataConfig, path: Path, text: str) -> DataConfig:
    path.write_text(text, encoding="utf-8")
    return DataConfig(**{**vars(config), "image_list": str(path)})


def test_images_are_those_of_the_list_in_the_order_of_the_data(config: DataConfig, tmp_path: Path) -> None:
    every = [record.path for record in open_dataset(config).records]
    suffix = every[0].suffix
    text = f"\ufeffd\n\nb b{suffix}\nd\n./\u0063\u0327.1\n"  # ç in its other form
    listed = with_list(config, tmp_path / "list.txt", text)
    dataset = open_dataset(listed)
    assert [record.path for record in dataset.records] == [path for path in every if path.stem != "a"]
    assert {record.path.stem for record in dataset.records} == {"b b", "ç.1", "d"}
    assert all(record.boxes.round(6).tolist() == [[10, 20, 50, 60]] for record in dataset.records)
    assert dataset.classes == open_dataset(config).classes
    truth = read_truth(listed)
    assert truth.image_ids == tuple(record.image_id for record in dataset.records)
    assert len(truth.boxes) == 3


def test_names_that_are_not_there_are_named_up_to_three(config: DataConfig, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    listed = with_list(config, path, "a\nx1\nx2\nx3\nx4\n")
    expected = (
        f"{path}: 4 of 5 names are none of the 4 images of the data set: x1, x2, x3 and 1 more; "
        "check data.image_list, data.root and data.split"
    )
    for read in (open_dataset, read_truth):
        with pytest.raises(DataError) as caught:
            read(listed)
        assert str(caught.value) == expected


def test_detections_on_other_images_are_left_out(tmp_path: Path) -> None:
    listed = with_list(coco(tmp_path / "data"), tmp_path / "list.txt", "a\n")
    rows = [{"image_id": number, "category_id": 1, "bbox": [10, 20, 40, 40], "score": 0.5} for number in (1, 2)]
    write(tmp_path / "found.json", json.dumps(rows))
    table, warnings = read_results(tmp_path / "found.json", read_truth(listed))
    assert len(table) == 1
    assert any("left out" in line for line in warnings)


def test_refused_lists(tmp_path: Path) -> None:
    data = voc(tmp_path / "data")
    with pytest.raises(DataError, match=r"list.txt: no images in this list"):
        open_dataset(with_list(data, tmp_path / "list.txt", "\n \n"))
    with pytest.raises(DataError, match=r"gone.txt: cannot be read \(no such file"):
        open_dataset(DataConfig(DatasetKind.voc, data.root, image_list=str(tmp_path / "gone.txt")))


def test_a_name_that_fits_two_images(tmp_path: Path) -> None:
    for folder in ("train", "val"):
        voc(tmp_path / "data" / folder)
    data = DataConfig(DatasetKind.voc, str(tmp_path / "data"))
    root = tmp_path / "data"
    with pytest.raises(DataError) as caught:
        open_dataset(with_list(data, tmp_path / "list.txt", "val/a\nd\n"))
    assert str(caught.value) == (
        f"{tmp_path}/list.txt, line 2: d may be {root}/train/d.jpg or {root}/val/d.jpg; name its folder too"
    )
    for text in ("val/a", "val/a.jpg", "data/val/a.jpg", f"{root}/val/a.jpg", "val\\a.jpg"):
        dataset = open_dataset(with_list(data, tmp_path / "list.txt", text))
        assert [record.image_id for record in dataset.records] == ["val/a"]


def test_no_list_keeps_all() -> None:
    assert chosen(["x", "y"], lambda one: (one, Path(one)), "") == ["x", "y"]


def test_images_of_classes(tmp_path: Path) -> None:
    for name in ("cat/1", "cat/2", "dog/3", "dog/1"):
        photo(tmp_path / "data" / f"{name}.jpg")
    path = tmp_path / "list.txt"
    path.write_text("3\ncat/1\n")
    images = open_images(ImagesConfig(str(tmp_path / "data"), image_list=str(path)))
    assert (images.classes, images.labels.tolist()) == (("cat", "dog"), [0, 1])
    assert [image.parent.name + image.stem for image in images.paths] == ["cat1", "dog3"]
    path.write_text("d\n")
    objects = open_images(ImagesConfig(voc(tmp_path / "voc").root, ImagesKind.voc, image_list=str(path)))
    assert [image.stem for image in objects.paths] == ["d"]


def test_it_is_a_setting(tmp_path: Path) -> None:
    text = ["kind=auto", "root=x", "image_list=chosen.txt"]
    assert load_config(DataConfig, None, text) == DataConfig(DatasetKind.auto, "x", image_list="chosen.txt")
