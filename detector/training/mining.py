"""Hard negatives, and windows that look like objects nobody marked, from the probabilities of a teacher.

In: a table of windows, the probabilities that a teacher (teacher.py) gives to each.
Out: which windows are hard negatives, which are left out, and a list of places that look like unlabelled objects.

R-CNN mines negatives for its SVMs (§2.3): background that a classifier passes wrongly, where background overlaps every
object by less than 0.3. DCR (arXiv 1810.04002) trains a second classifier on a detector's confident errors. A
confident error may be the annotators' instead. Such a place is treated as if an object marked difficult were there.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.analysis.label_errors import INSIDE
from detector.config import check_range
from detector.data.ground_truth import Dataset, Record
from detector.suppression import class_nms
from detector.training.windows import BACKGROUND, Windows
from proposals.boxes import Boxes, inside, iou
from proposals.files import write_whole

COPY_IOU = 0.3  # R-CNN's suppression: of overlapping windows on one place the list has the best


@dataclass(frozen=True)
class MiningConfig:
    """Which windows are hard negatives by the teacher's probabilities, and which look like unlabelled objects.

    Attributes:
        background: Number of hard negatives in a batch, among its background windows; 0 draws none on purpose.
        threshold: The teacher's probability of any object above which a background window is a hard negative, in
            [0, 1).
        max_iou: IoU with any object below which a window may be a hard negative, in (0, 1]; nearer ones are loosely
            placed rather than wrong.
        unlabelled: The teacher's probability of one class above which a background window looks like an unlabelled
            object, in [0.5, 1]; 1 leaves nothing out.
        unlabelled_iou: IoU with every object of that class below which it does, in (0, 1].
    """

    background: int = 0
    threshold: float = 0.1  # that of the cascade of configs/default.yaml
    max_iou: float = 0.3  # R-CNN §2.3
    unlabelled: float = 0.9  # ours
    unlabelled_iou: float = 0.1  # ours

    def __post_init__(self) -> None:
        check_range(self, "[0, inf)", "mining.background")
        check_range(self, "[0, 1)", "mining.threshold")
        check_range(self, "[0.5, 1]", "mining.unlabelled")
        check_range(self, "(0, 1]", "mining.max_iou", "mining.unlabelled_iou")


@dataclass(frozen=True)
class Unlabelled:
    """A place that looks like an object without a box.

    Attributes:
        image: Position of the image in the data set.
        box: x1, y1, x2, y2 in px.
        label: Class, 0..K - 1.
        score: The teacher's probability of that class.
    """

    image: int
    box: tuple[float, ...]
    label: int
    score: float


@dataclass(frozen=True, eq=False)
class Mined:
    """What the probabilities of W windows say.

    Attributes:
        hard: [W] bool, hard negatives.
        left_out: [W] bool, windows that look like an unlabelled object, or would be on one if it were marked.
        unlabelled: The places, best first; of near-copies one.
    """

    hard: NDArray[np.bool_]
    left_out: NDArray[np.bool_]
    unlabelled: list[Unlabelled]


def mine(
    dataset: Dataset,
    windows: Windows,
    probabilities: NDArray[np.floating],
    config: MiningConfig,
    background_iou: float = 0.5,
) -> Mined:
    """Find hard negatives and unlabelled objects among labelled windows.

    A window with at least half of its area in an object of the class shows a part of that object, and is no unlabelled
    one. A background window that overlaps an unlabelled object by `background_iou` or more is left out, and one that
    overlaps it by `config.max_iou` or more is no hard negative.

    Args:
        dataset: The images.
        windows: W windows, those of an image next to each other and the images in order.
        probabilities: [W, K + 1] by the teacher, background first, in the data set's order of classes.
        config: The thresholds.
        background_iou: IoU below which a window is background.
    """
    hard, left_out = np.zeros((2, len(windows)), np.bool_)
    unlabelled = []
    background = windows.labels == BACKGROUND
    objects = 1 - probabilities[:, 0].astype(np.float32)
    suspected = background & (objects > min(config.threshold, config.unlabelled))
    for index in np.unique(windows.image[suspected]).tolist():
        start, stop = np.searchsorted(windows.image, [index, index + 1])
        part = slice(start, stop)
        boxes, of_classes = windows.boxes[part].astype(np.float64), probabilities[part, 1:].astype(np.float32)
        explained = _explained(boxes, dataset.records[index], of_classes.shape[1], config.unlabelled_iou)
        like = background[part, None] & (of_classes > config.unlabelled) & ~explained
        shared = np.broadcast_to(boxes[:, None], (*of_classes.shape, 4))
        rows, labels = class_nms(shared, np.where(like, of_classes, 0), config.unlabelled, COPY_IOU)
        near = iou(boxes, boxes[rows]).max(axis=1, initial=0)
        left_out[part] = like.any(axis=1) | (background[part] & (near >= background_iou))
        hard[part] = (
            background[part]
            & (objects[part] > config.threshold)
            & (windows.overlaps[part] < config.max_iou)
            & (near < config.max_iou)
            & ~left_out[part]
        )
        for row, label in zip(rows.tolist(), labels.tolist(), strict=True):
            unlabelled.append(Unlabelled(index, tuple(boxes[row].tolist()), label, float(of_classes[row, label])))
    return Mined(hard, left_out, sorted(unlabelled, key=lambda one: -one.score))


def _explained(boxes: Boxes, record: Record, classes: int, least: float) -> NDArray[np.bool_]:
    """Which windows [N] show, in each class, an object that is marked or a part of one: [N, K]."""
    result = np.zeros((len(boxes), classes), np.bool_)
    shows = (iou(boxes, record.boxes) >= least) | (inside(boxes, record.boxes) >= INSIDE)
    for label in np.unique(record.labels[record.labels >= 0]):  # others are of no class of the training
        result[:, label] = shows[:, record.labels == label].any(axis=1)
    return result


def write_unlabelled(path: Path, dataset: Dataset, found: Sequence[Unlabelled]) -> None:
    """Write places that look like unlabelled objects as CSV: image, x1, y1, x2, y2, class, score.

    Boxes are in px in the convention of proposals.boxes.

    Args:
        path: The file.
        dataset: The data set that they were found in.
        found: The places, in the order of the lines.
    """
    with write_whole(path) as part, part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "x1", "y1", "x2", "y2", "class", "score"])
        for one in found:
            sides = [f"{side:.1f}" for side in one.box]
            image, name = dataset.records[one.image].image_id, dataset.classes.names[one.label]
            writer.writerow([image, *sides, name, f"{one.score:.3f}"])
