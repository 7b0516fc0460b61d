"""What kind of mistake costs how much: the error types of TIDE, and which classes are taken for which.

In: a Truth, a DetectionTable and its Matches.  Out: counts, and what mean AP gains if one kind of error is mended.
Source: Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020, as its program
tidecv 1.0 computes it. A false positive is the first of these that holds:
    localisation    its best object of its own class is overlapped by 0.1 up to that object's threshold
    classification  its best object of another class is overlapped by that object's threshold or more
    duplicate       an object of its class that another detection has found is overlapped by its threshold or more
    background      no object is overlapped by more than 0.1
    both            the rest
and an object is missed if no detection found it and none of the first two errors lies on it.

The threshold is the protocol's, for ILSVRC each object's own. Objects that do not count (difficult, crowd, blacklisted)
take no part, nor do detections that a protocol ignores, which tidecv sorts too. The mean is the protocol's, over
classes that have objects; tidecv counts a class without any as 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.average import Measure, average_precision, average_precisions
from detector.evaluation.matching import HIT, IGNORED, MISS, Matches, nearest_objects
from detector.evaluation.results import DetectionTable, class_keys
from detector.evaluation.truth import Truth

BACKGROUND_IOU = 0.1
ERRORS = ("classification", "localisation", "both", "duplicate", "background", "missed")


@dataclass(frozen=True)
class Diagnosis:
    """The errors of a table of detections.

    Attributes:
        counts: by error: false positives, or objects that were missed.
        gains: by error: mean AP without it minus mean AP, 0 where that would be negative.
        confused: (class of the object, class of the detection, number), most frequent first: the false positives at or
            above the score that lie on an object of another class and on none of their own.
        score: that score.
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
    measure: Measure = average_precision,
    score: float = 0.5,
) -> Diagnosis:
    """Sort the errors into kinds and mend one kind at a time.

    Mending a classification or localisation error makes it a hit on its object, if no detection has found that and the
    error is the best of both kinds on it, else removes it. Duplicates, background and both are removed. Missed objects
    stop counting: a class that has none left has AP 0 if it has detections, and no part in the mean if it has none.

    Args:
        truth: the objects.
        detections: the table.
        matches: of the two, by any protocol.
        measure: of average precision.
        score: see Diagnosis.confused.
    """
    found = np.zeros(len(truth.boxes), np.bool_)
    found[matches.objects[matches.status == HIT]] = True
    own, own_iou, other, other_iou = nearest_objects(truth, detections, matches.counted)
    twin, twin_iou, _, _ = nearest_objects(truth, detections, found)
    threshold = np.append(matches.thresholds, np.inf)  # of no object, -1: out of reach

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

    mendable = kinds["localisation"] | kinds["classification"]
    target = np.where(kinds["localisation"], own, other)
    ranked = matches.order[mendable[matches.order]]
    ranked = ranked[~found[target[ranked]]]
    errors_on, first = np.unique(target[ranked], return_index=True)  # of several errors on an object the best one
    missed = matches.counted & ~found
    missed[errors_on] = False

    base = _mean(average_precisions(matches, detections, measure))
    gains: dict[str, float] = {}
    for kind, rows in kinds.items():
        status, labels = matches.status.copy(), detections.labels.copy()
        status[rows] = IGNORED
        hits = ranked[first][rows[ranked[first]]]
        status[hits] = HIT
        labels[hits] = truth.labels[target[hits]]
        mended = replace(matches, status=status), replace(detections, labels=labels)
        gains[kind] = _mean(average_precisions(*mended, measure)) - base
    gains["missed"] = _mean_without(missed, truth, detections, matches, measure) - base
    counts = {kind: int(rows.sum()) for kind, rows in kinds.items()} | {"missed": int(missed.sum())}
    wrong = (matches.status == MISS) & (detections.scores >= score)
    elsewhere = wrong & (other_iou >= threshold[other]) & (own_iou < threshold[own])
    confused = _confused(truth, detections, other, np.flatnonzero(elsewhere))
    return Diagnosis(
        {kind: counts[kind] for kind in ERRORS}, {kind: max(gains[kind], 0.0) for kind in ERRORS}, confused, score
    )


def _mean_without(
    missed: NDArray[np.bool_], truth: Truth, detections: DetectionTable, matches: Matches, measure: Measure
) -> float:
    """Mean AP if the missed objects did not count; 1 where no class has anything left."""
    positives = matches.positives - np.bincount(truth.labels[missed], minlength=len(matches.positives))
    fewer = replace(matches, counted=matches.counted & ~missed, positives=positives)
    wrong = np.bincount(detections.labels[matches.status == MISS], minlength=len(positives)) > 0
    emptied = (matches.positives > 0) & (positives == 0)
    ap = average_precisions(fewer, detections, measure)
    values = [0.0 if emptied[label] and wrong[label] else value for label, value in enumerate(ap)]
    return _mean(values) if any(value is not None for value in values) else 1.0


def _confused(
    truth: Truth, detections: DetectionTable, other: NDArray[np.int64], rows: NDArray[np.int64]
) -> list[tuple[str, str, int]]:
    """How often the detections of rows are of one class and their objects of another."""
    keys = class_keys(truth.classes)
    pairs, counts = np.unique(truth.labels[other[rows]] * len(keys) + detections.labels[rows], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [
        (keys[pair // len(keys)], keys[pair % len(keys)], count)
        for pair, count in zip(pairs[order].tolist(), counts[order].tolist(), strict=True)
    ]


def _mean(ap: list[float | None]) -> float:
    known = [value for value in ap if value is not None]
    return float(np.mean(known)) if known else float("nan")
