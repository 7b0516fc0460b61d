"""Imported proposals: COCO's annotations as proposals, and scores of which the best is the lowest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.data import open_dataset
from detector.data.dataset import DataConfig, DatasetKind
from detector.data.ground_truth import Dataset
from detector.importing.files import read_proposals
from detector.importing.given import Given, ProposalFileError
from detector.importing.into_store import Best, import_proposals
from detector.importing.layout import ERRORS
from detector.importing.ranking import FEWEST, check_best_first
from proposals.store import ProposalStore

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def dataset(shapes: Path) -> Dataset:
    return open_dataset(DataConfig(DatasetKind.voc, str(shapes), "val"))


def of_dataset(folder: Path, dataset: Dataset) -> dict[str, Array]:
    store = ProposalStore(folder)
    return {one.image_id: np.asarray(store.get("x", one.path.read_bytes()).boxes) for one in dataset.records}


# ---- COCO's annotations


def annotated(path: Path, images: list[Any], annotations: list[Any]) -> Path:
    path.write_text(json.dumps({"info": {}, "images": images, "annotations": annotations, "categories": []}))
    return path


@pytest.mark.parametrize("scored", [True, False])
def test_annotations_are_proposals(dataset: Dataset, tmp_path: Path, scored: bool) -> None:
    """Images are found by their file names: the ids are of that file alone."""
    generator = np.random.default_rng(4)
    names = [record.image_id for record in dataset.records]
    images = [
        {"id": 900 + place, "file_name": f"JPEGImages/{record.path.name}", "width": 96}
        for place, record in enumerate(dataset.records)
    ]
    annotations: list[dict[str, Any]] = []
    wanted: dict[str, list[list[float]]] = {name: [] for name in names}
    for number in range(60):
        place = int(generator.integers(len(names)))
        x, y, width, height = (int(value) for value in generator.integers(1, 40, 4))
        one = {"id": number, "image_id": 900 + place, "category_id": 1, "bbox": [x, y, width, height], "iscrowd": 0}
        annotations.append(one | ({"score": 1 - number / 100} if scored else {}))
        wanted[names[place]].append([x, y, x + width, y + height])
    import_proposals(annotated(tmp_path / "b.json", images, annotations), dataset, tmp_path / "store")
    found = of_dataset(tmp_path / "store", dataset)
    for name in names:
        np.testing.assert_array_equal(found[name], np.array(wanted[name], np.float32))


def test_annotations_of_images_without_file_names_are_named_by_id(tmp_path: Path) -> None:
    entry = {"image_id": "7", "bbox": [0, 0, 2, 2]}
    given = read_proposals(annotated(tmp_path / "b.json", [{"id": 7}], [entry]))
    assert (given.names, given.boxes.tolist()) == ((7,), [[0, 0, 2, 2]])


@pytest.mark.parametrize(
    ("images", "annotations", "message"),
    [
        ([{"id": 1}, {"id": 1.0}], [], "'images' has the id 1 twice"),
        ([{"id": 1}], [{"image_id": 2, "bbox": [0, 0, 1, 1]}], "of image 2, which 'images' does not list"),
        ([{"id": 1}], [{"image_id": 1, "bbox": [0, 0, 1]}], "not a list of COCO results, nor COCO's images and"),
        ([{"id": 1}], [], "holds no images"),
    ],
)
def test_annotations_that_are_wrong(images: list[Any], annotations: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ProposalFileError) as caught:
        read_proposals(annotated(tmp_path / "b.json", images, annotations))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- which score is the best


def iou(one: Array, other: Array) -> float:
    shared = max(0.0, min(one[2], other[2]) - max(one[0], other[0])) * max(
        0.0, min(one[3], other[3]) - max(one[1], other[1])
    )
    return float(shared / ((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - shared))


def scene(images: int, *, seed: int = 0, boxes: int = 25, sure: float = 0.4) -> tuple[Given, list[Array]]:
    """Random boxes; with the chance `sure` one of them, which then has the highest score, is an object's."""
    generator = np.random.default_rng(seed)
    ends = np.array([0.0, 0.0, 1.0, 1.0])
    corners = ends + np.sort(generator.uniform(0, 100, (images, boxes, 2, 2)), axis=2).reshape(images, boxes, 4)
    scores = generator.uniform(0, 1, (images, boxes))
    objects = list(ends + np.sort(generator.uniform(0, 100, (images, 1, 2, 2)), axis=2).reshape(images, 1, 4))
    for place in np.flatnonzero(generator.random(images) < sure):
        corners[place, scores[place].argmax()] = objects[place][0]
    starts = np.arange(0, images * boxes + 1, boxes)
    given = Given(Path("b.csv"), tuple(map(str, range(images))), starts, corners.reshape(-1, 4), scores.reshape(-1))
    return given, objects


def turned(given: Given) -> Given:
    assert given.scores is not None
    return Given(given.path, given.names, given.starts, given.boxes, -given.scores)


def clearly_reversed(given: Given, objects: list[Array]) -> bool:
    """The rule, one object at a time."""
    assert given.scores is not None
    differences = []
    for image, own in enumerate(objects):
        start, end = given.starts[image : image + 2]
        ranked = sorted(range(start, end), key=lambda row: -given.scores[row])  # type: ignore[index]
        tenth = int(np.ceil(len(ranked) / 10))
        high = max(iou(own[0], given.boxes[row]) for row in ranked[:tenth])
        low = max(iou(own[0], given.boxes[row]) for row in ranked[-tenth:])
        differences.append(low - high)
    return bool(np.mean(differences) > ERRORS * np.std(differences) / np.sqrt(len(differences)))


@pytest.mark.parametrize("sure", [0.0, 0.1, 0.2, 0.4, 1.0])
def test_the_rule_by_hand(sure: float) -> None:
    outcomes = []
    for seed in range(6):
        given, objects = scene(60, seed=seed, sure=sure)
        check_best_first(given, objects)
        expected = clearly_reversed(turned(given), objects)
        outcomes.append(expected)
        if expected:
            with pytest.raises(ProposalFileError, match="give --best low or first, or --best high if you are sure"):
                check_best_first(turned(given), objects)
        else:
            check_best_first(turned(given), objects)
    assert all(outcomes) if sure >= 0.4 else not any(outcomes) if sure == 0 else True


def test_few_objects_and_single_boxes_tell_nothing() -> None:
    given, objects = scene(FEWEST - 1, sure=1.0)
    check_best_first(turned(given), objects)
    given, objects = scene(60, boxes=1, sure=1.0)
    check_best_first(turned(given), objects)
    given, objects = scene(60, sure=1.0)
    check_best_first(turned(given), [np.zeros((0, 4)) for _ in objects])


def test_a_stated_order_is_not_questioned(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detector.importing.ranking.FEWEST", 1)
    entries = []
    for record in dataset.records:
        for place, (x1, y1, x2, y2) in enumerate([*record.boxes.tolist(), *[[0.0, 0.0, 3.0, 3.0]] * 20]):
            box = [x1, y1, x2 - x1, y2 - y1]
            entries.append({"image_id": record.image_id, "bbox": box, "score": place})
    path = tmp_path / "b.json"
    path.write_text(json.dumps(entries))
    with pytest.raises(ProposalFileError, match=r"b\.json: boxes with the lowest scores cover the objects clearly"):
        import_proposals(path, dataset, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    for best, suffix in ((Best.high, "highest score first"), (Best.low, "lowest score first")):
        line, *_ = import_proposals(path, dataset, tmp_path / best.value, best=best)
        assert line.endswith(suffix)
