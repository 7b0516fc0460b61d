"""The numbers that an evaluation returns, typed, with what they were computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from detector.evaluation.matching import Matches
from detector.evaluation.operating_points import OperatingPoint, OperatingPoints
from detector.evaluation.results import DetectionTable, ResultsError, class_keys
from detector.evaluation.shown import curves_figure, frame_of, rows_of, text_of
from detector.evaluation.truth import Truth

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


class Scored(NamedTuple):
    """What the numbers of an evaluation were computed from, in the order in which analyses take it.

    Attributes:
        truth: The objects.
        table: The detections.
        matches: The objects that the detections match, at the evaluation's min_iou.
    """

    truth: Truth
    table: DetectionTable
    matches: Matches


@dataclass(frozen=True)
class Evaluation:
    """The numbers of one protocol for one table of detections; as a text, a table of them.

    Attributes:
        protocol: "ilsvrc", "voc" (area under the curve), "voc07" (11 points) or "coco". Values of different protocols
            are not comparable.
        min_iou: IoU from which a detection matches an object, in [0, 1]; ilsvrc lowers it for small objects.
        ap: Average precision in [0, 1], keyed by class (see class_keys; ilsvrc: by wnid); None for a class without
            ground truth.
        mean_ap: Mean AP over the classes with ground truth.
        median_ap: Median AP over the classes with ground truth.
        objects: Number of ground-truth objects that count, keyed by class.
        detections: Number of detections scored, keyed by class.
        counts: Numbers of images, objects, detections, classes and classes_without_ground_truth.
        summary: Further numbers of the protocol, such as COCO's AP75; None where no ground truth defines one.
        names: Display names, keyed by class.
        plain_ap: AP with min_iou for small objects too, keyed by class; protocol ilsvrc only.
        operating_points: Score threshold with the greatest F1 at min_iou, with its precision, recall and F1, keyed by
            class; None for a class without objects or without a hit.
        pooled_point: The same of all classes together, by one threshold.
        scored: What the numbers were computed from, for curves and further analyses.
    """

    protocol: str
    min_iou: float
    ap: dict[str, float | None]
    mean_ap: float
    median_ap: float
    objects: dict[str, int]
    detections: dict[str, int]
    counts: dict[str, int]
    summary: dict[str, float | None]
    names: dict[str, str] = field(default_factory=dict)
    plain_ap: dict[str, float | None] | None = None
    operating_points: dict[str, OperatingPoint | None] = field(default_factory=dict)
    pooled_point: OperatingPoint | None = None
    scored: Scored | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return text_of(self)

    def to_dict(self) -> dict[str, Any]:
        """Convert the numbers to dictionaries, as JSON has them."""
        content = asdict(replace(self, scored=None))
        del content["scored"]
        return content

    def table(self) -> list[tuple[str, ...]]:
        """Return the rows of a table: a heading, a row for each class with objects, the mean and the median.

        The columns are AP, numbers of objects and detections, and the best F1 with the score from which it is reached;
        in ilsvrc also AP with min_iou for small objects.
        """
        return rows_of(self)

    def to_pandas(self) -> pandas.DataFrame:
        """Return a DataFrame with a row for each class, NaN where it has no number.

        Its columns are name, ap, objects, detections, and score, precision, recall and f1 of the operating point; in
        ilsvrc also plain_ap.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        return frame_of(self)

    def plot_curves(self, classes: Sequence[str] | None = None) -> Figure:
        """Plot precision against recall, a line for each class, with its AP in the legend.

        The curves are raw, at min_iou: average precision is computed from their envelope.

        Args:
            classes: Keys of `ap` to plot; all with objects by default.

        Returns:
            A figure of matplotlib, which a notebook displays and `savefig` writes.

        Raises:
            MissingPackageError: matplotlib is not installed.
            ValueError: an unknown class, or one without objects.
        """
        return curves_figure(self, classes)


def evaluation_of(
    protocol: str,
    min_iou: float,
    truth: Truth,
    table: DetectionTable,
    *,
    ap: Sequence[float | None],
    points: OperatingPoints,
    matches: Matches,
    summary: Mapping[str, float | None] | None = None,
    plain_ap: Sequence[float | None] | None = None,
) -> Evaluation:
    """Make an Evaluation from the K values of AP and the operating points, in label order, and the matches.

    Raises:
        ResultsError: no class has ground truth.
    """
    known = [value for value in ap if value is not None]
    if not known:
        raise ResultsError(f"{truth.name}: no ground truth in {len(truth)} images, nothing to evaluate against")
    keys = class_keys(truth.classes)
    if protocol == "ilsvrc":
        keys = [wnid or key for wnid, key in zip(truth.classes.wnids, keys, strict=True)]
    objects = matches.positives
    detections = np.bincount(table.labels, minlength=len(keys))
    return Evaluation(
        protocol=protocol,
        min_iou=min_iou,
        ap=dict(zip(keys, ap, strict=True)),
        mean_ap=float(np.mean(known)),
        median_ap=float(np.median(known)),
        objects=dict(zip(keys, objects.tolist(), strict=True)),
        detections=dict(zip(keys, detections.tolist(), strict=True)),
        counts={
            "images": len(truth),
            "objects": int(objects.sum()),
            "detections": len(table),
            "classes": len(keys),
            "classes_without_ground_truth": len(ap) - len(known),
        },
        summary=dict(summary or {}),
        names=dict(zip(keys, truth.classes.names, strict=True)),
        plain_ap=None if plain_ap is None else dict(zip(keys, plain_ap, strict=True)),
        operating_points=dict(zip(keys, points.by_class, strict=True)),
        pooled_point=points.pooled,
        scored=Scored(truth, table, matches),
    )
