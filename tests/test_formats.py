"""Each format of detections, read back by the rules of the program that it is made for."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import PIL.Image
import pytest
from detect_runs import StubDetector, contents, make_run, photo
from pycocotools.coco import COCO

from detector.commands.run_files import check_ilsvrc, det_ids_of
from detector.commands.written import OutputError
from detector.data.coco import read_coco
from detector.data.ground_truth import ClassTable
from detector.data.ilsvrc import det_classes
from detector.data.voc import read_voc
from detector.detections import Detections
from detector.formats import (
    CSV_HEADER,
    coco_results,
    csv_rows,
    ilsvrc_txt,
    labelme_json,
    rounded,
    voc_xml,
    yolo_txt,
    yolo_yaml,
)

SIZE = (333, 207)
NAMES = ("dog", "traffic light", "été & <co>")


def random_detections(seed: int, count: int = 40) -> Detections:
    """Boxes of at least three pixels, best first, some of which touch the edges of the image."""
    generator = np.random.default_rng(seed)
    near = generator.uniform(0, np.array(SIZE) - 4, (count, 2))
    far = np.minimum(near + generator.uniform(3, 150, near.shape), SIZE)
    near[::5], far[::7] = 0, SIZE
    scores = np.sort(generator.uniform(0.001, 1, count))[::-1]
    return rounded(Detections(np.concatenate([near, far], axis=1), scores, generator.integers(3, size=count), NAMES))


def voc_reader(text: str) -> list[tuple[str, list[float]]]:
    """The objects of a VOC annotation: pixels are numbered from 1, and the far corner is a pixel of the object."""
    top = ElementTree.fromstring(text)
    assert top.tag == "annotation"
    assert [int(top.find("size").findtext(tag)) for tag in ("width", "height", "depth")] == [*SIZE, 3]  # type: ignore[union-attr, arg-type]
    found = []
    for item in top.findall("object"):
        x1, y1, x2, y2 = (int(item.findtext(f"bndbox/{tag}") or "") for tag in ("xmin", "ymin", "xmax", "ymax"))
        assert 1 <= x1 <= x2 <= SIZE[0]
        assert 1 <= y1 <= y2 <= SIZE[1]
        assert (item.findtext("difficult"), item.findtext("truncated"), item.findtext("pose")) == (
            *("0", "0"),
            "Unspecified",
        )
        found.append((item.findtext("name") or "", [x1 - 1.0, y1 - 1.0, float(x2), float(y2)]))
    return found


def yolo_reader(text: str, columns: int = 5) -> list[tuple[str, list[float], list[float]]]:
    """The rows of a YOLO label file, as ultralytics documents it: class x_center y_center width height, in [0, 1]."""
    found = []
    for line in text.splitlines():
        words = line.split(" ")
        assert len(words) == columns
        x, y, width, height = (float(word) for word in words[1:5])
        assert all(0 <= value <= 1 for value in (x, y, width, height))
        box = [(x - width / 2) * SIZE[0], (y - height / 2) * SIZE[1]]
        box += [(x + width / 2) * SIZE[0], (y + height / 2) * SIZE[1]]
        found.append((NAMES[int(words[0])], box, [float(word) for word in words[5:]]))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_voc_by_its_rules(seed: int) -> None:
    found = random_detections(seed)
    objects = voc_reader(voc_xml(found, SIZE, "photos/a.jpg"))
    assert [name for name, _ in objects] == [one.name for one in found]
    assert np.abs(np.array([box for _, box in objects]) - found.boxes).max() <= 1
    assert "confidence" not in voc_xml(found, SIZE, "a.jpg")
    scored = ElementTree.fromstring(voc_xml(found, SIZE, "a.jpg", confidence=True)).findall("object/confidence")
    assert [float(one.text or "") for one in scored] == found.scores.tolist()


def test_a_box_thinner_than_a_pixel_has_one_in_voc() -> None:
    found = Detections(np.array([[332.8, 0, 333, 0.2], [10.4, 10.4, 10.6, 10.6]]), np.ones(2), np.zeros(2), NAMES)
    assert [box for _, box in voc_reader(voc_xml(found, SIZE, "a.jpg"))] == [[332, 0, 333, 1], [10, 10, 11, 11]]


def test_a_name_that_xml_lacks_is_escaped() -> None:
    text = voc_xml(Detections.empty(NAMES), SIZE, "a\x01\udce9&.jpg")
    assert ElementTree.fromstring(text.encode()).findtext("filename") == "a\\x01\\udce9&.jpg"


@pytest.mark.parametrize("seed", range(5))
def test_yolo_by_its_rules(seed: int) -> None:
    found = random_detections(seed)
    rows = yolo_reader(yolo_txt(found, SIZE))
    assert [name for name, _, _ in rows] == [one.name for one in found]
    np.testing.assert_allclose([box for _, box, _ in rows], found.boxes, atol=1e-3)
    scored = yolo_reader(yolo_txt(found, SIZE, confidence=True), 6)
    np.testing.assert_allclose([one for _, _, (one,) in scored], found.scores, atol=1e-6)
    assert yolo_txt(Detections.empty(NAMES), SIZE) == ""


def test_yolo_yaml_is_yaml_of_any_names() -> None:
    import yaml

    names = ["no", "12:30", 'a "b"', "c: d", "犬", "#1", "1e3"]
    content = yaml.safe_load(yolo_yaml(names))
    assert content["names"] == dict(enumerate(names))
    assert (content["train"], content["val"]) == ("images", "images")
    assert "path" not in content  # ultralytics takes "." from the working directory, none from the file's folder


def test_labelme_by_its_schema() -> None:
    """The keys that labelme's LabelFile.load reads, and their types."""
    found = random_detections(0)
    content = json.loads(json.dumps(labelme_json(found, SIZE, "../photos/a.jpg")))
    assert set(content) == {"version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"}
    assert (content["imageData"], content["imagePath"]) == (None, "../photos/a.jpg")
    assert (content["imageWidth"], content["imageHeight"]) == SIZE
    for shape, one in zip(content["shapes"], found, strict=True):
        assert set(shape) == {"label", "points", "group_id", "description", "shape_type", "flags", "mask"}
        assert (shape["label"], shape["shape_type"], shape["flags"]) == (one.name, "rectangle", {})
        assert [*shape["points"][0], *shape["points"][1]] == list(one.box)
        assert shape["description"] == ""
    scored = labelme_json(found, SIZE, "a.jpg", confidence=True)["shapes"]
    assert [float(shape["description"]) for shape in scored] == found.scores.tolist()


def test_coco_by_pycocotools(tmp_path: Path) -> None:
    found = {image_id: random_detections(image_id) for image_id in (7, 139)}
    truth = {
        "images": [{"id": one, "file_name": f"{one}.jpg", "width": SIZE[0], "height": SIZE[1]} for one in found],
        "categories": [{"id": number, "name": name} for number, name in zip((3, 17, 90), NAMES, strict=True)],
        "annotations": [],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    entries = [entry for image_id, some in found.items() for entry in coco_results(some, image_id, (3, 17, 90))]
    (tmp_path / "found.json").write_text(json.dumps(entries))
    read = COCO(tmp_path / "truth.json").loadRes(str(tmp_path / "found.json"))
    for image_id, some in found.items():
        rows = read.loadAnns(read.getAnnIds(imgIds=[image_id]))
        assert [read.cats[row["category_id"]]["name"] for row in rows] == [one.name for one in some]
        assert [row["score"] for row in rows] == some.scores.tolist()
        boxes = np.array([row["bbox"] for row in rows])
        np.testing.assert_allclose(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1), some.boxes)


def test_csv_by_its_reader() -> None:
    found = random_detections(0, 3)
    text = io.StringIO()
    csv.writer(text).writerows([CSV_HEADER, *csv_rows(found, SIZE, 'a, "b".mp4', 1.25)])
    rows = list(csv.DictReader(io.StringIO(text.getvalue())))
    assert [row["label"] for row in rows] == [one.name for one in found]
    assert [[float(row[key]) for key in ("x1", "y1", "x2", "y2")] for row in rows] == found.boxes.tolist()
    assert {row["image"] for row in rows} == {'a, "b".mp4'}
    assert {(row["time"], row["width"], row["height"]) for row in rows} == {("1.25", "333", "207")}
    assert csv_rows(found, SIZE, "a.jpg")[0][1] == ""


def test_ilsvrc_by_the_devkits_rules() -> None:
    """Seven numbers a line; pixels from 0, the far one inside. A class that ILSVRC lacks is left out."""
    found = random_detections(1)
    rows = [[float(word) for word in line.split(" ")] for line in ilsvrc_txt(found, 31, (84, 0, 200)).splitlines()]
    kept = [one for one in found if one.label != 1]
    assert [row[:3] for row in rows] == [[31, {0: 84, 2: 200}[one.label], one.score] for one in kept]
    np.testing.assert_allclose([row[3:5] for row in rows], [one.box[:2] for one in kept])
    np.testing.assert_allclose([[row[5] + 1, row[6] + 1] for row in rows], [one.box[2:] for one in kept])


def test_classes_meet_ilsvrcs_by_wordnet_id_or_name() -> None:
    table = ClassTable(("my dog", "person", "gizmo"), ("n02084071", None, None), (1, 2, 3))
    known = det_classes()
    assert det_ids_of(table) == [known.ids[known.names.index("dog")], known.ids[known.names.index("person")], 0]
    (line,) = check_ilsvrc(table)
    assert line.endswith(": gizmo")
    with pytest.raises(OutputError, match="gizmo"):
        check_ilsvrc(ClassTable(("gizmo",), (None,), (1,)))


# ---- the files of a run

STUB = (("naïve dog", 0.7, [1.0, 2.0, 30.25, 40.0]), ("cat", 0.6, [5.0, 6.0, 70.0, 50.13]))
"""What the stub finds in an image of 80 × 60 px."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("12.png", "a/000139.png", "a/7.jpg"):
        photo(tmp_path / "photos" / name)
    return tmp_path / "photos"


def test_every_format_at_once(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    formats = ("json", "coco", "voc", "yolo", "labelme", "csv", "ilsvrc")
    assert make_run([photos], out, *formats, recursive=True, crops=True).failures == []
    names = ["12", "a/000139", "a/7"]
    assert sorted(contents(out)) == sorted(
        [
            *(f"{name}{ending}" for name in names for ending in (".json", "_detections.jpg")),
            *(f"Annotations/{name}.xml" for name in names),
            *(f"labels/{name}.txt" for name in names),
            *(f"labelme/{name}.json" for name in names),
            *(f"crops/naïve dog/{name}_1.jpg" for name in names),
            *(f"crops/cat/{name}_2.jpg" for name in names),
            *("classes.txt", "data.yaml", "detections.coco.json", "detections.csv"),
            *("detections.ilsvrc.txt", "images.ilsvrc.txt"),
        ]
    )
    assert (out / "classes.txt").read_text().splitlines() == ["cat", "naïve dog"]
    (first, *_) = csv.DictReader((out / "detections.csv").open(encoding="utf-8"))
    assert (first["image"], first["label"], first["x2"]) == (str(photos / "12.png"), "naïve dog", "30.25")
    assert (out / "images.ilsvrc.txt").read_text() == "12 1\na/000139 2\na/7 3\n"
    assert {line.split()[0] for line in (out / "detections.ilsvrc.txt").read_text().splitlines()} == {"1", "2", "3"}
    with PIL.Image.open(out / "crops/naïve dog/a/7_1.jpg") as crop:
        assert crop.size == (30, 38)  # 1 to 30.25, 2 to 40, whole pixels


def test_coco_numbers_images_where_all_have_numbers(photos: Path, tmp_path: Path) -> None:
    make_run([photos], tmp_path / "out", "coco", recursive=True)
    entries = json.loads((tmp_path / "out/detections.coco.json").read_text())
    assert [entry["image_id"] for entry in entries] == [12, 12, 139, 139, 7, 7]
    assert [(entry["category"], entry["category_id"]) for entry in entries[:2]] == [("naïve dog", 2), ("cat", 1)]
    photo(photos / "b/7.png")
    make_run([photos], tmp_path / "other", "coco", recursive=True)
    entries = json.loads((tmp_path / "other/detections.coco.json").read_text())
    assert {entry["image_id"] for entry in entries} == {"12.png", "a/000139.png", "a/7.jpg", "b/7.png"}


def test_labelme_finds_its_image_from_its_own_folder(photos: Path, tmp_path: Path) -> None:
    make_run([photos], tmp_path / "out" / "deep", "labelme", recursive=True)
    for path in (tmp_path / "out/deep/labelme").rglob("*.json"):
        named = path.parent / json.loads(path.read_text())["imagePath"]
        assert named.resolve().stem == path.stem
        assert named.is_file()
    assert len(list((tmp_path / "out").rglob("*.json"))) == 3


def test_voc_is_read_as_a_data_set(photos: Path, tmp_path: Path) -> None:
    """By our own reader, whose boxes are half open, from a tree like VOC's."""
    make_run([photos / "12.png"], tmp_path / "out", "voc")
    (tmp_path / "out/ImageSets/Main").mkdir(parents=True)
    (tmp_path / "out/ImageSets/Main/all.txt").write_text("12\n")
    (tmp_path / "out/JPEGImages").symlink_to(photos)
    (record,) = read_voc(tmp_path / "out", "all", class_names=("cat", "naïve dog")).records
    assert record.labels.tolist() == [1, 0]
    assert record.boxes.tolist() == [[1, 2, 30, 40], [5, 6, 70, 50]]
    assert (record.width, record.height) == (80, 60)


def test_coco_results_become_a_data_set_with_their_images(photos: Path, tmp_path: Path) -> None:
    """Detections as annotations: what somebody does who labels with the detector's help."""
    make_run([photos / "12.png"], tmp_path / "out", "coco")
    entries = json.loads((tmp_path / "out/detections.coco.json").read_text())
    annotations = [
        entry | {"id": number, "area": entry["bbox"][2] * entry["bbox"][3], "iscrowd": 0}
        for number, entry in enumerate(entries, 1)
    ]
    truth: dict[str, Any] = {
        "images": [{"id": 12, "file_name": "12.png", "width": 80, "height": 60}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "naïve dog"}],
        "annotations": annotations,
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (record,) = read_coco(tmp_path / "truth.json", photos).records
    np.testing.assert_allclose(record.boxes, [box for _, _, box in STUB], atol=1e-9)


def test_confidence_is_for_labels(photos: Path, tmp_path: Path) -> None:
    make_run([photos / "12.png"], tmp_path / "out", "yolo", "voc", "labelme", confidence=True)
    scores = [line.split()[5] for line in (tmp_path / "out/labels/12.txt").read_text().splitlines()]
    assert [float(score) for score in scores] == [0.7, 0.6]
    assert (tmp_path / "out/Annotations/12.xml").read_text().count("<confidence>") == 2


def test_an_image_without_detections_has_an_empty_label_file(photos: Path, tmp_path: Path) -> None:
    make_run([photos / "12.png"], tmp_path / "out", "yolo", "voc", "csv", "coco", detector=StubDetector(0))
    assert (tmp_path / "out/labels/12.txt").read_bytes() == b""
    assert "<object>" not in (tmp_path / "out/Annotations/12.xml").read_text()
    assert (tmp_path / "out/detections.csv").read_text() == ",".join(CSV_HEADER) + "\n"
    assert json.loads((tmp_path / "out/detections.coco.json").read_text()) == []


# ---- what is replaced

FILES = {
    "voc": "Annotations/12.xml",
    "yolo": "labels/12.txt",
    "labelme": "labelme/12.json",
    "coco": "detections.coco.json",
    "csv": "detections.csv",
    "ilsvrc": "detections.ilsvrc.txt",
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_of_somebody_else_or_corrected_by_hand_is_not_replaced(photos: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    path = out / FILES[kind]
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    before = contents(out)
    with pytest.raises(OutputError, match=path.name):
        make_run([photos / "12.png"], out, kind)
    assert contents(out) == before
    path.unlink()
    make_run([photos / "12.png"], out, kind)
    make_run([photos / "12.png"], out, kind, detector=StubDetector(1))  # it is detect's own
    corrected = path.read_bytes() + b" "
    path.write_bytes(corrected)
    with pytest.raises(OutputError, match="changed since"):
        make_run([photos / "12.png"], out, kind)
    assert path.read_bytes() == corrected


def test_labels_of_another_image_of_that_name_are_not_replaced(photos: Path, tmp_path: Path) -> None:
    make_run([photos / "12.png"], tmp_path / "out", "yolo")
    with pytest.raises(OutputError, match=r"12\.txt: holds the results of .*photos/12\.png"):
        make_run([photo(tmp_path / "other/12.png")], tmp_path / "out", "yolo")


def test_crops_of_an_earlier_run_do_not_stay(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make_run([photos], out, crops=True, recursive=True)
    mine = photo(out / "crops/cat/12_9.jpg")
    make_run([photos / "12.png"], out, crops=True, detector=StubDetector(1))
    crops = {name for name in contents(out) if name.startswith("crops/")}
    assert crops == {
        *("crops/naïve dog/12_1.jpg", "crops/naïve dog/a/7_1.jpg", "crops/naïve dog/a/000139_1.jpg"),
        *("crops/cat/a/7_2.jpg", "crops/cat/a/000139_2.jpg", f"crops/cat/{mine.name}"),
    }


def test_crops_and_frames_are_no_images_of_a_later_run(photos: Path, tmp_path: Path) -> None:
    detector = StubDetector()
    for _ in range(2):
        make_run([photos], photos / "results", crops=True, recursive=True, detector=detector)
    assert detector.seen == ["12", "a/000139", "a/7"] * 2
