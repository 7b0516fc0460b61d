"""Why a class is found badly: what became of its objects, and what its false positives are, at the class's threshold.

In: a Truth, a DetectionTable and its Matches.  Out: ClassCauses.
A missed object has the first of these causes that applies:
    misplaced      a detection of its class overlaps it with an IoU from 0.1 to its threshold
    other class    a detection of another class has the IoU that it needs
    low score      only a detection below the threshold finds it
    unseen         none of these
The first two are asked of detections that are shown, those with at least the threshold's score: with scores low enough
every object has some box on it. The types of the false positives are TIDE's (detector.evaluation.diagnosis).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from detector.evaluation.diagnosis import BACKGROUND_IOU, ERRORS, error_kinds
from detector.evaluation.matching import HIT, MISS, Matches, nearest_objects
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import Truth

MISSED = ("misplaced", "other class", "low score", "unseen")


@dataclass(frozen=True)
class ClassCauses:
    """What became of the objects of a class, and what its false positives are, from a score on.

    Attributes:
        label: The class.
        score: Lowest score of the detections that are shown.
        objects: Number of its objects that count.
        found: Number of those that a shown detection finds.
        missed: Number of the others by cause, keyed by MISSED.
        false: Number of its false positives that are shown, keyed by the types of TIDE, without `missed`.
        taken_for: Label of the class for which most of its missed objects are taken; None for none.
    """

    label: int
    score: float
    objects: int
    found: int
    missed: dict[str, int]
    false: dict[str, int]
    taken_for: int | None

    @property
    def precision(self) -> float:
        """Share of the shown detections that are right, in [0, 1]; 0 where none is shown."""
        shown = self.found + sum(self.false.values())
        return self.found / shown if shown else 0.0

    @property
    def recall(self) -> float:
        """Share of the objects that are found, in [0, 1]; 0 where there are none."""
        return self.found / self.objects if self.objects else 0.0


def class_causes(truth: Truth, table: DetectionTable, matches: Matches, label: int, score: float) -> ClassCauses:
    """Count the causes of one class.

    Args:
        truth: The objects.
        table: The detections.
        matches: Their matches, by any protocol.
        label: The class.
        score: Lowest score that is shown.
    """
    own = table.labels == label
    shown = table.scores >= score
    rows = np.flatnonzero(own & shown)
    of_class = replace(matches, status=matches.status[rows], objects=matches.objects[rows])
    false = error_kinds(truth, table[rows], of_class)

    objects = matches.counted & (truth.labels == label)
    hits = matches.status == HIT
    missed = objects.copy()
    missed[matches.objects[hits & own & shown]] = False
    late = np.zeros(len(missed), np.bool_)
    late[matches.objects[hits & own]] = True

    images = np.zeros(len(truth), np.bool_)
    images[truth.image_index[missed]] = True
    near = np.flatnonzero(shown & images[table.image_index] & (~own | (matches.status == MISS)))
    same, same_iou, others, others_iou = nearest_objects(truth, table[near], missed)
    thresholds = np.append(matches.thresholds, np.inf)  # infinite for "no object", -1
    misplaced, taken = np.zeros(len(missed), np.bool_), np.zeros(len(missed), np.bool_)
    misplaced[same[same_iou >= BACKGROUND_IOU]] = True
    confused = others_iou >= thresholds[others]
    taken[others[confused]] = True
    left = missed.copy()
    counts = {}
    for cause, holds in zip(MISSED, (misplaced, taken, late, np.ones_like(left)), strict=True):
        counts[cause] = int((left & holds).sum())
        left &= ~holds
    taken &= missed & ~misplaced
    classes = Counter(table.labels[near[confused & taken[others]]].tolist())
    return ClassCauses(
        label,
        score,
        int(objects.sum()),
        int(objects.sum() - missed.sum()),
        counts,
        {kind: int(false[kind].sum()) for kind in ERRORS[:-1]},
        min(classes, key=lambda one: (-classes[one], one)) if classes else None,
    )
