"""Average precision by VOC's and COCO's rules, against worked cases; against other programs: test_parity.py."""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.data.ground_truth import ClassTable, Dataset, Record
from detector.evaluation import (
    DetectionTable,
    Evaluation,
    average,
    evaluate_coco,
    evaluate_ilsvrc,
    evaluate_voc,
)
from detector.evaluation.average import (
    COCO_POINTS,
    ELEVEN_POINTS,
    average_precision,
    class_curves,
    precision_recall,
)
from detector.evaluation.bootstrap import bootstrap
from detector.evaluation.matching import match, nearest_objects
from detector.evaluation.truth import HALF_OPEN, ILSVRC, VOC, Truth, convert
from detector.report.contents import Report
from detector.report.plain import write_report
from detector.report.text import format_report
from proposals.boxes import from_inclusive, iou

Box = Sequence[float]


def make_dataset(
    images: Sequence[Sequence[tuple[Box, int]]],
    class_count: int = 1,
    *,
    difficult: Sequence[tuple[int, int]] = (),
    crowd: Sequence[tuple[int, int]] = (),
    ids: Sequence[str] | None = None,
    class_ids: Sequence[int] | None = None,
) -> Truth:
    """Images as lists of (box, label); difficult and crowd are (image, position) pairs."""
    records = []
    for index, objects in enumerate(images):
        boxes = np.array([box for box, _ in objects], dtype=np.float64).reshape(-1, 4)
        image_id = ids[index] if ids else f"image_{index}"
        records.append(
            Record(
                image_id=image_id,
                path=Path(f"{image_id}.jpg"),
                width=500,
                height=500,
                boxes=boxes,
                labels=np.array([label for _, label in objects], dtype=np.int64),
                difficult=np.array(
                    [(index, position) in difficult for position in range(len(objects))], dtype=np.bool_
                ),
                crowd=np.array([(index, position) in crowd for position in range(len(objects))], dtype=np.bool_),
                areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
            )
        )
    names = tuple(f"class_{label}" for label in range(class_count))
    table = ClassTable(names, (None,) * class_count, tuple(class_ids or range(1, class_count + 1)))
    return Truth.of(Dataset("toy", table, tuple(records)))


def make_table(rows: Sequence[tuple[int, int, float, Box]]) -> DetectionTable:
    """Rows of (image, label, score, box)."""
    return DetectionTable(
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[1] for row in rows], dtype=np.int64),
        np.array([row[2] for row in rows], dtype=np.float64),
        np.array([row[3] for row in rows], dtype=np.float64).reshape(-1, 4),
    )


def random_case(seed: int, *, ties: bool = True) -> tuple[Truth, DetectionTable]:
    """Twelve images, four classes (the last without ground truth), boxes that overlap a lot, some of them difficult."""
    rng = np.random.default_rng(seed)

    def boxes(count: int) -> np.ndarray:
        corner = rng.integers(0, 60, (count, 2))
        return np.concatenate([corner, corner + rng.integers(10, 60, (count, 2))], axis=1).astype(float)

    images = [[(box, int(rng.integers(3))) for box in boxes(int(rng.integers(0, 7)))] for _ in range(12)]
    flags = [(index, position) for index, objects in enumerate(images) for position in range(len(objects))]
    difficult = [flag for flag in flags if rng.random() < 0.2]
    dataset = make_dataset(images, 4, difficult=difficult)
    rows = []
    for index, objects in enumerate(images):
        near = [(np.add(box, rng.integers(-6, 7, 4)), label) for box, label in objects for _ in range(2)]
        far = [(box, int(rng.integers(4))) for box in boxes(6)]
        for box, label in [*near, *far]:
            x1, y1, x2, y2 = box
            score = rng.random()
            corners = [x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)]
            rows.append((index, label, round(score, 1) if ties else score, corners))
    order = rng.permutation(len(rows))
    return dataset, make_table([rows[position] for position in order])


GOLDEN_HITS = (1, 0, 1, 1, 0, 1)


def golden_case() -> tuple[Truth, DetectionTable]:
    """Five objects, one an image; six detections, best first, of which GOLDEN_HITS are right."""
    dataset = make_dataset([[((0, 0, 100, 100), 0)] for _ in range(5)])
    rows = []
    for position, hit in enumerate(GOLDEN_HITS):
        image = sum(GOLDEN_HITS[:position]) % 5
        rows.append((image, 0, 1 - position / 10, (0, 0, 100, 100) if hit else (300, 300, 400, 400)))
    return dataset, make_table(rows)


# Precision 1 up to recall 1/5, 3/4 up to 3/5, 4/6 up to 4/5, nothing beyond.
GOLDEN_AREA = (1 * 1 + 2 * 3 / 4 + 1 * 4 / 6) / 5
GOLDEN_11 = (3 * 1 + 4 * 3 / 4 + 2 * 4 / 6) / 11  # points 0-0.2, 0.3-0.6, 0.7-0.8
GOLDEN_101 = (21 * 1 + 40 * 3 / 4 + 20 * 4 / 6) / 101  # points 0-0.20, 0.21-0.60, 0.61-0.80


def test_golden_average_precision() -> None:
    dataset, table = golden_case()
    assert (round(GOLDEN_AREA, 4), round(GOLDEN_11, 4), round(GOLDEN_101, 4)) == (0.6333, 0.6667, 0.6370)
    assert evaluate_voc(dataset, table).mean_ap == pytest.approx(GOLDEN_AREA, abs=1e-12)
    assert evaluate_voc(dataset, table, eleven_point=True).mean_ap == pytest.approx(GOLDEN_11, abs=1e-12)
    assert evaluate_coco(dataset, table).mean_ap == pytest.approx(GOLDEN_101, abs=1e-12)


def test_eleven_points_need_the_tolerance() -> None:
    recall, precision = precision_recall(np.array(GOLDEN_HITS, dtype=np.bool_), 5)
    naive = np.mean([precision[recall >= 0.1 * t].max() if (recall >= 0.1 * t).any() else 0 for t in range(11)])
    assert round(float(naive), 4) == 0.6591
    assert average_precision(recall, precision, ELEVEN_POINTS) == pytest.approx(GOLDEN_11, abs=1e-12)


def test_matchers_differ() -> None:
    truth = from_inclusive(np.array([[1.0, 1, 100, 100], [1, 31, 100, 130]]), 1)
    found = from_inclusive(np.array([[1.0, 11, 100, 110], [1, 13, 100, 112]]), 1)
    np.testing.assert_allclose(iou(found, truth), [[0.818, 0.667], [0.786, 0.695]], atol=5e-4)
    dataset = make_dataset([[(box, 0) for box in truth]])
    table = make_table([(0, 0, 0.9, found[0]), (0, 0, 0.8, found[1])])
    # VOC: the second detection's best object is taken, so it is false: recall 1/2 at precision 1.
    assert evaluate_voc(dataset, table).mean_ap == 0.5
    assert evaluate_voc(dataset, table, eleven_point=True).mean_ap == pytest.approx(6 / 11)
    assert evaluate_coco(dataset, table).mean_ap == pytest.approx(1.0)


def test_inclusive_pixels() -> None:
    truth, found = np.array([[1.0, 1, 10, 10]]), np.array([[4.0, 1, 13, 10]])
    assert iou(found, truth)[0, 0] == 54 / (81 + 81 - 54)
    dataset = make_dataset([[(from_inclusive(truth, 1)[0], 0)]])
    table = make_table([(0, 0, 0.9, from_inclusive(found, 1)[0])])
    for convention in (HALF_OPEN, VOC, ILSVRC):  # the same boxes, counted in three ways
        boxes = np.asarray(convert(dataset.boxes, HALF_OPEN, convention))
        same = replace(dataset, boxes=boxes, convention=convention)
        best, overlap, _, _ = nearest_objects(same, table)
        assert best.tolist() == [0]
        assert overlap[0] == 7 / 13  # 0.5385
        assert nearest_objects(same, table.to(VOC))[1][0] == 7 / 13
    assert evaluate_voc(dataset, table, min_iou=0.52).mean_ap == 1.0


def test_overlap_of_exactly_one_half_counts() -> None:
    dataset = make_dataset([[((0, 0, 10, 10), 0)]])
    table = make_table([(0, 0, 0.9, (0, 0, 10, 20))])
    assert evaluate_voc(dataset, table).mean_ap == 1.0
    assert evaluate_coco(dataset, table).mean_ap == pytest.approx(1.0)


def test_difficult_objects_in_voc() -> None:
    objects = [((0, 0, 100, 100), 0), ((200, 0, 300, 100), 0)]
    dataset = make_dataset([objects], difficult=[(0, 1)])
    on_difficult = (0, 0, 0.9, (200, 0, 300, 100))
    on_object = (0, 0, 0.5, (0, 0, 100, 100))
    assert evaluate_voc(dataset, make_table([on_difficult, on_difficult, on_object])).mean_ap == pytest.approx(1.0)
    assert evaluate_voc(dataset, make_table([on_difficult])).mean_ap == 0.0
    assert evaluate_voc(dataset, make_table([])).counts["objects"] == 1
    # The difficult object overlaps most, so the detection is ignored although another object would do.
    close = make_dataset([[((0, 0, 100, 100), 0), ((0, 2, 100, 102), 0)]], difficult=[(0, 1)])
    assert evaluate_voc(close, make_table([(0, 0, 0.9, (0, 2, 100, 102))])).mean_ap == 0.0


def test_crowd_boxes_are_difficult_to_voc() -> None:
    dataset = make_dataset([[((0, 0, 100, 100), 0), ((200, 0, 300, 100), 0)]], crowd=[(0, 1)])
    rows = [(0, 0, 0.9, (200, 0, 300, 100)), (0, 0, 0.5, (0, 0, 100, 100))]
    evaluation = evaluate_voc(dataset, make_table(rows))
    assert evaluation.mean_ap == 1.0
    assert evaluation.objects == {"class_0": 1}


def test_difficult_objects_in_coco() -> None:
    dataset = make_dataset([[((0, 0, 100, 100), 0), ((200, 0, 300, 100), 0)]], difficult=[(0, 1)])
    on_object = (0, 0, 0.5, (0, 0, 100, 100))
    assert evaluate_coco(dataset, make_table([(0, 0, 0.9, (200, 0, 300, 100)), on_object])).mean_ap == pytest.approx(
        1.0
    )
    # A part of it is a false detection, as in VOC; a crowd would take it.
    part = make_table([(0, 0, 0.9, (200, 0, 240, 40)), on_object])
    assert evaluate_coco(dataset, part).mean_ap == pytest.approx(0.5)
    assert evaluate_voc(dataset, part).mean_ap == 0.5
    as_crowd = make_dataset([[((0, 0, 100, 100), 0), ((200, 0, 300, 100), 0)]], crowd=[(0, 1)])
    assert evaluate_coco(as_crowd, part).mean_ap == pytest.approx(1.0)
    only_difficult = make_dataset([[((0, 0, 9, 9), 0), ((0, 0, 9, 9), 1)]], 2, difficult=[(0, 1)])
    assert evaluate_coco(only_difficult, make_table([])).ap == {"class_0": 0.0, "class_1": None}
    assert evaluate_voc(only_difficult, make_table([])).ap == {"class_0": 0.0, "class_1": None}


def direct_pycocotools(truth: dict[str, object], found: list[dict[str, object]], folder: Path) -> COCOeval:
    """The reading of files that COCO's own demo shows."""
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "found.json").write_text(json.dumps(found))
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(folder / "truth.json"))
        evaluator = COCOeval(reference, reference.loadRes(str(folder / "found.json")), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


@pytest.mark.parametrize(
    "ids", [(20, 3), (3, 20), (100, 9, 20), (2**70, 2**53, 7), ("b", "a"), ("img10", "img9", "img2")]
)
def test_equal_scores_of_coco_go_by_image_id(ids: tuple[int | str, ...], tmp_path: Path) -> None:
    """As in pycocotools, for number, curve and interval; a miss on the first image of the file, hits on the others.

    It sorts ids itself, by value; a number beyond 64 bits, which its own arrays do not hold, is taken by its rank.
    """
    box = [10.0, 10, 50, 50]
    large = any(isinstance(image_id, int) and image_id > 2**60 for image_id in ids)
    small = [sorted(ids).index(image_id) + 1 for image_id in ids] if large else list(ids)  # type: ignore[type-var]
    truth = {
        "images": [{"id": image_id} for image_id in small],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": n + 1, "image_id": image_id, "category_id": 1, "bbox": box, "area": 2500.0, "iscrowd": 0}
            for n, image_id in enumerate(small)
        ],
    }
    found = [
        {"image_id": image_id, "category_id": 1, "bbox": [200.0, 10, 50, 50] if n == 0 else box, "score": 0.5}
        for n, image_id in enumerate(small)
    ]
    reference = direct_pycocotools(truth, found, tmp_path)  # type: ignore[arg-type]
    dataset = make_dataset([[((10, 10, 60, 60), 0)]] * len(ids), ids=[str(image_id) for image_id in ids])
    table = make_table([(n, 0, 0.5, (200, 10, 250, 60) if n == 0 else (10, 10, 60, 60)) for n in range(len(ids))])
    expected = reference.stats[1]
    assert evaluate_coco(dataset, table).mean_ap == pytest.approx(expected, abs=1e-12)
    matches = match(dataset, table, "coco")
    assert bootstrap(dataset, matches, table, points=COCO_POINTS, resamples=2).value == pytest.approx(expected)
    ((recall, precision),) = class_curves(matches, table)  # type: ignore[misc]
    assert average_precision(recall, precision, COCO_POINTS) == pytest.approx(expected, abs=1e-12)


def test_coco_keeps_a_hundred_per_image_and_class() -> None:
    dataset = make_dataset([[((0, 0, 50, 50), 0)]])
    false = [(0, 0, 0.9, (200, 200, 250, 250))] * 100
    assert evaluate_coco(dataset, make_table([*false, (0, 0, 0.5, (0, 0, 50, 50))])).mean_ap == 0.0
    assert evaluate_coco(dataset, make_table([*false[1:], (0, 0, 0.5, (0, 0, 50, 50))])).mean_ap == pytest.approx(0.01)


PROTOCOLS = {
    "voc": evaluate_voc,
    "voc07": lambda dataset, table: evaluate_voc(dataset, table, eleven_point=True),
    "coco": evaluate_coco,
    "ilsvrc": evaluate_ilsvrc,
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_detections_give_zero(protocol: str, capsys: pytest.CaptureFixture[str]) -> None:
    dataset, _ = random_case(3)
    evaluation = PROTOCOLS[protocol](dataset, make_table([]))
    assert evaluation.protocol == protocol
    assert evaluation.mean_ap == 0.0
    assert evaluation.counts["detections"] == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_perfect_detections_give_one(protocol: str) -> None:
    dataset, _ = random_case(4)
    rows = [
        (int(index), int(label), 0.5 + index / 100, box)
        for index, label, box in zip(dataset.image_index, dataset.labels, dataset.boxes, strict=True)
    ]
    evaluation = PROTOCOLS[protocol](dataset, make_table(rows))
    assert evaluation.mean_ap == pytest.approx(1.0, abs=1e-12)
    assert evaluation.counts["classes_without_ground_truth"] == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("seed", range(3))
def test_order_of_distinct_scores_is_nothing(protocol: str, seed: int) -> None:
    dataset, table = random_case(seed, ties=False)
    shuffled = table[np.random.default_rng(seed).permutation(len(table))]
    evaluate = PROTOCOLS[protocol]
    assert evaluate(dataset, shuffled).ap == evaluate(dataset, table).ap


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_refusals(protocol: str) -> None:
    evaluate = PROTOCOLS[protocol]
    nothing = make_dataset([[], []])
    with pytest.raises(ValueError, match=r"toy: .*2 images"):
        evaluate(nothing, make_table([(0, 0, 0.5, (0, 0, 9, 9))]))
    with pytest.raises(ValueError, match=r"toy: .*0 images"):
        evaluate(make_dataset([]), make_table([]))
    dataset = make_dataset([[((0, 0, 9, 9), 0)]])
    with pytest.raises(ValueError, match="image 1, toy has 1"):
        evaluate(dataset, make_table([(1, 0, 0.5, (0, 0, 9, 9))]))
    with pytest.raises(ValueError, match="class 1, toy has 1"):
        evaluate(dataset, make_table([(0, 1, 0.5, (0, 0, 9, 9))]))


def test_voc_refuses_a_bad_overlap_and_recall_of_nothing() -> None:
    dataset, table = golden_case()
    with pytest.raises(ValueError, match=r"min_iou .*\(0, 1\]"):
        evaluate_voc(dataset, table, min_iou=0)
    with pytest.raises(ValueError, match="recall"):
        precision_recall(np.array([True]), 0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_mean_and_median_are_of_classes_with_objects(protocol: str) -> None:
    evaluation = PROTOCOLS[protocol](*random_case(0))
    values = [value for value in evaluation.ap.values() if value is not None]
    assert len(values) == 3
    assert evaluation.counts["classes_without_ground_truth"] == 1
    assert evaluation.mean_ap == pytest.approx(np.mean(values))
    assert evaluation.median_ap == pytest.approx(np.median(values))
    assert 0.05 < evaluation.mean_ap < 0.95  # the case is neither empty nor trivial


def test_no_detections_of_a_class() -> None:
    recall, precision = precision_recall(np.zeros(0, dtype=np.bool_), 3)
    assert average_precision(recall, precision) == 0.0
    assert average_precision(recall, precision, ELEVEN_POINTS) == 0.0


def test_docstring_examples() -> None:
    assert doctest.testmod(average, extraglobs={"np": np}).failed == 0


def report_of() -> Evaluation:
    dataset = make_dataset([[((0, 0, 10, 10), 0), ((50, 50, 90, 90), 0)]], 2)
    return evaluate_voc(dataset, make_table([(0, 0, 0.9, (0, 0, 10, 10)), (0, 1, 0.3, (0, 0, 9, 9))]))


def test_report_as_text() -> None:
    assert format_report(Report(report_of())).splitlines() == [
        "PASCAL VOC2010+, area under the curve, IoU 0.5: 1 images, 2 classes",
        "class        AP  objects  detections  best F1  from score",
        "class_0  0.5000        2           1   0.6667      0.9000",
        "---------------------------------------------------------",
        "mean     0.5000        2           2",
        "median   0.5000",
        "1 class has no objects in these images and is not in the mean",
        "",
        "Threshold: 0.9000 for all classes (F1 0.6667, precision 1.0000, recall 0.5000). "
        'Each class\'s own is in the column "from score".',
    ]


def test_coco_report_has_its_summary() -> None:
    dataset, table = golden_case()
    assert "\nAP 0.6370  AP50 0.6370  AP75 0.6370" in format_report(Report(evaluate_coco(dataset, table)))
    assert "AP_small -" in format_report(Report(evaluate_coco(dataset, table)))


def test_report_as_json(tmp_path: Path) -> None:
    dataset = make_dataset([[((0, 0, 10, 10), 0), ((50, 50, 90, 90), 0)]], 2)
    write_report(tmp_path / "runs" / "report.json", dataset, Report(report_of()))
    content = json.loads((tmp_path / "runs" / "report.json").read_text())
    assert content["protocol"] == "voc"
    assert content["ap"] == {"class_0": 0.5, "class_1": None}
    point = {"score": 0.9, "precision": 1.0, "recall": 0.5, "f1": 2 / 3}
    assert content["operating_points"] == {"class_0": point, "class_1": None}
    assert content["pooled_point"] == point
    assert (content["mean_ap"], content["median_ap"]) == (0.5, 0.5)
    assert content["counts"] == {
        "images": 1,
        "objects": 2,
        "detections": 2,
        "classes": 2,
        "classes_without_ground_truth": 1,
    }


def test_starts_without_torch() -> None:
    program = "import sys, detector.evaluation, detector.config, detector.drawing; print('torch' in sys.modules)"
    root = Path(__file__).parent.parent
    result = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
