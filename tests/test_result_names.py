"""Names and numbers in files of detections: what they mean, and that every format gives them back."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.data.ground_truth import ClassTable
from detector.detections import Detections
from detector.evaluation import DetectionTable, ResultsError, Truth, evaluate_coco, evaluate_voc, read_results
from detector.evaluation.truth import HALF_OPEN, ILSVRC, VOC, Convention
from detector.evaluation.voc_names import labels_of_files, quoted
from detector.evaluation.writing import write_results
from detector.experiments.journal import Journal

Main = Callable[[list[str]], int]


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def make_truth(
    images: tuple[str, ...],
    classes: tuple[str, ...],
    *,
    name: str = "toy val",
    convention: Convention = HALF_OPEN,
    numbers: tuple[int, ...] | None = None,
    ids: tuple[int, ...] | None = None,
    numbered: bool = True,
) -> Truth:
    """Images of 400 x 400 px with an object of each class at another place, its corners no whole numbers."""
    generator = np.random.default_rng(len(images) + 10 * len(classes))
    corner = generator.uniform(10, 200, (len(images) * len(classes), 2))
    boxes = np.concatenate([corner, corner + generator.uniform(20, 150, corner.shape)], axis=1)
    return Truth(
        name=name,
        classes=ClassTable(classes, (None,) * len(classes), ids or tuple(range(1, len(classes) + 1))),
        image_ids=images,
        paths=tuple(Path(f"photos/{image}.jpg") for image in images),
        sizes=np.full((len(images), 2), 400),
        numbers=None if numbers is None else np.array(numbers),
        image_index=np.repeat(np.arange(len(images)), len(classes)),
        labels=np.tile(np.arange(len(classes)), len(images)),
        boxes=boxes,
        difficult=np.zeros(len(boxes), np.bool_),
        crowd=np.zeros(len(boxes), np.bool_),
        areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
        convention=convention,
        numbered=numbered,
    )


def half_right(truth: Truth, seed: int) -> DetectionTable:
    """Two boxes an object: one somewhere near it, in half of all cases of its class; tied scores among them."""
    generator = np.random.default_rng(seed)
    boxes = np.concatenate([truth.boxes, truth.boxes + generator.normal(0, 25, truth.boxes.shape)])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    boxes = np.maximum(boxes, 1)
    labels = np.tile(truth.labels, 2)
    other = generator.integers(len(truth.classes), size=len(labels))
    labels = np.where(generator.random(len(labels)) < 0.5, labels, other)
    scores = generator.choice([0.25, 0.5, 1 / 3, *generator.random(20)], len(labels))
    return DetectionTable(np.tile(truth.image_index, 2), labels, scores, boxes, truth.convention)


IMAGES = (
    ("a", "b", "ab"),
    ("IMG (1)", "IMG", "IMG 1", "IMG 1 0.5 2 3"),
    ("left/1", "right/1", "left/right/1", "1"),
    ("1", "01", "001", "1.0", "1e0"),
    ("12345678901234567890123", "12345678901234567890124", "9007199254740993"),
    ("été", nfd("noël"), "noe", "犬 の 写真", "собака"),
    ("a.b", "a", "a.b.c", "b.jpg"),
    ("no break\u00a0space", "no break space", "line\u2028separator", "nan"),
    ("comp4_det_val_cat", "_", "-1", "#1"),
    ("a%20b", "a b", "A b", "100%"),
)
CLASSES = (
    ("mask", "no_mask", "un_no_mask"),
    ("light", "traffic light", "traffic_light", "red traffic_light"),
    ("cat/dog", "dog", "cat%2Fdog", "cat", "c/a/t/dog"),
    ("1", "2", "10", "0", "2.0"),
    ("no", "yes", "1e3", "12:30", "x: y"),
    ("été", nfd("noël"), "Öl", "犬", "собака", "猫"),
    ('a"b', "a*b?", "<a>", "a|b", "a\\b", "c:\\x"),
    ("val_cat", "cat", "det_val_cat", "comp4_det_val_cat"),
    ("cat", "cat", "dog"),
    ("a %41", "a A", "a %", "%", "100%"),
)


@pytest.mark.parametrize("form", [".json", "", ".txt", ".jsonl"])
@pytest.mark.parametrize(("images", "classes"), list(zip(IMAGES, CLASSES, strict=True)), ids=range(len(IMAGES)))
def test_what_is_saved_reads_back_to_the_same_ap(
    tmp_path: Path, images: tuple[str, ...], classes: tuple[str, ...], form: str
) -> None:
    """Whatever the names; of our own numbering and of a file's own, whose numbers meet the names."""
    for seed, (convention, name, numbered) in enumerate(
        [(VOC, "toy val", False), (HALF_OPEN, "no", True), (ILSVRC, "cats un_no", False)]
    ):
        ids = tuple(len(classes) + 1 - place for place in range(len(classes)))
        numbers = tuple((7 * place + 3) % 11 for place in range(len(images)))
        truth = make_truth(
            images, classes, name=name, convention=convention, numbers=numbers, ids=ids, numbered=numbered
        )
        table = half_right(truth, seed)
        path = tmp_path / f"{seed}{form}"
        if form == ".jsonl":
            with Journal(path, truth.classes, {}) as journal:
                found = table.to(HALF_OPEN)
                for index in reversed(range(len(truth))):
                    mine = found[found.image_index == index]
                    journal.append(truth.image_ids[index], Detections(mine.boxes, mine.scores, mine.labels))
            table = table[np.argsort(table.image_index, kind="stable")]
        else:
            write_results(path, truth, table)
        again = read_results(path, truth).table
        for evaluate in (evaluate_voc, evaluate_coco):
            before = evaluate(truth, table)
            assert evaluate(truth, again).ap == before.ap
            assert evaluate(truth, again).summary == before.summary
            assert 0 < before.mean_ap < 1


# ---- numbers


GOOD: dict[str, Any] = {"image_id": 2, "category_id": 1, "bbox": [10, 20, 30, 40], "score": 0.5}


@pytest.mark.parametrize(
    "change",
    [
        {"image_id": "2"},
        {"image_id": 2.0},
        {"image_id": "2.0"},
        {"image_id": "002"},
        {"image_id": " 2"},
        {"image_id": "2.jpg"},
        {"image_id": "photos/2.jpg"},
        {"image_id": "/data/photos/2.jpg"},
        {"category_id": "1"},
        {"category_id": 1.0},
        {"category_id": "01"},
        {"category_id": "cat"},
        {"category_id": 77, "category": "cat"},
        {"category_id": "1", "category": None},
        {"score": "0.5"},
        {"score": "5e-1"},
        {"bbox": ["10", "20.0", 30, 4e1]},
    ],
)
def test_texts_and_floats_name_what_their_number_names(tmp_path: Path, change: dict[str, Any]) -> None:
    truth = make_truth(("1", "2", "20"), ("cat", "dog"))
    path = tmp_path / "found.json"
    path.write_text(json.dumps([GOOD | change, GOOD]))
    if change.get("image_id") == "/data/photos/2.jpg":
        truth = replace(truth, paths=tuple(Path("/data") / path for path in truth.paths))
    table = read_results(path, truth).table
    assert table.image_index.tolist() == [1, 1]
    assert table.labels.tolist() == [0, 0]
    assert table.scores.tolist() == [0.5, 0.5]
    assert table.boxes.tolist() == [[10, 20, 40, 60]] * 2


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"score": float("nan")}, "nan"),
        ({"score": float("inf")}, "inf"),
        ({"score": "nan"}, "nan"),
        ({"score": "-Infinity"}, "-inf"),
        ({"bbox": [1, 2, float("nan"), 4]}, "nan"),
        ({"score": "1_0"}, "1_0"),
        ({"score": True}, "True"),
        ({"bbox": [True, 2, 3, 4]}, "True"),
        ({"image_id": True}, "True"),
        ({"image_id": 2.5}, "2.5"),
        ({"image_id": [2]}, r"\[2\]"),
        ({"category_id": 1.5}, "1.5"),
        ({"category_id": False}, "False"),
        ({"category_id": "3"}, "'3'"),
        ({"category_id": "9" * 5000}, "999"),
    ],
)
def test_what_is_no_number_is_refused_by_name(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    path = tmp_path / "found.json"
    path.write_text(json.dumps([GOOD, GOOD | change]))
    with pytest.raises(ResultsError, match=rf"found.json: detection 2: .*{named}"):
        read_results(path, make_truth(("1", "2", "20"), ("cat", "dog")))


def test_a_number_too_large_for_a_float_is_refused_by_name(tmp_path: Path) -> None:
    truth = make_truth(("1", "2"), ("cat",))
    for text in ("1e999", "9" * 400):
        (tmp_path / "found.json").write_text(json.dumps([GOOD]).replace("0.5", text))
        with pytest.raises(ResultsError, match=r"detection 1: score "):
            read_results(tmp_path / "found.json", truth)


def test_image_ids_of_any_size(tmp_path: Path) -> None:
    """Beyond 2^53 float64 tells neighbours apart no more, beyond 2^63 no NumPy integer holds them."""
    large = (2**53 + 1, 2**53, 2**70 + 1, 2**70)
    truth = make_truth(tuple(map(str, large)), ("cat",))
    for ids in (large, tuple(map(str, large))):
        entries = [GOOD | {"image_id": image_id, "score": 0.9} for image_id in ids]
        (tmp_path / "found.json").write_text(json.dumps(entries))
        table = read_results(tmp_path / "found.json", truth).table
        assert table.image_index.tolist() == [0, 1, 2, 3]
        assert evaluate_coco(truth, table).mean_ap == 0
    ilsvrc = make_truth(("a", "b", "c"), ("cat",), numbers=(2**53, 2**53 + 1, 5))
    (tmp_path / "found.txt").write_text(f"5 1 0.5 1 2 30 40\n{2**53 + 1} 1 0.5 1 2 30 40\n")
    assert read_results(tmp_path / "found.txt", ilsvrc).table.image_index.tolist() == [2, 1]
    for number in (2**53 + 2, 2**70, "9e15", "1e400"):
        (tmp_path / "found.txt").write_text(f"5 1 0.5 1 2 30 40\n{number} 1 0.5 1 2 30 40\n")
        with pytest.raises(ResultsError, match=r"line 2: unknown image "):
            read_results(tmp_path / "found.txt", ilsvrc)


def test_a_large_number_is_named_in_full(tmp_path: Path) -> None:
    (tmp_path / "found.txt").write_text("1234567 1 0.5 1 2 30 40\n")
    with pytest.raises(ResultsError, match="'1234567'"):
        read_results(tmp_path / "found.txt", make_truth(("a",), ("cat",), numbers=(5,)))


def test_a_category_id_of_digits_is_a_number_and_a_category_a_name(tmp_path: Path) -> None:
    truth = make_truth(("2",), ("1", "2"), ids=(2, 1))
    for change, label in (({"category_id": "1"}, 1), ({"category": "1"}, 0), ({"category_id": 1}, 1)):
        (tmp_path / "found.json").write_text(json.dumps([GOOD | change]))
        assert read_results(tmp_path / "found.json", truth).table.labels.tolist() == [label]
    line = {"image_id": "2", "boxes": [[1, 2, 30, 40]], "scores": [0.5], "labels": ["1"]}
    (tmp_path / "found.jsonl").write_text(json.dumps(line))
    assert read_results(tmp_path / "found.jsonl", truth).table.labels.tolist() == [0]


@pytest.mark.parametrize(("given", "wanted"), [("café", nfd("café")), (nfd("café"), "café")])
def test_names_in_either_unicode_form(tmp_path: Path, given: str, wanted: str) -> None:
    truth = make_truth((f"{wanted} 1", "x"), (wanted, "tea"), numbered=False)
    entry = {"image_id": f"{given} 1", "category_id": given, "bbox": [1, 2, 30, 40], "score": 0.5}
    (tmp_path / "found.json").write_text(json.dumps([entry]))
    (tmp_path / f"comp4_det_val_{given}.txt").write_text(f"{given} 1 0.5 1 2 30 40\n")
    for path in (tmp_path / "found.json", tmp_path, tmp_path / f"comp4_det_val_{given}.txt"):
        table = read_results(path, truth).table
        assert (table.image_index.tolist(), table.labels.tolist()) == ([0], [0])


# ---- lines of JSON


LINE: dict[str, Any] = {"image_id": "2", "boxes": [[10, 20, 40, 60]], "scores": [0.5], "labels": ["cat"]}


def test_lines_go_through_the_checks_of_every_format(tmp_path: Path) -> None:
    """The same mistakes in the same detections are refused or warned of in all four formats."""
    truth = make_truth(tuple(str(number) for number in range(1, 31)), ("cat", "dog"), convention=HALF_OPEN)
    truth = replace(truth, boxes=np.concatenate([truth.boxes[:, :2], truth.boxes[:, :2] + 60], axis=1))

    def read(boxes: np.ndarray, labels: np.ndarray) -> Any:
        lines = []
        for index, image_id in enumerate(truth.image_ids):
            mine = truth.image_index == index
            names = [truth.classes.names[label] for label in labels[mine].tolist()]
            lines.append({"image_id": image_id, "boxes": boxes[mine].tolist(), "scores": [0.5] * 2, "labels": names})
        (tmp_path / "found.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return read_results(tmp_path / "found.jsonl", truth)

    assert read(truth.boxes, truth.labels).warnings == ()
    sizes = np.concatenate([truth.boxes[:, :2], truth.boxes[:, 2:] - truth.boxes[:, :2]], axis=1)
    with pytest.raises(ResultsError, match="x, y, width, height"):
        read(sizes, truth.labels)
    (outside,) = read(np.where(np.arange(60)[:, None] == 7, [[10, 10, 900, 60]], truth.boxes), truth.labels).warnings
    assert "1 of 60 boxes reach outside" in outside
    assert "line 4" in outside
    (flat,) = read(np.where(np.arange(60)[:, None] == 7, [[10, 10, 10, 60]], truth.boxes), truth.labels).warnings
    assert "1 of 60 boxes have no area" in flat


def test_numbers_in_lines_may_be_texts_or_floats(tmp_path: Path) -> None:
    truth = make_truth(("1", "2"), ("cat", "dog"))
    for change in ({"image_id": 2.0}, {"image_id": 2}, {"scores": ["0.5"]}, {"boxes": [["10", 20, "4e1", 60.0]]}):
        (tmp_path / "found.jsonl").write_text(json.dumps(LINE | change))
        table = read_results(tmp_path / "found.jsonl", truth).table
        assert (table.image_index.tolist(), table.boxes.tolist()) == ([1], [[10, 20, 40, 60]])


def test_an_image_under_two_names_occurs_twice(tmp_path: Path) -> None:
    (tmp_path / "found.jsonl").write_text(json.dumps(LINE) + "\n" + json.dumps(LINE | {"image_id": "2.jpg"}))
    with pytest.raises(ResultsError, match=r"line 2: .*'2'.* line 1"):
        read_results(tmp_path / "found.jsonl", make_truth(("1", "2"), ("cat", "dog")))


def test_an_unknown_image_without_detections_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "found.jsonl").write_text(json.dumps(LINE | {"image_id": "9", "boxes": [], "scores": [], "labels": []}))
    with pytest.raises(ResultsError, match=r"line 1: .*'9'"):
        read_results(tmp_path / "found.jsonl", make_truth(("1", "2"), ("cat", "dog")))


def test_pretty_printed_ground_truth_is_no_file_of_lines(tmp_path: Path) -> None:
    (tmp_path / "found.json").write_text(json.dumps({"images": [], "annotations": []}, indent=2))
    with pytest.raises(ResultsError, match=r"found.json: holds ground truth"):
        read_results(tmp_path / "found.json", make_truth(("1",), ("cat",)))


# ---- VOC's files


@pytest.mark.parametrize(
    ("classes", "split", "stems", "expected"),
    [
        (("mask", "no_mask"), "test", ["comp4_det_test_mask", "comp4_det_test_no_mask"], ["mask", "no_mask"]),
        (("no_mask", "mask"), "test", ["comp4_det_test_no_mask"], ["no_mask"]),
        (("mask", "no_mask"), "x", ["comp3_det_test_no_mask"], ["no_mask"]),
        (("mask", "no_mask"), "no", ["comp4_det_no_mask", "comp4_det_no_no_mask"], ["mask", "no_mask"]),
        (("mask", "no_mask"), "no", ["comp4_det_no_mask"], ["mask"]),
        (
            ("light", "traffic light"),
            "v",
            ["comp4_det_v_traffic light", "comp4_det_v_light"],
            ["traffic light", "light"],
        ),
        (("a/b", "b"), "val", ["comp4_det_val_a%2Fb", "comp4_det_val_b"], ["a/b", "b"]),
        (("a%2Fb", "b"), "val", ["comp4_det_val_a%2Fb"], ["a%2Fb"]),
        (("a:b", "b"), "val", ["comp4_det_val_a:b", "comp4_det_val_b"], ["a:b", "b"]),
        (("cat",), "val", ["results_det_2012_val_cat"], ["cat"]),
    ],
)
def test_the_class_of_a_file(classes: tuple[str, ...], split: str, stems: list[str], expected: list[str]) -> None:
    truth = make_truth(("1",), classes, name=f"toy {split}")
    files = [Path(f"{stem}.txt") for stem in stems]
    found = labels_of_files(files, dict(zip(classes, range(len(classes)), strict=True)), truth)
    assert [classes[found[file]] for file in files] == expected


@pytest.mark.parametrize(
    ("classes", "names", "named"),
    [
        (("light", "dog"), ["comp4_det_v_dog.txt", "comp4_det_v_traffic_light.txt"], "traffic_light.txt"),
        (("mask", "no_mask"), ["comp4_det_v_mask.txt", "comp4_det_w_mask.txt"], "comp4_det_w_mask.txt"),
        (("mask",), ["comp4_det_v_bee.txt"], "comp4_det_v_bee.txt"),
        (("é",), ["comp4_det_v_é.txt", f"comp4_det_v_{nfd('é')}.txt"], "'é'"),
    ],
)
def test_files_that_are_no_set_of_classes(
    tmp_path: Path, classes: tuple[str, ...], names: list[str], named: str
) -> None:
    for name in names:
        (tmp_path / name).write_text("1 0.5 1 2 30 40\n")
    with pytest.raises(ResultsError, match=named):
        read_results(tmp_path, make_truth(("1",), classes))


def test_names_of_files_tell_classes_apart() -> None:
    for names in CLASSES:
        assert len({quoted(name) for name in names}) == len(set(names))
        assert not any(set('/\\:*?"<>|') & set(quoted(name)) for name in names)


def test_image_names_with_blanks_and_numbers(tmp_path: Path) -> None:
    """The last five words of a line are numbers, the rest is the name."""
    truth = make_truth(("IMG (1)", "a  b", "7 0.5 1 2 3", "7"), ("cat",))
    lines = ["IMG (1) 0.9 1 2 30 40", "a  b 0.8 1 2 30 40", "7 0.5 1 2 3 0.7 1 2 30 40", "7 0.6 1 2 30 40"]
    for ending in ("\n", "\r\n"):
        (tmp_path / "comp4_det_val_cat.txt").write_bytes(ending.join(lines).encode())
        for path in (tmp_path, tmp_path / "comp4_det_val_cat.txt"):
            assert read_results(path, truth).table.image_index.tolist() == [0, 1, 2, 3]


def test_a_name_that_cannot_stand_in_a_line_is_refused(tmp_path: Path) -> None:
    truth = make_truth(("two\nlines", "b"), ("cat",))
    with pytest.raises(ResultsError, match="two"):
        write_results(tmp_path / "found", truth, half_right(truth, 0))


def test_one_class_is_the_end_of_another(tool: Callable[[str], Main], tmp_path: Path) -> None:
    """The files that --save writes score as the file that they were made of, whatever the order of the classes."""
    (tmp_path / "xml").mkdir()
    entries = []
    for number in range(3):
        items = ""
        for place, name in enumerate(("mask", "no_mask")):
            x = 10 + 150 * place
            items += (
                f"<object><name>{name}</name><bndbox><xmin>{x}</xmin><ymin>10</ymin>"
                f"<xmax>{x + 99}</xmax><ymax>109</ymax></bndbox></object>"
            )
            box = [x - 1, 9, 100, 100]
            entries.append({"image_id": f"p{number}", "category_id": name, "bbox": box, "score": 0.9})
        size = "<size><width>400</width><height>400</height></size>"
        (tmp_path / f"xml/p{number}.xml").write_text(f"<annotation>{size}{items}</annotation>")
    (tmp_path / "test.txt").write_text("p0\np1\np2\n")
    (tmp_path / "det.json").write_text(json.dumps(entries))
    for classes in ("mask,no_mask", "no_mask,mask"):
        arguments = ["--protocol", "voc", "--annotations", str(tmp_path / "xml"), "--classes", classes, "resamples=0"]
        arguments += ["--image-list", str(tmp_path / "test.txt"), "--json", str(tmp_path / "out.json")]
        saved = str(tmp_path / classes)
        assert tool("eval_map")([*arguments, "--detections", str(tmp_path / "det.json"), "--save", saved]) == 0
        assert tool("eval_map")([*arguments, "--detections", saved]) == 0
        assert json.loads((tmp_path / "out.json").read_text())["ap"] == {"mask": 1.0, "no_mask": 1.0}


# ---- sizes of images


def test_detections_on_the_objects_are_not_refused_for_a_stated_size(tmp_path: Path) -> None:
    """Width and height swapped or not known: good detections score 1, and corners for widths are still seen."""
    truth = make_truth(tuple("123"), ("cat",))
    truth = replace(truth, boxes=np.tile([[300.0, 20, 380, 90]], (3, 1)))
    entries = [{"image_id": name, "category_id": 1, "bbox": [300, 20, 80, 70], "score": 0.5} for name in "123"]
    corners = [entry | {"bbox": [300, 20, 380, 90]} for entry in entries]
    for sizes in ([100, 400], [0, 0], [0, 100]):
        odd = replace(truth, sizes=np.tile([sizes], (3, 1)))
        (tmp_path / "found.json").write_text(json.dumps(entries))
        table, warnings = read_results(tmp_path / "found.json", odd)
        assert len(warnings) == (0 not in sizes)
        assert evaluate_coco(odd, table).mean_ap == pytest.approx(1)
        (tmp_path / "found.json").write_text(json.dumps(corners))
        with pytest.raises(ResultsError, match="x1, y1, x2, y2"):
            read_results(tmp_path / "found.json", odd)
