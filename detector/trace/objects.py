"""The annotated objects of a traced image, in its own pixels and the detector's classes.

In: ground truth of any kind.  Out: Objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.data.ground_truth import ClassTable, DataError
from detector.evaluation.checking import unknown_image
from detector.evaluation.names import Names
from detector.evaluation.truth import HALF_OPEN, Truth, convert


@dataclass(frozen=True, eq=False)
class Objects:
    """The M objects of an image.

    Attributes:
        boxes: [M, 4] float64, px.
        labels: [M] in the detector's classes, -1 for those of other classes.
        names: Names of their classes.
        ignored: [M] whether an object does not count, as difficult ones and crowds.
    """

    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    ignored: NDArray[np.bool_]


def index_of(truth: Truth, image: Path) -> int:
    """Find an image of a ground truth by its path or its name.

    Raises:
        DataError: The ground truth does not have the image.
    """
    names = Names(truth)
    index = next((found for name in (str(image), image.name) if (found := names.image(name)) >= 0), -1)
    if index < 0:
        raise DataError(unknown_image(image.name, truth))
    return index


def objects_of(truth: Truth, image: Path, classes: ClassTable) -> Objects:
    """Find the objects of an image.

    Args:
        truth: Ground truth that has the image.
        image: The image file; its name is looked up.
        classes: The detector's classes, which the objects' meet by name.

    Raises:
        DataError: The ground truth does not have the image.
    """
    index = index_of(truth, image)
    own = truth.objects_of(index)
    boxes = np.asarray(convert(truth.boxes[own], truth.convention, HALF_OPEN), np.float64)
    labels = truth.labels[own]
    called = tuple(truth.classes.names[label] for label in labels.tolist())
    return Objects(boxes, truth.classes.labels_in(classes)[labels], called, truth.ignored[own])
