"""COCO's average precision, by pycocotools itself.

In: a Dataset and a DetectionTable. Out: an Evaluation whose `ap` and mean are COCO's AP50 ("mAP@0.5 on COCO") and whose
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
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.data.ground_truth import Dataset
from detector.evaluation.results import DetectionTable, Evaluation, evaluation_of, numeric_ids
from proposals.boxes import area, to_xywh

SUMMARY = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)
"""COCO's twelve numbers in the order of COCOeval.stats: means over the IoU thresholds 0.50, 0.55, ..., 0.95 but for
AP50 and AP75; small is below 32² px², large above 96²; AR1, AR10, AR100 are recall at so many detections per image and
class."""


def evaluate_coco(dataset: Dataset, detections: DetectionTable) -> Evaluation:
    """AP50 of every class and COCO's twelve numbers, with the 100 best detections per image and class.

    Args:
        dataset: the ground truth; crowd boxes may be found by many and count for none, difficult ones are ignored.
        detections: its index and labels refer to the data set.

    Raises:
        ValueError: the table is of another data set, or there is no ground truth at all.
    """
    detections.check_fits(dataset)
    image_ids = np.array(numeric_ids(dataset) or range(1, len(dataset) + 1), dtype=np.int64)
    class_ids = np.array(dataset.classes.ids, dtype=np.int64)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        truth = _coco(dataset, image_ids, _truth_annotations(dataset, image_ids))
        found = _coco(dataset, image_ids, _found_annotations(detections, image_ids, class_ids))
        evaluator = COCOeval(truth, found, "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    precision = evaluator.eval["precision"]  # [10 thresholds, 101 recalls, K, 4 areas, 3 limits]; -1 without objects
    column_of = {number: column for column, number in enumerate(evaluator.params.catIds)}
    ap: list[float | None] = []
    for number in dataset.classes.ids:
        curve: NDArray[np.float64] = precision[0, :, column_of[number], 0, -1]
        ap.append(float(curve.mean()) if curve[0] >= 0 else None)
    stats = zip(SUMMARY, evaluator.stats.tolist(), strict=True)
    summary = {name: value if value >= 0 else None for name, value in stats}
    return evaluation_of("coco", 0.5, dataset, detections, ap=ap, objects=_count_objects(dataset), summary=summary)


def _coco(dataset: Dataset, image_ids: NDArray[np.int64], annotations: Sequence[dict[str, Any]]) -> Any:
    """What COCO(file) would read, made in memory; the annotations of results are of the same form."""
    result = COCO()
    result.dataset = {
        "images": [{"id": image_id} for image_id in image_ids.tolist()],
        "categories": [{"id": number} for number in dataset.classes.ids],
        "annotations": list(annotations),
    }
    result.createIndex()
    return result


def _truth_annotations(dataset: Dataset, image_ids: NDArray[np.int64]) -> list[dict[str, Any]]:
    annotations: list[dict[str, Any]] = []
    for image_id, record in zip(image_ids.tolist(), dataset.records, strict=True):
        # An infinite area is outside every range, which is COCOeval's one way to ignore a box that is no crowd.
        areas = np.where(record.difficult, math.inf, record.areas)
        columns = (record.labels.tolist(), to_xywh(record.boxes).tolist(), areas.tolist(), record.crowd.tolist())
        for label, box, size, is_crowd in zip(*columns, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,  # from 1: COCOeval writes 0 for "unmatched"
                    "image_id": image_id,
                    "category_id": dataset.classes.ids[label],
                    "bbox": box,
                    "area": size,
                    "iscrowd": int(is_crowd),
                }
            )
    return annotations


def _found_annotations(
    detections: DetectionTable, image_ids: NDArray[np.int64], class_ids: NDArray[np.int64]
) -> list[dict[str, Any]]:
    columns = (
        image_ids[detections.image_index].tolist(),
        class_ids[detections.labels].tolist(),
        to_xywh(detections.boxes).tolist(),
        area(detections.boxes).tolist(),
        detections.scores.tolist(),
    )
    return [
        {"id": number, "image_id": image_id, "category_id": class_id, "bbox": box, "area": size, "score": score}
        for number, (image_id, class_id, box, size, score) in enumerate(zip(*columns, strict=True), start=1)
    ]


def _count_objects(dataset: Dataset) -> NDArray[np.int64]:
    """Objects of each class that count: neither crowd nor difficult; [K]."""
    counts = np.zeros(len(dataset.classes), dtype=np.int64)
    for record in dataset.records:
        counts += np.bincount(record.labels[~(record.difficult | record.crowd)], minlength=len(counts))
    return counts
