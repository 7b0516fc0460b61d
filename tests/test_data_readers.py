"""The readers of VOC, ILSVRC DET and COCO, on small trees written here and, where it is present, on real data."""

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from detector.config import load_config
from detector.data import DataConfig, DataError, DatasetKind, open_dataset
from detector.data.coco import read_coco
from detector.data.ground_truth import Repairs
from detector.data.ilsvrc import det_classes, rcnn_split, read_ilsvrc_det, split_entries
from detector.data.voc import read_voc
from detector.data.voc_classes import VOC_CLASSES

SIZE = "<size><width>100</width><height>80</height><depth>3</depth></size>"


def item(name, *corners, extra=""):
    box = "".join(
        f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    return f"<object><name>{name}</name>{extra}<bndbox>{box}</bndbox></object>"


def xml(*items, size=SIZE):
    return f"<annotation>\n{size}\n" + "\n".join(items) + "\n</annotation>"


def photo(path, size=(100, 80)):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", size, (90, 120, 30)).save(path)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def voc_tree(root, annotations, split="train", image_suffix=".jpg"):
    """A VOC tree with one photograph for each entry of name -> XML."""
    write(root / "ImageSets/Main" / f"{split}.txt", "".join(f"{name}\n" for name in annotations))
    for name, text in annotations.items():
        write(root / "Annotations" / f"{name}.xml", text)
        photo(root / "JPEGImages" / f"{name}{image_suffix}")
    return root


def refusal(call, *arguments, **options):
    with pytest.raises(DataError) as caught:
        call(*arguments, **options)
    return str(caught.value)


# ---- VOC


def test_voc(tmp_path):
    first = xml(item("dog", 11, 21, 50, 60), item("person", 1, 1, 100, 80, extra="<difficult>1</difficult>"))
    root = voc_tree(tmp_path / "pets", {"b": first, "a": xml()})
    dataset = read_voc(root, "train")
    assert dataset.name == "pets train"
    assert dataset.warnings == ()
    assert dataset.classes.names == VOC_CLASSES
    assert dataset.classes.ids == tuple(range(1, 21))
    assert dataset.classes.wnids[VOC_CLASSES.index("person")] == "n00007846"
    assert [record.image_id for record in dataset.records] == ["b", "a"]  # the list's order
    record, empty = dataset.records
    assert record.boxes.tolist() == [[10, 20, 50, 60], [0, 0, 100, 80]]
    assert record.labels.tolist() == [VOC_CLASSES.index("dog"), VOC_CLASSES.index("person")]
    assert record.difficult.tolist() == [False, True]
    assert record.crowd.tolist() == [False, False]
    assert record.areas.tolist() == [1600, 8000]
    assert (record.width, record.height) == (100, 80)
    assert record.read().shape == (80, 100, 3)
    assert record.boxes.dtype == record.areas.dtype == np.float64
    assert record.labels.dtype == np.int64
    assert empty.boxes.shape == (0, 4)
    assert len(empty.labels) == 0


def test_voc_zero_based_and_floats(tmp_path):
    root = voc_tree(tmp_path, {"a": xml(item("cat", 0, 0, 49.5, "3.9e1"))})
    assert read_voc(root, "train", one_based=False).records[0].boxes.tolist() == [[0, 0, 50.5, 40]]
    assert read_voc(root, "train", one_based=False).warnings == ()
    dataset = read_voc(root, "train")
    assert dataset.records[0].boxes.tolist() == [[0, 0, 49.5, 39]]
    assert dataset.warnings == (
        "boxes reached outside their image and were cut at its border: 1 (first: a.xml)",
        "boxes begin at pixel 0; data.one_based=false if all count from 0: 1 (first: a.xml)",
    )


def test_voc_boxes_outside_and_without_area(tmp_path):
    annotations = {
        "a": xml(item("cat", -5, 10, 120, 90), item("cat", 10, 10, 20, 20)),
        "b": xml(
            item("cat", 200, 10, 220, 20),
            item("dog", 30, 30, 20, 40),
            item("cow", 5, 5, 5, 5),
            item("cat", 1, 1, 9, 99),
        ),
    }
    dataset = read_voc(voc_tree(tmp_path, annotations), "train")
    assert dataset.records[0].boxes.tolist() == [[0, 9, 100, 80], [9, 9, 20, 20]]
    assert dataset.records[1].boxes.tolist() == [[4, 4, 5, 5], [0, 0, 9, 80]]
    assert dataset.records[1].labels.tolist() == [VOC_CLASSES.index("cow"), VOC_CLASSES.index("cat")]
    assert dataset.warnings == (
        "boxes reached outside their image and were cut at its border: 2 (first: a.xml)",
        "boxes end before they begin and were left out: 1 (first: b.xml)",
        "boxes had no area inside their image and were left out: 1 (first: b.xml)",
        "boxes are one pixel wide or high, as written, and were kept: 1 (first: b.xml)",
    )


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPEG", ".png"])
def test_voc_image_suffixes(tmp_path, suffix):
    root = voc_tree(tmp_path, {"a.1": xml()}, image_suffix=suffix)
    assert read_voc(root, "train").records[0].read().shape == (80, 100, 3)


def test_voc_size_from_the_photograph(tmp_path):
    root = voc_tree(tmp_path, {"a": xml(item("cat", 1, 1, 500, 500), size="<size><width>0</width></size>")})
    dataset = read_voc(root, "train")
    assert (dataset.records[0].width, dataset.records[0].height) == (100, 80)
    assert dataset.warnings[0] == "annotations stated no image size; taken from the image file: 1 (first: a.xml)"
    (root / "JPEGImages/a.jpg").unlink()
    message = refusal(read_voc, root, "train")
    assert message.startswith(f"{root}/Annotations/a.xml: states no image size")
    assert f"{root}/JPEGImages/a.jpg: no such file" in message
    assert message.endswith("a.jpg: no such file")


def test_voc_other_classes(tmp_path):
    root = voc_tree(tmp_path, {"a": xml(item(" RBC\n", 1, 1, 9, 9), item("WBC", 1, 1, 9, 9))})
    classes = read_voc(root, "train", class_names=["WBC", "RBC"]).classes
    assert (classes.names, classes.wnids, classes.ids) == (("WBC", "RBC"), (None, None), (1, 2))
    assert read_voc(root, "train", class_names=["WBC", "RBC"]).records[0].labels.tolist() == [1, 0]
    message = refusal(read_voc, root, "train", class_names=["WBC", "Platelets"])
    assert message.startswith(f"{root}/Annotations/a.xml: ")
    assert all(part in message for part in ("'RBC'", "WBC, Platelets", "data.classes=[RBC,WBC]"))
    message = refusal(read_voc, root, "train", class_names=["WBC", "RBC", "WBC"])
    assert "'WBC'" in message
    assert "data.classes" in message


def test_voc_split_lists(tmp_path):
    root = voc_tree(tmp_path, {"a": xml(), "b": xml()})
    write(root / "ImageSets/Main/cat_train.txt", "\ufeffa -1\n\nb  1\na 1\n")
    write(root / "ImageSets/Main/val.txt", "\n")
    dataset = read_voc(root, "cat_train")
    assert [record.image_id for record in dataset.records] == ["a", "b"]
    assert dataset.warnings == ("images were listed again in the split and read once: 1 (first: cat_train.txt)",)
    lists = root / "ImageSets/Main"
    message = refusal(read_voc, root, "tset")
    assert all(part in message for part in ("'tset'", f"{lists};", " train, val;", "data.split"))
    assert refusal(read_voc, root, "val").startswith(f"{lists}/val.txt: ")
    message = refusal(read_voc, tmp_path / "other", "val")
    assert f" {tmp_path}/other/ImageSets/Main;" in message
    (lists / "bad.txt").write_bytes(b"\xff\xfe\x00a")
    assert f"{lists}/bad.txt: not a text" in refusal(read_voc, root, "bad")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>\n<object>\n</annotation>", ", line 3: malformed XML (mismatched tag)"),
        ("", ", line 1: malformed XML (no element found)"),
        ("<?xml version='1.0' encoding='klingon'?><annotation/>", ""),
        ("<html/>", ": holds <html>, where VOC and ILSVRC files hold <annotation>"),
        (xml(item("cat", 1, 1, 9, 9), "<object><bndbox/></object>"), ": object 2 has no <name>"),
        (xml("<object><name>cat</name></object>"), ": object 1 (cat) has no <bndbox>"),
        (
            xml(item("cat", 1, 1, "wide", 9)),
            ": object 1 (cat) has a box that is not four numbers: xmin=1, ymin=1, xmax=wide, ymax=9",
        ),
        (
            xml(item("cat", 1, 1, "nan", 9)),
            ": object 1 (cat) has a box that is not four numbers: xmin=1, ymin=1, xmax=nan, ymax=9",
        ),
        (
            xml("<object><name>cat</name><bndbox><xmin>3</xmin></bndbox></object>"),
            ": object 1 (cat) has a box that is not four numbers: xmin=3, ymin=None, xmax=None, ymax=None",
        ),
    ],
)
def test_voc_bad_annotations(tmp_path, text, message):
    root = voc_tree(tmp_path, {"a": text})
    assert refusal(read_voc, root, "train").startswith(f"{root}/Annotations/a.xml{message}")


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "latin-1", "cp1251", "gb2312", "shift_jis", "euc-kr", "big5"]
)
def test_voc_in_the_encoding_that_the_file_declares(tmp_path, encoding):
    name = {"cp1251": "кот", "latin-1": "café", "euc-kr": "고양이", "shift_jis": "ねこ"}.get(encoding, "中")
    root = voc_tree(tmp_path, {"a": ""})
    declared = "utf-8" if encoding == "utf-8-sig" else encoding
    text = f'<?xml version="1.0" encoding="{declared}" standalone="yes"?>\n' + xml(item(name, 1, 1, 9, 9))
    (root / "Annotations/a.xml").write_bytes(text.encode(encoding))
    (record,) = read_voc(root, "train", class_names=["dog", name]).records
    assert record.labels.tolist() == [1]
    assert record.boxes.tolist() == [[0, 0, 9, 9]]


def test_voc_with_a_namespace(tmp_path):
    text = xml(item("cat", 1, 1, 9, 9)).replace("<annotation>", '<annotation xmlns="http://example.com/voc"><!-- x -->')
    (record,) = read_voc(voc_tree(tmp_path, {"a": text}), "train").records
    assert record.boxes.tolist() == [[0, 0, 9, 9]]
    assert (record.width, record.height) == (100, 80)


def test_voc_boxes_that_end_before_they_begin_are_told_from_those_outside(tmp_path):
    text = xml(item("cat", 9, 9, 2, 3), item("cat", 200, 200, 210, 210), item("cat", 1, 1, 9, 9))
    dataset = read_voc(voc_tree(tmp_path, {"a": text}), "train")
    assert len(dataset.records[0].boxes) == 1
    counts = {line.partition(" and were")[0]: line.partition(": ")[2] for line in dataset.warnings}
    assert counts["boxes end before they begin"].startswith("1 ")
    assert counts["boxes had no area inside their image"].startswith("1 ")


def test_voc_absent_annotation(tmp_path):
    root = voc_tree(tmp_path, {"a": xml()})
    (root / "Annotations/a.xml").unlink()
    message = refusal(read_voc, root, "train")
    assert message.startswith(f"{root}/Annotations/a.xml: ")
    assert "ImageSets/Main/train.txt" in message


def test_voc_parts_are_not_objects(tmp_path):
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    root = voc_tree(tmp_path, {"a": xml(item("person", 11, 11, 20, 20, extra=part))})
    assert read_voc(root, "train").records[0].boxes.tolist() == [[10, 10, 20, 20]]


# ---- ILSVRC DET


def ilsvrc_tree(root):
    lists = root / "ImageSets/DET"
    write(lists / "train.txt", "ILSVRC2014_train_0000/t_1 1\nextra0/t_2 2\n")
    write(lists / "train_1.txt", "ILSVRC2014_train_0000/t_1 -1\n")
    write(lists / "val.txt", "v_1 1\nv_2 2\nv_3 3\n")
    write(lists / "val2.txt", "v_2 2\nv_3 3\n")
    folders = root / "Annotations/DET"
    write(folders / "train/ILSVRC2014_train_0000/t_1.xml", xml(item("n02391049", 0, 0, 99, 79)))
    write(folders / "val/v_1.xml", xml(item("n02672831", 3, 4, 12, 23), item("n02391049", 5, 5, 5, 9)))
    write(folders / "val/v_2.xml", xml())
    for name in ("train/ILSVRC2014_train_0000/t_1", "train/extra0/t_2", "val/v_1", "val/v_2", "val/v_3"):
        photo(root / "Data/DET" / f"{name}.JPEG", size=(60, 50) if name.endswith("_3") else (100, 80))
    return root


def test_det_classes():
    classes = det_classes()
    assert classes.ids == tuple(range(1, 201))
    assert (classes.names[0], classes.wnids[0]) == ("accordion", "n02672831")
    assert (classes.names[199], classes.wnids[199]) == ("zebra", "n02391049")
    assert classes.label_of["n00007846"] == classes.label_of["person"] == classes.ids.index(124)
    assert all(re.fullmatch(r"n\d{8}", wnid) for wnid in classes.wnids)
    assert len(set(classes.wnids)) == 200


def test_ilsvrc(tmp_path):
    root = ilsvrc_tree(tmp_path / "ILSVRC")
    dataset = read_ilsvrc_det(root, "val")
    assert dataset.name == "ILSVRC val"
    assert [record.image_id for record in dataset.records] == ["v_1", "v_2", "v_3"]
    assert dataset.records[0].boxes.tolist() == [[3, 4, 13, 24], [5, 5, 6, 10]]
    assert dataset.records[0].labels.tolist() == [0, 199]
    assert [len(record.boxes) for record in dataset.records] == [2, 0, 0]
    assert (dataset.records[2].width, dataset.records[2].height) == (60, 50)
    assert all(record.read().shape == (record.height, record.width, 3) for record in dataset.records)
    assert dataset.warnings == (
        "boxes are one pixel wide or high, as written, and were kept: 1 (first: v_1.xml)",
        "images have no annotation file and count as without objects: 1 (first: v_3)",
    )
    assert [record.image_id for record in read_ilsvrc_det(root, "val2").records] == ["v_2", "v_3"]
    train = read_ilsvrc_det(root, "train")
    assert [record.image_id for record in train.records] == ["ILSVRC2014_train_0000/t_1", "extra0/t_2"]
    assert train.records[0].boxes.tolist() == [[0, 0, 100, 80]]
    assert train.records[1].read().shape == (80, 100, 3)
    assert split_entries(root, "val2") == [("v_2", 2), ("v_3", 3)]


def test_ilsvrc_without_photographs(tmp_path):
    root = ilsvrc_tree(tmp_path)
    for path in root.glob("Data/DET/val/*"):
        path.unlink()
    dataset = read_ilsvrc_det(root, "val")
    assert [(record.width, record.height) for record in dataset.records] == [(100, 80), (100, 80), (0, 0)]


def test_ilsvrc_refusals(tmp_path):
    root = ilsvrc_tree(tmp_path)
    lists = root / "ImageSets/DET"
    message = refusal(read_ilsvrc_det, root, "val9")
    assert all(part in message for part in ("'val9'", f"{lists};", " train, val, val2;", "data.split"))
    write(lists / "mine.txt", "v_1 1\n")
    message = refusal(read_ilsvrc_det, root, "mine")
    assert message.startswith("split 'mine': ")
    write(root / "Annotations/DET/val/v_3.xml", xml(item("dog", 1, 1, 5, 5)))
    message = refusal(read_ilsvrc_det, root, "val")
    assert message.startswith(f"{root}/Annotations/DET/val/v_3.xml: unknown class 'dog'; <name> must be one of the 200")
    (root / "Annotations/DET/val/v_3.xml").unlink()
    (root / "Data/DET/val/v_3.JPEG").write_bytes(b"no photograph")
    message = refusal(read_ilsvrc_det, root, "val")
    assert message.startswith("v_3 has no annotation file, and its image cannot be read: ")
    (root / "Annotations/DET/val").rename(root / "Annotations/DET/elsewhere")
    message = refusal(read_ilsvrc_det, root, "val")
    assert f" {root}/Annotations/DET/val," in message
    message = refusal(split_entries, root, "train_1")
    assert message.startswith(f"{lists}/train_1.txt, line 1: 'ILSVRC2014_train_0000/t_1 -1' ")


def test_rcnns_halves_need_no_list(tmp_path):
    root = ilsvrc_tree(tmp_path)
    dataset = read_ilsvrc_det(root, "val1")
    assert len(dataset) == 9887
    assert dataset.records[0].image_id == rcnn_split("val1")[0][0]


def test_ilsvrc_test_split_needs_no_annotations(tmp_path):
    write(tmp_path / "ImageSets/DET/test.txt", "x 1\n")
    photo(tmp_path / "Data/DET/test/x.JPEG")
    assert len(read_ilsvrc_det(tmp_path, "test").records[0].boxes) == 0


# ---- COCO


def coco_content():
    return {
        "images": [
            {"id": 9, "file_name": "nine.jpg", "width": 100, "height": 80},
            {"id": 4, "file_name": "sub/four.jpg", "width": 100, "height": 80},
            {"id": 5, "file_name": "five.jpg", "width": 100, "height": 80},
        ],
        "annotations": [
            {"id": 1, "image_id": 4, "category_id": 90, "bbox": [1.5, 2.5, 10, 20], "area": 77.5, "iscrowd": 0},
            {"id": 2, "image_id": 9, "category_id": 3, "bbox": [0, 0, 100, 80], "iscrowd": 1},
            {"id": 3, "image_id": 4, "category_id": 3, "bbox": [90, 70, 20, 20], "area": None},
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 3, "name": "car"}],
    }


def coco_tree(root, content=None):
    content = content or coco_content()
    write(root / "boxes.json", json.dumps(content))
    for image in content["images"]:
        photo(root / "photos" / image.get("file_name", "none.jpg"))
    return root / "boxes.json", root / "photos"


def test_coco(tmp_path):
    dataset = read_coco(*coco_tree(tmp_path))
    assert (dataset.classes.names, dataset.classes.ids) == (("car", "toothbrush"), (3, 90))
    assert dataset.classes.wnids == (None, None)
    assert [record.image_id for record in dataset.records] == ["9", "4", "5"]
    nine, four, five = dataset.records
    assert four.boxes.tolist() == [[1.5, 2.5, 11.5, 22.5], [90, 70, 100, 80]]
    assert four.labels.tolist() == [1, 0]
    assert four.areas.tolist() == [77.5, 100]
    assert nine.crowd.tolist() == [True]
    assert nine.areas.tolist() == [8000]
    assert five.boxes.shape == (0, 4)
    assert four.read().shape == (80, 100, 3)
    assert four.boxes.dtype == np.float64
    assert dataset.warnings == ("boxes reached outside their image and were cut at its border: 1 (first: four.jpg)",)


def test_coco_repairs(tmp_path):
    content = coco_content()
    content["annotations"][1]["id"] = 1
    content["annotations"][2]["bbox"] = [50, 50, -10, 10]
    content["annotations"].append({"id": 8, "image_id": 77, "category_id": 3, "bbox": [0, 0, 1, 1]})
    del content["images"][2]["width"]
    dataset = read_coco(*coco_tree(tmp_path, content))
    assert [len(record.boxes) for record in dataset.records] == [1, 1, 0]
    assert (dataset.records[2].width, dataset.records[2].height) == (100, 80)
    assert dataset.warnings == (
        "annotation ids occur more than once; every box was kept: 1 (first: annotation 1)",
        "annotations belong to no listed image and were left out: 1 (first: annotation 8)",
        "boxes end before they begin and were left out: 1 (first: four.jpg)",
        "annotations stated no image size; taken from the image file: 1 (first: five.jpg)",
    )


def test_coco_images_and_categories_listed_twice_alike_are_read_once(tmp_path):
    content = coco_content()
    content["images"].append(dict(content["images"][0]))
    content["categories"] += [dict(row) for row in content["categories"]]
    dataset = read_coco(*coco_tree(tmp_path, content))
    assert [record.image_id for record in dataset.records] == ["9", "4", "5"]
    assert dataset.classes.ids == (3, 90)
    assert any("images" in line and ": 1 " in line for line in dataset.warnings)
    assert any("classes" in line and ": 2 " in line for line in dataset.warnings)


def test_a_name_too_long_for_a_file_is_a_photograph_that_is_not_there(tmp_path):
    content = coco_content()
    annotations, images = coco_tree(tmp_path / "coco", content)
    content["images"][0]["file_name"] = "n" * 300 + ".jpg"
    write(annotations, json.dumps(content))
    assert [len(record.boxes) for record in read_coco(annotations, images, as_written=True).records] == [1, 2, 0]
    config = DataConfig(DatasetKind.coco, str(annotations.parent), annotations="boxes.json", images="photos")
    assert any("1 of 3 images are not there" in line for line in open_dataset(config).warnings)
    root = voc_tree(tmp_path / "voc", {"a": xml()})
    write(root / "ImageSets/Main/train.txt", "a\n" + "n" * 300 + "\n")
    assert "no such annotation" in refusal(read_voc, root, "train")


def test_coco_without_annotations(tmp_path):
    dataset = read_coco(*coco_tree(tmp_path, coco_content() | {"annotations": []}))
    assert [len(record.boxes) for record in dataset.records] == [0, 0, 0]


def change(section, row, **fields):
    def apply(content):
        content[section][row] |= fields

    return apply


def drop(section, row, key):
    return lambda content: content[section][row].pop(key)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change("images", 1, id=9), "two entries of 'images' share the id 9"),
        (change("categories", 1, id=90), "two entries of 'categories' share the id 90"),
        (change("images", 1, id=[9]), "an entry of 'images' has the id [9]; ids are whole numbers"),
        (change("categories", 1, id="car"), "a category has an id that is no whole number"),
        (change("annotations", 0, category_id=5), "annotation 1 has category_id 5, which 'categories' does not list"),
        (
            change("annotations", 0, bbox=[1, 2, 3]),
            "annotation 1 has bbox [1, 2, 3], not four numbers x, y, width, height",
        ),
        (
            change("annotations", 0, bbox=[1, 2, 3, float("nan")]),
            "annotation 1 has bbox [1, 2, 3, nan], not four numbers",
        ),
        (change("annotations", 0, area="big"), "annotation 1 has area 'big', not a number"),
        (drop("annotations", 0, "bbox"), "an entry of 'annotations' has no 'bbox': {\"id\": 1, "),
        (drop("annotations", 0, "image_id"), "an entry of 'annotations' has no 'image_id'"),
        (drop("categories", 0, "name"), "an entry of 'categories' has no 'name'"),
        (drop("images", 0, "file_name"), "an entry of 'images' has no 'file_name'"),
        (lambda content: content.update(images=[]), "lists no images"),
        (
            lambda content: content.pop("categories"),
            "has no list of 'categories'; ground truth is an object with images, annotations and categories",
        ),
    ],
)
def test_coco_refusals(tmp_path, edit, message):
    content = coco_content()
    edit(content)
    annotations, images = coco_tree(tmp_path, content)
    assert refusal(read_coco, annotations, images).startswith(f"{annotations}: {message}")


def test_coco_bad_files(tmp_path):
    path = tmp_path / "boxes.json"
    assert refusal(read_coco, path, tmp_path).startswith(f"{path}: no such ")
    path.write_text('{"images": [\n  {"id": }]}')
    assert refusal(read_coco, path, tmp_path).startswith(f"{path}, line 2, column 10: ")
    path.write_text("[]")
    assert refusal(read_coco, path, tmp_path).startswith(
        f"{path}: holds a list, as files of results do; ground truth is an"
    )
    path.write_text("[" * 100_000)
    assert refusal(read_coco, path, tmp_path).startswith(f"{path}: malformed JSON")
    path.write_bytes(gzip.compress(b"{}"))
    assert "gzip" in refusal(read_coco, path, tmp_path)
    path.write_bytes(b'{"images": "\xff"}')
    assert refusal(read_coco, path, tmp_path).startswith(f"{path}: cannot be read")
    content = coco_content()
    del content["images"][0]["height"]
    annotations, images = coco_tree(tmp_path, content)
    (images / "nine.jpg").unlink()
    message = refusal(read_coco, annotations, images)
    assert message.startswith(f"{annotations}: states no size of image 9, and the file gives none: ")


# ---- what a config names


def test_open_dataset(tmp_path):
    voc = voc_tree(tmp_path / "blood", {"a": xml(item("RBC", 0, 0, 9, 9))}, split="val")
    config = DataConfig(DatasetKind.voc, str(voc), "val", classes=["RBC"], one_based=False)
    assert open_dataset(config).name == "blood val"
    assert open_dataset(config).records[0].boxes.tolist() == [[0, 0, 10, 10]]
    ilsvrc = ilsvrc_tree(tmp_path / "det")
    assert open_dataset(DataConfig(DatasetKind.ilsvrc, str(ilsvrc), "val2")).name == "det val2"
    coco_tree(tmp_path / "own")
    config = DataConfig(DatasetKind.coco, str(tmp_path / "own"), annotations="boxes.json", images="photos")
    assert open_dataset(config).name == "own boxes"
    official = tmp_path / "coco"
    annotations, images = coco_tree(official)
    (official / "annotations").mkdir()
    annotations.rename(official / "annotations/instances_val2017.json")
    images.rename(official / "val2017")
    assert open_dataset(DataConfig(DatasetKind.coco, str(official), "val2017")).name == "coco val2017"


def test_open_dataset_refusals(tmp_path):
    message = refusal(open_dataset, DataConfig(DatasetKind.voc, str(tmp_path / "no"), "val"))
    assert f"'{tmp_path}/no'" in message
    assert "data.root" in message
    assert "data.root" in refusal(open_dataset, DataConfig(DatasetKind.voc, "", "val"))
    root = voc_tree(tmp_path / "pets", {"a": xml(), "b": xml()})
    config = DataConfig(DatasetKind.voc, str(root), "train")
    (root / "JPEGImages/b.jpg").unlink()
    (line,) = open_dataset(config).warnings  # it costs itself
    assert line.startswith(f"pets train: 1 of 2 images are not there (first: {root}/JPEGImages/b.jpg)")
    (root / "JPEGImages/a.jpg").unlink()
    (root / "JPEGImages").rmdir()
    assert refusal(open_dataset, config).startswith("pets train: all 2 images are not there (first: ")
    assert len(open_dataset(config, need_images=False)) == 2
    message = refusal(open_dataset, DataConfig(DatasetKind.voc, str(root), "tset"))
    assert all(part in message for part in ("'tset'", f"{root}/ImageSets/Main;", " train;", "data.split"))
    message = refusal(open_dataset, DataConfig(DatasetKind.ilsvrc, str(root), "train", classes=["dog"]))
    assert all(part in message for part in ("data.classes", "data.kind=voc", "data.kind=ilsvrc"))
    message = refusal(open_dataset, DataConfig(DatasetKind.voc, str(root), "train", images="photos"))
    assert all(part in message for part in ("data.images", "data.kind=coco", "data.kind=voc"))
    coco_tree(tmp_path / "coco")
    message = refusal(open_dataset, DataConfig(DatasetKind.coco, str(tmp_path / "coco"), "val"))
    assert message.startswith(f"{tmp_path}/coco/annotations/instances_val.json: no such annotation file; ")
    assert "there are: boxes.json\n  name one:  data.annotations=FILE data.images=DIR" in message
    config = DataConfig(DatasetKind.coco, str(tmp_path / "coco"), annotations="boxes.json", images="elsewhere")
    assert refusal(open_dataset, config).endswith("; check data.images")


def test_config_is_typed():
    assert load_config(DataConfig, None, ["kind=coco", "root=x", "classes=[a]"]) == DataConfig(
        DatasetKind.coco, "x", classes=["a"]
    )


def test_repairs_count_by_kind():
    repairs = Repairs()
    repairs.note("never happened", "x", 0)
    for count in (1, 1200):
        repairs.note("boxes were mended", f"file {count}", count)
    assert repairs.lines() == ("boxes were mended: 1,201 (first: file 1)",)


def test_import_leaves_torch_alone():
    program = "import sys, detector.data; print('torch' in sys.modules)"
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout == "False\n"


# ---- real data

# Images with a normal (not difficult) box / normal boxes, in train, val and test: the table that came with the data.
VOC12 = """
cat 539/605 135/147 143/167
cow 151/290 28/46 49/101
dog 632/756 148/177 175/208
horse 237/350 51/81 60/77
person 415/726 98/171 104/173
sheep 171/400 36/108 46/126
car 92/136 21/39 24/47
chair 109/182 26/45 28/50
aeroplane 55/74 8/10 13/23
bicycle 45/76 14/21 14/20
motorbike 49/72 13/17 9/15
boat 35/52 7/11 5/7
bus 20/25 6/10 4/5
diningtable 31/31 3/3 10/11
train 29/36 7/7 8/11
pottedplant 40/78 12/18 17/27
sofa 52/55 11/11 13/13
bottle 31/48 4/5 3/3
tvmonitor 21/21 8/9 5/5
bird 11/11 3/3 1/3
"""


@pytest.mark.data
@pytest.mark.parametrize(("column", "split", "images"), [(1, "train", 2032), (2, "val", 476), (3, "test", 548)])
def test_voc12(data_dir, column, split, images):
    dataset = open_dataset(DataConfig(DatasetKind.voc, str(data_dir / "voc12"), split))
    assert len(dataset) == images
    assert dataset.warnings == ()
    for line in VOC12.split("\n")[1:-1]:
        columns = line.split()
        label = dataset.classes.label_of[columns[0]]
        normal = [int(((record.labels == label) & ~record.difficult).sum()) for record in dataset.records]
        assert f"{sum(map(bool, normal))}/{sum(normal)}" == columns[column], columns[0]


@pytest.mark.data
def test_voc12_sizes_are_the_photographs(data_dir):
    for record in open_dataset(DataConfig(DatasetKind.voc, str(data_dir / "voc12"), "val100")).records:
        assert record.read().shape == (record.height, record.width, 3)


@pytest.mark.data
def test_bccd(data_dir):
    names = ["WBC", "RBC", "Platelets"]
    config = {
        split: DataConfig(DatasetKind.voc, str(data_dir / "bccd"), split, classes=names)
        for split in ("trainval", "test")
    }
    parts = [open_dataset(config[split]) for split in config]
    assert sum(map(len, parts)) == 364
    assert sum(len(record.boxes) for part in parts for record in part.records) == 4888
    assert parts[0].warnings[0].startswith("boxes are one pixel wide or high, as written, and were kept: 2 ")


@pytest.mark.data
def test_coco_sample(data_dir):
    root = str(data_dir / "coco-sample")
    dataset = open_dataset(DataConfig(DatasetKind.coco, root, annotations="instances.json", images="images"))
    assert (len(dataset), len(dataset.classes), dataset.classes.ids[-1]) == (85, 80, 90)
    assert sum(len(record.boxes) for record in dataset.records) == 910
    assert sum(int(record.crowd.sum()) for record in dataset.records) == 16
    assert dataset.warnings == ()


@pytest.mark.data
def test_ilsvrc_val2(data_dir):
    root = data_dir / "ilsvrc-det"
    dataset = open_dataset(DataConfig(DatasetKind.ilsvrc, str(root), "val2"), need_images=False)
    assert len(dataset) == len(split_entries(root, "val2")) == 9917
    objects = {path.stem: path.read_text().count("<object>") for path in (root / "Annotations/DET/val").glob("*.xml")}
    assert len(objects) >= 600  # of the validation set's 20,121; all of val2
    assert {record.image_id: len(record.boxes) for record in dataset.records} == {
        name: objects.get(name, 0) for name, _ in split_entries(root, "val2")
    }
    assert f"no annotation file and count as without objects: {9917 - len(objects):,} " in dataset.warnings[0]


@pytest.mark.data
def test_ilsvrc_photographs(data_dir):
    dataset = open_dataset(DataConfig(DatasetKind.ilsvrc, str(data_dir / "ilsvrc-det"), "val_real"))
    assert len(dataset) == 41
    assert sum(len(record.boxes) for record in dataset.records) == 120
    assert len({label for record in dataset.records for label in record.labels.tolist()}) == 30
    for record in dataset.records:
        assert record.read().shape == (record.height, record.width, 3)
