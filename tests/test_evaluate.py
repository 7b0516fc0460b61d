"""`from detector import evaluate`: files and objects in memory, by every protocol, without torch."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector import Detections, Evaluation, evaluate
from detector.evaluation import DetectionTable, ResultsError, read_coco_truth, read_voc_truth
from detector.evaluation.truth import Truth

NAMES = ("cat", "dog")
BOXES = {1: [[10, 10, 50, 60], [60, 20, 90, 70]], 2: [[5, 5, 45, 45]]}
LABELS = {1: [0, 1], 2: [0]}


@pytest.fixture
def truth_file(tmp_path: Path) -> Path:
    content = {
        "images": [{"id": number, "file_name": f"{number}.jpg", "width": 100, "height": 80} for number in BOXES],
        "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
        "annotations": [
            {
                "id": 10 * image + position,
                "image_id": image,
                "category_id": 17 + LABELS[image][position],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
            }
            for image, boxes in BOXES.items()
            for position, (x1, y1, x2, y2) in enumerate(boxes)
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    return tmp_path / "truth.json"


def perfect(image: int, names: tuple[str, ...] | None = NAMES, shift: int = 0) -> Detections:
    boxes = np.array(BOXES[image], np.float64)
    return Detections(boxes, np.full(len(boxes), 0.9), np.array(LABELS[image]) + shift, names)


@pytest.fixture
def results_file(tmp_path: Path) -> Path:
    (tmp_path / "found.json").write_text(
        json.dumps([one for image in BOXES for one in perfect(image).to_coco(image, {"cat": 17, "dog": 18})])
    )
    return tmp_path / "found.json"


@pytest.mark.parametrize("protocol", ["voc", "voc07", "coco"])
def test_files_by_every_protocol(truth_file: Path, results_file: Path, protocol: str) -> None:
    result = evaluate(truth_file, str(results_file), protocol)
    assert isinstance(result, Evaluation)
    assert result.protocol == protocol
    assert result.mean_ap == pytest.approx(1)
    assert result.ap == pytest.approx({"cat": 1, "dog": 1})


def test_one_object_missed_in_every_form(truth_file: Path, results_file: Path) -> None:
    """AP of cat is 1/2: one of two found, nothing wrong."""
    results_file.write_text(json.dumps(perfect(1).to_coco(1, [17, 18])))
    truth = read_coco_truth(truth_file)
    found = {"1.jpg": perfect(1)}
    table = DetectionTable.from_images(truth, {"1": perfect(1)})
    more = {"1": perfect(1, None), "2": Detections.empty()}
    other_order = {"1": Detections(np.array(BOXES[1]), np.full(2, 0.9), np.array([1, 0]), NAMES[::-1])}
    for detections in (results_file, found, table, more, other_order):
        for given in (truth_file, truth):
            assert evaluate(given, detections).ap == pytest.approx({"cat": 0.5, "dog": 1})  # type: ignore[arg-type]


def test_classes_that_the_truth_does_not_have(truth_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ("person", *NAMES)
    found = {str(image): perfect(image, names, shift=1) for image in BOXES}
    extra = Detections(np.array([[0.0, 0, 9, 9]]), np.array([0.99]), np.array([0]), names)
    found["2"] = Detections(
        np.concatenate([extra.boxes, found["2"].boxes]),
        np.concatenate([extra.scores, found["2"].scores]),
        np.concatenate([extra.labels, found["2"].labels]),
        names,
    )
    with caplog.at_level(logging.WARNING):
        assert evaluate(truth_file, found).mean_ap == pytest.approx(1)
    assert "1 detections" in caplog.text
    assert "person" in caplog.text
    with pytest.raises(ResultsError, match="person"):
        evaluate(truth_file, {"2": Detections(extra.boxes, extra.scores, extra.labels, ("person",))})


def test_a_folder_of_xml(shapes: Path, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {
        "image_list": shapes / "ImageSets/Main/val.txt",
        "classes": ("square", "disc"),
        "protocol": "voc",
    }
    truth: Truth = read_voc_truth(shapes / "Annotations", shapes / "ImageSets/Main/val.txt", ("square", "disc"))
    boxes = truth.boxes[truth.image_index == 0] - [1, 1, 0, 0]
    found = {"val0": Detections(boxes, np.array([0.9, 0.8]), np.array([0, 1]), ("square", "disc"))}
    assert evaluate(shapes / "Annotations", found, **arguments).mean_ap == pytest.approx(1 / 3)
    assert evaluate(str(shapes / "Annotations"), found, **arguments, min_iou=1.0).mean_ap == pytest.approx(1 / 3)


def test_refusals(truth_file: Path, results_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"voc, voc07, coco.*not 'pascal'"):
        evaluate(truth_file, results_file, "pascal")
    with pytest.raises(ResultsError, match="unknown image '3'"):
        evaluate(truth_file, {"3": perfect(1)})
    with pytest.raises(ResultsError, match=r"nothing\.json"):
        evaluate(truth_file, tmp_path / "nothing.json")


def test_warnings_are_logged(truth_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "empty.json").write_text("[]")
    with caplog.at_level(logging.WARNING, logger="detector"):
        assert evaluate(truth_file, tmp_path / "empty.json").mean_ap == 0
    assert "empty.json" in caplog.text


def test_torch_is_not_needed(truth_file: Path, results_file: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from detector import Detections, evaluate\n"
        f"print(evaluate({str(truth_file)!r}, {str(results_file)!r}, protocol='coco').mean_ap)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent.parent
    )
    assert done.stdout.startswith("1.0") or done.stdout.startswith("0.99"), done.stderr
