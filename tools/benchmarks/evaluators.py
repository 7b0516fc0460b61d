"""Evaluators of detections, ours and others', behind one call.

In: a Truth and a DetectionTable.  Out: a function without arguments that scores them and returns a mean AP; what is
made before, each program's own form of the data, is not timed. Others are imported where they are used.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detector.evaluation import coco
from detector.evaluation.bootstrap import bootstrap
from detector.evaluation.coco import evaluate_coco
from detector.evaluation.matching import match
from detector.evaluation.protocols import evaluate_ilsvrc, evaluate_voc
from detector.evaluation.reading import read_results
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import HALF_OPEN, Truth, convert
from detector.evaluation.writing import write_results

Score = Callable[[], float | None]


class Evaluator(NamedTuple):
    """One contestant.

    Attributes:
        group: What it computes; values within a group are comparable.
        package: Name of its distribution, "" for ours.
        prepare: Makes the function that is timed.
    """

    group: str
    package: str
    prepare: Callable[[Truth, DetectionTable], Score]


def _ilsvrc(truth: Truth, table: DetectionTable) -> Score:
    return lambda: evaluate_ilsvrc(truth, table).mean_ap


def _voc(truth: Truth, table: DetectionTable) -> Score:
    return lambda: evaluate_voc(truth, table).mean_ap


def _interval(truth: Truth, table: DetectionTable) -> Score:
    matches = match(truth, table, "voc")
    return lambda: bootstrap(truth, matches, table).value


def _reading(name: str, truth: Truth, table: DetectionTable) -> Score:
    folder = TemporaryDirectory()
    path = Path(folder.name) / name
    write_results(path, truth, table)

    def read() -> None:
        assert folder  # is removed with this function
        read_results(path, truth)

    return read


def _ours_coco(backend: str, truth: Truth, table: DetectionTable) -> Score:
    return lambda: evaluate_coco(truth, table, backend=backend).summary["AP"]


def _coco(package: str, alone: bool, truth: Truth, table: DetectionTable) -> Score:
    """COCOeval of a package; `alone`: at IoU 0.5, one range of areas, one limit of detections."""
    if package == "faster-coco-eval":
        from faster_coco_eval import COCO, COCOeval_faster

        coco_class, evaluator_class = COCO, COCOeval_faster
    else:
        coco_class, evaluator_class = coco.classes_of(package)

    with contextlib.redirect_stdout(io.StringIO()):
        real, found = coco.in_memory(coco_class, truth, table)

    def evaluate() -> float:
        evaluator = evaluator_class(real, found, "bbox")
        if alone:
            evaluator.params.iouThrs = np.array([0.5])
            evaluator.params.areaRng = [[0, 1e10]]
            evaluator.params.areaRngLbl = ["all"]
            evaluator.params.maxDets = [100]
        evaluator.evaluate()
        evaluator.accumulate()
        if alone:
            precision = np.asarray(evaluator.eval["precision"])
            return float(precision[precision > -1].mean())
        evaluator.summarize()
        return float(evaluator.stats[0])

    return evaluate


def _torchmetrics(truth: Truth, table: DetectionTable) -> Score:
    import torch
    from torchmetrics.detection import MeanAveragePrecision

    def side(boxes: Any, labels: Any, **scores: Any) -> dict[str, Any]:
        columns = {"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(labels)}
        return columns | {name: torch.from_numpy(values) for name, values in scores.items()}

    real, found = by_image(truth, table)
    targets = [side(*image) for image in real]
    predictions = [side(boxes, labels, scores=scores) for boxes, labels, scores in found]

    def evaluate() -> float:
        metric = MeanAveragePrecision()
        metric.update(predictions, targets)
        return float(metric.compute()["map"])

    return evaluate


def _supervision(truth: Truth, table: DetectionTable) -> Score:
    from supervision import Detections
    from supervision.metrics import MeanAveragePrecision

    real, found = by_image(truth, table)
    targets = [Detections(xyxy=boxes, class_id=labels) for boxes, labels in real]
    predictions = [Detections(xyxy=boxes, class_id=labels, confidence=scores) for boxes, labels, scores in found]

    def evaluate() -> float:
        return float(MeanAveragePrecision().update(predictions, targets).compute().map50_95)

    return evaluate


def _podm(truth: Truth, table: DetectionTable) -> Score:
    from podm.metrics import BoundingBox, get_pascal_voc_metrics

    real, found = by_image(truth, table)
    objects = [
        BoundingBox.of_bbox(image, label, *box)
        for image, (boxes, labels) in enumerate(real)
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True)
    ]
    detections = [
        BoundingBox.of_bbox(image, label, *box, score)
        for image, columns in enumerate(found)
        for box, label, score in zip(*(column.tolist() for column in columns), strict=True)
    ]

    def evaluate() -> float:
        metrics = get_pascal_voc_metrics(objects, detections, 0.5)
        return float(np.mean([metric.ap for metric in metrics.values() if metric.num_groundtruth]))

    return evaluate


def _mean_average_precision(truth: Truth, table: DetectionTable) -> Score:
    from mean_average_precision import MetricBuilder

    real, found = by_image(truth, table)
    last = np.array([0, 0, 1, 1])  # it counts the far edge as a pixel of the box
    targets = [np.column_stack([boxes - last, labels, np.zeros((len(labels), 2))]) for boxes, labels in real]
    predictions = [np.column_stack([boxes - last, labels, scores]) for boxes, labels, scores in found]

    def evaluate() -> float:
        metric = MetricBuilder.build_evaluation_metric("map_2d", num_classes=len(truth.classes))
        for image in zip(predictions, targets, strict=True):
            metric.add(*image)
        return float(metric.value(iou_thresholds=0.5)["mAP"])

    return evaluate


def by_image(truth: Truth, table: DetectionTable) -> tuple[list[Any], list[Any]]:
    """Cut both into (boxes [N, 4], labels [N]) and (boxes, labels, scores [N]) of each image, half-open pixels."""
    boxes: NDArray[np.float64] = np.asarray(convert(truth.boxes, truth.convention, HALF_OPEN), np.float64)
    order = np.argsort(table.image_index, kind="stable")
    found = table.to(HALF_OPEN)[order]
    numbers = np.arange(1, len(truth))
    ends, found_ends = (np.searchsorted(column, numbers) for column in (truth.image_index, found.image_index))
    real = zip(np.split(boxes, ends), np.split(truth.labels, ends), strict=True)
    columns = (np.split(column, found_ends) for column in (found.boxes, found.labels, found.scores))
    return list(real), list(zip(*columns, strict=True))


AT_HALF, TWELVE, OTHER = "AP at IoU 0.5", "COCO's twelve numbers", "beside it"

EVALUATORS: dict[str, Evaluator] = {
    "ours, ILSVRC, relaxed and plain": Evaluator(AT_HALF, "", _ilsvrc),
    "ours, VOC area": Evaluator(AT_HALF, "", _voc),
    "hotcoco": Evaluator(AT_HALF, "hotcoco", partial(_coco, "hotcoco", True)),
    "faster-coco-eval": Evaluator(AT_HALF, "faster-coco-eval", partial(_coco, "faster-coco-eval", True)),
    "pycocotools": Evaluator(AT_HALF, "pycocotools", partial(_coco, "pycocotools", True)),
    "object-detection-metrics": Evaluator(AT_HALF, "object-detection-metrics", _podm),
    "mean-average-precision": Evaluator(AT_HALF, "mean-average-precision", _mean_average_precision),
    "ours, COCO by hotcoco": Evaluator(TWELVE, "hotcoco", partial(_ours_coco, "hotcoco")),
    "ours, COCO by pycocotools": Evaluator(TWELVE, "", partial(_ours_coco, "pycocotools")),
    "hotcoco, all": Evaluator(TWELVE, "hotcoco", partial(_coco, "hotcoco", False)),
    "faster-coco-eval, all": Evaluator(TWELVE, "faster-coco-eval", partial(_coco, "faster-coco-eval", False)),
    "pycocotools, all": Evaluator(TWELVE, "pycocotools", partial(_coco, "pycocotools", False)),
    "torchmetrics": Evaluator(TWELVE, "torchmetrics", _torchmetrics),
    "supervision": Evaluator(TWELVE, "supervision", _supervision),
    "ours, interval of 1,000 resamples": Evaluator(OTHER, "", _interval),
    "ours, reading ILSVRC's text": Evaluator(OTHER, "", partial(_reading, "found.txt")),
    "ours, reading COCO's JSON": Evaluator(OTHER, "", partial(_reading, "found.json")),
}


def silently(score: Score) -> float | None:
    """Call it without what it prints."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return score()
