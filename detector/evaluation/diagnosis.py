"""The error types of TIDE with their cost in mean AP, and the confusions between classes.

In: a Truth, a DetectionTable and its Matches.  Out: counts, and the gain of mean AP if one type of error is fixed.
Source: Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020, as its program
tidecv 1.0 computes it. The type of a false positive is the first of these that applies:
    localisation    IoU with the best object of its own class from 0.1 to that object's threshold
    classification  IoU with the best object of another class at or above that object's threshold
    duplicate       IoU at or above the threshold with an object of its class that another detection has found
    background      no IoU above 0.1 with any object
    both            all others
An object is missed if no detection has found it and none of the first two errors lies on it.

The threshold is the protocol's, for ILSVRC each object's own. Objects that do not count (difficult, crowd, blacklisted)
are left out, as are detections that a protocol ignores, which tidecv classifies too. The mean is the protocol's, over
classes that have objects; tidecv counts a class without any as 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.average import AREA, Floats, average_precisions, mean_of_known
from detector.evaluation.matching import HIT, IGNORED, MISS, Matches, nearest_objects
from detector.evaluation.results import DetectionTable, class_keys
from detector.evaluation.truth import Truth

BACKGROUND_IOU = 0.1
ERRORS = ("classification", "localisation", "both", "duplicate", "background", "missed")


@dataclass(frozen=True)
class Diagnosis:
    """The errors of a table of detections.

    Attributes:
        counts: Number of false positives or missed objects, keyed by type of error.
        gains: Rise of mean AP if the errors are fixed, 0 where it would be negative, keyed by type of error.
        confused: (class of the object, class of the detection, number), most frequent first, of the false positives
            with at least `score` that lie on an object of another class and on none of their own.
        score: Minimum score of the confused detections.
    """

    counts: dict[str, int]
    gains: dict[str, float]
    confused: list[tuple[str, str, int]]
    score: float


def diagnose(
    truth: Truth,
    detections: DetectionTable,
    matches: Matches,
    *,
    points: Floats = AREA,
    score: float = 0.5,
) -> Diagnosis:
    """Classify the errors and compute mean AP with one type fixed at a time.

    Fixing a classification or localisation error makes it a hit on its object if no detection has found that and the
    error is the best one on it; otherwise it is removed. Duplicate, background and both errors are removed. Missed
    objects no longer count: a class that has none left has AP 0 if it has detections, and otherwise leaves the mean.

    Args:
        truth: The objects.
        detections: The detections.
        matches: Their matches, by any protocol.
        points: Recalls that average precision uses, as in average.py.
        score: Minimum score of Diagnosis.confused.
    """
    found = np.zeros(len(truth.boxes), np.bool_)
    found[matches.objects[matches.status == HIT]] = True
    nearest = nearest_objects(truth, detections, matches.counted)
    own, own_iou, other, other_iou = nearest
    kinds = _kinds(truth, detections, matches, found, nearest)
    threshold = np.append(matches.thresholds, np.inf)  # infinite for "no object", -1

    fixable = kinds["localisation"] | kinds["classification"]
    target = np.where(kinds["localisation"], own, other)
    ranked = matches.order[fixable[matches.order]]
    ranked = ranked[~found[target[ranked]]]
    errors_on, first = np.unique(target[ranked], return_index=True)  # the best error on each object
    missed = matches.counted & ~found
    missed[errors_on] = False

    base = _mean(average_precisions(matches, detections, points))
    gains: dict[str, float] = {}
    for kind, rows in kinds.items():
        status, labels = matches.status.copy(), detections.labels.copy()
        status[rows] = IGNORED
        hits = ranked[first][rows[ranked[first]]]
        status[hits] = HIT
        labels[hits] = truth.labels[target[hits]]
        fixed = replace(matches, status=status), replace(detections, labels=labels)
        gains[kind] = _mean(average_precisions(*fixed, points)) - base
    gains["missed"] = _mean_without(missed, truth, detections, matches, points) - base
    counts = {kind: int(rows.sum()) for kind, rows in kinds.items()} | {"missed": int(missed.sum())}
    wrong = (matches.status == MISS) & (detections.scores >= score)
    elsewhere = wrong & (other_iou >= threshold[other]) & (own_iou < threshold[own])
    confused = _confused(truth, detections, other, np.flatnonzero(elsewhere))
    return Diagnosis(
        {kind: counts[kind] for kind in ERRORS}, {kind: max(gains[kind], 0.0) for kind in ERRORS}, confused, score
    )


def error_kinds(truth: Truth, detections: DetectionTable, matches: Matches) -> dict[str, NDArray[np.bool_]]:
    """Tell the type of each false positive: [D] masks of the detections, keyed by the types of ERRORS but `missed`.

    Args:
        truth: The objects.
        detections: The D detections.
        matches: Their matches, by any protocol.
    """
    found = np.zeros(len(truth.boxes), np.bool_)
    found[matches.objects[matches.status == HIT]] = True
    return _kinds(truth, detections, matches, found, nearest_objects(truth, detections, matches.counted))


def _kinds(
    truth: Truth,
    detections: DetectionTable,
    matches: Matches,
    found: NDArray[np.bool_],
    nearest: tuple[NDArray[np.int64], Floats, NDArray[np.int64], Floats],
) -> dict[str, NDArray[np.bool_]]:
    own, own_iou, other, other_iou = nearest
    twin, twin_iou, _, _ = nearest_objects(truth, detections, found)
    threshold = np.append(matches.thresholds, np.inf)  # infinite for "no object", -1
    left = matches.status == MISS
    kinds: dict[str, NDArray[np.bool_]] = {}
    for kind, holds in (
        ("localisation", (own_iou >= BACKGROUND_IOU) & (own_iou <= threshold[own])),
        ("classification", other_iou >= threshold[other]),
        ("duplicate", twin_iou >= threshold[twin]),
        ("background", np.maximum(own_iou, other_iou) <= BACKGROUND_IOU),
        ("both", np.ones(len(detections), np.bool_)),
    ):
        kinds[kind] = left & holds
        left = left & ~holds
    return kinds


def _mean_without(
    missed: NDArray[np.bool_], truth: Truth, detections: DetectionTable, matches: Matches, points: Floats
) -> float:
    """Compute mean AP if the missed objects did not count; 1 where no class has objects or detections left."""
    positives = matches.positives - np.bincount(truth.labels[missed], minlength=len(matches.positives))
    fewer = replace(matches, counted=matches.counted & ~missed, positives=positives)
    wrong = np.bincount(detections.labels[matches.status == MISS], minlength=len(positives)) > 0
    emptied = (matches.positives > 0) & (positives == 0)
    ap = average_precisions(fewer, detections, points)
    mean = mean_of_known([0.0 if emptied[label] and wrong[label] else value for label, value in enumerate(ap)])
    return 1.0 if mean is None else mean


def _confused(
    truth: Truth, detections: DetectionTable, other: NDArray[np.int64], rows: NDArray[np.int64]
) -> list[tuple[str, str, int]]:
    """Count the pairs of classes of the detections in rows and the objects that they lie on."""
    keys = class_keys(truth.classes)
    pairs, counts = np.unique(truth.labels[other[rows]] * len(keys) + detections.labels[rows], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [
        (keys[pair // len(keys)], keys[pair % len(keys)], count)
        for pair, count in zip(pairs[order].tolist(), counts[order].tolist(), strict=True)
    ]


def _mean(ap: list[float | None]) -> float:
    mean = mean_of_known(ap)
    return float("nan") if mean is None else mean
