"""What kind of mistake costs how much: the error types of TIDE, and which classes are taken for which.

In: a Truth, a DetectionTable and its Matches.  Out: numbers, and what mean AP gains if one kind of error is mended.
Source: Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020. A false positive is
    localisation    on an object of its class, overlap 0.1 up to the threshold
    classification  on an object of another class, overlap at the threshold or more
    duplicate       on an object of its class that a better detection has found
    background      on nothing, overlap below 0.1
    both            the rest: on an object of another class, badly
and an object is missed if no detection found it and none of the first two errors lies on it.
"""

from __future__ import annotations

from dataclasses import dataclass

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
        gains: by error: mean AP without it minus mean AP.
        confused: (class of the object, class of the detection, number), most frequent first: the detections at or
            above the score whose class is not that of the object they lie on.
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
    min_iou: float = 0.5,
    measure: Measure = average_precision,
    score: float = 0.5,
) -> Diagnosis:
    """Sort the errors into kinds and mend one kind at a time.

    Mending a classification or localisation error makes it a hit on the object that it lies on, if no other detection
    has found that and it is the best such error on it, else removes it. Duplicates, background and both are removed.
    Missed objects stop counting.

    Args:
        truth: the objects.
        detections: the table.
        matches: of the two, by any protocol.
        min_iou: overlap from which an object is found.
        measure: of average precision.
        score: see Diagnosis.confused.
    """
    own, own_iou, other, other_iou = nearest_objects(truth, detections)
    found = np.zeros(len(truth.boxes), np.bool_)
    found[matches.objects[matches.status == HIT]] = True
    wrong = matches.status == MISS
    duplicate = wrong & (own_iou >= min_iou)
    localisation = wrong & ~duplicate & (own_iou >= BACKGROUND_IOU)
    classification = wrong & ~duplicate & ~localisation & (other_iou >= min_iou)
    background = wrong & (np.maximum(own_iou, other_iou) < BACKGROUND_IOU)
    both = wrong & ~duplicate & ~localisation & ~classification & ~background
    kinds = {
        "classification": classification,
        "localisation": localisation,
        "both": both,
        "duplicate": duplicate,
        "background": background,
    }
    excused = found.copy()
    excused[own[localisation]] = True
    excused[other[classification]] = True
    missed = matches.counted & ~excused

    base = _mean(average_precisions(matches, detections, measure))
    gains = {}
    for kind in ERRORS:
        if kind == "missed":
            fewer = matches.positives - np.bincount(truth.labels[missed], minlength=len(matches.positives))
            mended = Matches(matches.status, matches.objects, matches.order, matches.counted & ~missed, fewer)
            table = detections
        else:
            mended, table = _mended(truth, detections, matches, kinds[kind], kind, own, other, found)
        values = average_precisions(mended, table, measure)
        if kind == "missed":  # a class all of whose objects were missed has none left to be wrong about
            had = matches.positives > 0
            values = [1.0 if had[label] and value is None else value for label, value in enumerate(values)]
        gains[kind] = _mean(values) - base
    counts = {kind: int(rows.sum()) for kind, rows in kinds.items()} | {"missed": int(missed.sum())}
    elsewhere = (detections.scores >= score) & (other_iou >= min_iou) & (own_iou < min_iou)
    confused = _confused(truth, detections, other, np.flatnonzero(elsewhere))
    return Diagnosis({kind: counts[kind] for kind in ERRORS}, gains, confused, score)


def _mended(
    truth: Truth,
    detections: DetectionTable,
    matches: Matches,
    rows: NDArray[np.bool_],
    kind: str,
    own: NDArray[np.int64],
    other: NDArray[np.int64],
    found: NDArray[np.bool_],
) -> tuple[Matches, DetectionTable]:
    """Matches and detections with one kind of error mended."""
    status, labels = matches.status.copy(), detections.labels.copy()
    status[rows] = IGNORED
    if kind in ("classification", "localisation"):
        target = other if kind == "classification" else own
        ranked = matches.order[rows[matches.order]]
        ranked = ranked[matches.counted[target[ranked]] & ~found[target[ranked]]]
        _, first = np.unique(target[ranked], return_index=True)  # of several errors on an object the best one
        hits = ranked[first]
        status[hits] = HIT
        labels[hits] = truth.labels[target[hits]]
    table = DetectionTable(detections.image_index, labels, detections.scores, detections.boxes, detections.convention)
    return Matches(status, matches.objects, matches.order, matches.counted, matches.positives), table


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
