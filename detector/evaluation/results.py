"""Detections of a whole split as one table, and the numbers that an evaluation returns.

In: a detector's Detections per image (files of detections: reading.py).  Out: a DetectionTable, which every protocol
scores, and the Evaluation that each returns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detector.data.ground_truth import ClassTable
from detector.detections import Detections
from detector.evaluation.truth import HALF_OPEN, Convention, Truth, convert
from proposals.errors import UserError

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from detector.evaluation.matching import Matches
    from detector.evaluation.operating_points import OperatingPoint, OperatingPoints


class ResultsError(UserError):
    """A file of detections cannot be used; each line of the message names the file, the line and the reason."""


class MissingPackageError(UserError, ImportError):
    """A package that is no dependency is not installed; the message says how to install it."""


@dataclass(frozen=True)
class DetectionTable:
    """The D detections of a split. Their order matters only between equal scores.

    Attributes:
        image_index: [D] int64, index of the image in the truth's image_ids.
        labels: [D] int64 class labels, 0..K-1 in the truth's class table.
        scores: [D] float64, finite; higher is better.
        boxes: [D, 4] float64, px.
        convention: Pixel convention of the boxes.

    Raises:
        ValueError: the columns differ in length, a number is not finite, or an index is negative.
    """

    image_index: NDArray[np.int64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float64]
    boxes: NDArray[np.float64]
    convention: Convention = HALF_OPEN

    def __post_init__(self) -> None:
        for name, kind, shape in (
            ("image_index", np.int64, (-1,)),
            ("labels", np.int64, (-1,)),
            ("scores", np.float64, (-1,)),
            ("boxes", np.float64, (-1, 4)),
        ):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=kind).reshape(shape))
        lengths = {len(self.image_index), len(self.labels), len(self.scores), len(self.boxes)}
        if len(lengths) != 1:
            raise ValueError(f"detection table: columns of different lengths {sorted(lengths)}")
        if not (np.isfinite(self.boxes).all() and np.isfinite(self.scores).all()):
            raise ValueError("detection table: a box or a score is not finite")
        if (self.image_index < 0).any() or (self.labels < 0).any():
            raise ValueError("detection table: a negative image index or label")

    @classmethod
    def from_images(cls, truth: Truth, found: Mapping[str, Detections]) -> DetectionTable:
        """Join Detections, keyed by image_id, to one table in the order of the truth's images.

        An image that is no key has no detections.

        Raises:
            ValueError: a key is no image of the truth.
        """
        unknown = [image_id for image_id in found if image_id not in truth.index_of]
        if unknown:
            raise ValueError(f"unknown image {unknown[0]!r}, not in {truth.name} ({len(unknown)} unknown in all)")
        parts = [(index, found[name]) for index, name in enumerate(truth.image_ids) if name in found]
        return cls(
            np.concatenate([[], *(np.full(len(part), index) for index, part in parts)]),
            np.concatenate([[], *(part.labels for _, part in parts)]),
            np.concatenate([[], *(part.scores for _, part in parts)]),
            np.concatenate([np.zeros((0, 4)), *(part.boxes for _, part in parts)]),
        )

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: slice | NDArray[Any]) -> DetectionTable:
        """Return the table of some of the detections, chosen by a slice, a mask or positions."""
        return DetectionTable(
            self.image_index[index], self.labels[index], self.scores[index], self.boxes[index], self.convention
        )

    def to(self, convention: Convention) -> DetectionTable:
        """Convert the boxes to another pixel convention."""
        if convention == self.convention:
            return self
        boxes = np.asarray(convert(self.boxes, self.convention, convention), np.float64)
        return replace(self, boxes=boxes, convention=convention)

    def check_fits(self, truth: Truth) -> None:
        """Reject a table that was made for another split.

        Raises:
            ValueError: an image index or a label is beyond the truth's.
        """
        if len(self) and self.image_index.max() >= len(truth):
            raise ValueError(f"detections name image {self.image_index.max()}, {truth.name} has {len(truth)}")
        if len(self) and self.labels.max() >= len(truth.classes):
            raise ValueError(f"detections name class {self.labels.max()}, {truth.name} has {len(truth.classes)}")


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
        from detector.evaluation.shown import text_of

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
        from detector.evaluation.shown import rows_of

        return rows_of(self)

    def to_pandas(self) -> pandas.DataFrame:
        """Return a DataFrame with a row for each class, NaN where it has no number.

        Its columns are name, ap, objects, detections, and score, precision, recall and f1 of the operating point; in
        ilsvrc also plain_ap.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        from detector.evaluation.shown import frame_of

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
        from detector.evaluation.shown import curves_figure

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


def class_keys(classes: ClassTable) -> list[str]:
    """Name the K classes uniquely: by name, or by wnid (else name and id) where two classes share a name."""
    return [
        name if classes.names.count(name) == 1 else wnid or f"{name} #{number}"
        for name, wnid, number in zip(classes.names, classes.wnids, classes.ids, strict=True)
    ]


def signed_areas(table: DetectionTable) -> NDArray[np.float64]:
    """Compute the [D] areas as pycocotools does, width times height in px²; negative where one of the two is."""
    boxes = table.to(HALF_OPEN).boxes
    areas: NDArray[np.float64] = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return areas


def image_ranks(truth: Truth) -> NDArray[np.int64]:
    """Rank the images as pycocotools sorts them, [I] 0..I-1: by id, numerically where all ids are numbers."""
    return id_ranks(truth.image_ids)


def id_ranks(image_ids: Sequence[str]) -> NDArray[np.int64]:
    """Rank I image ids, [I] 0..I-1, numerically where all are numbers."""
    ids: Sequence[int] | Sequence[str] = _as_numbers(image_ids) or image_ids
    ranks = np.empty(len(ids), np.int64)
    ranks[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
    return ranks


def numeric_ids(truth: Truth) -> list[int] | None:
    """Return the image ids as numbers if all are numbers without leading zeros, as COCO's are, else None."""
    return _as_numbers(truth.image_ids)


def _as_numbers(ids: Sequence[str]) -> list[int] | None:
    numeric = all(re.fullmatch(r"0|-?[1-9][0-9]{0,999}", text) for text in ids)
    return [int(text) for text in ids] if numeric else None
