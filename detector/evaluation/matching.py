"""Match detections to objects by each protocol's rules, in compiled code.

In: a Truth and a DetectionTable.  Out: Matches, from which curves, AP, its interval and the diagnosis follow.

    ilsvrc  the best object of the class not found yet, with an IoU of at least its own threshold; the first of equals
    voc     the best object of the class, found or not; below the threshold a false positive, if found a duplicate
    coco    as ilsvrc with one threshold, the last of equals; a crowd matches any number of detections, by the share of
            the detection's area inside it

A box that ends before it begins overlaps nothing: a false positive in ilsvrc and voc, as in the devkits. coco ignores
unmatched boxes of negative area (or above 1e5² px²), as pycocotools does.
Sources: ILSVRC2014 devkit, eval_detection.m; VOC devkit, VOCevaldet.m; pycocotools, cocoeval.py.
I images, M objects, D detections, K classes.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.cores import usable_cores
from detector.evaluation.ordering import best_first, grouped
from detector.evaluation.results import DetectionTable, image_ranks, signed_areas
from detector.evaluation.truth import Truth
from proposals.compiling import compiled

HIT, MISS, IGNORED = 1, 0, -1
"""Status of a detection: true positive, false positive, ignored."""

RULES = {"ilsvrc": 0, "voc": 1, "coco": 2}
PIXEL_TOLERANCE = 10  # ILSVRC's
COCO_LIMIT = 100  # detections per image and class
COCO_AREAS = (0.0, 1e5**2)  # px²
PER_THREAD = 50_000  # detections, below which a thread costs more than it saves


@dataclass(frozen=True)
class Matches:
    """The object that each detection matches, and the objects that count.

    Attributes:
        status: [D] int8, HIT, MISS or IGNORED.
        objects: [D] int64, position in the truth's objects of the object that the detection matches; -1 for none.
        order: [D] int64, positions of all detections, best first, as the protocol sorts them over images.
        counted: [M] bool, objects that count: not ignored, not blacklisted.
        positives: [K] int64, number of objects that count, by class.
        thresholds: [M] float64, IoU from which each object is found.
    """

    status: NDArray[np.int8]
    objects: NDArray[np.int64]
    order: NDArray[np.int64]
    counted: NDArray[np.bool_]
    positives: NDArray[np.int64]
    thresholds: NDArray[np.float64]


def match(
    truth: Truth,
    detections: DetectionTable,
    protocol: str,
    min_iou: float = 0.5,
    *,
    relaxed: bool = True,
    areas: tuple[float, float] | None = None,
) -> Matches:
    """Match detections to objects.

    Args:
        truth: The M objects.
        detections: The D detections, converted to the truth's pixel convention.
        protocol: Matching rule: ilsvrc, voc or coco.
        min_iou: IoU from which an object is found, in (0, 1].
        relaxed: Whether ilsvrc lowers the threshold of an object of w x h px to w * h / ((w + 10) * (h + 10)) where
            that is less than min_iou.
        areas: Least and greatest area, px², of the objects to find, both included. Other objects are ignored, and false
            positives of another area. None for all; in coco for COCO_AREAS.

    Raises:
        ValueError: min_iou is out of range, or the table was made for another split.
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

    # The order of the images decides between equal scores: by number in ILSVRC, by id in pycocotools.
    if protocol == "voc":
        order = best_first(found.scores)
    else:
        ranks = image_ranks(truth) if protocol == "coco" else truth.numbers
        keys = found.image_index if ranks is None else np.unique(ranks, return_inverse=True)[1][found.image_index]
        by_image, _ = grouped(keys, np.arange(len(found)), len(truth))
        order = by_image[best_first(found.scores[by_image])]
    passed_over = np.zeros(len(found), np.bool_)
    counted = np.ones(len(truth.boxes), np.bool_)
    ignored = np.zeros(len(truth.boxes), np.bool_) if protocol == "ilsvrc" else truth.ignored
    areas = COCO_AREAS if areas is None and protocol == "coco" else areas
    if areas is not None:
        ignored = ignored | _outside(truth.areas, areas)
    crowd = truth.crowd if protocol == "coco" else np.zeros(len(truth.boxes), np.bool_)
    if truth.blacklist:
        passed_over = truth.is_blacklisted(found.image_index, found.labels)
        counted = ~truth.is_blacklisted(truth.image_index, truth.labels)
    counted &= ~ignored
    status, objects = np.zeros(len(found), np.int8), np.full(len(found), -1, np.int64)
    rows, found_starts = grouped(found.image_index, order, len(truth))
    starts = np.searchsorted(truth.image_index, np.arange(len(truth) + 1))
    match_images = partial(
        _match,
        (found.boxes, found.labels, passed_over, rows, found_starts),
        (truth.boxes, truth.labels, thresholds, ignored, crowd, starts),
        (status, objects, np.zeros(len(truth.boxes), np.bool_)),
        (pixel, RULES[protocol], COCO_LIMIT if protocol == "coco" else len(found), len(truth.classes)),
    )
    # No image knows of another: each thread has some of them, with about as many detections as the others.
    threads = _threads(len(found))
    ends = np.searchsorted(found_starts, np.linspace(0, len(found), threads + 1)[1:-1]).tolist()
    with ThreadPoolExecutor(threads) as executor:
        list(executor.map(match_images, [0, *ends], [*ends, len(truth)]))
    if areas is not None:
        status[(status == MISS) & _outside(signed_areas(detections), areas)] = IGNORED
    positives = np.bincount(truth.labels[counted], minlength=len(truth.classes))
    return Matches(status, objects, order, counted, positives, thresholds)


def relaxed_thresholds(boxes: NDArray[np.float64], pixel: float) -> NDArray[np.float64]:
    """Compute ILSVRC's IoU thresholds, which are below 0.5 for objects under about 25 px; [M, 4] px -> [M].

    Args:
        boxes: Boxes of the objects.
        pixel: 1 in inclusive pixel conventions, else 0.
    """
    width = boxes[:, 2] - boxes[:, 0] + pixel
    height = boxes[:, 3] - boxes[:, 1] + pixel
    result: NDArray[np.float64] = (width * height) / ((width + PIXEL_TOLERANCE) * (height + PIXEL_TOLERANCE))
    return result


def nearest_objects(
    truth: Truth, detections: DetectionTable, among: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Find the object of greatest IoU with each detection, once in its own class and once in the other classes.

    Args:
        truth: The M objects.
        detections: The D detections.
        among: [M] mask of the objects to consider; None for all.

    Returns:
        [D] position and [D] IoU of the object of the own class, -1 and 0 where there is none; the same for the others.
    """
    found = detections.to(truth.convention)
    starts = np.searchsorted(truth.image_index, np.arange(len(truth) + 1))
    among = np.ones(len(truth.boxes), np.bool_) if among is None else among
    objects = truth.boxes, truth.labels, among, starts
    pixel = float(truth.convention.inclusive)
    threads = _threads(len(found))
    with ThreadPoolExecutor(threads) as executor:
        columns = (np.array_split(column, threads) for column in (found.boxes, found.image_index, found.labels))
        parts = executor.map(partial(_nearest, objects, pixel), *columns)
        own, own_iou, other, other_iou = (np.concatenate(column) for column in zip(*parts, strict=True))
    return own, own_iou, other, other_iou


def _threads(detections: int) -> int:
    return min(usable_cores(), 1 + detections // PER_THREAD)


def _outside(values: NDArray[np.float64], limits: tuple[float, float]) -> NDArray[np.bool_]:
    low, high = limits
    return np.asarray((values < low) | (values > high))


@compiled()
def iou(boxes: Any, d: int, objects: Any, k: int, pixel: float, of_detection: bool) -> float:
    """Compute IoU to the devkits' last bit, or, with of_detection, the share of the detection inside the object."""
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
def _match(found: Any, objects: Any, result: Any, rules: Any, first_image: int, last_image: int) -> None:
    boxes, labels, passed_over, rows, found_starts = found
    object_boxes, object_labels, thresholds, ignored, crowd, starts = objects
    status, matched, taken = result
    pixel, rule, limit, classes = rules
    seen = np.zeros(classes, np.int64)
    for image in range(first_image, last_image):
        own = rows[found_starts[image] : found_starts[image + 1]]
        for d in own:
            seen[labels[d]] = 0
        for d in own:
            seen[labels[d]] += 1
            if passed_over[d] or seen[labels[d]] > limit:
                status[d] = -1
                continue
            best, best_iou, best_ignored, best_ignored_iou = -1, -1.0, -1, -1.0
            for k in range(starts[image], starts[image + 1]):
                if object_labels[k] != labels[d]:
                    continue
                if rule == 1:
                    overlap = iou(boxes, d, object_boxes, k, pixel, False)
                    if overlap > best_iou:
                        best, best_iou = k, overlap
                elif not (taken[k] and not crowd[k]):
                    overlap = iou(boxes, d, object_boxes, k, pixel, rule == 2 and crowd[k])
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


@compiled()
def _nearest(objects: Any, pixel: float, boxes: Any, images: Any, labels: Any) -> Any:
    object_boxes, object_labels, among, starts = objects
    count = len(boxes)
    own, other = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
    own_iou, other_iou = np.zeros(count), np.zeros(count)
    for d in range(count):
        for k in range(starts[images[d]], starts[images[d] + 1]):
            if not among[k]:
                continue
            overlap = iou(boxes, d, object_boxes, k, pixel, False)
            if object_labels[k] == labels[d]:
                if overlap > own_iou[d]:
                    own[d], own_iou[d] = k, overlap
            elif overlap > other_iou[d]:
                other[d], other_iou[d] = k, overlap
    return own, own_iou, other, other_iou
