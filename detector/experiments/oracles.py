"""Detections with one stage of the detector replaced by an oracle.

In: the boxes that each stage left of an image, and its objects.  Out: Detections.

N boxes, K classes, M objects.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detector.detections import Detections
from detector.experiments.stages import Trace
from detector.suppression import suppress
from proposals.boxes import Boxes, iou

ORACLES = ("proposals", "classifier", "suppression")


def perfect_proposals(trace: Trace, class_boxes: Boxes, probabilities: NDArray[np.float32]) -> Detections:
    """Return the detections of an image if the box of every object had been proposed too.

    Args:
        trace: The boxes that each stage left.
        class_boxes: [M, K, 4] px, the boxes of the objects after box regression for each class.
        probabilities: [M, K + 1] probabilities of those boxes.
    """
    all_boxes = np.concatenate([class_boxes, trace.class_boxes])
    return suppress(all_boxes, np.concatenate([probabilities, trace.probabilities]), trace.config)


def perfect_classifier(trace: Trace, boxes: Boxes, labels: NDArray[np.int64], min_iou: float) -> Detections:
    """Return the detections if every box had the class of the object that it covers best, and their IoU as score."""
    scores = np.zeros_like(trace.probabilities)
    scores[:, 0] = 1
    if len(boxes) and trace.scored:
        overlaps = trace.overlaps(boxes, labels)[:, : trace.scored]
        best, overlap = overlaps.argmax(axis=0), overlaps.max(axis=0)
        covering = np.flatnonzero(overlap >= min_iou)
        scores[covering, 0] = 1 - overlap[covering]
        scores[covering, labels[best[covering]] + 1] = overlap[covering]
    return suppress(trace.class_boxes, scores, trace.config)


def perfect_suppression(trace: Trace, boxes: Boxes, labels: NDArray[np.int64], min_iou: float) -> Detections:
    """Return the detections if each object kept the best-scored box of its class that covers it, and no second one.

    Boxes that cover no object of their class are suppressed by those, and among themselves as usual.
    """
    overlaps = trace.overlaps(boxes, labels)[:, : trace.scored]
    scores = trace.probabilities.copy()
    chosen: list[tuple[int, int]] = []
    for label in np.unique(labels).tolist():
        covering = overlaps[labels == label] >= min_iou
        column = trace.probabilities[:, label + 1]
        best: list[int] = []
        for of_object in covering:
            candidates = np.setdiff1d(np.flatnonzero(of_object & (column > trace.config.lowest)), best)
            if len(candidates):
                best.append(int(candidates[column[candidates].argmax()]))
        class_boxes = trace.class_boxes[:, label]
        near = (iou(class_boxes, class_boxes[best]) > trace.config.max_iou).any(axis=1)
        scores[covering.any(axis=0) | near, label + 1] = 0
        chosen += [(row, label) for row in best]
    rest = suppress(trace.class_boxes, scores, trace.config)
    rows, chosen_labels = np.array(chosen, np.int64).reshape(-1, 2).T
    everything = Detections(
        np.concatenate([trace.class_boxes[rows, chosen_labels], rest.boxes]),
        np.concatenate([trace.probabilities[rows, chosen_labels + 1].astype(np.float64), rest.scores]),
        np.concatenate([chosen_labels, rest.labels]),
    )
    return everything[np.argsort(-everything.scores, kind="stable")[: trace.config.limit]]
