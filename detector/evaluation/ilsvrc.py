"""ILSVRC DET's average precision, as the 2014 devkit's eval_detection.m computes it.

In: a Truth and a DetectionTable. Out: an Evaluation, whose plain_ap is at one overlap for all objects ("50 % Jaccard").
It differs from VOC's in more than the overlap that small objects need: a detection is held against free objects only,
none is difficult, and a class may be blacklisted in an image.
"""

from __future__ import annotations

import numpy as np

from detector.evaluation.average import average_precisions
from detector.evaluation.matching import match
from detector.evaluation.results import DetectionTable, Evaluation, evaluation_of
from detector.evaluation.truth import Truth


def evaluate_ilsvrc(truth: Truth, detections: DetectionTable, *, min_iou: float = 0.5) -> Evaluation:
    """Average precision of every class by ILSVRC's rules, and without their leniency to small objects.

    Args:
        truth: the ground truth and its blacklist.
        detections: its index and labels refer to the truth.
        min_iou: overlap from which an object is found, in (0, 1]; less for those under about 25 px.

    Raises:
        ValueError: the table is of another split, min_iou is out of range, or there is no ground truth at all.
    """
    relaxed = match(truth, detections, "ilsvrc", min_iou)
    plain = match(truth, detections, "ilsvrc", min_iou, relaxed=False)
    ap = average_precisions(relaxed, detections)
    plain_ap = average_precisions(plain, detections)
    known = [value for value in plain_ap if value is not None]
    summary = {
        f"mean at IoU {min_iou:g} for all sizes": float(np.mean(known)) if known else None,
        f"median at IoU {min_iou:g} for all sizes": float(np.median(known)) if known else None,
    }
    return evaluation_of(
        "ilsvrc", min_iou, truth, detections, ap=ap, objects=relaxed.positives, summary=summary, plain_ap=plain_ap
    )
