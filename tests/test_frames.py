"""Photographs of another size than their annotation states, and stated sizes that are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray
from PIL.ExifTags import Base as ExifTag

from detector.data import DataConfig, DataError, DatasetKind, open_dataset
from detector.data.dataset import SizeMismatch
from detector.data.frames import turned
from detector.data.image import read_image
from detector.data.labelled_images import ImagesConfig, ImagesKind, open_images
from detector.data.voc import read_voc
from detector.evaluation.protocols import evaluate_voc
from detector.evaluation.reading import read_results
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import HALF_OPEN, Truth, convert
from detector.evaluation.truth_files import read_coco_truth, read_truth, read_voc_truth

WIDTH, HEIGHT = 60, 40
BOX = (7, 5, 31, 13)  # x1, y1, x2, y2 of what is drawn, far edge exclusive
BLUE = (20, 30, 230)


def photograph(path: Path, orientation: int = 1, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    """A grey picture with a blue box, stored as it is drawn, with a note of how to turn it."""
    pixels = np.full((size[1], size[0], 3), 120, np.uint8)
    pixels[BOX[1] : BOX[3], BOX[0] : BOX[2]] = BLUE
    exif = PIL.Image.Exif()
    exif[ExifTag.Orientation] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path, exif=exif)


def blue_box(image: NDArray[np.uint8]) -> list[int]:
    """Where the blue is: the slow, obvious way to turn a box."""
    rows, columns = np.nonzero((image == BLUE).all(axis=2))
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def annotation(size: tuple[object, object] | None = (WIDTH, HEIGHT), box: tuple[int, ...] = BOX) -> str:
    stated = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    corners = zip(("xmin", "ymin", "xmax", "ymax"), (box[0] + 1, box[1] + 1, box[2], box[3]), strict=True)
    box_text = "".join(f"<{key}>{value}</{key}>" for key, value in corners)
    return f"<annotation>{stated}<object><name>cat</name><bndbox>{box_text}</bndbox></object></annotation>"


def tree(root: Path, images: dict[str, tuple[int, tuple[int, int], str]]) -> Path:
    """A VOC tree of name -> (orientation, size as stored, XML)."""
    for folder in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "ImageSets/Main/test.txt").write_text("".join(f"{name}\n" for name in images))
    for name, (orientation, size, text) in images.items():
        photograph(root / f"JPEGImages/{name}.png", orientation, size)
        (root / f"Annotations/{name}.xml").write_text(text)
    return root


def config(root: Path, mode: str = "error") -> DataConfig:
    return DataConfig(DatasetKind.voc, str(root), "test", classes=["cat"], size_mismatch=SizeMismatch[mode])


OWN = (1, (WIDTH, HEIGHT), annotation())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_as_the_loader_turns_the_photograph(tmp_path: Path, orientation: int) -> None:
    photograph(tmp_path / "a.png", orientation)
    box = turned(np.array([BOX], np.float64), (WIDTH, HEIGHT), orientation)
    assert box.tolist() == [blue_box(read_image(tmp_path / "a.png"))]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_photograph_that_exif_turns_is_an_error_or_turned(tmp_path: Path, orientation: int) -> None:
    root = tree(tmp_path / "t", {"own": OWN, "turned": (orientation, (WIDTH, HEIGHT), annotation())})
    with pytest.raises(
        DataError, match=r"1 of 2 images(.|\n)*turned\.png(.|\n)*40 x 60(.|\n)*60 x 40(.|\n)*EXIF(.|\n)*=turn"
    ):
        open_dataset(config(root))
    dataset = open_dataset(config(root, "turn"))
    record = dataset.records[1]
    assert record.boxes.tolist() == [blue_box(record.read())]
    assert (record.width, record.height) == (HEIGHT, WIDTH)
    assert any("turned" in line and ": 1 (first: turned.png)" in line for line in dataset.warnings)
    truth = read_truth(config(root, "turn"))
    assert convert(truth.boxes, truth.convention, HALF_OPEN)[1].tolist() == record.boxes[0].tolist()
    assert truth.sizes.tolist() == [[WIDTH, HEIGHT], [HEIGHT, WIDTH]]


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_photographs_turned_within_their_size_follow_the_others(tmp_path: Path, orientation: int) -> None:
    """Their size tells nothing; where other photographs were labelled unturned, so were they."""
    alike = (orientation, (WIDTH, HEIGHT), annotation())
    sideways = (6, (WIDTH, HEIGHT), annotation())
    dataset = open_dataset(config(tree(tmp_path / "with", {"a": alike, "b": sideways}), "turn"))
    assert [record.boxes.tolist()[0] for record in dataset.records] == [blue_box(r.read()) for r in dataset.records]
    upright = (6, (WIDTH, HEIGHT), annotation((HEIGHT, WIDTH)))
    for name, images in (("alone", {"a": alike}), ("upright", {"a": alike, "b": sideways, "c": upright})):
        assert open_dataset(config(tree(tmp_path / name, images), "turn")).records[0].boxes.tolist() == [list(BOX)]


def test_a_resized_photograph_is_an_error_or_left_out(tmp_path: Path) -> None:
    resized = (1, (WIDTH, HEIGHT), annotation((2 * WIDTH, 2 * HEIGHT)))
    root = tree(tmp_path / "t", {"own": OWN, "resized": resized})
    for mode in ("error", "turn"):
        with pytest.raises(DataError, match=r"1 of 2 images(.|\n)*resized\.png(.|\n)*resized(.|\n)*size_mismatch=skip"):
            open_dataset(config(root, mode))
    dataset = open_dataset(config(root, "skip"))
    assert [record.image_id for record in dataset.records] == ["own"]
    assert sum("1 (first: resized.png)" in line for line in dataset.warnings) == 1
    assert read_truth(config(root, "skip")).image_ids == ("own",)  # the score counts the same images
    assert read_truth(config(root)).image_ids == ("own", "resized")  # scoring reads no photograph
    only = tree(tmp_path / "only", {"resized": resized})
    with pytest.raises(DataError, match="none is left"):
        open_dataset(config(only, "skip"))
    (root / "JPEGImages/resized.png").unlink()
    truth = read_truth(config(root, "skip"))
    assert truth.image_ids == ("own", "resized")
    assert any("1 of 2 " in line and "size_mismatch=skip" in line for line in truth.warnings)


def test_objects_that_are_classified_as_wholes_come_from_the_same_images(tmp_path: Path) -> None:
    root = tree(tmp_path, {"own": OWN, "turned": (6, (WIDTH, HEIGHT), annotation())})
    settings = {"root": str(root), "kind": ImagesKind.voc, "split": "test", "classes": ["cat"], "min_side": 1.0}
    with pytest.raises(DataError, match=r"turned\.png"):
        open_images(ImagesConfig(**settings))
    images = open_images(ImagesConfig(**settings, size_mismatch=SizeMismatch.skip))
    assert [path.stem for path in images.paths] == ["own"]
    assert any("1 (first: turned.png)" in line for line in images.warnings)
    images = open_images(ImagesConfig(**settings, size_mismatch=SizeMismatch.turn, context=0.0))
    assert all((images.read(index) == BLUE).all() for index in range(2))
    with pytest.raises(ValueError, match="size_mismatch"):
        ImagesConfig("x", size_mismatch=SizeMismatch.skip)


def test_a_part_of_the_truth_keeps_what_belongs_together(tmp_path: Path) -> None:
    images = {name: (1, (WIDTH, HEIGHT), annotation()) for name in "abcd"}
    images["b"] = (1, (WIDTH, HEIGHT), annotation((90, 90)))
    truth = read_truth(config(tree(tmp_path, images), "skip"))
    assert truth.image_ids == ("a", "c", "d")
    assert truth.image_index.tolist() == [0, 1, 2]
    assert [path.stem for path in truth.paths] == ["a", "c", "d"]


def test_a_record_read_without_open_dataset_says_so_too(tmp_path: Path) -> None:
    root = tree(tmp_path, {"a": (6, (WIDTH, HEIGHT), annotation())})
    with pytest.raises(DataError, match=r"a\.png: is 40 x 60 and its annotation states 60 x 40"):
        read_voc(root, "test", class_names=["cat"]).records[0].read()


def test_the_same_of_coco(tmp_path: Path) -> None:
    photograph(tmp_path / "images/a.png", 6)
    photograph(tmp_path / "images/b.png")
    box = [BOX[0], BOX[1], BOX[2] - BOX[0], BOX[3] - BOX[1]]
    content = {
        "images": [{"id": i, "file_name": f"{n}.png", "width": WIDTH, "height": HEIGHT} for i, n in enumerate("ab")],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": i + 1, "image_id": i, "category_id": 1, "bbox": box, "iscrowd": 0} for i in range(2)],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    for mode, wanted in (("skip", ["1"]), ("turn", ["0", "1"])):
        data = DataConfig(
            DatasetKind.coco, str(tmp_path), annotations="a.json", images="images", size_mismatch=SizeMismatch[mode]
        )
        dataset, truth = open_dataset(data), read_truth(data)
        assert [record.image_id for record in dataset.records] == list(truth.image_ids) == wanted
        for record, box_ in zip(dataset.records, truth.boxes, strict=True):
            assert record.boxes.tolist() == [blue_box(record.read())] == [box_.tolist()]
    with pytest.raises(DataError, match=r"a\.png"):
        open_dataset(DataConfig(DatasetKind.coco, str(tmp_path), annotations="a.json", images="images"))


# ---- the statement itself is wrong


@pytest.mark.parametrize(
    "size", [(HEIGHT, 20), (0, 0), ("", ""), ("wide", HEIGHT), (-5, HEIGHT), ("nan", "inf"), ("1e30", HEIGHT), None]
)
def test_a_wrong_statement_gives_way_to_the_photograph(tmp_path: Path, size: tuple[object, object] | None) -> None:
    """Its own objects lie outside it, or it is no size."""
    box = (7, 5, 55, 35)
    root = tree(tmp_path, {"a": (1, (WIDTH, HEIGHT), annotation(size, box))})
    record = open_dataset(config(root)).records[0]
    assert (record.width, record.height) == (WIDTH, HEIGHT)
    assert record.boxes.tolist() == [list(box)]


def test_sides_that_are_exchanged_throughout(tmp_path: Path) -> None:
    """The objects of one image show it; the other's would fit either way."""
    wide = (1, (WIDTH, HEIGHT), annotation((HEIGHT, WIDTH), (7, 5, 55, 35)))
    alike = (1, (WIDTH, HEIGHT), annotation((HEIGHT, WIDTH)))
    for mode in ("error", "skip", "turn"):
        data = config(tree(tmp_path / mode, {"a": alike, "b": wide}), mode)
        dataset = open_dataset(data)
        assert [(record.width, record.height) for record in dataset.records] == [(WIDTH, HEIGHT)] * 2
        assert dataset.records[0].boxes.tolist() == [list(BOX)]
        assert dataset.records[0].read().shape == (HEIGHT, WIDTH, 3)
        assert read_truth(data).sizes.tolist() == ([[0, 0]] * 2 if mode == "error" else [[WIDTH, HEIGHT]] * 2)
    with pytest.raises(DataError, match=r"a\.png(.|\n)*swapped"):  # alone it might as well have been turned
        open_dataset(config(tree(tmp_path / "alone", {"a": alike})))


def swapped(count: int) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """COCO images whose sides are exchanged: 300 x 500, and the objects of half of them end at 480."""
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 300, "height": 500} for i in range(1, count + 1)]
    objects = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": [20 + 200 * (i % 2), 10, 260, 200], "area": 1, "iscrowd": 0}
        for i in range(1, count + 1)
    ]
    return images, objects


def test_detections_are_not_judged_by_sizes_that_do_not_hold_the_objects(tmp_path: Path) -> None:
    images, objects = swapped(10)
    content = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "gt.json").write_text(json.dumps(content))
    truth = read_coco_truth(tmp_path / "gt.json")
    assert (truth.sizes == 0).all()  # half of them are wrong: the others are no better
    assert sum(": 5 (first: 1)" in line for line in truth.warnings) == 1
    found = [{**{k: o[k] for k in ("image_id", "category_id", "bbox")}, "score": 0.9} for o in objects]
    (tmp_path / "det.json").write_text(json.dumps(found))
    assert evaluate_voc(truth, read_results(tmp_path / "det.json", truth).table).mean_ap == 1


def test_one_wrong_size_of_many_is_one(tmp_path: Path) -> None:
    names = [f"i{i:02}" for i in range(30)]
    (tmp_path / "list.txt").write_text("\n".join(names))
    for name in names:
        (tmp_path / f"{name}.xml").write_text(annotation((WIDTH, HEIGHT) if name != "i07" else (20, 10)))
    truth = read_voc_truth(tmp_path, tmp_path / "list.txt", ["cat"])
    assert np.flatnonzero((truth.sizes == 0).any(axis=1)).tolist() == [7]
    assert truth.sizes[8].tolist() == [WIDTH, HEIGHT]


def score(truth: Truth) -> float:
    table = DetectionTable(truth.image_index, truth.labels, np.ones(len(truth.labels)), truth.boxes, truth.convention)
    return evaluate_voc(truth, table).mean_ap


@pytest.mark.parametrize(
    ("changes", "sizes"),
    [
        ({}, [[300, 500]]),
        ({"width": "300", "height": "500"}, [[300, 500]]),
        ({"width": 300.0, "height": "500.0"}, [[300, 500]]),
        ({"width": None}, [[0, 0]]),
        ({"width": 0, "height": 0}, [[0, 0]]),
        ({"width": "wide"}, [[0, 0]]),
        ({"width": -300}, [[0, 0]]),
        ({"width": 1e30}, [[0, 0]]),
        ({"width": "nan"}, [[0, 0]]),
        ({"width": ..., "height": ...}, [[0, 0]]),
        ({"width": ..., "height": ..., "file_name": ...}, [[0, 0]]),
        ({"file_name": None}, [[300, 500]]),
    ],
)
def test_coco_is_scored_without_what_it_does_not_state(
    tmp_path: Path, changes: dict[str, object], sizes: object
) -> None:
    """As pycocotools, which asks for neither size nor file name; `...` takes the field away."""
    image = {"id": 1, "file_name": "1.jpg", "width": 300, "height": 500} | changes
    image = {key: value for key, value in image.items() if value is not ...}
    objects = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 20, 100, 100], "area": 1, "iscrowd": 0}]
    content = {"images": [image], "annotations": objects, "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "gt.json").write_text(json.dumps(content))
    truth = read_coco_truth(tmp_path / "gt.json")
    assert truth.sizes.tolist() == sizes
    assert score(truth) == 1
    for name in ("width", "height", "file_name"):
        if not isinstance(changes.get(name, ""), str | float):  # training needs them
            with pytest.raises(DataError, match="1"):
                open_dataset(DataConfig(DatasetKind.coco, str(tmp_path), annotations="gt.json", images="."))
