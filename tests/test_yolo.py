"""YOLO's text files: trees written here by the tools' documented layouts, boxes there and back, and every refusal."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from detector.data.dataset import DataConfig, DatasetKind, open_dataset
from detector.data.ground_truth import DataError, Dataset
from detector.data.yolo import read_yolo
from detector.doctor.images import read_facts
from detector.evaluation.truth_files import read_truth

NAMES = "names: [cat, dog, bird]\n"


def photo(path: Path, size: tuple[int, int] = (200, 100)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", size, (90, 120, 30)).save(path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def pair(root: Path, image: str, labels: str, rows: str | None) -> None:
    """An image and its label file; no file for None."""
    photo(root / image)
    if rows is not None:
        write(root / labels, rows)


def boxes_of(dataset: Dataset) -> dict[str, list[list[float]]]:
    return {record.image_id: record.boxes.tolist() for record in dataset.records}


def labels_of(dataset: Dataset) -> dict[str, list[int]]:
    return {record.image_id: record.labels.tolist() for record in dataset.records}


def flat(root: Path, rows: str | None = "0 0.5 0.5 0.2 0.4\n", names: str | None = "cat\ndog\nbird\n") -> Path:
    """images/ and labels/ with one image; classes.txt."""
    pair(root, "images/a.jpg", "labels/a.txt", rows)
    if names is not None:
        write(root / "classes.txt", names)
    return root


def refusal(root: Path, split: str = "", **options: object) -> str:
    with pytest.raises(DataError) as caught:
        read_yolo(root, split, **options)  # type: ignore[arg-type]
    return str(caught.value)


# ---- images that cannot be read


def test_one_image_that_cannot_be_read_does_not_cost_the_part(tmp_path: Path) -> None:
    """It stays in the part, so that whoever reads it next says what is wrong with it, and has no boxes."""
    flat(tmp_path)
    pair(tmp_path, "images/b.jpg", "labels/b.txt", "1 0.5 0.5 0.2 0.4\n")
    (tmp_path / "images/b.jpg").write_bytes(b"not an image")
    dataset = read_yolo(tmp_path)
    assert boxes_of(dataset) == {"a": [[80.0, 30.0, 120.0, 70.0]], "b": []}
    assert [str(line) for line in dataset.warnings] == [
        "images cannot be read, so that the shares in their label files state no boxes: 1 (first: b.jpg)"
    ]
    facts = read_facts([record.path for record in dataset.records], "")
    assert [one.readable for one in facts] == [True, False]


# ---- boxes


def test_a_box_is_centre_and_sides_as_shares(tmp_path: Path) -> None:
    dataset = read_yolo(flat(tmp_path / "pets", "2 0.5 0.5 0.2 0.4\n0 0.1 0.2 0.2 0.4\n"))
    (record,) = dataset.records
    assert record.boxes == pytest.approx(np.array([[80, 30, 120, 70], [0, 0, 40, 40]]))
    assert record.labels.tolist() == [2, 0]
    assert (record.image_id, record.width, record.height) == ("a", 200, 100)
    assert record.path == tmp_path / "pets/images/a.jpg"
    assert (dataset.name, dataset.warnings) == ("pets", ())
    assert (dataset.classes.names, dataset.classes.ids) == (("cat", "dog", "bird"), (0, 1, 2))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("polygons", [False, True])
def test_boxes_come_back(tmp_path: Path, seed: int, polygons: bool) -> None:
    generator = np.random.default_rng(seed)
    expected = {}
    for index in range(4):
        width, height = generator.integers(20, 900, 2).tolist()
        photo(tmp_path / f"train/images/{index}.png", (width, height))
        low = generator.uniform(0, 0.9, (generator.integers(1, 6), 2))
        high = low + generator.uniform(0.01, 1, low.shape) * (1 - low)
        labels = generator.integers(0, 3, len(low)).tolist()
        rows = []
        for label, (x1, y1), (x2, y2) in zip(labels, low.tolist(), high.tolist(), strict=True):
            box = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
            ring = [x1, (y1 + y2) / 2, (x1 + x2) / 2, y1, x2, (y1 + y2) / 2, (x1 + x2) / 2, y2]  # a diamond
            rows.append(" ".join(map(repr, [label, *(ring if polygons else box)])))
        write(tmp_path / f"train/labels/{index}.txt", "\n".join(rows))
        expected[str(index)] = (np.concatenate([low, high], axis=1) * [width, height, width, height], labels)
    write(tmp_path / "data.yaml", "train: ../train/images\n" + NAMES)
    dataset = read_yolo(tmp_path, "train")
    assert len(dataset) == 4
    for record in dataset.records:
        np.testing.assert_allclose(record.boxes, expected[record.image_id][0], rtol=0, atol=1e-6)
        assert record.labels.tolist() == expected[record.image_id][1]
    assert any("polygons were replaced" in line for line in dataset.warnings) == polygons


def test_polygons_are_counted(tmp_path: Path) -> None:
    rows = "1 0.1 0.1 0.5 0.2 0.3 0.9\n1 0.5 0.5 0.2 0.2\n0 0.2 0.2 0.4 0.2 0.4 0.4 0.2 0.4\n"
    dataset = read_yolo(flat(tmp_path, rows))
    np.testing.assert_allclose(dataset.records[0].boxes, [[20, 10, 100, 90], [80, 40, 120, 60], [40, 20, 80, 40]])
    assert dataset.warnings == ("polygons were replaced by the boxes around them: 2 (first: a.txt)",)


def test_key_points_behind_a_box(tmp_path: Path) -> None:
    pair(tmp_path, "images/a.jpg", "labels/a.txt", "0 0.5 0.5 0.2 0.4 0.5 0.5 2 0.6 0.6 1\n")
    write(tmp_path / "data.yaml", "train: images\nkpt_shape: [2, 3]\nnames: {0: person}\n")
    dataset = read_yolo(tmp_path, "train")
    np.testing.assert_allclose(dataset.records[0].boxes, [[80, 30, 120, 70]])
    assert dataset.warnings == ("key points behind boxes were left out: 1 (first: a.txt)",)


@pytest.mark.parametrize("rows", ["", "\n \n", None])
def test_an_image_without_rows_is_without_objects(tmp_path: Path, rows: str | None) -> None:
    flat(tmp_path)
    pair(tmp_path, "images/b.jpg", "labels/b.txt", rows)
    dataset = read_yolo(tmp_path)
    assert [len(record.boxes) for record in dataset.records] == [1, 0]
    file = "no label file" if rows is None else "an empty label file"
    assert dataset.warnings == (f"images have {file} and count as without objects: 1 (first: b.jpg)",)


def test_rounding_at_the_border_is_no_fault(tmp_path: Path) -> None:
    """The box ends at the border; written with four decimals its edge is 0.00005 outside."""
    dataset = read_yolo(flat(tmp_path, "0 0.8334 0.5 0.3333 1.00001\n"))
    assert dataset.records[0].boxes[:, [1, 2, 3]].tolist() == [[0, 200, 100]]
    assert dataset.warnings == ()


def test_boxes_outside_are_cut_and_written_ones_are_scored(tmp_path: Path) -> None:
    root = flat(tmp_path, "0 0.9 0.5 0.4 0.4\n" + 10 * "1 0.5 0.5 0.1 0.1\n")
    dataset = read_yolo(root)
    assert dataset.records[0].boxes[0] == pytest.approx([140, 30, 200, 70])
    assert dataset.warnings == ("boxes reached outside their image and were cut at its border: 1 (first: a.txt)",)
    truth = read_truth(DataConfig(DatasetKind.yolo, str(root)))
    assert truth.boxes[0] == pytest.approx([140, 30, 220, 70])


def test_corners_in_the_place_of_sides_are_noticed(tmp_path: Path) -> None:
    dataset = read_yolo(flat(tmp_path, "0 0.7 0.5 0.8 0.9\n0 0.6 0.4 0.9 0.9\n"))
    assert dataset.warnings[-1].startswith(f"{tmp_path}: 2 of 2 boxes reach far outside their images; YOLO's columns")


def test_a_class_may_be_written_as_a_float(tmp_path: Path) -> None:
    assert labels_of(read_yolo(flat(tmp_path, "1.000 0.5 0.5 0.2 0.4\n"))) == {"a": [1]}


def test_an_image_that_exif_turns(tmp_path: Path) -> None:
    """Its boxes are shares of the upright image, as the tools show it."""
    (tmp_path / "images").mkdir()
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.new("RGB", (200, 100)).save(tmp_path / "images/a.jpg", exif=exif)
    write(tmp_path / "labels/a.txt", "0 0.5 0.25 0.5 0.5\n")
    write(tmp_path / "classes.txt", "cat")
    (record,) = open_dataset(DataConfig(DatasetKind.yolo, str(tmp_path))).records
    assert (record.width, record.height, record.boxes.tolist()) == (100, 200, [[25, 0, 75, 100]])


# ---- layouts

ROW = "1 0.5 0.5 0.2 0.4\n"


def roboflow(root: Path, paths: str = "../{}/images") -> None:
    """The export "YOLOv8": folders train, valid, test; data.yaml says ../ though it lies beside them."""
    for part in ("train", "valid", "test"):
        name = f"{part}_jpg.rf.0a1b"
        pair(root, f"{part}/images/{name}.jpg", f"{part}/labels/{name}.txt", ROW)
    lines = [f"{key}: {paths.format(part)}\n" for key, part in (("train", "train"), ("val", "valid"), ("test", "test"))]
    write(root / "data.yaml", "".join(lines) + "\nnc: 3\nnames: ['cat', 'dog', 'bird']\n\nroboflow:\n  version: 1\n")
    write(root / "README.roboflow.txt", "Exported\n")


def ultralytics(root: Path, path: str = "../datasets/pets") -> None:
    for part in ("train", "val"):
        pair(root, f"images/{part}/{part}.jpg", f"labels/{part}/{part}.txt", ROW)
    write(
        root / "pets.yaml",
        f"path: {path}\ntrain: images/train\nval: images/val\ntest: # optional\nnames:\n"
        "  0: cat\n  1: dog\n  2: bird\n",
    )


def cvat(root: Path) -> None:
    """The export "Ultralytics YOLO Detection 1.0"."""
    for part in ("train", "val"):
        pair(root, f"images/{part}/{part}.jpg", f"labels/{part}/{part}.txt", ROW)
        write(root / f"{part}.txt", f"data/images/{part}/{part}.jpg\n")
    write(root / "data.yaml", "path: ./\ntrain: train.txt\nval: val.txt\nnames:\n  0: cat\n  1: dog\n  2: bird\n")


def cvat_darknet(root: Path) -> None:
    """The export "YOLO 1.1"."""
    for part in ("train", "valid"):
        pair(root, f"obj_{part}_data/{part}.jpg", f"obj_{part}_data/{part}.txt", ROW)
        write(root / f"{part}.txt", f"data/obj_{part}_data/{part}.jpg\n")
    write(root / "obj.names", "cat\ndog\nbird\n")
    write(root / "obj.data", "classes = 3\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n")


def beside(root: Path) -> None:
    for part in ("train", "valid"):
        pair(root, f"{part}/{part}.jpg", f"{part}/{part}.txt", ROW)
        write(root / f"{part}/_darknet.labels", "cat\ndog\nbird\n")


def inner(root: Path) -> None:
    for part in ("train", "val"):
        pair(root, f"{part}/images/{part}.jpg", f"{part}/labels/{part}.txt", ROW)
    write(root / "classes.txt", "cat\ndog\nbird\n")


def outer(root: Path) -> None:
    for part in ("train", "val"):
        pair(root, f"images/{part}/{part}.jpg", f"labels/{part}/{part}.txt", ROW)
    write(root / "labels/classes.txt", "cat\r\ndog\r\nbird\r\n\r\n")


@pytest.mark.parametrize("layout", [roboflow, ultralytics, cvat, cvat_darknet, beside, inner, outer])
def test_layouts(tmp_path: Path, layout: Callable[[Path], None]) -> None:
    layout(tmp_path)
    for split in ("train", "val"):
        dataset = read_yolo(tmp_path, split)
        (record,) = dataset.records
        assert record.path.stem.startswith(split[:3])
        assert (record.labels.tolist(), record.boxes.round(6).tolist()) == ([1], [[80, 30, 120, 70]])
        assert dataset.classes.names == ("cat", "dog", "bird")
        assert dataset.warnings == () or "found by their end" in dataset.warnings[0]
    assert len(read_yolo(tmp_path)) == (3 if layout is roboflow else 2)
    assert "there are: train, val" in refusal(tmp_path, "tset")


@pytest.mark.parametrize(
    "paths", ["../{}/images", "{}/images", "./{}/images", "/content/pets-1/{}/images", "C:\\data\\pets\\{}\\images"]
)
def test_paths_of_data_yaml(tmp_path: Path, paths: str) -> None:
    roboflow(tmp_path / "pets", paths)
    photo(tmp_path / "train/images/neighbour.jpg")  # what ../train/images means by the letter
    dataset = read_yolo(tmp_path / "pets", "val")
    assert [record.path.parent for record in dataset.records] == [tmp_path / "pets/valid/images"]
    moved = "paths in data.yaml or a list were found by their end, as the data set was moved: 1 (first: "
    assert [line for line in dataset.warnings if line.startswith(moved)] == (
        [f"{moved}{paths.format('valid')})"] if ":" in paths or paths.startswith("/") else []
    )


def test_path_of_data_yaml_may_lead_elsewhere(tmp_path: Path) -> None:
    photo(tmp_path / "photos/images/new/a.jpg")
    write(tmp_path / "photos/labels/new/a.txt", ROW)
    write(tmp_path / "set/data.yaml", f"path: {tmp_path}/photos\ntrain: [images/new]\n" + NAMES)
    assert boxes_of(read_yolo(tmp_path / "set", "train")).keys() == {"a"}
    write(tmp_path / "set/data.yaml", "path: ../photos\ntrain: images/new\n" + NAMES)
    assert boxes_of(read_yolo(tmp_path / "set", "train")).keys() == {"a"}


def test_a_part_of_several_folders_and_a_list(tmp_path: Path) -> None:
    for folder in ("north", "south", "other"):
        pair(tmp_path, f"images/{folder}/a.jpg", f"labels/{folder}/a.txt", ROW)
    write(tmp_path / "more.txt", "./images/other/a.jpg\n./images/other/gone.jpg\nimages/north/a.jpg\n")
    write(tmp_path / "data.yaml", "train: [images/north, images/south, more.txt]\n" + NAMES)
    dataset = read_yolo(tmp_path, "train")
    assert list(boxes_of(dataset)) == ["north/a", "south/a", "other/a"]
    assert dataset.warnings == ("images of a list are not there and were left out: 1 (first: ./images/other/gone.jpg)",)


def test_a_part_of_relative_and_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair(tmp_path, "set/images/a.jpg", "set/labels/a.txt", ROW)
    pair(tmp_path, "more/images/a.jpg", "more/labels/a.txt", ROW)
    write(tmp_path / "set/data.yaml", f"train: [images, {tmp_path}/more/images]\n" + NAMES)
    monkeypatch.chdir(tmp_path)
    assert list(boxes_of(read_yolo(Path("set"), "train"))) == ["set/images/a", "more/images/a"]


def test_any_folder_is_a_split_by_its_name(tmp_path: Path) -> None:
    for folder in ("north", "south"):
        pair(tmp_path, f"images/{folder}/{folder}.jpg", f"labels/{folder}/{folder}.txt", ROW)
    write(tmp_path / "classes.txt", "cat\ndog\n")
    assert list(boxes_of(read_yolo(tmp_path, "south"))) == ["south"]
    assert list(boxes_of(read_yolo(tmp_path))) == ["north/north", "south/south"]
    assert "no split 'train'" in refusal(tmp_path, "train")
    assert "leave data.split empty" in refusal(tmp_path, "train")


def test_folders_without_labels_are_no_background(tmp_path: Path) -> None:
    flat(tmp_path)
    photo(tmp_path / "previews/a.jpg")
    dataset = read_yolo(tmp_path)
    assert list(boxes_of(dataset)) == ["a"]
    assert dataset.warnings == ("images lie in folders without label files and were left out: 1 (first: a.jpg)",)


def test_a_part_without_labels_is_told_from_none(tmp_path: Path) -> None:
    outer(tmp_path)
    (tmp_path / "labels/val/val.txt").unlink()
    assert read_yolo(tmp_path, "train").warnings == ()
    assert refusal(tmp_path, "val") == (
        f"{tmp_path}: the images of val have no label files (such as val.txt for {tmp_path}/images/val/val.jpg)"
    )


def test_names_with_blanks_dots_and_umlauts(tmp_path: Path) -> None:
    for name in ("ein Bär", "a.b.c", "#1"):
        pair(tmp_path, f"images/{name}.jpg", f"labels/{name}.txt", ROW)
    write(tmp_path / "classes.txt", "Bär\nno\n010\n")
    dataset = read_yolo(tmp_path)
    assert all(labels_of(dataset)[name] == [1] for name in ("ein Bär", "a.b.c", "#1"))
    assert dataset.classes.names == ("Bär", "no", "010")


# ---- classes


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: [no, 010, 1e3]\n", ("no", "010", "1e3")),
        ("names: {1: dog, 0: cat}\n", ("cat", "dog")),
        ("nc: 2\nnames: [a, b]\n", ("a", "b")),
        ("nc: 4\n", ("class 0", "class 1", "class 2", "class 3")),
    ],
)
def test_names_of_data_yaml(tmp_path: Path, text: str, names: tuple[str, ...]) -> None:
    flat(tmp_path, names=None)
    write(tmp_path / "data.yaml", "train: images\n" + text)
    assert read_yolo(tmp_path, "train").classes.names == names


def test_numbered_classes_are_those_of_all_parts(tmp_path: Path) -> None:
    for part, number in (("train", 1), ("val", 4)):
        pair(tmp_path, f"{part}/images/a.jpg", f"{part}/labels/a.txt", f"{number} 0.5 0.5 0.1 0.1\n")
    write(tmp_path / "notes.txt", "9 lives has a cat\n")
    train, val = read_yolo(tmp_path, "train"), read_yolo(tmp_path, "val")
    assert train.classes.names == val.classes.names == tuple(f"class {number}" for number in range(5))
    (line,) = train.warnings
    assert line.startswith(f"{tmp_path}: no file names the classes")
    assert "they are called class 0 to class 4" in line
    named = read_yolo(tmp_path, "train", class_names=["a", "b", "c", "d", "e"])
    assert (named.classes.names[1], named.warnings) == ("b", ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a, b\n", ", line 2: malformed YAML"),
        ("- a\n", ": holds no settings of a YOLO data set"),
        ("names: {0: a, 2: b}\n", ": names has 2 classes and no number 1"),
        ("names: [a, b, a]\n", ": names has 'a' twice"),
        ("names: [a, [b]]\n", ": names is no list of class names"),
        ("names: cats\n", ": names is no list of class names"),
        ("nc: 3\nnames: [a, b]\n", ": nc is 3, and names has 2"),
        ("nc: many\n", ": nc is 'many', not the number of classes"),
        ("names: [a]\ntrain: {a: b}\n", ": train is no path, nor a list of paths"),
        ("names: [a]\ntrain: elsewhere\n", ": train: no folder or list 'elsewhere', looked for from "),
    ],
)
def test_refused_data_yaml(tmp_path: Path, text: str, message: str) -> None:
    flat(tmp_path, names=None)
    write(tmp_path / "data.yaml", text)
    assert refusal(tmp_path, "train").startswith(f"{tmp_path}/data.yaml{message}")


def test_refused_names(tmp_path: Path) -> None:
    root = flat(tmp_path / "a", names="cat\n\ndog\n")
    assert refusal(root).startswith(f"{root}/classes.txt, line 2: no name")
    write(root / "classes.txt", "cat\ndog\ncat\n")
    assert refusal(root) == f"{root}/classes.txt: names 'cat' twice"
    write(root / "classes.txt", "cat\ndog\n")
    write(root / "labels/classes.txt", "dog\ncat\n")
    assert refusal(root).startswith(f"{root}/classes.txt and {root}/labels/classes.txt name other classes")
    assert read_yolo(root, class_names=["dog", "cat"]).classes.names == ("dog", "cat")
    (root / "labels/classes.txt").unlink()
    write(root / "data.yaml", "train: images\nnc: 3\n")
    assert refusal(root, "train").startswith(f"{root}/classes.txt has 2 names, and {root}/data.yaml states nc: 3")
    write(root / "data.yaml", "train: images\n" + NAMES)
    message = refusal(root, "train", class_names=["cat"])
    assert message.startswith(f"data.classes has 1 names and {root}/data.yaml 3")
    write(root / "data.yaml", "train: images\nnames: ''\n")
    assert ": names is no list" in refusal(root, "train")


def test_two_yaml_files(tmp_path: Path) -> None:
    flat(tmp_path)
    for name in ("one.yaml", "two.yaml"):
        write(tmp_path / name, "train: images\n" + NAMES)
    assert f"{tmp_path}/one.yaml and two.yaml may each" in refusal(tmp_path, "train")
    write(tmp_path / "data.yaml", "train: images\n" + NAMES)
    assert len(read_yolo(tmp_path, "train")) == 1


# ---- rows


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0 0.5 0.5 0.2", "4 columns in '0 0.5 0.5 0.2'; a box has 5"),
        ("0 0.5 0.5 0.2 0.4 0.93", "six columns, of which the last is a confidence"),
        ("0 0.5 0.5 0.2 0.4 0.1 0.1 0.3", "8 columns in "),
        ("0,0.5,0.5,0.2,0.4", "'0,0.5,0.5,0.2,0.4' is separated by commas"),
        (
            "cat 0.5 0.5 0.2 0.4",
            "'cat' is no number in the row 'cat 0.5 0.5 0.2 0.4'; YOLO writes a class as its number",
        ),
        ("0 0.5 nan 0.2 0.4", "'nan' is no number in the row"),
        ("0 0.5 inf 0.2 0.4", "'inf' is no number in the row"),
        ("0.5 0.5 0.5 0.2 0.4", "the class is 0.5; classes are whole numbers from 0"),
        ("-1 0.5 0.5 0.2 0.4", "the class is -1; classes are whole numbers from 0"),
        (
            "0 100 50 40 40",
            "100 is outside [0, 1] in '0 100 50 40 40'; boxes are shares of the image: these look like pix",
        ),
        ("0 0.5 0.5 -0.2 0.4", "-0.2 is outside [0, 1]"),
        (
            "0 0.5 1.2 0.2 0.4",
            "1.2 is outside [0, 1] in '0 0.5 1.2 0.2 0.4'; boxes are shares of the image: fix the row",
        ),
        ("0 0.1 0.1 0.5 0.2 0.3 1.9", "1.9 is outside [0, 1]"),
        (
            "3 0.5 0.5 0.2 0.4",
            "class 3, and there are 3 names, of classes 0 to 2 (cat, dog, bird); classes are numbered",
        ),
    ],
)
def test_refused_rows_name_file_and_line(tmp_path: Path, row: str, message: str) -> None:
    root = flat(tmp_path, f"0 0.5 0.5 0.2 0.4\n\n{row}\n")
    assert refusal(root).startswith(f"{root}/labels/a.txt, line 3: {message}")


def test_refused_folders(tmp_path: Path) -> None:
    assert "no images with YOLO label files" in refusal(tmp_path)
    photo(tmp_path / "images/a.jpg")
    assert "no images with YOLO label files" in refusal(tmp_path)
    write(tmp_path / "data.yaml", "train: images\nval: empty\ntest: gone.txt\n" + NAMES)
    message = refusal(tmp_path, "train")
    assert message.startswith(f"{tmp_path}: none of 1 images has a label file; looked for a.txt in a folder labels and")
    assert message.endswith(f"{tmp_path}/images/a.jpg")
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path, "val").startswith(f"{tmp_path}/empty: no images in this folder, which is val of the data")
    write(tmp_path / "gone.txt", "images/x.jpg\nimages/y.jpg\nimages/a.jpg\n")
    assert refusal(tmp_path, "test").startswith(
        f"{tmp_path}/gone.txt: 2 of 3 images are not there (first: images/x.jpg)"
    )
    write(tmp_path / "gone.txt", "\n")
    assert refusal(tmp_path, "test") == f"{tmp_path}/gone.txt: no images in this list"
    assert "there are: train, val, test; set data.split=NAME" in refusal(tmp_path, "tran")


def test_two_images_of_one_label_file(tmp_path: Path) -> None:
    flat(tmp_path)
    photo(tmp_path / "images/a.png")
    assert refusal(tmp_path).startswith(f"{tmp_path}/images/a.jpg and a.png would share one label file; rename")


def test_a_score_is_not_made_without_an_image_that_gives_no_size(tmp_path: Path) -> None:
    flat(tmp_path)
    (tmp_path / "images/a.jpg").write_bytes(b"no image")
    message = refusal(tmp_path, as_written=True)
    assert message.startswith(f"{tmp_path}/images/a.jpg: ")
    assert re.search(r"\n  YOLO's boxes are shares of the image", message)


# ---- scoring


def test_truth_is_the_data_set(tmp_path: Path) -> None:
    roboflow(tmp_path)
    config = DataConfig(DatasetKind.yolo, str(tmp_path), "val")
    truth, dataset = read_truth(config), open_dataset(config)
    assert truth.image_ids == tuple(record.image_id for record in dataset.records)
    assert truth.boxes.tolist() == dataset.records[0].boxes.tolist()
    assert (truth.labels.tolist(), truth.classes) == ([1], dataset.classes)
