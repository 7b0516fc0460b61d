"""Which detection finds which object, by each protocol's rules, compiled.

In: a Truth and a DetectionTable.  Out: Matches, from which curves, AP, its interval and the diagnosis follow.

    ilsvrc  best object of the class that is free and overlapped by at least its own threshold; the first of equals
    voc     best object of the class, free or not; below the threshold a false positive, taken a duplicate
    coco    as ilsvrc with one threshold, the last of equals; crowds take any number, measured by the detection's area

A box that ends before it begins overlaps nothing: a false positive of ilsvrc and voc, as in the devkits. pycocotools
passes over unmatched boxes of negative area (or above 1e5² px²), and so does coco.
Sources: ILSVRC2014 devkit, eval_detection.m; VOC devkit, VOCevaldet.m; pycocotools, cocoeval.py.
I images, M objects, D detections, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.results import DetectionTable, image_ranks, signed_areas
from detector.evaluation.truth import Truth
from proposals.compiling import compiled

HIT, MISS, IGNORED = 1, 0, -1
"""Of a detection: true positive, false positive, neither."""

RULES = {"ilsvrc": 0, "voc": 1, "coco": 2}
PIXEL_TOLERANCE = 10  # ILSVRC's
COCO_LIMIT = 100  # detections per image and class
COCO_AREAS = (0.0, 1e5**2)  # px²


@dataclass(frozen=True)
class Matches:
    """What became of each detection.

    Attributes:
        status: [D] int8, HIT, MISS or IGNORED.
        objects: [D] int64, position in the truth's objects of what the detection was held against; -1 for none.
        order: [D] int64, all detections, best first, as the protocol sorts them over images.
        counted: [M] bool, objects that are to be found.
        positives: [K] int64, their number by class.
        thresholds: [M] float64, the IoU from which each object is found.
    """

    status: NDArray[np.int8]
    objects: NDArray[np.int64]
    order: NDArray[np.int64]
    counted: NDArray[np.bool_]
    positives: NDArray[np.int64]
    thresholds: NDArray[np.float64]


def match(
    truth: Truth, detections: DetectionTable, protocol: str, min_iou: float = 0.5, *, relaxed: bool = True
) -> Matches:
    """Hold detections against objects.

    Args:
        truth: M objects.
        detections: D; in any convention of pixels, converted to the truth's.
        protocol: ilsvrc, voc or coco.
        min_iou: overlap from which an object is found, in (0, 1].
        relaxed: ilsvrc: a small object of w x h px is found from w * h / ((w + 10) * (h + 10)) where that is less.

    Raises:
        ValueError: min_iou is out of range, or the table is of another split.
    """
    if not 0 < min_iou <= 1:
        raise ValueError(f"min_iou must be in (0, 1], not {min_iou}")
    detections.check_fits(truth)
    found = detections.to(truth.convention)
    pixel = float(truth.convention.inclusive)
    thresholds = np.full(len(truth.boxes), min_iou)
    if protocol == "ilsvrc" and relaxed:
        thresholds = np.minimum(min_iou, relaxed_thresholds(truth.boxes, pixel))
    if protocol == "coco":
        thresholds = np.minimum(thresholds, 1 - 1e-10)

    # The order of images decides between equal scores: ILSVRC's by number, pycocotools' by id.
    if protocol == "voc":
        order = np.argsort(-found.scores, kind="stable")
    else:
        places = image_ranks(truth) if protocol == "coco" else truth.numbers
        place = found.image_index if places is None else places[found.image_index]
        by_image = np.argsort(place, kind="stable")
        order = by_image[np.argsort(-found.scores[by_image], kind="stable")]
    passed_over = np.zeros(len(found), np.bool_)
    counted = np.ones(len(truth.boxes), np.bool_)
    ignored = np.zeros(len(truth.boxes), np.bool_) if protocol == "ilsvrc" else truth.ignored
    if truth.blacklist:
        passed_over = truth.is_blacklisted(found.image_index, found.labels)
        counted = ~truth.is_blacklisted(truth.image_index, truth.labels)
    if protocol == "coco":
        passed_over |= ~_best_of_each(found, order, COCO_LIMIT)
    counted &= ~ignored
    starts = np.searchsorted(truth.image_index, np.arange(len(truth) + 1))
    status, objects = _match(
        found.boxes,
        found.image_index,
        found.labels,
        order,
        passed_over,
        truth.boxes,
        truth.labels,
        starts,
        thresholds,
        ignored,
        truth.crowd,
        pixel,
        RULES[protocol],
    )
    if protocol == "coco":
        areas = signed_areas(detections)
        status[(status == MISS) & ((areas < COCO_AREAS[0]) | (areas > COCO_AREAS[1]))] = IGNORED
    positives = np.bincount(truth.labels[counted], minlength=len(truth.classes))
    return Matches(status, objects, order, counted, positives, thresholds)


def relaxed_thresholds(boxes: NDArray[np.float64], pixel: float) -> NDArray[np.float64]:
    """ILSVRC's overlap for an object, below 0.5 under about 25 px; [M, 4] px -> [M].

    Args:
        boxes: of the objects.
        pixel: 1 where the far corner is inside, else 0.
    """
    width = boxes[:, 2] - boxes[:, 0] + pixel
    height = boxes[:, 3] - boxes[:, 1] + pixel
    result: NDArray[np.float64] = (width * height) / ((width + PIXEL_TOLERANCE) * (height + PIXEL_TOLERANCE))
    return result


def nearest_objects(
    truth: Truth, detections: DetectionTable, among: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Of each detection the best overlapped object of its own class, and of any other class.

    Args:
        truth: M objects.
        detections: D.
        among: [M] which objects are looked at; all where absent.

    Returns:
        [D] position and [D] IoU of the first, -1 and 0 where there is none; the same of the second.
    """
    found = detections.to(truth.convention)
    starts = np.searchsorted(truth.image_index, np.arange(len(truth) + 1))
    own, own_iou, other, other_iou = _nearest(
        found.boxes,
        found.image_index,
        found.labels,
        truth.boxes,
        truth.labels,
        np.ones(len(truth.boxes), np.bool_) if among is None else among,
        starts,
        float(truth.convention.inclusive),
    )
    return own, own_iou, other, other_iou


def _best_of_each(found: DetectionTable, order: NDArray[np.int64], limit: int) -> NDArray[np.bool_]:
    """[D] whether a detection is among the first so many of its image and class."""
    group = found.image_index[order] * (int(found.labels.max(initial=0)) + 1) + found.labels[order]
    by_group = np.argsort(group, kind="stable")
    ordered = group[by_group]
    first = np.searchsorted(ordered, ordered, side="left")
    kept = np.zeros(len(found), np.bool_)
    kept[order[by_group]] = np.arange(len(ordered)) - first < limit
    return kept


@compiled()
def _iou(boxes: Any, d: int, objects: Any, k: int, pixel: float, of_detection: bool) -> float:
    """As the devkits compute it, to the last bit."""
    width = min(boxes[d, 2], objects[k, 2]) - max(boxes[d, 0], objects[k, 0]) + pixel
    height = min(boxes[d, 3], objects[k, 3]) - max(boxes[d, 1], objects[k, 1]) + pixel
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    own = (boxes[d, 2] - boxes[d, 0] + pixel) * (boxes[d, 3] - boxes[d, 1] + pixel)
    if of_detection:
        overlap: float = shared / own
        return overlap
    theirs = (objects[k, 2] - objects[k, 0] + pixel) * (objects[k, 3] - objects[k, 1] + pixel)
    overlap = shared / (own + theirs - shared)
    return overlap


@compiled()
def _match(
    boxes: Any,
    images: Any,
    labels: Any,
    order: Any,
    passed_over: Any,
    objects: Any,
    object_labels: Any,
    starts: Any,
    thresholds: Any,
    ignored: Any,
    crowd: Any,
    pixel: float,
    rule: int,
) -> Any:
    status = np.zeros(len(order), np.int8)
    matched = np.full(len(order), -1, np.int64)
    taken = np.zeros(len(objects), np.bool_)
    for d in order:
        if passed_over[d]:
            status[d] = -1
            continue
        best, best_iou, best_ignored, best_ignored_iou = -1, -1.0, -1, -1.0
        for k in range(starts[images[d]], starts[images[d] + 1]):
            if object_labels[k] != labels[d]:
                continue
            if rule == 1:
                overlap = _iou(boxes, d, objects, k, pixel, False)
                if overlap > best_iou:
                    best, best_iou = k, overlap
            elif not (taken[k] and not crowd[k]):
                overlap = _iou(boxes, d, objects, k, pixel, rule == 2 and crowd[k])
                if overlap < thresholds[k] or overlap <= 0:
                    continue
                if ignored[k]:
                    if overlap >= best_ignored_iou:
                        best_ignored, best_ignored_iou = k, overlap
                elif overlap > best_iou or (rule == 2 and overlap == best_iou):
                    best, best_iou = k, overlap
        if rule == 1 and (best < 0 or best_iou < thresholds[best] or best_iou <= 0):
            continue
        if rule == 1 and ignored[best]:
            best, best_ignored = -1, best
        if best >= 0:
            matched[d] = best
            if not taken[best]:
                status[d] = 1
            taken[best] = True
        elif best_ignored >= 0:
            matched[d] = best_ignored
            status[d] = -1
            taken[best_ignored] = True
    return status, matched


@compiled()
def _nearest(
    boxes: Any,
    images: Any,
    labels: Any,
    objects: Any,
    object_labels: Any,
    among: Any,
    starts: Any,
    pixel: float,
) -> Any:
    count = len(boxes)
    own, other = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
    own_iou, other_iou = np.zeros(count), np.zeros(count)
    for d in range(count):
        for k in range(starts[images[d]], starts[images[d] + 1]):
            if not among[k]:
                continue
            overlap = _iou(boxes, d, objects, k, pixel, False)
            if object_labels[k] == labels[d]:
                if overlap > own_iou[d]:
                    own[d], own_iou[d] = k, overlap
            elif overlap > other_iou[d]:
                other[d], other_iou[d] = k, overlap
    return own, own_iou, other, other_iou
