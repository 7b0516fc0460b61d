"""Labels that may be wrong, by what a detector sees there, most suspicious first.

In: a Truth and a DetectionTable.  Out: Suspects of four kinds, each with a score in [0, 1] that ranks them together:
    unlabelled  a detection with an IoU below 0.1 with every object, and less than half inside one of its class (a face
                in a person); of detections in one place, with an IoU of at least 0.5, the best.
                Score: the detection's.
    swapped     a detection with an IoU of at least 0.5 with an object of another class and with none of its own, and
                with a greater score than any detection of the object's class on that object; of several the best.
                Score: the detection's, times 1 minus the score of that other detection, 0 where there is none.
    double      an object that has an IoU of at least 0.8 with an earlier one of its class.
                Score: that IoU.
    unfound     an object on which there is no detection of any class with a score of at least 0.05 and an IoU of at
                least 0.5.
                Score: the share of the other objects of its class and size (COCO's small, medium, large) that are
                found, times 1 minus the IoU of the nearest detection. The share is taken with one object more, found as
                often as all are, so that a class of few says little: what a detector often misses is no suspect.
Each score is the detector's word against the label; it is a probability only as far as the detector's scores are (see
calibration.py), and a detector that was trained on these labels has learned their errors.
Difficult objects and crowds explain detections like all others; neither is unfound, and a crowd is neither swapped nor
double. Pairs of image and class on ILSVRC's blacklist are left out.
Source of the kinds, but doubles: Tkachenko, Thyagarajan and Mueller, "ObjectLab: Automated Diagnosis of Mislabeled
Images in Object Detection Data", 2023 (overlooked, swapped); the scores are ours.
I images, M objects, D detections.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from detector.analysis.sizes import COCO_SIZES
from detector.evaluation.matching import iou as pair_iou
from detector.evaluation.matching import nearest_objects
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import HALF_OPEN, Truth, convert
from proposals.boxes import inside, iou
from proposals.compiling import compiled

APART = 0.1
"""IoU with every label below which a detection is of no labelled object."""
INSIDE = 0.5
"""Share of a detection inside a label from which it is a part of that object, such as a face."""
THERE = 0.5
"""IoU from which a detection is on an object, or in the place of another detection."""
TWICE = 0.8
"""IoU from which two labels of a class are of one object."""
LOW = 0.05
"""Score of a detection from which an object is found at all."""

Kind = Literal["unlabelled", "unfound", "double", "swapped"]


@dataclass(frozen=True, eq=False)
class Suspect:
    """A label that may be wrong, or a place where one may be missing.

    Attributes:
        kind: "unlabelled", "unfound", "double" or "swapped".
        image: Index of the image.
        detection: Position in the table of the detection that speaks against the labels; None for unfound and double.
        objects: Positions in the truth of the objects in doubt: none for unlabelled, for a double the earlier one and
            its copy, else one.
        label: Class of the object; for unlabelled that of the detection.
        other: Class of the detection for swapped, else None.
        score: Suspicion, in [0, 1], comparable between kinds; see the module.
        box: [4] float64 px in the truth's convention: of the object, for a double its copy, for unlabelled the
            detection.
    """

    kind: Kind
    image: int
    detection: int | None
    objects: tuple[int, ...]
    label: int
    other: int | None
    score: float
    box: NDArray[np.float64]


def label_errors(truth: Truth, table: DetectionTable, *, score: float = 0.5) -> tuple[Suspect, ...]:
    """Find labels that may be wrong, by the module's rules.

    Args:
        truth: The objects.
        table: The detections; scores outside [0, 1] are cut at its ends.
        score: Minimum score of the detections of unlabelled and swapped objects.

    Returns:
        The suspects, the greatest score first; of equal ones in the order of kinds in the module, then of images.

    Raises:
        ValueError: the table was made for another split.
    """
    table.check_fits(truth)
    found = table.to(truth.convention)
    scores = np.clip(found.scores, 0, 1)
    confident = (scores >= score) & ~truth.is_blacklisted(found.image_index, found.labels)
    _, own_iou, _, other_iou = nearest_objects(truth, found)
    free = np.flatnonzero(confident & (np.maximum(own_iou, other_iou) < APART))

    starts = np.searchsorted(truth.image_index, np.arange(len(truth) + 1))
    columns = found.boxes, found.image_index, found.labels, scores
    pixel = float(truth.convention.inclusive)
    best_iou, own_score, rival = _evidence(
        columns, confident & (own_iou < THERE), (truth.boxes, truth.labels), starts, pixel
    )
    suspects = chain(
        _unlabelled(truth, found, scores, free),
        _swapped(truth, found, scores, own_score, rival),
        _doubles(truth, pixel),
        _unfound(truth, best_iou),
    )
    return tuple(sorted(suspects, key=lambda one: -one.score))


def _unlabelled(
    truth: Truth, found: DetectionTable, scores: NDArray[np.float64], free: NDArray[np.int64]
) -> list[Suspect]:
    """Return the detections at positions `free` that are no part of an object of their class, one in a place."""
    objects = np.asarray(convert(truth.boxes, truth.convention, HALF_OPEN), np.float64)
    boxes = found.to(HALF_OPEN).boxes
    free = free[np.lexsort((free, -scores[free], found.image_index[free]))]
    suspects = []
    for image in np.unique(found.image_index[free]).tolist():
        start, end = np.searchsorted(found.image_index[free], (image, image + 1))
        own, rows = truth.objects_of(image), free[start:end]
        of_class = found.labels[rows, None] == truth.labels[own]
        part = ((inside(boxes[rows], objects[own]) >= INSIDE) & of_class).any(axis=1)
        rows = rows[~part]
        same_place = iou(boxes[rows], boxes[rows]) >= THERE
        taken = np.zeros(len(rows), np.bool_)
        for place, row in enumerate(rows.tolist()):
            if not taken[place]:
                taken |= same_place[place]
                suspects.append(
                    Suspect(
                        "unlabelled",
                        image,
                        row,
                        (),
                        int(found.labels[row]),
                        None,
                        float(scores[row]),
                        found.boxes[row],
                    )
                )
    return suspects


def _swapped(
    truth: Truth,
    found: DetectionTable,
    scores: NDArray[np.float64],
    own_score: NDArray[np.float64],
    rival: NDArray[np.int64],
) -> list[Suspect]:
    """Return the objects with a detection of another class, `rival` [M], that beats those of their own."""
    in_doubt = (rival >= 0) & ~truth.crowd & ~truth.is_blacklisted(truth.image_index, truth.labels)
    suspects = []
    for k in np.flatnonzero(in_doubt).tolist():
        row = int(rival[k])
        if scores[row] > own_score[k]:
            score = scores[row] * (1 - own_score[k])
            suspects.append(_in_doubt("swapped", truth, k, score, detection=row, other=int(found.labels[row])))
    return suspects


def _doubles(truth: Truth, pixel: float) -> list[Suspect]:
    """Return the objects that nearly equal an earlier one of their image and class."""
    earlier, overlap = _copies(truth.boxes, truth.labels, truth.image_index, truth.crowd, pixel)
    return [
        _in_doubt("double", truth, k, overlap[k], earlier=(int(earlier[k]),))
        for k in np.flatnonzero(overlap >= TWICE).tolist()
    ]


def _unfound(truth: Truth, best_iou: NDArray[np.float64]) -> list[Suspect]:
    """Return the objects that no detection is on, by the greatest IoU [M] of any with each."""
    counted = ~truth.ignored & ~truth.is_blacklisted(truth.image_index, truth.labels)
    found = counted & (best_iou >= THERE)
    limits = [high for _, high in list(COCO_SIZES.values())[:-1]]
    group = truth.labels * len(COCO_SIZES) + np.digitize(np.sqrt(truth.areas), limits)
    objects, hits = (np.bincount(group[some], minlength=int(group.max(initial=0)) + 1) for some in (counted, found))
    usual = found.sum() / max(counted.sum(), 1)
    share = (hits + usual) / np.maximum(objects, 1)  # the object itself, not found, is replaced by a usual one
    return [
        _in_doubt("unfound", truth, k, share[group[k]] * (1 - best_iou[k]))
        for k in np.flatnonzero(counted & ~found).tolist()
    ]


def _in_doubt(
    kind: Kind,
    truth: Truth,
    k: int,
    score: float,
    *,
    detection: int | None = None,
    other: int | None = None,
    earlier: tuple[int, ...] = (),
) -> Suspect:
    image, label = int(truth.image_index[k]), int(truth.labels[k])
    return Suspect(kind, image, detection, (*earlier, k), label, other, float(score), truth.boxes[k])


@compiled()
def _evidence(found: Any, candidate: Any, objects: Any, starts: Any, pixel: float) -> Any:
    """Look at each object's detections with a score of at least LOW.

    Returns:
        [M] greatest IoU of any; [M] best score of its class on the object, 0 for none; [M] position of the best
        candidate of another class on it, -1 for none.
    """
    boxes, images, labels, scores = found
    object_boxes, object_labels = objects
    best_iou, own_score = np.zeros(len(object_boxes)), np.zeros(len(object_boxes))
    rival = np.full(len(object_boxes), -1, np.int64)
    for d in range(len(boxes)):
        for k in range(starts[images[d]], starts[images[d] + 1]):
            overlap = pair_iou(boxes, d, object_boxes, k, pixel, False)
            if scores[d] >= LOW:
                best_iou[k] = max(best_iou[k], overlap)
            if overlap < THERE:
                continue
            if object_labels[k] == labels[d]:
                own_score[k] = max(own_score[k], scores[d])
            elif candidate[d] and (rival[k] < 0 or scores[d] > scores[rival[k]]):
                rival[k] = d
    return best_iou, own_score, rival


@compiled()
def _copies(boxes: Any, labels: Any, images: Any, crowd: Any, pixel: float) -> Any:
    """Find the earlier object of its image and class that each overlaps most, -1 for none, and that IoU; [M] each."""
    earlier, best = np.full(len(boxes), -1, np.int64), np.zeros(len(boxes))
    for k in range(len(boxes)):
        other = k - 1
        while other >= 0 and images[other] == images[k]:
            if labels[other] == labels[k] and not crowd[k] and not crowd[other]:
                overlap = pair_iou(boxes, k, boxes, other, pixel, False)
                if overlap >= best[k] and overlap > 0:
                    earlier[k], best[k] = other, overlap
            other -= 1
    return earlier, best
