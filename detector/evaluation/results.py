"""Detections of a whole split as one table.

In: a detector's Detections per image (files of detections: reading.py).  Out: a DetectionTable, which every protocol
scores.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.data.ground_truth import ClassTable
from detector.detections import Detections
from detector.evaluation.truth import HALF_OPEN, Convention, Truth, convert
from proposals.errors import UserError


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
