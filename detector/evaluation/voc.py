"""PASCAL VOC's average precision: the area under the curve (VOC2010 and later) and the 11-point mean (VOC2007).

In: a Dataset and a DetectionTable. Out: an Evaluation. Source: the VOC devkit's VOCevaldet.m and VOCap.m. A box's far
edge is exclusive here, so that the plain overlap is the devkit's, which counts inclusive pixels with +1. A COCO crowd
box is treated as a difficult one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detector.data.ground_truth import Dataset
from detector.evaluation.results import DetectionTable, Evaluation, evaluation_of
from proposals.boxes import iou


def evaluate_voc(
    dataset: Dataset, detections: DetectionTable, *, min_iou: float = 0.5, eleven_point: bool = False
) -> Evaluation:
    """Average precision of every class by VOC's rules.

    Each detection looks at the ground truth of its class that it overlaps most, taken or not. Below min_iou it is a
    false positive; a difficult object makes it count as nothing; an object already found makes it a duplicate, which is
    a false positive. Detections go by score over all images, equal scores in the table's order.

    Args:
        dataset: the ground truth; difficult and crowd boxes are neither to be found nor punished.
        detections: its index and labels refer to the data set.
        min_iou: overlap from which a detection counts, in (0, 1].
        eleven_point: VOC2007's mean of 11 precisions ("voc07") instead of the area under the curve ("voc10").

    Raises:
        ValueError: the table is of another data set, min_iou is out of range, or there is no ground truth at all.
    """
    if not 0 < min_iou <= 1:
        raise ValueError(f"min_iou must be in (0, 1], not {min_iou}")
    detections.check_fits(dataset)
    class_count = len(dataset.classes)
    empty = np.zeros(0, dtype=np.int64)
    truth_labels = np.concatenate([empty, *(record.labels for record in dataset.records)])  # [M]
    ignored = np.concatenate([empty, *(record.difficult | record.crowd for record in dataset.records)]).astype(np.bool_)
    objects = np.bincount(truth_labels[~ignored], minlength=class_count)

    best, overlap = match_best(dataset, detections)  # [D], [D]
    matched = overlap >= min_iou
    on_ignored = np.zeros(len(detections), dtype=np.bool_)
    on_ignored[matched] = ignored[best[matched]]
    rank = np.argsort(-detections.scores, kind="stable")
    claims = rank[matched[rank]]  # best score first: the first claim on an object finds it
    _, first = np.unique(best[claims], return_index=True)
    is_hit = np.zeros(len(detections), dtype=np.bool_)
    is_hit[claims[first]] = True

    counted = rank[~on_ignored[rank]]
    measure = eleven_point_average_precision if eleven_point else average_precision
    ap: list[float | None] = []
    for label, positives in enumerate(objects.tolist()):
        hits = is_hit[counted[detections.labels[counted] == label]]
        ap.append(measure(*precision_recall(hits, positives)) if positives else None)
    protocol = "voc07" if eleven_point else "voc10"
    return evaluation_of(protocol, min_iou, dataset, detections, ap=ap, objects=objects)


def match_best(dataset: Dataset, detections: DetectionTable) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The ground truth of its class and image that each detection overlaps most; the first of equals.

    Returns:
        [D] position in the ground truths of all records one after the other, and [D] IoU; -1 and -1.0 where the image
        has no object of the class.
    """
    best = np.full(len(detections), -1, dtype=np.int64)
    overlap = np.full(len(detections), -1.0)
    by_image = np.argsort(detections.image_index, kind="stable")
    bounds = np.searchsorted(detections.image_index[by_image], np.arange(len(dataset) + 1))
    first_object = 0
    for index, record in enumerate(dataset.records):
        rows = by_image[bounds[index] : bounds[index + 1]]
        if len(rows) and len(record.labels):
            pairs = iou(detections.boxes[rows], record.boxes)  # [D', M']
            pairs[detections.labels[rows, None] != record.labels[None, :]] = -1
            column = pairs.argmax(axis=1)
            overlap[rows] = pairs[np.arange(len(rows)), column]
            best[rows] = first_object + column
        first_object += len(record.labels)
    best[overlap < 0] = -1
    return best, overlap


def precision_recall(hits: NDArray[np.bool_], positives: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall and precision after each of D detections, best first; hits tells true from false positives.

    Returns:
        [D] recall and [D] precision, in [0, 1].

    Raises:
        ValueError: there is nothing to find, so that recall means nothing.
    """
    if positives < 1:
        raise ValueError(f"recall needs at least one ground truth, not {positives}")
    found = np.cumsum(hits, dtype=np.float64)
    return found / positives, found / np.arange(1, len(hits) + 1)


def average_precision(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> float:
    """Area under the precision envelope (VOC2010 and later, ILSVRC): [D] recall, rising, and [D] precision -> [0, 1].

    >>> round(average_precision(np.array([0.5, 0.5, 1.0]), np.array([1.0, 0.5, 2 / 3])), 4)
    0.8333
    """
    steps = np.diff(recall, prepend=0.0)
    return float(np.sum(steps * _envelope(precision)))


def eleven_point_average_precision(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> float:
    """Mean of the best precision at recall 0, 0.1, ..., 1 or more (VOC2007): [D], [D] -> [0, 1].

    >>> round(eleven_point_average_precision(np.array([0.5, 0.5, 1.0]), np.array([1.0, 0.5, 2 / 3])), 4)
    0.8485
    """
    # 6 * 0.1 is more than 3 / 5 in binary: without the tolerance a recall of exactly 0.6 would miss its point.
    position = np.searchsorted(recall, np.linspace(0, 1, 11) - 1e-9, side="left")
    reached = np.append(_envelope(precision), 0.0)  # 0 beyond the recall that was reached
    return float(np.mean(reached[position]))


def _envelope(precision: NDArray[np.float64]) -> NDArray[np.float64]:
    """The best precision at this recall or a greater one; [D] -> [D]."""
    return np.maximum.accumulate(precision[::-1])[::-1]
