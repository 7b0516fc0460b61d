"""At which stage of the detector an object was lost.

In: what each stage made of an image, and the objects in it.  Out: the stage that lost each object. Stages are a list:
what a later detector adds between two of them joins it.

N boxes, K classes, M objects.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
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


@dataclass(frozen=True)
class Trace:
    """What each stage left of an image's boxes.

    Attributes:
        boxes: [N, 4] px, all that were proposed, best first.
        probabilities: [S, K + 1] of the first S boxes, which were scored; column 0 is background.
        class_boxes: [S, K, 4] px, where each class has those boxes.
        config: Settings of the suppression.
        score: Score that a detection must reach to be shown, in [0, 1].
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

    def boxes_of(self, label: int) -> Boxes:
        """[N, 4] px, every box where that class has it."""
        return np.concatenate([self.class_boxes[:, label], self.boxes[self.scored :]])

    def overlaps(self, objects: Boxes, labels: NDArray[np.int64]) -> NDArray[np.floating]:
        """IoU of objects [M, 4], labels [M], with every box where their class has it, [M, N]."""
        result = np.zeros((len(objects), len(self.boxes)))
        for label in np.unique(labels).tolist():
            result[labels == label] = iou(objects[labels == label].astype(np.float64), self.boxes_of(label))
        return result

    @cached_property
    def survivors(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Rows of the boxes, labels and scores that suppression left, best first, all of them."""
        return surviving(self.class_boxes, self.probabilities, self.config)


Left = Callable[[Trace, int], NDArray[np.int64]]
"""(trace, label) -> positions of the boxes that are still there for that class."""


def _proposed(trace: Trace, _: int) -> NDArray[np.int64]:
    return np.arange(len(trace.boxes))


def _kept(trace: Trace, _: int) -> NDArray[np.int64]:
    return np.arange(trace.scored)


def _classified(trace: Trace, label: int) -> NDArray[np.int64]:
    return np.flatnonzero(trace.probabilities.argmax(axis=1) == label + 1)


def _confident(trace: Trace, label: int) -> NDArray[np.int64]:
    return np.flatnonzero(trace.probabilities[:, label + 1] >= max(trace.score, trace.config.min_score))


def _unsuppressed(trace: Trace, label: int) -> NDArray[np.int64]:
    rows, labels, scores = trace.survivors
    left: NDArray[np.int64] = rows[(labels == label) & (scores >= trace.score)]
    return left


def _within_limit(trace: Trace, label: int) -> NDArray[np.int64]:
    rows, labels, scores = (column[: trace.config.limit] for column in trace.survivors)
    left: NDArray[np.int64] = rows[(labels == label) & (scores >= trace.score)]
    return left


STAGES: tuple[tuple[str, Left], ...] = (
    ("never proposed", _proposed),
    ("proposed but cut", _kept),
    ("misclassified", _classified),
    ("below the score", _confident),
    ("suppressed by NMS", _unsuppressed),
    ("beyond the limit per image", _within_limit),
)
"""What an object is called that a stage lost, and what that stage leaves."""


@dataclass(frozen=True)
class Fate:
    """What became of an object.

    Attributes:
        label: Its class.
        box: Its corners, px.
        stage: FOUND; the stage that lost it; SHARED if its box was spent on another object of its class; or UNKNOWN.
        best_iou: Highest overlap with any box where its class has it.
    """

    label: int
    box: list[float]
    stage: str
    best_iou: float


def fates(
    trace: Trace,
    boxes: Boxes,
    labels: NDArray[np.int64],
    min_iou: float = 0.5,
    stages: Sequence[tuple[str, Left]] = STAGES,
) -> list[Fate]:
    """What became of each object: the first stage after which no box of its class covers it.

    Args:
        trace: What each stage left of the image's boxes.
        boxes: [M, 4] px, the objects.
        labels: [M], their classes.
        min_iou: Overlap from which a box covers an object.
        stages: The stages in their order.
    """
    overlaps = trace.overlaps(boxes, labels)  # [M, N]
    found = _found(trace, overlaps, labels, min_iou)
    result = []
    for index, label in enumerate(labels.tolist()):
        stage = FOUND if found[index] else SHARED
        if not found[index]:
            for name, left in stages:
                if not (overlaps[index, left(trace, label)] >= min_iou).any():
                    stage = name
                    break
        best = float(overlaps[index].max(initial=0))
        result.append(Fate(label, [float(value) for value in boxes[index]], stage, best))
    return result


def _found(
    trace: Trace, overlaps: NDArray[np.floating], labels: NDArray[np.int64], min_iou: float
) -> NDArray[np.bool_]:
    """[M] objects that a shown detection is spent on, each detection on the one it overlaps most."""
    rows, row_labels, scores = (column[: trace.config.limit] for column in trace.survivors)
    found = np.zeros(len(labels), np.bool_)
    for row, label, score in zip(rows.tolist(), row_labels.tolist(), scores.tolist(), strict=True):
        if score < trace.score:
            continue
        free = np.flatnonzero((labels == label) & ~found & (overlaps[:, row] >= min_iou))
        if len(free):
            found[free[overlaps[free, row].argmax()]] = True
    return found


# ---- on disk


def append_fates(path: Path, record: Record, found: Sequence[Fate], score: float, min_iou: float) -> None:
    """Add a line for an image; a line that comes again replaces the earlier one.

    Args:
        path: The file, fates.jsonl.
        record: The image.
        found: What became of its objects.
        score: Score from which a detection was shown.
        min_iou: Overlap from which a box covered an object.
    """
    line = {
        "image_id": record.image_id,
        "score": score,
        "min_iou": min_iou,
        "objects": [asdict(fate) for fate in found],
    }
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\n{json.dumps(line)}\n")  # on a line of its own, even behind one that a kill has torn


def read_fates(path: Path, score: float, min_iou: float) -> dict[str, list[Fate]]:
    """Fates by image, those recorded at this score and overlap; empty where there is no such file."""
    found: dict[str, list[Fate]] = {}
    for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            line = json.loads(text)
            if (line["score"], line["min_iou"]) == (score, min_iou):
                found[line["image_id"]] = [Fate(**item) for item in line["objects"]]
        except (ValueError, KeyError, TypeError):  # blank, or torn by a kill: the resumed run wrote that image again
            continue
    return found


def count_fates(found: dict[str, list[Fate]], stages: Sequence[tuple[str, Left]] = STAGES) -> dict[str, int]:
    """How many objects each stage lost, in their order, after those that were found."""
    counts = Counter(fate.stage for objects in found.values() for fate in objects)
    return {name: counts[name] for name in (FOUND, *(name for name, _ in stages), SHARED, UNKNOWN)}
