"""COCO's average precision, computed by pycocotools.

In: a Truth and a DetectionTable.  Out: an Evaluation whose AP and mean AP are COCO's AP50 ("mAP@0.5 on COCO") and whose
summary contains COCO's twelve numbers. The conversion works around three properties of pycocotools: it fails without
detections, takes an annotation of id 0 for unmatched, and prints.

An object that PASCAL VOC marks difficult is ignored as COCO ignores objects outside its area ranges: one detection on
it is neither right nor wrong. As a crowd it would absorb any number of detections on parts of it.
"""

from __future__ import annotations

import contextlib
import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.matching import match
from detector.evaluation.operating_points import best_f1_points
from detector.evaluation.outcome import Evaluation, evaluation_of
from detector.evaluation.results import DetectionTable, MissingPackageError, image_ranks, signed_areas
from detector.evaluation.truth import HALF_OPEN, Truth, convert
from proposals.boxes import Boxes, to_xywh
from proposals.errors import UserError

SUMMARY = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)
"""COCO's twelve numbers in the order of COCOeval.stats. All but AP50 and AP75 are means over the IoU thresholds 0.50,
0.55, ..., 0.95. Small objects are below 32² px², large ones above 96². AR1, AR10 and AR100 are recall with at most 1,
10 and 100 detections per image and class."""

BACKENDS = ("pycocotools", "hotcoco")
"""The reference, and a faster implementation in Rust with the same digits (pip install hotcoco)."""


def evaluate_coco(truth: Truth, detections: DetectionTable, *, backend: str = "pycocotools") -> Evaluation:
    """Compute AP50 of every class and COCO's twelve numbers from the 100 best detections per image and class.

    Args:
        truth: The ground truth. Any number of detections on a crowd box are ignored, and one on a difficult object.
        detections: The detections; image indices and labels are the truth's.
        backend: One of BACKENDS.

    Raises:
        ResultsError: there is no ground truth at all.
        MissingPackageError: the backend is not installed.
        ValueError: the table was made for another split, or no such backend.
    """
    if backend not in BACKENDS:
        raise UserError(f"backend must be one of {', '.join(BACKENDS)}, not {backend!r}")
    detections.check_fits(truth)
    coco_class, evaluator_class = classes_of(backend)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluator = evaluator_class(*in_memory(coco_class, truth, detections), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    precision = evaluator.eval["precision"]  # [10 thresholds, 101 recalls, K, 4 areas, 3 limits]; -1 without objects
    ap: list[float | None] = []
    for label in range(len(truth.classes)):
        curve: NDArray[np.float64] = precision[0, :, label, 0, -1]
        ap.append(float(curve.mean()) if curve[0] >= 0 else None)
    stats = zip(SUMMARY, np.asarray(evaluator.stats).tolist(), strict=True)
    summary = {name: value if value >= 0 else None for name, value in stats}
    matches = match(truth, detections, "coco", 0.5)
    points = best_f1_points(matches, detections)
    return evaluation_of("coco", 0.5, truth, detections, ap=ap, points=points, matches=matches, summary=summary)


def classes_of(name: str) -> tuple[Any, Any]:
    """Import a backend's classes COCO and COCOeval."""
    if name == "hotcoco":
        try:
            import hotcoco
        except ImportError as error:
            raise MissingPackageError(f"backend hotcoco is not installed ({error}): pip install hotcoco") from error
        return hotcoco.COCO, hotcoco.COCOeval
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return COCO, COCOeval


def in_memory(coco_class: Any, truth: Truth, detections: DetectionTable) -> tuple[Any, Any]:
    """Make the ground truth and the results that COCO(file) and loadRes would read, without files.

    Images are numbered from 1 in the order of their ids, the only property of an id that pycocotools uses, and classes
    from 1 by label, so that ids may be texts or numbers of any size.
    """
    boxes = convert(truth.boxes, truth.convention, HALF_OPEN)
    # An infinite area is outside every range: the one way to have COCOeval ignore a box that is no crowd.
    areas = np.where(truth.difficult, math.inf, truth.areas)
    real = _annotations(truth, truth.image_index, truth.labels, boxes, areas, iscrowd=truth.crowd.astype(int))
    boxes, areas = detections.to(HALF_OPEN).boxes, signed_areas(detections)
    found = _annotations(truth, detections.image_index, detections.labels, boxes, areas, score=detections.scores)
    datasets = []
    for rows in (real, found):
        dataset = coco_class()
        dataset.dataset = {
            "images": [{"id": number} for number in range(1, len(truth) + 1)],
            "categories": [{"id": number, "name": str(number)} for number in range(1, len(truth.classes) + 1)],
            "annotations": rows,
        }
        dataset.createIndex()
        datasets.append(dataset)
    return datasets[0], datasets[1]


def _annotations(
    truth: Truth,
    image_index: NDArray[np.int64],
    labels: NDArray[np.int64],
    boxes: Boxes,
    areas: NDArray[np.float64],
    **last: NDArray[Any],
) -> list[dict[str, Any]]:
    """Make COCO's annotations of objects or detections; `last` is iscrowd or score."""
    ((key, values),) = last.items()
    columns = (image_ranks(truth)[image_index] + 1, labels + 1, to_xywh(boxes), areas, values)
    return [
        # From 1: COCOeval writes 0 for "unmatched".
        {"id": number, "image_id": image, "category_id": label, "bbox": box, "area": area, key: value}
        for number, (image, label, box, area, value) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True), start=1
        )
    ]
