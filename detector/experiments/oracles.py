"""Detections with one stage of the detector replaced by an oracle: what a perfect stage would have given.

In: what each stage made of an image, and the objects in it.  Out: Detections.

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
    """Detections if the box of every object had been proposed too.

    Args:
        trace: What each stage left of the image's boxes.
        class_boxes: [M, K, 4] px, where each class has the boxes of the objects.
        probabilities: [M, K + 1] of those boxes.
    """
    all_boxes = np.concatenate([class_boxes, trace.class_boxes])
    return suppress(all_boxes, np.concatenate([probabilities, trace.probabilities]), trace.config)


def perfect_classifier(trace: Trace, boxes: Boxes, labels: NDArray[np.int64], min_iou: float = 0.5) -> Detections:
    """Detections if every box had the class of the object that it covers best, with the overlap as its score."""
    scores = np.zeros_like(trace.probabilities)
    scores[:, 0] = 1
    if len(boxes) and trace.scored:
        overlaps = trace.overlaps(boxes, labels)[:, : trace.scored]
        best, overlap = overlaps.argmax(axis=0), overlaps.max(axis=0)
        covering = np.flatnonzero(overlap >= min_iou)
        scores[covering, 0] = 1 - overlap[covering]
        scores[covering, labels[best[covering]] + 1] = overlap[covering]
    return suppress(trace.class_boxes, scores, trace.config)


def perfect_suppression(trace: Trace, boxes: Boxes, labels: NDArray[np.int64], min_iou: float = 0.5) -> Detections:
    """Detections if each object kept the best-scored box of its class that covers it, and no second one.

    Boxes that cover no object of their class are suppressed by those, and among themselves as usual.
    """
    overlaps = trace.overlaps(boxes, labels)[:, : trace.scored]
    scores = trace.probabilities.copy()
    chosen: list[tuple[int, int]] = []
    chosen_boxes: list[Boxes] = [np.zeros((0, 4))]
    for label in np.unique(labels).tolist():
        mine = np.flatnonzero(labels == label)
        covering = overlaps[mine] >= min_iou
        column = trace.probabilities[:, label + 1]
        used: set[int] = set()
        for index in range(len(mine)):
            candidates = [row for row in np.flatnonzero(covering[index]).tolist() if row not in used]
            candidates = [row for row in candidates if column[row] > trace.config.min_score]
            if candidates:
                best = max(candidates, key=lambda row: (column[row], -row))
                used.add(best)
                chosen.append((best, label))
        scores[covering.any(axis=0), label + 1] = 0
        kept = trace.class_boxes[:, label]
        best_rows = [row for row, of in chosen if of == label]
        chosen_boxes.append(kept[best_rows])
        near = (iou(kept, kept[best_rows]) > trace.config.max_iou).any(axis=1)
        scores[near, label + 1] = 0
    rest = suppress(trace.class_boxes, scores, trace.config)
    rows = np.array([row for row, _ in chosen], np.int64)
    chosen_labels = np.array([label for _, label in chosen], np.int64)
    everything = Detections(
        np.concatenate([*chosen_boxes, rest.boxes]),
        np.concatenate([trace.probabilities[rows, chosen_labels + 1].astype(np.float64), rest.scores]),
        np.concatenate([chosen_labels, rest.labels]),
    )
    return everything[np.argsort(-everything.scores, kind="stable")[: trace.config.limit]]
