"""What data set a folder is: the exports of the usual tools by their documented layouts, ambiguity, and nothing."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import yaml
from training_runs import runner

from detector.checkpoint import load_checkpoint
from detector.data.dataset import DataConfig, DatasetKind, open_dataset, resolved
from detector.data.ground_truth import DataError
from detector.data.labelled_images import ImagesConfig, ImagesKind, open_images, resolved_images
from detector.data.recognition import Layout, recognise
from detector.evaluation.truth_files import read_truth

PARTS = ("train", "valid", "test")


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (100, 80), (90, 120, 30)).save(path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def xml(path: Path, name: str = "cell") -> None:
    box = "<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>50</xmax><ymax>60</ymax></bndbox>"
    size = "<size><width>100</width><height>80</height></size>"
    write(path, f"<annotation>{size}<object><name>{name}</name>{box}</object></annotation>")


def coco(path: Path, *files: str, categories: tuple[Any, ...] = ({"id": 1, "name": "cell"},)) -> None:
    images = [{"id": place, "file_name": name, "width": 100, "height": 80} for place, name in enumerate(files, 1)]
    number = categories[-1]["id"]
    boxes = [
        {"id": one["id"], "image_id": one["id"], "category_id": number, "bbox": [10, 20, 40, 40], "iscrowd": 0}
        for one in images
    ]
    write(path, json.dumps({"info": {}, "images": images, "annotations": boxes, "categories": categories}))


ROW = "0 0.3 0.5 0.4 0.5\n"
"""The same box in a row of YOLO's."""


# ---- exports: each builds a tree and returns (kind, the names of its parts, a word of the evidence)

Export = Callable[[Path], tuple[str, list[str], str]]


def roboflow_voc(root: Path) -> tuple[str, list[str], str]:
    for part in PARTS:
        photo(root / part / f"{part}_jpg.rf.1.jpg")
        xml(root / part / f"{part}_jpg.rf.1.xml")
    write(root / "README.roboflow.txt", "x")
    return (
        "voc",
        ["train", "val", "test"],
        "PASCAL VOC: 3 XML files in test, train, valid, splits train, valid and test",
    )


def roboflow_coco(root: Path) -> tuple[str, list[str], str]:
    heads = ({"id": 0, "name": "cells", "supercategory": "none"}, {"id": 1, "name": "cell", "supercategory": "cells"})
    for part in PARTS:
        photo(root / part / f"{part}.jpg")
        coco(root / part / "_annotations.coco.json", f"{part}.jpg", categories=heads)
    return "coco", ["train", "val", "test"], "splits train, valid and test"


def roboflow_yolo(root: Path) -> tuple[str, list[str], str]:
    for part in PARTS:
        photo(root / part / f"images/{part}.jpg")
        write(root / part / f"labels/{part}.txt", ROW)
    write(
        root / "data.yaml",
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 1\nnames: ['cell']\n",
    )
    write(root / "README.dataset.txt", "x")
    return "yolo", ["train", "val", "test"], "YOLO: data.yaml with 1 class, splits train, val and test"


def cvat_voc(root: Path) -> tuple[str, list[str], str]:
    photo(root / "JPEGImages/a.jpg")
    xml(root / "Annotations/a.xml")
    write(root / "ImageSets/Main/default.txt", "a\n")
    write(root / "labelmap.txt", "# label:color_rgb:parts:actions\ncell:::\n")
    return "voc", ["default"], "PASCAL VOC: 1 XML file in Annotations, split default"


def cvat_coco(root: Path) -> tuple[str, list[str], str]:
    photo(root / "images/default/a.jpg")
    coco(root / "annotations/instances_default.json", "a.jpg")
    return "coco", [""], "COCO: annotations in annotations/instances_default.json, no splits"


def cvat_yolo(root: Path) -> tuple[str, list[str], str]:
    photo(root / "images/train/a.jpg")
    write(root / "labels/train/a.txt", ROW)
    write(root / "train.txt", "data/images/train/a.jpg\n")
    write(root / "data.yaml", "names:\n  0: cell\npath: .\ntrain: train.txt\n")
    return "yolo", ["train"], "YOLO: data.yaml with 1 class, split train"


def cvat_darknet(root: Path) -> tuple[str, list[str], str]:
    photo(root / "obj_train_data/a.jpg")
    write(root / "obj_train_data/a.txt", ROW)
    write(root / "train.txt", "data/obj_train_data/a.jpg\n")
    write(root / "obj.names", "cell\n")
    write(root / "obj.data", "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    return "yolo", ["train"], "YOLO: 1 label file for 1 images, split train"


def label_studio_coco(root: Path) -> tuple[str, list[str], str]:
    photo(root / "images/0a1b2c-a.jpg")
    coco(root / "result.json", "images\\0a1b2c-a.jpg", categories=({"id": 0, "name": "cell"},))
    return "coco", [""], "COCO: annotations in result.json, no splits"


def label_studio_yolo(root: Path) -> tuple[str, list[str], str]:
    photo(root / "images/0a1b2c-a.jpg")
    write(root / "labels/0a1b2c-a.txt", ROW)
    write(root / "classes.txt", "cell\n")
    write(root / "notes.json", '{"categories": [{"id": 0, "name": "cell"}], "info": {"year": 2026}}')
    return "yolo", [""], "YOLO: 1 label file for 1 images, no splits"


def label_studio_voc(root: Path) -> tuple[str, list[str], str]:
    photo(root / "images/a.jpg")
    xml(root / "Annotations/a.xml")
    return "voc", [""], "PASCAL VOC: 1 XML file in Annotations, no splits"


def label_img(root: Path) -> tuple[str, list[str], str]:
    photo(root / "a.jpg")
    xml(root / "a.xml")
    return "voc", [""], "PASCAL VOC: 1 XML file in the folder itself, no splits"


def label_img_yolo(root: Path) -> tuple[str, list[str], str]:
    photo(root / "a.jpg")
    write(root / "a.txt", ROW)
    write(root / "classes.txt", "cell\n")
    return "yolo", [""], "YOLO: 1 label file for 1 images, no splits"


def labelme(root: Path) -> tuple[str, list[str], str]:
    photo(root / "a.jpg")
    shape = {"label": "cell", "points": [[10, 20], [50, 60]], "shape_type": "rectangle", "flags": {}}
    content = {"version": "5.5.0", "flags": {}, "shapes": [shape], "imagePath": "a.jpg", "imageData": None}
    write(root / "a.json", json.dumps({**content, "imageHeight": 80, "imageWidth": 100}))
    return "labelme", [""], "labelme: 1 JSON file in the folder itself, no splits"


def official_coco(root: Path) -> tuple[str, list[str], str]:
    for split in ("train2017", "val2017"):
        photo(root / split / "000000000009.jpg")
        coco(root / f"annotations/instances_{split}.json", "000000000009.jpg")
        write(root / f"annotations/captions_{split}.json", '{"images": [], "annotations": []}')
        coco(root / f"annotations/person_keypoints_{split}.json", "000000000009.jpg")
    return "coco", ["train2017", "val2017"], "splits train2017 and val2017"


def one_file_a_split(root: Path) -> tuple[str, list[str], str]:
    for split in ("train", "val"):
        photo(root / f"images/{split}/a.jpg")
        coco(root / f"{split}.json", "a.jpg")
    return "coco", ["train", "val"], "COCO: annotations in train.json, val.json, splits train and val"


EXPORTS: list[Export] = [
    roboflow_voc,
    roboflow_coco,
    roboflow_yolo,
    cvat_voc,
    cvat_coco,
    cvat_yolo,
    cvat_darknet,
    label_studio_coco,
    label_studio_yolo,
    label_studio_voc,
    label_img,
    label_img_yolo,
    labelme,
    official_coco,
    one_file_a_split,
]


@pytest.mark.parametrize("export", EXPORTS)
def test_exports(tmp_path: Path, export: Export, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "ein Datensatz"
    kind, parts, evidence = export(root)
    layout = recognise(root)
    assert (layout.kind, layout.root, list(layout.parts)) == (kind, root, parts)
    assert layout.evidence.endswith(evidence)
    for name, config in layout.parts.items():
        assert config.kind.name == kind
        dataset = open_dataset(config)
        (record,) = dataset.records
        np.testing.assert_allclose(record.boxes, [[10, 20, 50, 60]])
        assert dataset.classes.names[int(record.labels[0])] == "cell"
        assert record.path.is_file()
        with caplog.at_level(logging.INFO):
            caplog.clear()
            auto = DataConfig(DatasetKind.auto, str(root), name)
            assert resolved(auto) == config
        (line,) = caplog.messages
        assert line.startswith(f"{root}: {layout.evidence}")
        assert open_dataset(auto).records[0].image_id == record.image_id
        np.testing.assert_allclose(read_truth(auto).areas, [1600 if kind != "voc" else 40 * 40])


def test_roboflows_heading_is_no_class(tmp_path: Path) -> None:
    roboflow_coco(tmp_path)
    dataset = open_dataset(DataConfig(DatasetKind.auto, str(tmp_path), "train"))
    assert (dataset.classes.names, dataset.classes.ids) == (("cell",), (1,))
    assert dataset.warnings == (
        "classes are only the heading over all others, as Roboflow writes it, and were left out: 1 (first: cells)",
    )


# ---- one folder a class


@pytest.mark.parametrize("parts", [(), ("train", "val")])
def test_one_folder_a_class(tmp_path: Path, parts: tuple[str, ...], caplog: pytest.LogCaptureFixture) -> None:
    for part in parts or ("",):
        for name in ("cat", "dog", "train"):  # a class may be called as a part is
            photo(tmp_path / part / name / "a.jpg")
    layout = recognise(tmp_path)
    end = ", splits train and val" if parts else ""
    images = 3 * max(1, len(parts))
    assert layout == Layout(
        "folder", tmp_path, {}, f"one folder a class: 3 classes (cat, dog, train), {images} images{end}"
    )
    config = ImagesConfig(str(tmp_path), ImagesKind.auto, parts[-1] if parts else "")
    with caplog.at_level(logging.INFO):
        found = resolved_images(config)
    assert (found.kind, found.split) == (ImagesKind.folder, config.split)
    assert layout.evidence in caplog.text
    assert open_images(config).classes == ("cat", "dog", "train")
    with pytest.raises(DataError, match=r"one folder a class: .*no boxes, which detection needs"):
        open_dataset(DataConfig(DatasetKind.auto, str(tmp_path)))


def test_images_cut_from_any_kind(tmp_path: Path) -> None:
    roboflow_yolo(tmp_path)
    found = open_images(ImagesConfig(str(tmp_path), ImagesKind.auto, "val", context=0))
    assert found.classes == ("cell",)
    assert found.boxes is not None
    np.testing.assert_allclose(found.boxes, [[10, 20, 50, 60]])
    explicit = open_images(ImagesConfig(str(tmp_path), ImagesKind.yolo, "val", context=0))
    assert explicit.boxes is not None
    assert explicit.boxes.tolist() == found.boxes.tolist()


def test_a_part_of_folders_that_is_not_there(tmp_path: Path) -> None:
    for part in ("train", "validation"):
        for name in ("cat", "dog"):
            photo(tmp_path / part / name / "a.jpg")
    assert resolved_images(ImagesConfig(str(tmp_path), ImagesKind.auto, "val")).split == "validation"
    with pytest.raises(DataError, match=r"no split 'test' .*there are: train, validation"):
        open_images(ImagesConfig(str(tmp_path), ImagesKind.auto, "test"))


# ---- splits


def test_splits_of_auto(tmp_path: Path) -> None:
    roboflow_voc(tmp_path)
    auto = DataConfig(DatasetKind.auto, str(tmp_path))
    with pytest.raises(DataError, match=r"data.split is empty, and .* has the splits train, val, test; set data.split"):
        open_dataset(auto)
    with pytest.raises(DataError, match=r"no split 'tset' in .*there are: test, train, valid"):
        open_dataset(DataConfig(DatasetKind.auto, str(tmp_path), "tset"))
    chosen = tmp_path / "chosen.txt"
    chosen.write_text("valid_jpg.rf.1\ntrain_jpg.rf.1.jpg\n")
    dataset = open_dataset(DataConfig(DatasetKind.auto, str(tmp_path), image_list=str(chosen)))
    assert [record.image_id for record in dataset.records] == ["train/train_jpg.rf.1", "valid/valid_jpg.rf.1"]


def test_splits_of_coco(tmp_path: Path) -> None:
    roboflow_coco(tmp_path)
    with pytest.raises(DataError, match=r"no split 'tset' in .*; there are: train, val, test"):
        open_dataset(DataConfig(DatasetKind.auto, str(tmp_path), "tset"))
    with pytest.raises(DataError, match=r"data.split is empty, and .* has the splits train, val, test"):
        open_dataset(DataConfig(DatasetKind.auto, str(tmp_path)))


def test_a_split_of_a_folder_without_parts(tmp_path: Path) -> None:
    for export in (label_img, label_studio_coco, labelme, label_img_yolo):
        root = tmp_path / export.__name__
        export(root)
        with pytest.raises(DataError, match=r"no split 'train' in .*leave data.split empty"):
            open_dataset(DataConfig(DatasetKind.auto, str(root), "train"))


def test_stated_annotations_are_coco(tmp_path: Path) -> None:
    one_file_a_split(tmp_path)
    xml(tmp_path / "other.xml")
    config = DataConfig(DatasetKind.auto, str(tmp_path), annotations="val.json", images="images/val")
    assert open_dataset(config).records[0].path == tmp_path / "images/val/a.jpg"


def test_foreign_settings_are_refused_once_the_kind_is_known(tmp_path: Path) -> None:
    label_img(tmp_path)
    with pytest.raises(DataError, match=r"data.boxes_per_class is a setting of data.kind=ilsvrc; .*data.kind=voc"):
        open_dataset(DataConfig(DatasetKind.auto, str(tmp_path), boxes_per_class=3))
    labelme(tmp_path / "other")
    with pytest.raises(DataError, match=r"data.one_based is a setting of data.kind=voc; .*data.kind=labelme"):
        open_dataset(DataConfig(DatasetKind.auto, str(tmp_path / "other"), one_based=False))
    (tmp_path / "a.xml").unlink()
    label_studio_coco(tmp_path / "third")
    with pytest.raises(DataError, match=r"data.classes is a setting of data.kind=voc, yolo, labelme; .*data.kind=coco"):
        open_dataset(DataConfig(DatasetKind.auto, str(tmp_path / "third"), classes=["a"]))


def test_ilsvrc(tmp_path: Path) -> None:
    write(tmp_path / "ImageSets/DET/val.txt", "v_1 1\n")
    write(tmp_path / "ImageSets/DET/train_1.txt", "t_1 1\n")
    photo(tmp_path / "Data/DET/val/v_1.JPEG")
    xml(tmp_path / "Annotations/DET/val/v_1.xml", "n02391049")
    layout = recognise(tmp_path)
    assert (layout.kind, list(layout.parts)) == ("ilsvrc", ["val", "val1", "val2"])
    assert layout.evidence == "ILSVRC DET: ImageSets/DET, splits val, val1 and val2"
    assert len(open_dataset(layout.parts["val"])) == 1
    assert len(open_dataset(DataConfig(DatasetKind.auto, str(tmp_path), "val"))) == 1


# ---- refusals


@pytest.mark.parametrize(
    ("first", "second", "kinds"),
    [
        (label_img, labelme, ["voc", "labelme"]),
        (cvat_voc, label_studio_yolo, ["voc", "yolo"]),
        (label_studio_coco, label_img_yolo, ["coco", "yolo"]),
        (cvat_coco, roboflow_yolo, ["coco", "yolo"]),
    ],
)
def test_two_layouts_at_once(tmp_path: Path, first: Export, second: Export, kinds: list[str]) -> None:
    first(tmp_path)
    second(tmp_path)
    with pytest.raises(DataError) as caught:
        recognise(tmp_path)
    head, *lines = str(caught.value).splitlines()
    assert head == f"{tmp_path} may be read in 2 ways; say in which:"
    assert [line.split()[0] for line in lines] == [f"data.kind={kind}" for kind in kinds]


def test_two_coco_files_of_one_split(tmp_path: Path) -> None:
    for name in ("train_a.json", "train_b.json"):
        coco(tmp_path / name, "a.jpg")
    with pytest.raises(
        DataError, match=r"train_a.json and .*train_b.json may both be the annotations; set data.annotations"
    ):
        recognise(tmp_path)


def test_nothing(tmp_path: Path) -> None:
    def message() -> str:
        with pytest.raises(DataError) as caught:
            recognise(tmp_path)
        return str(caught.value)

    first = message()
    assert first.startswith(f"{tmp_path}: no data set is recognised; it holds no files. Looked for:\n")
    for word in ("PASCAL VOC: ", "COCO: ", "YOLO: ", "labelme: ", "ILSVRC: ", "a folder of images a class"):
        assert word in first
    photo(tmp_path / "a.jpg")
    assert message().endswith("images without labels; label them first, for instance with labelme or CVAT")
    write(tmp_path / "a.txt", "a photo of a cat\n")
    write(tmp_path / "notes.json", "{}")
    assert "it holds 1 images, 1 .txt, 1 .json." in message()
    write(tmp_path / "annotations.xml", "<?xml version='1.0'?><annotations><version>1.1</version></annotations>")
    assert "CVAT's own format: export the task as COCO 1.0" in message()
    with pytest.raises(DataError, match="no data set folder"):
        recognise(tmp_path / "gone")


def test_a_malformed_data_yaml_is_named(tmp_path: Path) -> None:
    roboflow_yolo(tmp_path)
    write(tmp_path / "data.yaml", "names: [cell\n")
    with pytest.raises(DataError, match=r"data.yaml, line 2: malformed YAML"):
        recognise(tmp_path)


# ---- real data


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "kind", "evidence"),
    [
        ("bccd", "voc", "PASCAL VOC: 364 XML files in Annotations, splits train, val, test and trainval"),
        ("coco-sample", "coco", "COCO: annotations in instances.json, no splits"),
    ],
)
def test_real_folders(data_dir: Path, name: str, kind: str, evidence: str) -> None:
    layout = recognise(data_dir / name)
    assert (layout.kind, layout.evidence) == (kind, evidence)
    assert all(len(open_dataset(config)) for config in layout.parts.values())


# ---- a run


def test_a_training_states_the_kind_that_it_saw(
    shapes: Path,
    toy_checkpoint: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Two batches on XML and YOLO's text at once, from auto to the written config, which a resumed run agrees with."""
    boxes = tmp_path / "boxes"
    photo(boxes / "images/a.jpg")
    write(boxes / "labels/a.txt", "1 0.3 0.5 0.4 0.5\n0 0.7 0.5 0.3 0.5\n")
    write(boxes / "classes.txt", "square\ndisc\n")
    settings = {
        "name": "toy",
        "precision": "float32",
        "init": str(toy_checkpoint),
        "train": [{"kind": "auto", "root": str(shapes), "split": "train"}, {"kind": "auto", "root": str(boxes)}],
        "val": {"kind": "auto", "root": str(shapes), "split": "val"},
        "proposals": {"width": 0, "min_width": 8},
        "regions": {"size": 64, "context": 4},
        "linear_batches": 0,
        "regression_windows": 0,
        "epochs": 1,
        "batches_per_epoch": 1,
        "batch": 8,
        "foreground": 3,
        "warmup": 1,
        "val_batches": 1,
        "workers": 0,
        "cache": str(tmp_path / "cache"),
    }
    run = runner(settings, tmp_path_factory)
    with caplog.at_level(logging.INFO):
        folder = run()
    seen = [line for line in caplog.messages if "PASCAL VOC: 7 XML files" in line or "YOLO: 1 label file" in line]
    assert [line.rpartition("; ")[2] for line in seen] == [
        "reading train",
        f"{boxes}: YOLO: 1 label file for 1 images, no splits",
        "reading val",
    ]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert [part["kind"] for part in (*config["train"], config["val"])] == ["voc", "yolo", "voc"]
    assert load_checkpoint(folder / "best.safetensors").classes.names == ("disc", "square")
    run(folder.parent.parent, resume=True)
