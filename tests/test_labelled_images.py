"""Lists of labelled images from each layout of files, on trees of tiny pictures built here."""

from __future__ import annotations

import json
import shutil
from itertools import product
from math import ceil, floor
from pathlib import Path
from re import escape
from typing import Any

import numpy as np
import PIL.Image
import pytest

from detector.data.dataset import DataConfig, DatasetKind, open_dataset
from detector.data.ground_truth import DataError, Dataset
from detector.data.image import Image, ImageError
from detector.data.labelled_images import (
    ImagesConfig,
    ImagesKind,
    LabelledImages,
    open_images,
    read_clsloc,
    read_image_folder,
)


def draw(path: Path, level: int = 0) -> Path:
    """A tiny picture of one grey level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (6, 4), (level, level, level)).save(path, format="PNG")
    return path


# ---- folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of two images, made in another order than their names'; with files that are no images."""
    root = tmp_path / "images"
    for name in ("b", "c", "a"):
        for number in range(2):
            draw(root / name / f"{number}.png")
    (root / "a" / ".hidden.png").write_text("")
    (root / "a" / "notes.txt").write_text("")
    (root / ".cache").mkdir()
    (root / "README.txt").write_text("")
    return root


def test_a_folder_of_classes(folder: Path, tmp_path: Path) -> None:
    draw(folder / "b" / "deeper" / "9.JPG")
    found = read_image_folder(folder)
    assert found.classes == ("a", "b", "c")
    assert found.labels.dtype == np.int64
    assert found.labels.tolist() == [0, 0, 1, 1, 1, 2, 2]
    names = [path.relative_to(folder).as_posix() for path in found.paths]
    assert names == ["a/0.png", "a/1.png", "b/0.png", "b/1.png", "b/deeper/9.JPG", "c/0.png", "c/1.png"]
    assert len(found) == 7
    assert found.boxes is None
    (folder / "d").mkdir()
    with pytest.raises(DataError, match="d: "):
        read_image_folder(folder)
    (tmp_path / "empty").mkdir()
    for name, message in (("empty", "empty: no folders in it; each class has"), ("nowhere", "no folder .*nowhere")):
        with pytest.raises(DataError, match=message):
            read_image_folder(tmp_path / name)


def test_a_folder_opened_with_and_without_a_split(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = open_images(ImagesConfig(str(folder)))
    assert whole.classes == ("a", "b", "c")
    assert open_images(ImagesConfig(str(folder.parent), split="images")).paths == whole.paths
    monkeypatch.setenv("HOME", str(folder.parent))
    assert open_images(ImagesConfig("~/images")).paths == whole.paths
    with pytest.raises(DataError, match="nowhere"):
        open_images(ImagesConfig(str(folder), split="nowhere"))


def test_reads_what_it_lists(folder: Path) -> None:
    draw(folder / "b" / "1.png", 77)
    found = read_image_folder(folder)
    assert found.read(3).shape == (4, 6, 3)
    assert np.unique(found.read(3)).tolist() == [77]
    assert found.describe(3) == str(folder / "b" / "1.png")
    (folder / "b" / "1.png").write_text("no picture")
    with pytest.raises(ImageError, match=escape(str(folder / "b" / "1.png"))):
        found.read(3)


# ---- numbering


def test_another_numbering_matches_names() -> None:
    """d is unknown here, and its absence shifts no label."""
    found = LabelledImages(("a", "b", "e"), (Path("1"), Path("2"), Path("3"), Path("4")), np.array([2, 0, 1, 2]))
    other = found.with_classes(["e", "d", "a", "b"], "the model")
    assert other.classes == ("e", "d", "a", "b")
    assert [other.classes[label] for label in other.labels] == ["e", "a", "b", "e"]
    assert other.labels.dtype == np.int64
    assert other.paths == found.paths
    assert found.labels.tolist() == [2, 0, 1, 2]
    assert found.with_classes(found.classes, "itself").labels.tolist() == [2, 0, 1, 2]


@pytest.mark.parametrize(
    ("known", "unknown", "listed"),
    [("ae", "b", "a, e"), ("vwxyzq", "abe", "v, w, x, y, z and 1 more"), ("vwxyz", "abe", "v, w, x, y, z")],
)
def test_another_numbering_must_know_every_class(known: str, unknown: str, listed: str) -> None:
    found = LabelledImages(("a", "b", "e"), (Path("1"),), np.array([2]))
    with pytest.raises(DataError) as caught:
        found.with_classes(tuple(known), "the model")
    message = str(caught.value)
    assert ", ".join(map(repr, unknown)) in message
    assert f"{len(unknown)} of 3" in message
    assert message.endswith(listed)


# ---- ILSVRC's classification tree

TRAIN = {"n03": 2, "n01": 1, "n02": 1}
VAL = {"ILSVRC2012_val_00000001": "n03", "ILSVRC2012_val_00000002": "n01", "ILSVRC2012_val_00000003": "n03"}
EXPECTED = [2, 0, 2]  # n02 has no image in val


def solution(rows: dict[str, str]) -> str:
    """Kaggle's: the class and a box, of every object; in no order."""
    lines = [f"{name},{wnid} 1 2 3 4 {wnid} 5 6 7 8 \n" for name, wnid in reversed(rows.items())]
    return "".join(["ImageId,PredictionString\n", *lines])


def annotate(base: Path, rows: dict[str, str]) -> None:
    for name, wnid in rows.items():
        path = base / "Annotations" / "CLS-LOC" / "val" / f"{name}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"<annotation><object><name>{wnid}</name></object><object><name>x</name></object></annotation>")


@pytest.fixture(params=["", "ILSVRC"], ids=["Data", "ILSVRC/Data"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder that holds Data; its root is tmp_path / "imagenet"."""
    found: Path = tmp_path / "imagenet" / request.param
    for wnid, count in TRAIN.items():
        for number in range(count):
            draw(found / "Data" / "CLS-LOC" / "train" / wnid / f"{wnid}_{number}.JPEG")
    for name in reversed(VAL):
        draw(found / "Data" / "CLS-LOC" / "val" / f"{name}.JPEG")
    return found


@pytest.fixture
def root(base: Path, tmp_path: Path) -> Path:
    """What a config names."""
    return tmp_path / "imagenet"


def test_clsloc_train(base: Path, root: Path) -> None:
    found = open_images(ImagesConfig(str(root), ImagesKind.clsloc, "train"))
    assert found.classes == ("n01", "n02", "n03")
    assert found.labels.tolist() == [0, 1, 2, 2]
    assert [path.name for path in found.paths] == ["n01_0.JPEG", "n02_0.JPEG", "n03_0.JPEG", "n03_1.JPEG"]
    assert found.paths[0].is_relative_to(base / "Data")


@pytest.mark.parametrize("where", ["in the tree", "beside it", "annotations"])
def test_clsloc_val_takes_its_labels_from(where: str, base: Path, root: Path) -> None:
    """Classes are train's, so that one without an image in val shifts no label."""
    if where == "annotations":
        annotate(base, VAL)
    else:
        place = base if where == "in the tree" else base.parent
        (place / "LOC_val_solution.csv").write_text(solution(VAL))
    found = open_images(ImagesConfig(str(root), ImagesKind.clsloc, "val"))
    assert [path.stem for path in found.paths] == list(VAL)
    assert found.classes == ("n01", "n02", "n03") == read_clsloc(root, "train").classes
    assert found.labels.tolist() == EXPECTED
    assert found.labels.dtype == np.int64


def test_clsloc_solution_goes_before_annotations(base: Path, root: Path) -> None:
    annotate(base, dict.fromkeys(VAL, "n02"))
    (base / "LOC_val_solution.csv").write_text(solution(VAL))
    assert read_clsloc(root, "val").labels.tolist() == EXPECTED


def test_clsloc_val_without_train(base: Path, root: Path) -> None:
    """Then the classes are those that occur."""
    shutil.rmtree(base / "Data" / "CLS-LOC" / "train")
    annotate(base, VAL)
    found = read_clsloc(root, "val")
    assert found.classes == ("n01", "n03")
    assert found.labels.tolist() == [1, 0, 1]


def test_clsloc_val_sorted_into_folders(base: Path, root: Path) -> None:
    for name, wnid in VAL.items():
        path = base / "Data" / "CLS-LOC" / "val" / f"{name}.JPEG"
        (path.parent / wnid).mkdir(exist_ok=True)
        path.rename(path.parent / wnid / path.name)
    found = read_clsloc(root, "val")
    assert found.classes == ("n01", "n03")
    renumbered = found.with_classes(read_clsloc(root, "train").classes, "train")
    labels = {path.stem: label for path, label in zip(renumbered.paths, renumbered.labels.tolist(), strict=True)}
    assert [labels[name] for name in VAL] == EXPECTED


def test_clsloc_passes_hidden_folders_over(base: Path, root: Path) -> None:
    """As an editor or a notebook leaves them; a class of such a name would shift every label."""
    annotate(base, VAL)
    (base / "Data" / "CLS-LOC" / "train" / ".ipynb_checkpoints").mkdir()
    assert read_clsloc(root, "train").classes == ("n01", "n02", "n03")
    assert read_clsloc(root, "val").classes == ("n01", "n02", "n03")
    (base / "Data" / "CLS-LOC" / "val" / ".ipynb_checkpoints").mkdir()
    assert read_clsloc(root, "val").labels.tolist() == EXPECTED


def test_clsloc_refuses_an_image_that_no_solution_lists(base: Path, root: Path) -> None:
    (base / "LOC_val_solution.csv").write_text(solution(dict(list(VAL.items())[:1])))
    with pytest.raises(DataError, match=f"^{escape(str(base / 'LOC_val_solution.csv'))}: .*{list(VAL)[1]}.*2 of 3"):
        read_clsloc(root, "val")


@pytest.mark.parametrize("text", ["ImageId,PredictionString\nILSVRC2012_val_00000001,\n", "Id,Label\n1,2\n"])
def test_clsloc_refuses_a_damaged_solution(text: str, base: Path, root: Path) -> None:
    (base / "LOC_val_solution.csv").write_text(text)
    with pytest.raises(DataError, match=escape(f"{base / 'LOC_val_solution.csv'}: ")):
        read_clsloc(root, "val")


def test_clsloc_refuses_an_image_without_annotation(base: Path, root: Path) -> None:
    last = list(VAL)[-1]
    image, note = (base / "Data/CLS-LOC/val" / f"{last}.JPEG", base / "Annotations/CLS-LOC/val" / f"{last}.xml")
    annotate(base, VAL)
    note.unlink()
    with pytest.raises(DataError, match=rf"^{escape(str(image))}: .*LOC_val_solution\.csv.*{escape(str(note))}"):
        read_clsloc(root, "val")
    note.write_text("<annotation>")
    with pytest.raises(DataError, match=f"^{escape(str(image))}: .*{escape(str(note))}"):
        read_clsloc(root, "val")
    note.write_text("<annotation><object><name/></object></annotation>")
    with pytest.raises(DataError, match=f"^{escape(str(note))}: .*{last}"):
        read_clsloc(root, "val")


@pytest.mark.parametrize("split", ["test", ""])
def test_clsloc_refuses_other_splits(split: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"train and val.*'{split}'"):
        open_images(ImagesConfig(str(tmp_path), ImagesKind.clsloc, split))


@pytest.mark.parametrize("split", ["train", "val"])
def test_clsloc_refuses_a_folder_without_the_tree(split: str, tmp_path: Path) -> None:
    wanted = tmp_path / "Data" / "CLS-LOC" / split
    with pytest.raises(DataError, match=escape(f"{wanted};")):
        read_clsloc(tmp_path, split)


# ---- objects of a detection data set


def objects(root: Path, split: str = "train", **settings: Any) -> LabelledImages:
    config: dict[str, Any] = {"classes": ["square", "disc"], "min_side": 1.0} | settings
    return open_images(ImagesConfig(str(root), ImagesKind.voc, split, **config))


def truth(root: Path, split: str = "train") -> Dataset:
    return open_dataset(DataConfig(DatasetKind.voc, str(root), split, ["square", "disc"]))


def slow_cuts(image: Image, box: list[float], context: float) -> list[Image]:
    """The enlarged box's part of the image, pixel by pixel: one for each way to round its corners."""
    height, width, _ = image.shape
    x1, y1, x2, y2 = box
    across, down = context * (x2 - x1), context * (y2 - y1)
    edges = (x1 - across, y1 - down, x2 + across, y2 + down)
    cuts = []
    for left, top, right, bottom in product(*({floor(edge), ceil(edge)} for edge in edges)):
        columns = [x for x in range(width) if left <= x < right]
        cuts.append(np.array([[image[y, x] for x in columns] for y in range(height) if top <= y < bottom]))
    return cuts


@pytest.mark.parametrize("context", [0.0, 0.1, 1.0])
def test_an_object_is_its_enlarged_box(shapes: Path, context: float) -> None:
    """With contexts of 0 and 1 there is nothing to round; with 1 all of them reach outside the image."""
    found = objects(shapes, context=context)
    dataset = truth(shapes)
    assert len(found) == 8
    assert found.classes == ("square", "disc")
    expected = [
        (record.path, label, record.read(), box)
        for record in dataset.records
        for box, label in zip(record.boxes.tolist(), record.labels.tolist(), strict=True)
    ]
    for index, (path, label, image, box) in enumerate(expected):
        assert (found.paths[index], found.labels[index]) == (path, label)
        cuts = slow_cuts(image, box, context)
        assert len(cuts) == (16 if context == 0.1 else 1)
        crop = found.read(index)
        assert any(np.array_equal(crop, cut) for cut in cuts)
        assert crop.flags.c_contiguous
    if context == 0:  # a square is all red
        assert np.unique(found.read(0).reshape(-1, 3), axis=0).tolist() == [[210, 40, 30]]


def test_a_box_of_less_than_a_pixel_is_a_pixel(tmp_path: Path) -> None:
    path = draw(tmp_path / "x.png", 9)
    boxes = np.array([[2.2, 1.2, 2.4, 1.4], [-9, -9, -8, -8], [90, 90, 91, 91]], np.float64)
    found = LabelledImages(("a",), (path,) * 3, np.zeros(3, np.int64), boxes)
    assert [found.read(index).shape for index in range(3)] == [(1, 1, 3)] * 3


def test_an_object_is_described_by_its_box(shapes: Path) -> None:
    found = objects(shapes, context=0.0)
    x1, y1, x2, y2 = (int(side) for side in truth(shapes).records[0].boxes[0])
    assert found.describe(0) == f"{found.paths[0]} [{x1}, {y1}, {x2}, {y2}]"


def test_small_objects_are_left_out(shapes: Path) -> None:
    sides = [(box[2:] - box[:2]).min() for record in truth(shapes).records for box in record.boxes]
    for limit in (min(sides), float(np.median(sides)), max(sides)):
        found = objects(shapes, min_side=limit, context=0.0)
        kept = [(box[2:] - box[:2]).min() for box in np.array(found.boxes)]
        assert kept == [side for side in sides if side >= limit]


def test_only_some_classes_in_their_order(shapes: Path) -> None:
    found = objects(shapes, only=["disc", "square"])
    assert found.classes == ("disc", "square")
    assert found.labels.tolist() == [1, 0] * 4
    discs = objects(shapes, only=["disc"])
    assert discs.classes == ("disc",)
    assert discs.labels.tolist() == [0] * 4
    assert discs.boxes is not None
    assert found.boxes is not None
    assert np.array_equal(discs.boxes, found.boxes[1::2])


def test_refuses_an_unknown_class_and_no_object(shapes: Path) -> None:
    with pytest.raises(DataError, match=r"^shapes train .*'cube'; .*square, disc$"):
        objects(shapes, only=["disc", "cube"])
    with pytest.raises(DataError, match=r"^shapes val: .*90\.5 px"):
        objects(shapes, "val", min_side=90.5)
    with pytest.raises(DataError, match="no data set folder"):
        objects(shapes / "nowhere")


def test_difficult_objects_are_left_out(shapes: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(shapes, copy)
    note = copy / "Annotations" / "train1.xml"
    note.write_text(note.read_text().replace("<name>disc</name>", "<name>disc</name><difficult>1</difficult>"))
    assert objects(copy).labels.tolist() == [0, 1, 0, 0, 1, 0, 1]


def test_the_classes_of_voc_keep_their_names(shapes: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(shapes, copy)
    for note in (copy / "Annotations").iterdir():
        note.write_text(note.read_text().replace(">disc<", ">cat<").replace(">square<", ">dog<"))
    found = objects(copy, classes=[])
    assert len(found.classes) == 20
    assert [found.classes[label] for label in found.labels[:2]] == ["dog", "cat"]
    assert objects(copy, classes=[], only=["cat"]).labels.tolist() == [0] * 4


def test_objects_of_coco_without_crowds(tmp_path: Path) -> None:
    draw(tmp_path / "photos" / "1.png")
    rows = [
        {"id": number, "image_id": 1, "category_id": 7, "bbox": [number, 0, 2, 2], "area": 4, "iscrowd": number % 2}
        for number in range(4)
    ]
    content = {
        "images": [{"id": 1, "file_name": "1.png", "width": 6, "height": 4}],
        "annotations": rows,
        "categories": [{"id": 7, "name": "thing"}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    config = ImagesConfig(
        str(tmp_path), ImagesKind.coco, annotations="boxes.json", images="photos", context=0.0, min_side=2
    )
    found = open_images(config)
    assert found.classes == ("thing",)
    assert found.boxes is not None
    assert found.boxes.tolist() == [[0, 0, 2, 2], [2, 0, 4, 2]]


# ---- settings


@pytest.mark.parametrize("context", [-0.1, 4.5])
def test_refuses_a_context(context: float) -> None:
    with pytest.raises(ValueError, match=f"^context .*{context}$"):
        ImagesConfig("x", ImagesKind.voc, context=context)


@pytest.mark.parametrize("kind", [ImagesKind.folder, ImagesKind.clsloc])
@pytest.mark.parametrize(
    ("key", "value"), [("classes", ["a"]), ("annotations", "a.json"), ("images", "photos"), ("only", ["a"])]
)
def test_refuses_settings_of_detection_data_sets(kind: ImagesKind, key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{key} .*kind={kind.name}$"):
        ImagesConfig("x", kind, **{key: value})
    assert getattr(ImagesConfig("x", ImagesKind.voc, **{key: value}), key) == value


def test_settings_of_other_kinds_are_refused_when_opened(shapes: Path) -> None:
    with pytest.raises(DataError, match=r"images .*data\.kind=coco.*data\.kind=voc"):
        objects(shapes, images="photos")
