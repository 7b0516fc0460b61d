"""Parts of the objects of a data set, and the recall of each part with its interval.

In: objects of a data set, and the highest IoU of a method's boxes with each of them.  Out: masks of objects, Parts.
M objects that count, in the order of the records. Intervals resample the images (detector.evaluation.bootstrap).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from detector.data.ground_truth import DataError, Dataset, listed
from detector.evaluation.bootstrap import image_weights, mean_interval
from detector.report.coverage import Part, Span
from proposals.recall import Overlaps, covered, recall_share

COCO_SIZES = (32.0, 96.0)
"""Square roots of the areas that divide COCO's small, medium and large objects, px."""
SIZE_WORDS = ("small", "medium", "large")

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Objects:
    """The M objects of a data set that count: those marked neither difficult nor crowd.

    Attributes:
        names: K names of the classes, each once.
        images: Number of images.
        image_index: [M] index of each object's image.
        labels: [M] class labels, 0..K-1.
        boxes: [M, 4] px.
        areas: [M] px², by which COCO sorts objects into sizes.
    """

    names: tuple[str, ...]
    images: int
    image_index: NDArray[np.int64]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]

    @classmethod
    def of(cls, dataset: Dataset) -> Objects:
        """Collect the objects of a data set.

        Raises:
            DataError: no object counts.
        """
        kept = [~(record.difficult | record.crowd) for record in dataset.records]
        pairs = list(zip(dataset.records, kept, strict=True))
        if not any(mask.any() for mask in kept):
            raise DataError(f"{dataset.name}: no objects to cover (those marked difficult or crowd do not count)")
        return cls(
            tuple(_class_name(dataset, label) for label in range(len(dataset.classes))),
            len(dataset),
            np.repeat(np.arange(len(dataset)), [int(mask.sum()) for mask in kept]),
            np.concatenate([record.labels[mask] for record, mask in pairs]),
            np.concatenate([record.boxes[mask] for record, mask in pairs]),
            np.concatenate([record.areas[mask] for record, mask in pairs]),
        )

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def of_image(self) -> list[NDArray[np.int64]]:
        """Positions of the objects of each image."""
        return np.split(np.arange(len(self)), np.searchsorted(self.image_index, np.arange(1, self.images)))

    def by_class(self) -> dict[str, Mask]:
        """Return the mask of each class."""
        return {name: self.labels == label for label, name in enumerate(self.names)}

    def by_size(self, edges: Sequence[float]) -> dict[str, Mask]:
        """Divide the objects by the square root of their area at these px, each range without its upper limit."""
        parts = _divided(np.sqrt(self.areas), edges, "{} px")
        if tuple(edges) != COCO_SIZES:
            return parts
        return {f"{word}, {name}": mask for word, (name, mask) in zip(SIZE_WORDS, parts.items(), strict=True)}

    def by_aspect(self, edges: Sequence[float]) -> dict[str, Mask]:
        """Divide the objects by width / height at these values, each range without its upper limit."""
        width, height = self.boxes[:, 2] - self.boxes[:, 0], self.boxes[:, 3] - self.boxes[:, 1]
        return _divided(np.divide(width, height, out=np.full(len(self), np.inf), where=height > 0), edges, "{}")

    def by_seen(self, unseen: Sequence[str]) -> dict[str, Mask]:
        """Divide the objects into those of classes that a learned source was trained on, and the others.

        Args:
            unseen: Names of the others' classes; empty for no division.

        Raises:
            DataError: there is no such class.
        """
        unknown = [name for name in unseen if name not in self.names]
        if unknown:
            raise DataError(f"unseen: no class {unknown[0]!r}; the data set has {listed(self.names)}")
        if not unseen:
            return {}
        mask = np.isin(self.labels, [self.names.index(name) for name in unseen])
        return {"seen": ~mask, "unseen": mask}


def _class_name(dataset: Dataset, label: int) -> str:
    """Return the class's name, with its wnid where another class has the same name."""
    name = dataset.classes.names[label]
    return name if dataset.classes.names.count(name) == 1 else f"{name} ({dataset.classes.wnids[label]})"


def _divided(values: NDArray[np.float64], edges: Sequence[float], unit: str) -> dict[str, Mask]:
    shown = [f"{edge:g}" for edge in edges]
    names = [f"below {shown[0]}", *(f"{low} to {high}" for low, high in pairwise(shown)), f"from {shown[-1]}"]
    place = np.searchsorted(edges, values, side="right")
    return {unit.format(name): place == number for number, name in enumerate(names)}


class Intervals:
    """Means over objects, and their intervals by resampling the images.

    Args:
        objects: The M objects.
        resamples: Number of resamples, at least 1.
    """

    def __init__(self, objects: Objects, resamples: int) -> None:
        self._objects = objects
        self._weights = image_weights(objects.images, resamples, seed=0).astype(np.float64)  # as BLAS takes them

    def means(self, values: NDArray[np.float64], mask: Mask | None = None) -> list[tuple[float, Span | None]]:
        """Average Q values of the objects.

        An interval is None where resampling says nothing: fewer than two images have objects, or all values are 0 or
        all are 1.

        Args:
            values: [Q, M], in [0, 1].
            mask: [M], the objects that are averaged; None for all. At least one.
        """
        index = self._objects.image_index
        if mask is not None:
            index, values = index[mask], values[:, mask]
        present = np.unique(index)
        rows = np.searchsorted(present, index)
        sums = np.stack([np.bincount(rows, weights=one) for one in values], axis=1)  # [images with objects, Q]
        weights = self._weights[:, present]
        counts = weights @ np.bincount(rows).astype(np.float64)  # [1 + resamples]
        totals = weights @ sums  # [1 + resamples, Q]
        means = np.divide(totals, counts[:, None], out=np.full(totals.shape, np.nan), where=counts[:, None] > 0)
        return [(float(one[0]), self._span(one) if len(present) > 1 else None) for one in means.T]

    @staticmethod
    def _span(means: NDArray[np.float64]) -> Span | None:
        """Make the interval of a mean, which comes first, from those of the resamples."""
        if not 0 < means[0] < 1:
            return None
        interval = mean_interval(float(means[0]), means[1:])
        return interval.low, interval.high

    def parts(self, best: Overlaps, masks: Mapping[str, Mask]) -> dict[str, Part]:
        """Measure recall and average recall of parts of the objects, [M] highest IoU and masks [M] by name."""
        result = {}
        for name, mask in masks.items():
            if mask.any():
                (recall, span), (average, average_span) = self.means(
                    np.stack([covered(best), recall_share(best)]), mask
                )
                result[name] = Part(int(mask.sum()), recall, span, average, average_span)
            else:
                result[name] = Part(0, None, None, None, None)
        return result
