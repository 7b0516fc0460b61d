"""Find the stage of the detector that lost each object.

In: the boxes that each stage left of an image, and its objects.  Out: the stage that lost each object, and a file of
these.

N boxes, K classes, M objects.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.data.ground_truth import Record
from detector.settings import SuppressionConfig
from detector.suppression import surviving
from proposals.boxes import Boxes, iou

FOUND = "found"
SHARED = "one box for two objects"
UNKNOWN = "of a class that the detector does not know"
STAGES = (
    *("never proposed", "proposed but cut", "misclassified"),
    *("below the score", "suppressed by NMS", "beyond the limit per image"),
)
"""The losses of the stages, in their order."""


@dataclass(frozen=True)
class Trace:
    """The boxes of an image that each stage of the detector left.

    Attributes:
        boxes: [N, 4] px: all proposals, best first, of which those of a second pass follow the last that is scored.
        probabilities: [S, K + 1] probabilities of the first S boxes, the scored ones; column 0 is background.
        class_boxes: [S, K, 4] px, those boxes after box regression for each class, before box voting.
        config: Settings of the suppression.
        score: Minimum score of a detection that finds an object, in [0, 1].
    """

    boxes: Boxes
    probabilities: NDArray[np.float32]
    class_boxes: Boxes
    config: SuppressionConfig
    score: float

    @property
    def scored(self) -> int:
        """Number of boxes that were scored."""
        return len(self.probabilities)

    def overlaps(self, objects: Boxes, labels: NDArray[np.int64]) -> NDArray[np.floating]:
        """Compute the IoU [M, N] of objects [M, 4] of classes [M] with the boxes, regressed for the object's class."""
        result = np.zeros((len(objects), len(self.boxes)))
        for label in np.unique(labels).tolist():
            boxes = np.concatenate([self.class_boxes[:, label], self.boxes[self.scored :]])
            result[labels == label] = iou(objects[labels == label].astype(np.float64), boxes)
        return result

    @cached_property
    def survivors(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Rows of the boxes, labels and scores of all detections that suppression left, best first."""
        return surviving(self.class_boxes, self.probabilities, self.config)


@dataclass(frozen=True)
class Fate:
    """The outcome of an object: found, or lost at a stage.

    Attributes:
        label: Class label.
        box: Corners x1, y1, x2, y2, px.
        stage: FOUND; one of STAGES; SHARED if the detection on it found another object of its class; or UNKNOWN.
        best_iou: Greatest IoU with a box, regressed for the object's class.
    """

    label: int
    box: list[float]
    stage: str
    best_iou: float


def fates(trace: Trace, boxes: Boxes, labels: NDArray[np.int64], min_iou: float) -> list[Fate]:
    """Find the first stage after which no box of its class covers an object, for each object.

    Args:
        trace: The boxes that each stage left.
        boxes: [M, 4] px, the objects.
        labels: [M] class labels of the objects.
        min_iou: IoU from which a box covers an object.
    """
    overlaps = trace.overlaps(boxes, labels)  # [M, N]
    found = _found(trace, overlaps, labels, min_iou)
    result = []
    for index, label in enumerate(labels.tolist()):
        covering = overlaps[index] >= min_iou
        lost = (name for name, left in _left(trace, label).items() if not covering[left].any())
        stage = FOUND if found[index] else next(lost, SHARED)
        result.append(Fate(label, boxes[index].tolist(), stage, float(overlaps[index].max(initial=0))))
    return result


def _left(trace: Trace, label: int) -> dict[str, NDArray[np.int64]]:
    """List the boxes of a class that each stage leaves, keyed by the name of the stage's loss (STAGES)."""
    rows, labels, scores = trace.survivors
    detected = (labels == label) & (scores >= trace.score)
    limit = trace.config.limit
    probabilities = trace.probabilities
    left = (
        np.arange(len(trace.boxes)),
        np.arange(trace.scored),
        np.flatnonzero(probabilities.argmax(axis=1) == label + 1),
        np.flatnonzero(probabilities[:, label + 1] >= max(trace.score, trace.config.lowest)),
        rows[detected],
        rows[:limit][detected[:limit]],
    )
    return dict(zip(STAGES, left, strict=True))


def _found(
    trace: Trace, overlaps: NDArray[np.floating], labels: NDArray[np.int64], min_iou: float
) -> NDArray[np.bool_]:
    """Tell which of the M objects are found; each detection finds the object that it overlaps most, best first."""
    found = np.zeros(len(labels), np.bool_)
    columns = (column[: trace.config.limit].tolist() for column in trace.survivors)
    for row, label, score in zip(*columns, strict=True):
        free = np.flatnonzero((labels == label) & ~found & (overlaps[:, row] >= min_iou))
        if score >= trace.score and len(free):
            found[free[overlaps[free, row].argmax()]] = True
    return found


# ---- on disk


def append_fates(path: Path, record: Record, found: Sequence[Fate], score: float, min_iou: float) -> None:
    """Add a line for an image to the file; a later line of the same image replaces an earlier one.

    Args:
        path: The file, fates.jsonl.
        record: The image.
        found: Fates of its objects.
        score: Minimum score of the detections that find objects.
        min_iou: IoU from which a box covers an object.
    """
    objects = [asdict(fate) for fate in found]
    line = {"image_id": record.image_id, "score": score, "min_iou": min_iou, "objects": objects}
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\n{json.dumps(line)}\n")  # a line of its own, even after one that a kill cut off


def read_fates(path: Path, score: float, min_iou: float) -> dict[str, list[Fate]]:
    """Read the fates that were recorded at this score and IoU, keyed by image; none where there is no such file."""
    found: dict[str, list[Fate]] = {}
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            line = json.loads(text)
            if (line["score"], line["min_iou"]) == (score, min_iou):
                found[line["image_id"]] = [Fate(**item) for item in line["objects"]]
        except (ValueError, KeyError, TypeError):  # blank, or cut off by a kill: the resumed run wrote that image again
            continue
    return found


def count_fates(found: Iterable[Fate]) -> dict[str, int]:
    """Count the objects that were found, and those that each stage lost, in the order of the stages."""
    counts = Counter(fate.stage for fate in found)
    return {stage: counts[stage] for stage in (FOUND, *STAGES, SHARED, UNKNOWN)}
