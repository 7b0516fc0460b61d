"""Tables of detections, results files and the journal of an unfinished run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.data.ground_truth import ClassTable, Dataset, Record
from detector.detections import Detections
from detector.evaluation import DetectionTable, ResultsError, Truth, evaluate_voc, write_coco
from detector.evaluation.reading import read_results as read_with_warnings
from detector.evaluation.results import class_keys
from detector.experiments.journal import Journal, check_journals

CRANES = ClassTable(("cat", "crane", "crane", "dog"), (None, "n02012849", "n03126707", None), (1, 7, 8, 90))


def make_dataset(*image_ids: str, names: tuple[str, ...] = ("cat", "dog")) -> Truth:
    """Images of 100 x 80 px with an object of class 0 each."""
    records = tuple(
        Record(
            image_id=image_id,
            path=Path("images") / f"{image_id.zfill(6)}.jpg",
            width=100,
            height=80,
            boxes=np.array([[0.0, 0, 10, 10]]),
            labels=np.zeros(1, dtype=np.int64),
            difficult=np.zeros(1, dtype=np.bool_),
            crowd=np.zeros(1, dtype=np.bool_),
            areas=np.array([100.0]),
        )
        for image_id in image_ids
    )
    return Truth.of(Dataset("toy", ClassTable(names, (None,) * len(names), tuple(range(1, len(names) + 1))), records))


def read_results(path: Path, dataset: Truth) -> DetectionTable:
    return read_with_warnings(path, dataset).table


def make_detections(seed: int, count: int = 5, class_count: int = 2) -> Detections:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 40, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(1, 30, (count, 2))], axis=1)
    return Detections(boxes, np.sort(rng.random(count))[::-1], rng.integers(class_count, size=count))


def same(first: DetectionTable, second: DetectionTable) -> bool:
    names = ("image_index", "labels", "scores", "boxes")
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in names)


def refused(path: Path, dataset: Truth, content: object) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ResultsError) as caught:
        read_results(path, dataset)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


def test_table_from_images_is_in_the_order_of_the_records() -> None:
    dataset = make_dataset("a", "b", "c")
    found = {"c": make_detections(0), "a": make_detections(1, 3)}
    table = DetectionTable.from_images(dataset, found)
    assert table.image_index.tolist() == [0] * 3 + [2] * 5
    assert np.array_equal(table.scores, np.concatenate([found["a"].scores, found["c"].scores]))
    assert len(table[table.image_index == 2]) == 5
    assert len(DetectionTable.from_images(dataset, {})) == 0
    assert len(DetectionTable.from_images(dataset, {"a": Detections.empty()})) == 0
    assert DetectionTable.from_images(dataset, {}).boxes.shape == (0, 4)


def test_table_refusals() -> None:
    with pytest.raises(ValueError, match=r"'imagf'.* toy \(1 "):
        DetectionTable.from_images(make_dataset("image"), {"imagf": make_detections(0)})
    one, box = np.zeros(1, dtype=np.int64), np.zeros((1, 4))
    with pytest.raises(ValueError, match=r"\[1, 2\]"):
        DetectionTable(one, one, np.zeros(2), box)
    with pytest.raises(ValueError, match="not finite"):
        DetectionTable(one, one, np.array([np.nan]), box)
    with pytest.raises(ValueError, match="negative"):
        DetectionTable(one - 1, one, np.zeros(1), box)


def test_class_keys_tell_namesakes_apart() -> None:
    assert class_keys(CRANES) == ["cat", "n02012849", "n03126707", "dog"]
    assert class_keys(ClassTable(("a", "a"), (None, None), (4, 5))) == ["a #4", "a #5"]


@pytest.mark.parametrize("ids", [("139", "285"), ("000139", "000285"), ("2007_000032", "n01/x")])
def test_results_round_trip(tmp_path: Path, ids: tuple[str, str]) -> None:
    dataset = make_dataset(*ids)
    # Quarters of a pixel survive x, y, width, height exactly.
    found = {ids[1]: make_detections(1), ids[0]: make_detections(2)}
    table = DetectionTable.from_images(dataset, found)
    table = DetectionTable(table.image_index, table.labels, table.scores, np.round(table.boxes * 4) / 4)
    write_coco(tmp_path / "runs" / "results.json", dataset, table)
    assert same(read_results(tmp_path / "runs" / "results.json", dataset), table)
    written = json.loads((tmp_path / "runs" / "results.json").read_text())
    assert {entry["image_id"] for entry in written} == ({139, 285} if ids[0] == "139" else set(ids))
    x1, y1, x2, y2 = table.boxes[0]
    assert written[0]["bbox"] == [x1, y1, x2 - x1, y2 - y1]
    assert written[0]["category_id"] == dataset.classes.ids[table.labels[0]]


def test_no_results(tmp_path: Path) -> None:
    dataset = make_dataset("1")
    path = tmp_path / "results.json"
    write_coco(path, dataset, DetectionTable.from_images(dataset, {}))
    assert json.loads(path.read_text()) == []
    assert len(read_results(path, dataset)) == 0
    path.write_text("")
    assert len(read_with_warnings(path, dataset).warnings) == 1
    path.unlink()
    with pytest.raises(ResultsError, match=r"results.json"):
        read_results(path, dataset)


@pytest.mark.parametrize("name", [139, "139", "000139", "000139.jpg"])
def test_an_image_by_number_stem_or_file_name(tmp_path: Path, name: int | str) -> None:
    dataset = make_dataset("7", "139")
    path = tmp_path / "results.json"
    path.write_text(json.dumps([{"image_id": name, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1}]))
    assert read_results(path, dataset).image_index.tolist() == [1]
    path.write_text(json.dumps({"image_id": name, "boxes": [[1, 2, 4, 6]], "scores": [1], "labels": ["cat"]}))
    assert read_results(path, dataset).image_index.tolist() == [1]
    assert read_results(path, dataset).boxes.tolist() == [[1, 2, 4, 6]]


GOOD: dict[str, Any] = {"image_id": 139, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"image_id": 138}, "unknown image '138', not in toy. Did you mean '139'?"),
        ({"category_id": 3}, "unknown category 3. toy has 1, 2"),
        ({"category_id": "bird"}, "unknown category 'bird'. toy has 1, 2"),
        ({"score": float("nan")}, "score must be a finite number, not nan"),
        ({"score": float("inf")}, "score must be a finite number, not inf"),
        ({"score": "half"}, "score must be a finite number, not 'half'"),
        ({"score": True}, "score must be a finite number, not True"),
        ({"bbox": [1, 2, 3]}, "bbox must be x, y, width, height, not [1, 2, 3]"),
        ({"bbox": [1, 2, 3, None]}, "bbox must be x, y, width, height, not [1, 2, 3, None]"),
        ({"bbox": [5, 2, -3, 4]}, "box [5.0, 2.0, -3.0, 4.0] "),
    ],
)
def test_refused_coco_results(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    content = [GOOD, GOOD | change]
    text = refused(tmp_path / "results.json", make_dataset("139", "7"), content)
    assert text.startswith(f"detection 2: {expected}")


def test_incomplete_coco_results(tmp_path: Path) -> None:
    path, dataset = tmp_path / "results.json", make_dataset("139")
    for key in ("category_id", "bbox", "score"):
        entry = {name: value for name, value in GOOD.items() if name != key}
        assert refused(path, dataset, [entry]) == f"detection 1: no '{key}'"
    assert refused(path, dataset, [3]) == "detection 1: an entry must be an object, not 3"
    assert refused(path, dataset, '[\n{"image_id": 139,,}\n]') == (
        "malformed JSON at line 2, column 18: Expecting property name enclosed in double quotes"
    )


def test_corners_in_place_of_width_and_height(tmp_path: Path) -> None:
    dataset = make_dataset("1")  # 100 x 80 px
    entries = [{"image_id": 1, "category_id": 1, "bbox": [40, 30, 95, 70], "score": 0.5}] * 3
    inside = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 95, 70], "score": 0.5}
    text = refused(tmp_path / "results.json", dataset, [*entries, inside])
    assert text.startswith("75% of the best boxes reach outside their image")


LINE: dict[str, Any] = {"image_id": "139", "boxes": [[1, 2, 3, 4]], "scores": [0.5], "labels": ["cat"]}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"image_id": "138"}, "unknown image '138', not in toy. Did you mean '139'?"),
        ({"image_id": "139"}, "image '139' occurs twice, first on line 1"),
        ({"labels": ["cats"]}, "unknown category 'cats'. toy has cat, dog. Did you mean 'cat'?"),
        ({"labels": [0]}, "unknown category 0. toy has cat, dog."),
        ({"labels": [None]}, "labels must be a list of numbers or names, not None"),
        ({"scores": [float("nan")]}, "score must be a finite number, not nan"),
        ({"scores": []}, "1 boxes, 0 scores, 1 labels"),
        ({"scores": 0.5}, "scores must be a list of finite numbers, not 0.5"),
        ({"boxes": [[1, 2, 3]]}, "boxes must be a list of x1, y1, x2, y2, not [1, 2, 3]"),
        ({"boxes": [[1, 2, float("inf"), 4]]}, "a box must be finite numbers, not [1.0, 2.0, inf, 4.0]"),
        ({"boxes": [[10, 2, 3, 4]]}, "box [10.0, 2.0, 3.0, 4.0] "),
    ],
)
def test_refused_lines(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    content = json.dumps(LINE) + "\n" + json.dumps(LINE | {"image_id": "7"} | change) + "\n"
    assert refused(tmp_path / "found.jsonl", make_dataset("139", "7"), content).startswith(f"line 2: {expected}")


def test_malformed_line(tmp_path: Path) -> None:
    content = json.dumps(LINE) + '\n{"image_id": "7", "boxes": [[1, 2\n'
    text = refused(tmp_path / "found.jsonl", make_dataset("139", "7"), content)
    assert text == "line 2: malformed JSON at column 34: Expecting ',' delimiter"


def test_namesakes_are_read_by_wnid(tmp_path: Path) -> None:
    dataset = replace(make_dataset("1"), name="cranes", classes=CRANES)
    path = tmp_path / "found.jsonl"
    path.write_text(json.dumps(LINE | {"image_id": "1", "labels": ["n03126707"]}))
    assert read_results(path, dataset).labels.tolist() == [2]
    assert refused(path, dataset, LINE | {"image_id": "1", "labels": ["crane"]}).startswith(
        "line 1: unknown category 'crane'"
    )


def test_journal_is_exact_and_resumes(tmp_path: Path) -> None:
    dataset = make_dataset("a", "b", "c", names=("cat", "dog"))
    found = {image_id: make_detections(seed, 50) for seed, image_id in enumerate("abc")}
    found["b"] = Detections.empty()
    path = tmp_path / "runs" / "journal.jsonl"
    with Journal(path, dataset.classes, {"seed": 1}) as journal:
        assert journal.done == set()
        journal.append("c", found["c"])
    with Journal(path, dataset.classes, {"seed": 1}) as journal:
        assert journal.done == {"c"}
        journal.append("a", found["a"])
        journal.append("b", found["b"])
        assert journal.done == {"a", "b", "c"}
        assert same(read_results(path, dataset), DetectionTable.from_images(dataset, found))  # already flushed
    unbroken = evaluate_voc(dataset, DetectionTable.from_images(dataset, found))
    assert evaluate_voc(dataset, read_results(path, dataset)) == unbroken


def test_journal_survives_a_cut_at_any_byte(tmp_path: Path) -> None:
    dataset = make_dataset("a", "b")
    found = {image_id: make_detections(seed, 2) for seed, image_id in enumerate("ab")}
    whole_path = tmp_path / "whole.jsonl"
    with Journal(whole_path, dataset.classes, {"seed": 1}) as journal:
        for image_id, detections in found.items():
            journal.append(image_id, detections)
    whole = whole_path.read_bytes()
    ends = [position + 1 for position, byte in enumerate(whole) if byte == ord("\n")]  # of the header, of a, of b
    path = tmp_path / "cut.jsonl"
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        with Journal(path, dataset.classes, {"seed": 1}) as journal:
            assert journal.done == set("ab"[: sum(length >= end for end in ends[1:])])
            for image_id in sorted(set("ab") - journal.done):
                journal.append(image_id, found[image_id])
        assert path.read_bytes() == whole


DAMAGE = {
    "zeros": b"\0\0\0\n",
    "no detections": b'{"image_id": "b"}\n',
    "cut in a number": b'{"image_id": "b", "boxes": [[1, 2, 3, 4]], "scores": [0.\n',
    "not an object": b"17\n",
    "the same image again": None,
    "lengths that differ": b'{"image_id": "b", "boxes": [], "scores": [0.5], "labels": [1]}\n',
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("where", [1, 2, 3])
def test_a_damaged_line_costs_its_own_image(tmp_path: Path, where: int, damage: bytes | None) -> None:
    """Behind the header, between two images and at the end: what is behind it stays."""
    dataset = make_dataset("a", "b", "c")
    path = tmp_path / "journal.jsonl"
    found = {image_id: make_detections(seed, 3) for seed, image_id in enumerate("abc")}
    with Journal(path, dataset.classes, {}) as journal:
        for image_id in "ac":
            journal.append(image_id, found[image_id])
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    lines.insert(where, lines[1] if damage is None else damage)
    path.write_bytes(b"".join(lines))
    with Journal(path, dataset.classes, {}) as journal:
        assert journal.done == {"a", "c"}
        assert path.read_bytes() == whole
        journal.append("b", found["b"])
    assert same(read_results(path, dataset), DetectionTable.from_images(dataset, found))


def test_a_damaged_first_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"journal": 1, "settings": {"a"\n{"image_id": "b"}\n')
    with pytest.raises(ResultsError, match=r"journal.jsonl"):
        Journal(path, make_dataset("a").classes, {})


def test_a_journal_is_written_by_one_process(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    classes = make_dataset("a").classes
    with Journal(path, classes, {}), pytest.raises(ResultsError, match=r"journal.jsonl"):
        Journal(path, classes, {})
    Journal(path, classes, {}).close()
    assert [file.name for file in tmp_path.iterdir()] == ["journal.jsonl"]


def test_journals_of_other_settings_are_named_together(tmp_path: Path) -> None:
    classes = make_dataset("a").classes
    paths = [tmp_path / f"{name}.jsonl" for name in ("one", "two", "absent")]
    for path in paths[:2]:
        Journal(path, classes, {"weights": ["a"], "deep": {"x": 1}}).close()
    (tmp_path / "more.jsonl").touch()
    check_journals(paths, {"weights": ["a"], "deep": {"x": 1}}, [tmp_path / "more.jsonl"])
    with pytest.raises(ResultsError, match=r"deep\.x = 1, now 2") as caught:
        check_journals(paths, {"weights": ["a"], "deep": {"x": 2}}, [tmp_path / "more.jsonl"])
    for name in ("one", "two", "more"):
        assert str(tmp_path / f"{name}.jsonl") in str(caught.value)
    assert "absent" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_journal_of_other_settings(tmp_path: Path) -> None:
    classes = make_dataset("a").classes
    path = tmp_path / "journal.jsonl"
    settings = {"proposals": {"limit": 2000, "sigmas": (0.8,)}, "seed": 1, "checkpoint": "6f1c"}
    Journal(path, classes, settings).close()
    Journal(path, classes, settings).close()  # tuples come back as lists, and are the same
    before = path.read_bytes()
    with pytest.raises(ResultsError, match=r"journal\.jsonl: .*proposals\.limit = 2000, now 500"):
        Journal(path, classes, settings | {"proposals": {"limit": 500, "sigmas": (0.8,)}})
    with pytest.raises(ResultsError, match=r"seed = 1, .*2 more"):
        Journal(path, classes, {"proposals": settings["proposals"], "flip": True})
    assert path.read_bytes() == before


def test_journal_leaves_other_files_alone(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('[{"image_id": 1}]')
    with pytest.raises(ResultsError, match="not a journal"):
        Journal(path, make_dataset("a").classes, {})
    assert path.read_text() == '[{"image_id": 1}]'


def test_journal_append_refusals(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl", make_dataset("a").classes, {}) as journal:
        journal.append("a", make_detections(0))
        with pytest.raises(ValueError, match="'a'"):
            journal.append("a", make_detections(0))
        with pytest.raises(ValueError, match=r"'b' .*2 classes"):
            journal.append("b", make_detections(0, 50, class_count=3))
