"""One table of detections by the rules of all protocols, side by side, and why their numbers differ.

In: a Truth and a DetectionTable, read once.  Out: AllProtocols, four Evaluations with a row for each published figure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from detector.evaluation.coco import evaluate_coco
from detector.evaluation.outcome import Evaluation
from detector.evaluation.protocols import evaluate_ilsvrc, evaluate_voc
from detector.evaluation.results import DetectionTable
from detector.evaluation.shown import number
from detector.evaluation.truth import Truth
from detector.table import columns, wrapped


class ProtocolRow(NamedTuple):
    """One published figure.

    Attributes:
        protocol: The Evaluation that has it: "ilsvrc", "voc", "voc07" or "coco".
        name: The figure's name, with its IoU.
        mean_ap: Mean average precision in [0, 1]; None where there is none.
        objects: Number of objects that count.
        why: One sentence on what makes it differ from the others.
    """

    protocol: str
    name: str
    mean_ap: float | None
    objects: int
    why: str


_FIGURES: tuple[tuple[str, str, str | None, str], ...] = (
    (
        "ilsvrc",
        "ILSVRC DET, IoU {iou}",
        None,
        "a detection takes the best object that is still free, objects under about 25 px need a lower IoU, and "
        "difficult objects and crowds count like any other; AP is the area under the curve.",
    ),
    (
        "voc",
        "PASCAL VOC 2010, area, IoU {iou}",
        None,
        "a detection is compared only with the object that it overlaps most, found or not, and difficult objects and "
        "crowds are left out; AP is the area under the curve.",
    ),
    (
        "voc07",
        "PASCAL VOC 2007, 11 points, IoU {iou}",
        None,
        "the hits are those of PASCAL VOC 2010, but AP is the mean of the best precision at recalls 0, 0.1, ..., 1, "
        "which is coarse for classes with few objects.",
    ),
    (
        "coco",
        "COCO, IoU 0.5",
        "AP50",
        "a detection takes the best object that is still free, a crowd absorbs any number of detections, only 100 "
        "detections an image and class count, and AP is the mean of the best precision at 101 recalls.",
    ),
    (
        "coco",
        "COCO, IoU 0.75",
        "AP75",
        "the rules are those of COCO at 0.5, but an object is found only by a box that fits tightly.",
    ),
    (
        "coco",
        "COCO, IoU 0.5:0.95",
        "AP",
        "it is the mean of COCO's AP at the IoU thresholds 0.5, 0.55, ..., 0.95, so it measures how well boxes fit "
        "besides what is found.",
    ),
)
"""Evaluation, name, key of its summary (None for the mean AP), and why it differs."""


@dataclass(frozen=True)
class AllProtocols:
    """The evaluations of the same detections by each protocol. As a text: a table, and why the numbers differ."""

    ilsvrc: Evaluation
    voc: Evaluation
    voc07: Evaluation
    coco: Evaluation

    def rows(self) -> tuple[ProtocolRow, ...]:
        """Return one row for each published figure: ILSVRC, VOC area, VOC 11 points, COCO at 0.5, 0.75, 0.5:0.95."""
        rows = []
        for protocol, name, key, why in _FIGURES:
            evaluation: Evaluation = getattr(self, protocol)
            value = evaluation.mean_ap if key is None else evaluation.summary[key]
            shown = name.format(iou=f"{evaluation.min_iou:g}")
            rows.append(ProtocolRow(protocol, shown, value, evaluation.counts["objects"], why))
        return tuple(rows)

    def table(self) -> list[tuple[str, ...]]:
        """Return the rows of a table of texts: a heading, then a row for each figure."""
        shown = [(row.name, number(row.mean_ap), str(row.objects)) for row in self.rows()]
        return [("protocol", "mean AP", "objects"), *shown]

    def __str__(self) -> str:
        return format_protocols(self)


def format_protocols(protocols: AllProtocols, *, width: int | None = None) -> str:
    """Format the table of all protocols, and below it a sentence for each row on why it differs.

    Args:
        protocols: The evaluations.
        width: Most characters in a line, see `detector.table.columns`; None for no limit.
    """
    counts = protocols.voc.counts
    head = f"{counts['images']} images, {counts['classes']} classes, {counts['detections']} detections"
    why = [wrapped(f"{row.name}: {row.why}", width) for row in protocols.rows()]
    return "\n".join([head, *columns(protocols.table(), width=width), "", *why])


def evaluate_all(
    truth: Truth, detections: DetectionTable, *, min_iou: float = 0.5, backend: str = "pycocotools"
) -> AllProtocols:
    """Compute the average precision of every class by the rules of ILSVRC, PASCAL VOC 2010 and 2007, and COCO.

    Args:
        truth: The ground truth. Its blacklist is ILSVRC's alone.
        detections: The detections; image indices and labels are the truth's.
        min_iou: IoU from which a detection matches an object, in (0, 1]; coco has its own ten.
        backend: Program that computes COCO's numbers, see ScoringConfig.

    Raises:
        ResultsError: there is no ground truth at all.
        MissingPackageError: the backend is not installed.
        ValueError: the table was made for another split, or a number is out of range.
    """
    ilsvrc = evaluate_ilsvrc(truth, detections, min_iou=min_iou)
    whole = replace(truth, blacklist=frozenset())
    return AllProtocols(
        ilsvrc=ilsvrc,
        voc=evaluate_voc(whole, detections, min_iou=min_iou),
        voc07=evaluate_voc(whole, detections, min_iou=min_iou, eleven_point=True),
        coco=evaluate_coco(whole, detections, backend=backend),
    )
