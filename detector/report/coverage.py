"""The results of a comparison of proposal methods, as its table, JSON and page show them.

Shares are of the objects that count, in [0, 1]; a Span is a 95 % bootstrap interval over the images. A Span is None
where fewer than two images have such objects, or where the share is 0 or 1, on which resampling has no spread.
Definitions: proposals.recall.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

Span = tuple[float, float]
"""Lower and upper limit."""

GOAL = 0.8
"""Recall at IoU 0.5 for which the fastest method is named."""


@dataclass(frozen=True)
class Part:
    """How well one method covers a part of the objects.

    Attributes:
        objects: Number of objects.
        recall: Recall at IoU 0.5; None without objects.
        recall_interval: Its interval.
        average_recall: Mean recall over IoU 0.5 to 1; None without objects.
        average_recall_interval: Its interval.
    """

    objects: int
    recall: float | None
    recall_interval: Span | None
    average_recall: float | None
    average_recall_interval: Span | None


@dataclass(frozen=True)
class MeanAP:
    """The mean AP of a detector on the boxes of one method.

    Attributes:
        value: Mean AP.
        interval: Its 95 % interval; None where the evaluation made none.
        protocol: Rules of the score.
        min_iou: IoU from which a detection is right.
    """

    value: float
    interval: Span | None
    protocol: str
    min_iou: float


@dataclass(frozen=True)
class Coverage:
    """The objects that one method covers.

    Attributes:
        boxes: Mean number of boxes per image.
        ratio: Number of boxes as a multiple of the first method's; None where that has none.
        coverage: Recall at IoU 0.5.
        coverage_interval: Its interval.
        unique: Share of objects that only this method of the comparison covers; None where it is the only method.
        average_recall: Mean recall over IoU 0.5 to 1.
        average_recall_interval: Its interval.
        mabo: Mean of abo over the classes.
        abo: Average best overlap of each class's objects, keyed by class name; None without objects.
        recall_by_iou: Recall, keyed by IoU threshold.
        recall_by_boxes: Recall at IoU 0.5, keyed by the number of best boxes per image.
        average_recall_by_boxes: Average recall, keyed by the number of best boxes per image.
        recall_by_iou_interval: Intervals of recall_by_iou.
        recall_by_boxes_interval: Intervals of recall_by_boxes.
        average_recall_by_boxes_interval: Intervals of average_recall_by_boxes.
        seconds: Lower quartile, median and upper quartile of the seconds per image; None where a store has no times.
        gains: Share of objects that only one source of the proposals covers, keyed by source; empty for one source.
        by_class: Parts, keyed by class name.
        by_size: Parts, keyed by range of the square root of the area.
        by_aspect: Parts, keyed by range of width / height.
        by_seen: Parts "seen" and "unseen"; empty where no class is unseen.
        ap: Mean AP of a detector on these boxes; None where no evaluation is named.
    """

    boxes: float
    ratio: float | None
    coverage: float
    coverage_interval: Span | None
    unique: float | None
    average_recall: float
    average_recall_interval: Span | None
    mabo: float
    abo: dict[str, float | None]
    recall_by_iou: dict[float, float]
    recall_by_boxes: dict[int, float]
    average_recall_by_boxes: dict[int, float]
    recall_by_iou_interval: dict[float, Span | None]
    recall_by_boxes_interval: dict[int, Span | None]
    average_recall_by_boxes_interval: dict[int, Span | None]
    seconds: tuple[float, float, float] | None
    gains: dict[str, float] = field(default_factory=dict)
    by_class: dict[str, Part] = field(default_factory=dict)
    by_size: dict[str, Part] = field(default_factory=dict)
    by_aspect: dict[str, Part] = field(default_factory=dict)
    by_seen: dict[str, Part] = field(default_factory=dict)
    ap: MeanAP | None = None


@dataclass(frozen=True)
class Case:
    """An object that a page shows with the best box of each method.

    Attributes:
        image_id: Id of the image.
        path: The image file.
        name: Name of the object's class.
        box: The object, px.
        overlaps: Highest IoU of any box, keyed by method.
        boxes: The box with that IoU, px, keyed by method; methods without a box are absent.
    """

    image_id: str
    path: Path
    name: str
    box: tuple[float, float, float, float]
    overlaps: Mapping[str, float]
    boxes: Mapping[str, tuple[float, float, float, float]]


@dataclass(frozen=True)
class Bench:
    """A comparison of proposal methods on a data set.

    Attributes:
        data: Name of the data set.
        images: Number of images.
        objects: Number of objects that count.
        rows: Coverage, keyed by method.
        references: Coverage of earlier comparisons on the same images, keyed by name; without unique and ratio.
        missed: Number of objects that no method covers.
        missed_cases: Some of them, the largest first.
        alone_cases: Some objects that only one method covers, keyed by method, the largest first.
    """

    data: str
    images: int
    objects: int
    rows: dict[str, Coverage]
    references: dict[str, Coverage]
    missed: int
    missed_cases: tuple[Case, ...]
    alone_cases: dict[str, tuple[Case, ...]]

    @property
    def all_rows(self) -> dict[str, Coverage]:
        """Rows and references."""
        return self.rows | self.references


def fastest(rows: Mapping[str, Coverage], recall: float) -> tuple[str, float] | None:
    """Return the method with the lowest median seconds per image among those with this recall at IoU 0.5, or None.

    A method's boxes are there when all of them are computed, so its time does not depend on how many are used.
    """
    able = [(row.seconds[1], name) for name, row in rows.items() if row.seconds and row.coverage >= recall]
    if not able:
        return None
    seconds, name = min(able)
    return name, seconds
