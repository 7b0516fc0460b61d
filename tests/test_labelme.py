"""labelme's JSON files, written here as labelme writes them: shapes, images, flags, what is left out, and refusals."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from detector.data.dataset import DataConfig, DatasetKind, open_dataset
from detector.data.ground_truth import DataError
from detector.data.labelme import read_labelme
from detector.evaluation.truth_files import read_truth


def photo(path: Path, size: tuple[int, int] = (200, 100)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", size, (90, 120, 30)).save(path)


def shape(label: Any, points: Any, kind: str | None = "rectangle", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **more}


def label(path: Path, *shapes: Any, image: str | None = None, size: tuple[Any, Any] = (200, 100), **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "version": "5.5.0",
        "flags": {},
        "shapes": list(shapes),
        "imagePath": image if image is not None else f"{path.stem}.jpg",
        "imageData": None,
        "imageHeight": size[1],
        "imageWidth": size[0],
        **more,
    }
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def folder(root: Path, *shapes: Any, **more: Any) -> Path:
    photo(root / "a.jpg")
    label(root / "a.json", *shapes, **more)
    return root


BOX = shape("cat", [[10, 20], [60, 50]])


def refusal(root: Path, split: str = "", **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_labelme(root, split, **options)
    return str(caught.value)


# ---- shapes


def test_rectangles(tmp_path: Path) -> None:
    shapes = (
        shape("dog", [[60.5, 50.25], [10, 20]]),
        shape(" cat ", [[10, 50], [60, 20]]),
        shape("cat", [[0, 0], [200, 100]]),
    )
    dataset = read_labelme(folder(tmp_path / "pets", *shapes))
    (record,) = dataset.records
    assert record.boxes.tolist() == [[10, 20, 60.5, 50.25], [10, 20, 60, 50], [0, 0, 200, 100]]
    assert record.labels.tolist() == [1, 0, 0]
    assert (record.image_id, record.width, record.height) == ("a", 200, 100)
    assert record.path == tmp_path / "pets/a.jpg"
    assert (dataset.name, dataset.warnings) == ("pets", ())
    assert (dataset.classes.names, dataset.classes.ids) == (("cat", "dog"), (1, 2))


@pytest.mark.parametrize("seed", range(5))
def test_shapes_give_the_box_around_them(tmp_path: Path, seed: int) -> None:
    """A slow minimum over points on the outline."""
    generator = np.random.default_rng(seed)
    ring = generator.uniform(30, 70, (7, 2))
    centre, rim = generator.uniform(40, 60, (2, 2))
    radius = math.dist(centre, rim)
    outline = np.array(
        [
            (centre[0] + radius * math.cos(turn), centre[1] + radius * math.sin(turn))
            for turn in np.linspace(0, 2 * math.pi, 100_001)
        ]
    )
    shapes = [
        shape("x", ring.tolist(), "polygon"),
        shape("x", ring.tolist(), None),
        shape("x", [centre.tolist(), rim.tolist()], "circle"),
    ]
    dataset = read_labelme(folder(tmp_path, *shapes))
    expected = [[*points.min(axis=0), *points.max(axis=0)] for points in (ring, ring, outline)]
    np.testing.assert_allclose(dataset.records[0].boxes, expected, atol=1e-6)
    assert dataset.warnings == (
        "polygons, circles and masks were replaced by the boxes around them: 3 (first: a.json)",
    )


@pytest.mark.parametrize("kind", ["point", "line", "linestrip", "points"])
def test_other_shapes_are_left_out_and_counted(tmp_path: Path, kind: str) -> None:
    points = [[5, 5]] if kind == "point" else [[5, 5], [9, 9]]
    dataset = read_labelme(folder(tmp_path, BOX, shape("spot", points, kind)))
    assert dataset.records[0].boxes.tolist() == [[10, 20, 60, 50]]
    assert dataset.classes.names == ("cat",)
    assert dataset.warnings == ("shapes without a box (points, lines) were left out: 1 (first: a.json)",)


def test_a_polygon_of_two_points_is_none(tmp_path: Path) -> None:
    dataset = read_labelme(folder(tmp_path, BOX, shape("cat", [[5, 5], [9, 9]], "polygon")))
    assert len(dataset.records[0].boxes) == 1


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"flags": {"difficult": True}}, True),
        ({"flags": {"difficult": False}}, False),
        ({"flags": {"occluded": True}}, False),
        ({"flags": None}, False),
        ({"difficult": True}, True),  # X-AnyLabeling's place
    ],
)
def test_difficult(tmp_path: Path, more: dict[str, Any], expected: bool) -> None:
    dataset = read_labelme(folder(tmp_path, {**BOX, **more}))
    assert dataset.records[0].difficult.tolist() == [expected]


def test_boxes_outside_are_cut_and_written_ones_are_scored(tmp_path: Path) -> None:
    root = folder(tmp_path, shape("cat", [[150, 20], [210, 50]]), shape("cat", [[1, 1], [1, 9]]))
    assert read_labelme(root).records[0].boxes.tolist() == [[150, 20, 200, 50]]
    truth = read_truth(DataConfig(DatasetKind.labelme, str(root)))
    assert truth.boxes.tolist() == [[150, 20, 210, 50], [1, 1, 1, 9]]
    assert not truth.numbered


# ---- files


def test_an_image_without_json_is_unlabelled_and_one_without_shapes_is_empty(tmp_path: Path) -> None:
    folder(tmp_path, BOX)
    photo(tmp_path / "b.jpg")
    photo(tmp_path / "c.jpg")
    label(tmp_path / "c.json")
    photo(tmp_path / "elsewhere/d.jpg")
    dataset = read_labelme(tmp_path)
    assert [(record.image_id, len(record.boxes)) for record in dataset.records] == [("a", 1), ("c", 0)]
    assert dataset.warnings == ("images have no JSON file, hence are unlabelled, and were left out: 1 (first: b.jpg)",)


@pytest.mark.parametrize(
    "path", ["../photos/a b.JPG", "..\\photos\\a b.JPG", "C:\\Users\\me\\a b.JPG", "/home/me/a b.JPG", ""]
)
def test_image_paths(tmp_path: Path, path: str) -> None:
    """Relative with either slash; a path of another machine by its name, where that lies beside the file."""
    near = not path or ":" in path or path.startswith("/")
    photo(tmp_path / ("labels" if near else "photos") / "a b.JPG")
    label(tmp_path / "labels/a b.json", BOX, image=path)
    (record,) = open_dataset(DataConfig(DatasetKind.labelme, str(tmp_path))).records
    assert record.path == tmp_path / ("labels" if near else "photos") / "a b.JPG"


def test_images_beside_the_folder_of_json(tmp_path: Path) -> None:
    photo(tmp_path / "images/a.png")
    label(tmp_path / "annotations/a.json", BOX, image="a.jpg")  # converted since
    (record,) = open_dataset(DataConfig(DatasetKind.labelme, str(tmp_path))).records
    assert record.path == tmp_path / "images/a.png"


def test_embedded_pixels_are_ignored_where_the_file_is_there_and_named_where_not(tmp_path: Path) -> None:
    root = folder(tmp_path, BOX)
    pixels = base64.b64encode((root / "a.jpg").read_bytes()).decode()
    label(root / "a.json", BOX, imageData=pixels)
    config = DataConfig(DatasetKind.labelme, str(root))
    assert open_dataset(config).warnings == ()
    for name in ("b", "c"):
        photo(root / f"{name}.jpg")
        label(root / f"{name}.json", BOX, imageData=pixels)
    (root / "a.jpg").unlink()
    embedded = (
        "image files are absent and only embedded in their JSON (imageData), which is not read: 1 (first: a.json)"
    )
    dataset = open_dataset(config)
    assert dataset.warnings[0] == embedded
    assert dataset.warnings[1].startswith(f"{root.name}: 1 of 3 images are not there (first: {root}/a.jpg)")
    for name in ("b", "c"):
        (root / f"{name}.jpg").unlink()
    with pytest.raises(DataError, match=f"all 3 images are not there .first: {root}/a.jpg"):
        open_dataset(config)


def test_sizes(tmp_path: Path) -> None:
    """The image file's where none is stated; another one than stated is refused as in other data sets."""
    root = folder(tmp_path, BOX, size=(None, None))
    (record,) = read_labelme(root).records
    assert (record.width, record.height) == (200, 100)
    label(root / "a.json", BOX, size=(400, 200))
    with pytest.raises(DataError, match="is 200 x 100 and its annotation states 400 x 200"):
        open_dataset(DataConfig(DatasetKind.labelme, str(root)))
    label(root / "a.json", BOX, size=(None, None))
    (root / "a.jpg").unlink()
    assert refusal(root).startswith(f"{root}/a.json: states no image size, and the image gives none: ")


def test_parts_are_folders_and_classes_those_of_all(tmp_path: Path) -> None:
    folder(tmp_path / "train", BOX)
    folder(tmp_path / "valid", shape("ant", [[1, 1], [9, 9]]))
    folder(tmp_path / "new", shape("bee", [[1, 1], [9, 9]]))
    for split, expected in (("train", 2), ("val", 0), ("valid", 0), ("new", 1)):
        dataset = read_labelme(tmp_path, split)
        assert dataset.classes.names == ("ant", "bee", "cat")
        assert [record.labels.tolist() for record in dataset.records] == [[expected]]
    assert [record.image_id for record in read_labelme(tmp_path).records] == ["new/a", "train/a", "valid/a"]
    assert "no split 'test' in " in refusal(tmp_path, "test")
    assert "there are: train, valid" in refusal(tmp_path, "test")


def test_stated_classes(tmp_path: Path) -> None:
    root = folder(tmp_path, BOX, shape("dog", [[1, 1], [9, 9]]))
    dataset = read_labelme(root, class_names=["dog", "cow", "cat"])
    assert (dataset.classes.names, dataset.records[0].labels.tolist()) == (("dog", "cow", "cat"), [2, 0])
    assert refusal(root, class_names=["cat"]) == (
        f"{root}/a.json: unknown class 'dog'; known: cat\n  to take all classes of this part:  data.classes=[cat,dog]"
    )
    assert refusal(root, class_names=["cat", "dog", "cat"]) == "class 'cat' is named twice; fix data.classes"


def test_other_json_is_left_out_and_counted(tmp_path: Path) -> None:
    folder(tmp_path, BOX)
    (tmp_path / "notes.json").write_text('{"shapes": 3}')
    (tmp_path / "results.json").write_text("[1, 2]")
    dataset = read_labelme(tmp_path)
    assert len(dataset) == 1
    assert dataset.warnings == ("JSON files are not labelme's and were left out: 2 (first: notes.json)",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"shapes": [],\n "imagePath" "a.jpg"}', ", line 2, column 14: malformed JSON (Expecting ':' delimiter)"),
        ("", ", line 1, column 1: malformed JSON (Expecting value)"),
        ('{"shapes": [7], "imagePath": "a.jpg"}', ": shape 1 is no object with label and points"),
    ],
)
def test_malformed_files(tmp_path: Path, content: str, message: str) -> None:
    root = folder(tmp_path)
    (root / "a.json").write_text(content)
    assert refusal(root) == f"{root}/a.json{message}"


def test_a_file_that_is_no_utf8(tmp_path: Path) -> None:
    root = folder(tmp_path)
    (root / "a.json").write_bytes(b'{"shapes": [], "imagePath": "\xff.jpg"}')
    assert refusal(root).startswith(f"{root}/a.json: cannot be read (")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (shape("", [[1, 1], [9, 9]]), "shape 2 has the label '', which names no class"),
        (shape(None, [[1, 1], [9, 9]]), "shape 2 has the label None, which names no class"),
        (shape("cat", [[1, 1], [9]]), "shape 2 (cat) has points [[1, 1], [9]], which are no pairs x, y"),
        (shape("cat", []), "shape 2 (cat) has points [], which are no pairs x, y"),
        (shape("cat", [[1, 1], ["a", 9]]), "shape 2 (cat) has points [[1, 1], ['a', 9]], which are no pairs x, y"),
        (shape("cat", [[1, 1], [9, 9]], "blob"), "shape 2 (cat) has the unknown shape_type 'blob'"),
        (
            shape("cat", [[1, 1], [9, 9]], flags={"difficult": "perhaps"}),
            "shape 2 (cat) has a flag 'difficult' that is neither true nor false",
        ),
    ],
)
def test_refused_shapes(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    root = folder(tmp_path, BOX, {**wrong})
    assert refusal(root) == f"{root}/a.json: {message}"


def test_refused_folders(tmp_path: Path) -> None:
    assert refusal(tmp_path).startswith(f"{tmp_path}: no JSON files of labelme's in it")
    root = folder(tmp_path, shape("spot", [[5, 5]], "point"))
    assert refusal(root) == f"{root}: no box, polygon or circle in any of its 1 JSON files"
