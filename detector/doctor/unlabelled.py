"""Objects that look unlabelled: confident detections of a model that overlap no label.

In: images with labels, a detector whose classes meet theirs by name.  Out: places to look at, best first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detector.analysis.label_errors import APART, INSIDE
from detector.data.ground_truth import ClassTable, DataError, Record, listed
from detector.doctor.findings import Finding, at, finding
from detector.pipeline import Detector
from detector.progress import progress
from proposals.boxes import inside, iou

CONFIDENT = 0.8  # score


def open_detector(name: str) -> Detector:
    """Load a preset of a detector, or weights of one classifier with the settings of the default preset.

    Raises:
        UserError: there is no such preset or file.
    """
    if name in Detector.presets() or Path(name).suffix in (".yaml", ".yml"):
        return Detector.load(name)
    return Detector.load("fast", overrides=[f"models={json.dumps([name])}", "regression=false"])


def find_unlabelled(
    name: str, records: Sequence[Record], classes: ClassTable, detector: Detector
) -> list[tuple[float, str]]:
    """Detect in images of a part; return score and description of each place that looks unlabelled.

    Args:
        name: Name of the part.
        records: Its images, all readable.
        classes: Their classes.
        detector: The detector; its other classes are passed over.

    Raises:
        DataError: it knows none of the classes.
    """
    labels = detector.classes.labels_in(classes)
    if (labels < 0).all():
        raise DataError(
            f"the model knows none of the classes {listed(classes.names)}; it knows {listed(detector.classes.names)}"
        )
    found: list[tuple[float, str]] = []
    detected = detector.score_many(records, lambda record: (record.read(), None))
    for record, scored in progress(detected, f"detecting {name}".strip(), total=len(records), delay=1):
        if isinstance(scored, Exception):
            continue  # images.unreadable names it
        some = scored.detections(min_score=CONFIDENT)
        boxes = np.asarray(some.boxes, np.float64)
        if not len(boxes):
            continue
        known = np.asarray(record.boxes, np.float64)
        apart = (iou(boxes, known) < APART).all(axis=1)
        free = apart & ~(inside(boxes, known) >= INSIDE).any(axis=1)
        for index in np.flatnonzero(free).tolist():
            label = int(labels[some.labels[index]])
            if label >= 0:
                corners = ", ".join(f"{value:.0f}" for value in boxes[index].tolist())
                score = float(some.scores[index])
                found.append(
                    (score, at(name, f"{record.path.name} {classes.names[label]} [{corners}], score {score:.2f}"))
                )
    return found


def check_unlabelled(found: Sequence[tuple[float, str]], images: int) -> list[Finding]:
    """Report the places, best first."""
    places = [place for _, place in sorted(found, key=lambda one: -one[0])]
    return finding("labels.missing", f"detections in {images} images overlap no label", places)
