"""At which stage of the detector an object was lost, and what perfect stages would have given.

In: one image's way through the detector and the objects in it.  Out: the stage that lost each object; detections with
one stage replaced by an oracle. Stages are a list: what a later detector adds between two of them joins it.

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
from detector.detections import Detections
from detector.postprocess import suppress, surviving
from detector.settings import SuppressionConfig
from proposals.boxes import Boxes, iou

FOUND = "found"
SHARED = "one box for two objects"
UNKNOWN = "of a class that the detector does not know"


@dataclass(frozen=True)
class Trace:
    """What each stage left of an image's boxes.

    Attributes:
        boxes: [N, 4] px, all that were proposed, best first.
        kept: how many of them were scored: the first so many.
        scores: [kept, K + 1] column 0 background.
        config: of the suppression.
        score: what a detection must reach to be shown, in [0, 1].
        regressed: [kept, K, 4] px, where regression places each class; None where boxes stay.
    """

    boxes: Boxes
    kept: int
    scores: NDArray[np.float32]
    config: SuppressionConfig
    score: float
    regressed: Boxes | None = None

    @property
    def placed(self) -> Boxes:
        """[kept, 4] or [kept, K, 4] px, what suppression works on."""
        return self.boxes[: self.kept].astype(np.float64) if self.regressed is None else self.regressed

    def places(self, label: int) -> Boxes:
        """[N, 4] px, every box where that class has it."""
        if self.regressed is None:
            return self.boxes.astype(np.float64)
        return np.concatenate([self.regressed[:, label], self.boxes[self.kept :]])

    def overlaps(self, boxes: Boxes, labels: NDArray[np.int64]) -> NDArray[np.floating]:
        """IoU of objects [M, 4], labels [M], with every box where their class has it, [M, N]."""
        result = np.zeros((len(boxes), len(self.boxes)))
        for label in np.unique(labels).tolist():
            result[labels == label] = iou(boxes[labels == label].astype(np.float64), self.places(label))
        return result

    @cached_property
    def survivors(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Positions of boxes, labels and scores that suppression left, best first, all of them."""
        return surviving(self.placed, self.scores, self.config)


Left = Callable[[Trace, int], NDArray[np.int64]]
"""(trace, label) -> positions of the boxes that are still there for that class."""


def _proposed(trace: Trace, _: int) -> NDArray[np.int64]:
    return np.arange(len(trace.boxes))


def _kept(trace: Trace, _: int) -> NDArray[np.int64]:
    return np.arange(trace.kept)


def _classified(trace: Trace, label: int) -> NDArray[np.int64]:
    return np.flatnonzero(trace.scores.argmax(axis=1) == label + 1)


def _confident(trace: Trace, label: int) -> NDArray[np.int64]:
    return np.flatnonzero(trace.scores[:, label + 1] >= max(trace.score, trace.config.min_score))


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
        label: its class.
        box: px.
        stage: FOUND, the stage that lost it, SHARED: its box was spent on another object of its class, or UNKNOWN.
        best_iou: with any proposal, where regression places it.
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
        trace: of the image.
        boxes: [M, 4] px of the objects.
        labels: [M].
        min_iou: overlap from which a box covers an object.
        stages: in their order.
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


# ---- perfect stages


def perfect_proposals(trace: Trace, placed: Boxes, scores: NDArray[np.float32]) -> Detections:
    """Detections if every object's own box had been proposed too.

    Args:
        trace: of the image.
        placed: [M, 4] px of the objects, or [M, K, 4] where regression places each class in them.
        scores: [M, K + 1] of those boxes.
    """
    all_boxes = np.concatenate([placed.astype(np.float64), trace.placed])
    return suppress(all_boxes, np.concatenate([scores, trace.scores]), trace.config)


def perfect_classifier(trace: Trace, boxes: Boxes, labels: NDArray[np.int64], min_iou: float = 0.5) -> Detections:
    """Detections if every box had the class of the object it covers best, with its overlap as the score."""
    scores = np.zeros_like(trace.scores)
    scores[:, 0] = 1
    if len(boxes) and trace.kept:
        overlaps = trace.overlaps(boxes, labels)[:, : trace.kept]
        best, overlap = overlaps.argmax(axis=0), overlaps.max(axis=0)
        covering = np.flatnonzero(overlap >= min_iou)
        scores[covering, 0] = 1 - overlap[covering]
        scores[covering, labels[best[covering]] + 1] = overlap[covering]
    return suppress(trace.placed, scores, trace.config)


def perfect_suppression(trace: Trace, boxes: Boxes, labels: NDArray[np.int64], min_iou: float = 0.5) -> Detections:
    """Detections if each object kept the best-scored box of its class that covers it, and no second one.

    Boxes that cover no object of their class are suppressed by those, and among themselves as usual.
    """
    overlaps = trace.overlaps(boxes, labels)[:, : trace.kept]
    scores = trace.scores.copy()
    chosen: list[tuple[int, int]] = []
    chosen_boxes: list[Boxes] = [np.zeros((0, 4))]
    for label in np.unique(labels).tolist():
        mine = np.flatnonzero(labels == label)
        covering = overlaps[mine] >= min_iou
        column = trace.scores[:, label + 1]
        used: set[int] = set()
        for index in range(len(mine)):
            candidates = [row for row in np.flatnonzero(covering[index]).tolist() if row not in used]
            candidates = [row for row in candidates if column[row] > trace.config.min_score]
            if candidates:
                best = max(candidates, key=lambda row: (column[row], -row))
                used.add(best)
                chosen.append((best, label))
        scores[covering.any(axis=0), label + 1] = 0
        kept = trace.places(label)[: trace.kept]
        best_rows = [row for row, of in chosen if of == label]
        chosen_boxes.append(kept[best_rows])
        near = (iou(kept, kept[best_rows]) > trace.config.max_iou).any(axis=1)
        scores[near, label + 1] = 0
    rest = suppress(trace.placed, scores, trace.config)
    rows = np.array([row for row, _ in chosen], np.int64)
    chosen_labels = np.array([label for _, label in chosen], np.int64)
    everything = Detections(
        np.concatenate([*chosen_boxes, rest.boxes]),
        np.concatenate([trace.scores[rows, chosen_labels + 1].astype(np.float64), rest.scores]),
        np.concatenate([chosen_labels, rest.labels]),
    )
    return everything[np.argsort(-everything.scores, kind="stable")[: trace.config.limit]]


ORACLES = ("proposals", "classifier", "suppression")


# ---- on disk


def append_fates(path: Path, record: Record, found: Sequence[Fate], score: float, min_iou: float) -> None:
    """Add a line for an image; a line that comes again replaces the earlier one.

    Args:
        path: the file.
        record: the image.
        found: what became of its objects.
        score: from which a detection was shown.
        min_iou: from which a box covered an object.
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
