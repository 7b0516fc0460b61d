"""COCO's average precision, by pycocotools itself.

In: a Truth and a DetectionTable. Out: an Evaluation whose `ap` and mean are COCO's AP50 ("mAP@0.5 on COCO") and whose
summary holds COCO's twelve numbers. Only the conversion is ours, with what pycocotools passes over in silence: it fails
without detections, takes an annotation of id 0 for unmatched, and prints.

A box that PASCAL VOC marks difficult is ignored as COCO ignores objects outside the range of areas: its overlap is the
plain one, whoever finds it is neither rewarded nor punished, once. As a crowd it would swallow any part of itself.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.results import DetectionTable, Evaluation, evaluation_of, numeric_ids
from detector.evaluation.truth import HALF_OPEN, Truth, convert
from proposals.boxes import area, to_xywh
from proposals.errors import UserError

SUMMARY = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)
"""COCO's twelve numbers in the order of COCOeval.stats: means over the IoU thresholds 0.50, 0.55, ..., 0.95 but for
AP50 and AP75; small is below 32² px², large above 96²; AR1, AR10, AR100 are recall at so many detections per image and
class."""


BACKENDS = ("pycocotools", "hotcoco")
"""Whose COCOeval: the reference, or the one in Rust with the same digits (pip install hotcoco)."""


def evaluate_coco(truth: Truth, detections: DetectionTable, *, backend: str = "pycocotools") -> Evaluation:
    """AP50 of every class and COCO's twelve numbers, with the 100 best detections per image and class.

    Args:
        truth: the ground truth; crowd boxes may be found by many and count for none, difficult ones are ignored.
        detections: its index and labels refer to the truth.
        backend: one of BACKENDS.

    Raises:
        ValueError: the table is of another split, there is no ground truth at all, or no such backend.
        ImportError: the backend is not installed.
    """
    if backend not in BACKENDS:
        raise UserError(f"backend must be one of {', '.join(BACKENDS)}, not {backend!r}")
    detections.check_fits(truth)
    coco_class, evaluator_class = classes_of(backend)
    image_ids = np.array(numeric_ids(truth) or range(1, len(truth) + 1), dtype=np.int64)
    class_ids = np.array(truth.classes.ids, dtype=np.int64)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        real = in_memory(coco_class, truth, image_ids, truth_annotations(truth, image_ids))
        found = in_memory(coco_class, truth, image_ids, found_annotations(detections, image_ids, class_ids))
        evaluator = evaluator_class(real, found, "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    precision = evaluator.eval["precision"]  # [10 thresholds, 101 recalls, K, 4 areas, 3 limits]; -1 without objects
    column_of = {number: column for column, number in enumerate(evaluator.params.catIds)}
    ap: list[float | None] = []
    for number in truth.classes.ids:
        curve: NDArray[np.float64] = precision[0, :, column_of[number], 0, -1]
        ap.append(float(curve.mean()) if curve[0] >= 0 else None)
    stats = zip(SUMMARY, np.asarray(evaluator.stats).tolist(), strict=True)
    summary = {name: value if value >= 0 else None for name, value in stats}
    objects = np.bincount(truth.labels[~truth.ignored], minlength=len(truth.classes))
    return evaluation_of("coco", 0.5, truth, detections, ap=ap, objects=objects, summary=summary)


def classes_of(name: str) -> tuple[Any, Any]:
    """The classes COCO and COCOeval."""
    if name == "hotcoco":
        try:
            import hotcoco
        except ImportError as error:
            raise ImportError(f"backend hotcoco is not installed ({error}): pip install hotcoco") from error
        return hotcoco.COCO, hotcoco.COCOeval
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return COCO, COCOeval


def in_memory(
    coco_class: Any, truth: Truth, image_ids: NDArray[np.int64], annotations: Sequence[dict[str, Any]]
) -> Any:
    """What COCO(file) would read, made in memory; the annotations of results are of the same form."""
    result = coco_class()
    result.dataset = {
        "images": [{"id": image_id} for image_id in image_ids.tolist()],
        "categories": [{"id": number, "name": str(number)} for number in truth.classes.ids],
        "annotations": list(annotations),
    }
    result.createIndex()
    return result


def truth_annotations(truth: Truth, image_ids: NDArray[np.int64]) -> list[dict[str, Any]]:
    """The objects as COCO's annotations."""
    # An infinite area is outside every range, which is COCOeval's one way to ignore a box that is no crowd.
    areas = np.where(truth.difficult, math.inf, truth.areas)
    columns = (
        image_ids[truth.image_index].tolist(),
        np.array(truth.classes.ids)[truth.labels].tolist(),
        to_xywh(convert(truth.boxes, truth.convention, HALF_OPEN)).tolist(),
        areas.tolist(),
        truth.crowd.astype(int).tolist(),
    )
    return [
        # From 1: COCOeval writes 0 for "unmatched".
        {"id": number, "image_id": image, "category_id": label, "bbox": box, "area": size, "iscrowd": is_crowd}
        for number, (image, label, box, size, is_crowd) in enumerate(zip(*columns, strict=True), start=1)
    ]


def found_annotations(
    detections: DetectionTable, image_ids: NDArray[np.int64], class_ids: NDArray[np.int64]
) -> list[dict[str, Any]]:
    """The detections as COCO's annotations."""
    boxes = detections.to(HALF_OPEN).boxes
    columns = (
        image_ids[detections.image_index].tolist(),
        class_ids[detections.labels].tolist(),
        to_xywh(boxes).tolist(),
        area(boxes).tolist(),
        detections.scores.tolist(),
    )
    return [
        {"id": number, "image_id": image_id, "category_id": class_id, "bbox": box, "area": size, "score": score}
        for number, (image_id, class_id, box, size, score) in enumerate(zip(*columns, strict=True), start=1)
    ]
