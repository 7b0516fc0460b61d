"""Detections of a whole split, and the numbers an evaluation makes of them, in memory.

In: a detector's Detections per image (files: reading.py). Out: a DetectionTable, which every protocol evaluates, and
the Evaluation that each returns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.data.ground_truth import ClassTable
from detector.detections import Detections
from detector.evaluation.truth import HALF_OPEN, Convention, Truth, convert
from proposals.errors import UserError


class ResultsError(UserError):
    """A results file that cannot be used; each line of the message names the file, the place and the reason."""


@dataclass(frozen=True)
class DetectionTable:
    """D detections over a split. Their order decides between equal scores, and nothing else.

    Attributes:
        image_index: [D] int64, position in the truth's images.
        labels: [D] int64, 0..K-1 in its class table.
        scores: [D] float64, finite, higher is better.
        boxes: [D, 4] float64, px.
        convention: in which the boxes count pixels.

    Raises:
        ValueError: lengths differ, a number is not finite, or an index is negative.
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
        """Detections by image_id -> one table in the order of the truth's images, whatever the mapping's order.

        An image that the mapping does not name has no detections.

        Raises:
            ValueError: the mapping names an image that the truth has not.
        """
        unknown = [image_id for image_id in found if image_id not in truth.index_of]
        if unknown:
            raise ValueError(f"unknown image {unknown[0]!r}, not in {truth.name} ({len(unknown)} unknown in all)")
        parts = [(index, found[name]) for index, name in enumerate(truth.image_ids) if name in found]
        return cls(
            np.concatenate([np.full(len(part), index, np.int64) for index, part in parts] or [np.zeros(0, np.int64)]),
            np.concatenate([part.labels for _, part in parts] or [np.zeros(0, np.int64)]),
            np.concatenate([part.scores for _, part in parts] or [np.zeros(0)]),
            np.concatenate([part.boxes for _, part in parts] or [np.zeros((0, 4))]),
        )

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: slice | NDArray[Any]) -> DetectionTable:
        """A part of them: a slice, a mask or positions."""
        return DetectionTable(
            self.image_index[index], self.labels[index], self.scores[index], self.boxes[index], self.convention
        )

    def to(self, convention: Convention) -> DetectionTable:
        """The same with boxes in another convention."""
        if convention == self.convention:
            return self
        boxes = np.asarray(convert(self.boxes, self.convention, convention), np.float64)
        return replace(self, boxes=boxes, convention=convention)

    def check_fits(self, truth: Truth) -> None:
        """Refuse a table made for another split.

        Raises:
            ValueError: an image index or a label beyond the truth's.
        """
        if len(self) and self.image_index.max() >= len(truth):
            raise ValueError(f"detections name image {self.image_index.max()}, {truth.name} has {len(truth)}")
        if len(self) and self.labels.max() >= len(truth.classes):
            raise ValueError(f"detections name class {self.labels.max()}, {truth.name} has {len(truth.classes)}")


@dataclass(frozen=True)
class Evaluation:
    """What one protocol says of one table of detections.

    Attributes:
        protocol: "ilsvrc", "voc" (area under the curve), "voc07" (11 points) or "coco". Never compare across them.
        min_iou: overlap from which a detection counts as the object, in [0, 1]; ilsvrc relaxes it for small objects.
        ap: average precision by class key (see class_keys; ilsvrc: by wnid), in [0, 1]; None without ground truth.
        mean_ap: mean over the classes with ground truth.
        median_ap: median over the same.
        objects: ground truths that count, by class key.
        detections: detections evaluated, by class key.
        counts: images, objects, detections, classes, classes_without_ground_truth.
        summary: further numbers of the protocol, such as COCO's AP75; None where there is no ground truth for one.
        names: what to call a class, by its key.
        plain_ap: ilsvrc: the same as ap at min_iou for small objects too.
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


def evaluation_of(
    protocol: str,
    min_iou: float,
    truth: Truth,
    table: DetectionTable,
    *,
    ap: Sequence[float | None],
    objects: NDArray[np.int64],
    summary: Mapping[str, float | None] | None = None,
    plain_ap: Sequence[float | None] | None = None,
) -> Evaluation:
    """An Evaluation from the K values of AP and the K numbers of ground truths that count, both in label order.

    Raises:
        ResultsError: no class has ground truth, so that there is nothing to evaluate.
    """
    known = [value for value in ap if value is not None]
    if not known:
        raise ResultsError(f"{truth.name}: no ground truth in {len(truth)} images, nothing to evaluate against")
    keys = class_keys(truth.classes)
    if protocol == "ilsvrc":
        keys = [wnid or key for wnid, key in zip(truth.classes.wnids, keys, strict=True)]
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
    )


def class_keys(classes: ClassTable) -> list[str]:
    """K texts that tell the classes apart: the name, or its wnid (else its id) where two classes share a name."""
    keys = []
    for name, wnid, number in zip(classes.names, classes.wnids, classes.ids, strict=True):
        keys.append(name if classes.names.count(name) == 1 else wnid or f"{name} #{number}")
    return keys


def signed_areas(table: DetectionTable) -> NDArray[np.float64]:
    """[D] width times height as pycocotools multiplies them, px²: negative where one of the two is."""
    boxes = table.to(HALF_OPEN).boxes
    areas: NDArray[np.float64] = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return areas


def image_ranks(truth: Truth) -> NDArray[np.int64]:
    """[I] 0..I-1, the place of each image in pycocotools' order: by its id, as a number where all are numbers."""
    ids: Sequence[int] | Sequence[str] = numeric_ids(truth) or truth.image_ids
    ranks = np.empty(len(ids), np.int64)
    ranks[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
    return ranks


def numeric_ids(truth: Truth) -> list[int] | None:
    """The image ids as numbers if every one is a number without leading zeros, as COCO's are, else None."""
    ids = truth.image_ids
    if all(re.fullmatch(r"0|-?[1-9][0-9]{0,999}", text) for text in ids):
        return [int(text) for text in ids]
    return None
