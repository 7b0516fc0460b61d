"""The confusion matrix of detections: which class each object was detected as, what was missed, what lies on nothing.

In: a Truth and a DetectionTable.  Out: a Confusion, counts by class of the object and class of the detection, with the
pairs behind each.  The rule, for the detections with at least `score`:
    1  Detections and objects of the same class are matched as the protocol does. A true positive is paired with its
       object, and a detection that the protocol ignores is left out.
    2  The false positives, best score first, as the protocol sorts them: each is paired with the object of another
       class that it overlaps most, of those that count, have no partner yet, and are overlapped by at least their
       IoU threshold; the first of equals.
    3  The remaining detections are false positives on background, the remaining objects that count are missed.
The diagonal therefore has the protocol's true positives at that score, a row sums to the objects of its class, and a
column to the detections of its class that count. ultralytics' matrix pairs by IoU alone, whatever the class and the
score, so that its diagonal can be smaller than the number of true positives.
K classes, P pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.matching import HIT, IGNORED, MISS, iou, match
from detector.evaluation.results import DetectionTable, class_keys
from detector.evaluation.truth import Truth
from proposals.compiling import compiled


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix with background, and the pairs that it counts.

    Attributes:
        names: K names of the classes, unique.
        matrix: [K + 1, K + 1] int64 counts. The row is the object's class, the last one background; the column is the
            class that it was detected as, the last one missed. Its last cell is 0.
        score: Minimum score of the detections.
        min_iou: IoU from which a detection and an object are paired; protocol ilsvrc lowers it for small objects.
        detections: [P] int64 position in the table of each pair's detection; -1 where the object was missed.
        objects: [P] int64 position in the truth of each pair's object; -1 for a false positive on background.
        cells: [P, 2] int64 row and column in which each pair is counted. The pairs with a detection come first, best
            score first, then the missed objects, in the truth's order.
    """

    names: tuple[str, ...]
    matrix: NDArray[np.int64]
    score: float
    min_iou: float
    detections: NDArray[np.int64]
    objects: NDArray[np.int64]
    cells: NDArray[np.int64]


def confusion(truth: Truth, table: DetectionTable, *, rule: str, score: float, min_iou: float) -> Confusion:
    """Count which class each object was detected as, by the module's rule.

    Args:
        truth: The objects.
        table: The detections.
        rule: Matching rule within a class: ilsvrc, voc or coco.
        score: Minimum score of the detections; use the one from which they are shown.
        min_iou: IoU from which a detection and an object are paired, in (0, 1].

    Raises:
        ValueError: min_iou is out of range, or the table was made for another split.
    """
    matches = match(truth, table, rule, min_iou)
    ranked = matches.order[(table.scores >= score)[matches.order] & (matches.status[matches.order] != IGNORED)]
    partner = np.where(matches.status == HIT, matches.objects, -1)[ranked]
    free = matches.counted.copy()
    free[partner[partner >= 0]] = False
    found = table.to(truth.convention)
    starts = np.searchsorted(truth.image_index, np.arange(len(truth) + 1))
    rows = ranked[matches.status[ranked] == MISS]
    columns = truth.boxes, truth.labels, matches.thresholds
    pixel = float(truth.convention.inclusive)
    partner[partner < 0] = _of_other_classes(
        (found.boxes, found.image_index, found.labels), columns, rows, free, starts, pixel
    )
    missed = np.flatnonzero(free)
    detections = np.concatenate([ranked, np.full(len(missed), -1)])
    objects = np.concatenate([partner, missed])
    classes = len(truth.classes)
    cells = np.stack(
        [np.append(truth.labels, classes)[objects], np.append(table.labels, classes)[detections]],
        axis=1,  # -1, background or missed, is the last of each
    )
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    np.add.at(matrix, tuple(cells.T), 1)
    return Confusion(tuple(class_keys(truth.classes)), matrix, score, min_iou, detections, objects, cells)


@compiled()
def _of_other_classes(found: Any, objects: Any, rows: Any, free: Any, starts: Any, pixel: float) -> Any:
    """Pair detections with free objects of other classes, which are then no longer free; -1 for none."""
    boxes, images, labels = found
    object_boxes, object_labels, thresholds = objects
    partner = np.full(len(rows), -1, np.int64)
    for place in range(len(rows)):
        d = rows[place]
        best, best_iou = -1, 0.0
        for k in range(starts[images[d]], starts[images[d] + 1]):
            if not free[k] or object_labels[k] == labels[d]:
                continue
            overlap = iou(boxes, d, object_boxes, k, pixel, False)
            if overlap >= thresholds[k] and overlap > best_iou:
                best, best_iou = k, overlap
        if best >= 0:
            partner[place] = best
            free[best] = False
    return partner
