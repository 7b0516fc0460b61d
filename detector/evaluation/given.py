"""Objects and detections of one image as a program holds them -> rows of plain arrays.

In: a mapping with boxes and labels, and scores or flags, of lists, NumPy arrays or tensors; or Detections.
Out: structured rows, checked. Torch is not imported: a tensor is copied to the CPU by its own methods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from detector.data.ground_truth import ClassTable, DataError, listed
from detector.detections import Detections
from detector.evaluation.results import ResultsError
from detector.evaluation.truth import Convention
from proposals.errors import UserError

Rows: TypeAlias = NDArray[Any]
GivenClasses: TypeAlias = Sequence[str] | Mapping[int, str]
GivenTruth: TypeAlias = Mapping[str, Any] | None
GivenDetections: TypeAlias = Mapping[str, Any] | Detections | None

OBJECT = np.dtype(
    [("image", "i4"), ("label", "i4"), ("box", "f8", 4), ("area", "f8"), ("difficult", "?"), ("crowd", "?")]
)
DETECTION = np.dtype([("image", "i4"), ("label", "i4"), ("score", "f8"), ("box", "f8", 4)])
"""A row of each table; `image` counts the images in the order in which they came."""

_LISTED = 20  # most classes that a message lists


def class_table_of(classes: GivenClasses) -> ClassTable:
    """Make the table of classes given by their names in label order, or keyed by label.

    Raises:
        UserError: there are no classes, a name occurs twice, or a key is no integer.
    """
    if isinstance(classes, str):
        raise UserError(f"classes must be a list of names, not the text {classes!r}")
    ids, names = (tuple(classes), tuple(classes.values())) if isinstance(classes, Mapping) else (None, tuple(classes))
    if not names:
        raise UserError("classes are missing: give the class names in label order, or keyed by label")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"two classes have the name {twice[0]!r}")
    if ids is not None and not all(isinstance(one, int | np.integer) for one in ids):
        raise UserError("classes must be keyed by integers, the labels: {1: 'cat', 2: 'dog'}")
    numbers = range(len(names)) if ids is None else map(int, ids)
    return ClassTable(tuple(map(str, names)), (None,) * len(names), tuple(numbers))


def rows_of_truth(given: GivenTruth, image: str, classes: ClassTable, convention: Convention) -> Rows:
    """Make [M] rows of OBJECT from the objects of an image.

    Args:
        given: boxes [M, 4], labels [M], and where known difficult [M], crowd or iscrowd [M], area [M]; other keys are
            not used. None or an empty mapping for no objects.
        image: Id of the image, for messages.
        classes: The K classes; labels are their ids or names.
        convention: Pixel convention of the boxes, which gives their areas.

    Raises:
        DataError: boxes or labels are missing or differ in number, a label is unknown, or a box has no area.
    """
    where = f"image {image!r}, ground truth"
    if not given:
        return np.zeros(0, OBJECT)
    boxes = _boxes(given, where, DataError)
    extent = boxes[:, 2:] - boxes[:, :2] + convention.inclusive
    if not (extent > 0).all():
        first = boxes[int(np.flatnonzero((extent <= 0).any(axis=1))[0])].tolist()
        raise DataError(f"{where}: box {first} ends before it begins or has no area; boxes are x1, y1, x2, y2")
    rows = np.zeros(len(boxes), OBJECT)
    rows["label"] = _labels(given, len(boxes), where, classes, DataError)
    rows["box"] = boxes
    rows["area"] = extent.prod(axis=1)
    for key, column in (("difficult", "difficult"), ("iscrowd", "crowd"), ("crowd", "crowd"), ("area", "area")):
        if given.get(key) is not None:
            rows[column] = _column(given, key, len(boxes), where, DataError)
    if not np.isfinite(rows["area"]).all():
        raise DataError(f"{where}: an area is not finite")
    return rows


def rows_of_detections(given: GivenDetections, image: str, classes: ClassTable) -> Rows:
    """Make [D] rows of DETECTION from the detections of an image.

    Args:
        given: boxes [D, 4], scores [D] and labels [D], or Detections, of whose classes those that are not in the table
            are left out. None or an empty mapping for no detections.
        image: Id of the image, for messages.
        classes: The K classes; labels are their ids or names. Those of Detections without names are 0..K-1.

    Raises:
        ResultsError: a part is missing, the parts differ in number, a label is unknown, or a number is not finite.
    """
    where = f"image {image!r}, detections"
    if isinstance(given, Detections):
        labels = given.labels
        if given.names is not None:
            labels = _labels_of_names(given.names, classes)[labels]
        elif len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
            raise ResultsError(f"{where}: a label is outside 0..{len(classes) - 1}, the {len(classes)} classes")
        boxes, scores = given.boxes, given.scores
    elif given:
        boxes = _boxes(given, where, ResultsError)
        scores = np.asarray(_column(given, "scores", len(boxes), where, ResultsError), np.float64)
        labels = _labels(given, len(boxes), where, classes, ResultsError)
        if not np.isfinite(scores).all():
            raise ResultsError(f"{where}: a score is not finite")
    else:
        return np.zeros(0, DETECTION)
    rows = np.zeros(len(boxes), DETECTION)
    rows["label"], rows["score"], rows["box"] = labels, scores, boxes
    return rows[rows["label"] >= 0]


@lru_cache(maxsize=8)
def _labels_of_names(names: tuple[str, ...], classes: ClassTable) -> NDArray[np.int64]:
    labels = class_table_of(names).labels_in(classes)
    if (labels < 0).all():
        raise ResultsError(f"detections: none of their classes ({listed(names, _LISTED)}) is known")
    return labels


def image_id_of(given: Any) -> str:
    """Return an image's id as text: a text itself, or the digits of an integer, which may be a tensor.

    >>> image_id_of(np.array([7])), image_id_of("street/7.jpg")
    ('7', 'street/7.jpg')
    """
    if isinstance(given, str):
        return given
    array = as_array(given)
    if array.size != 1 or array.dtype.kind not in "iuU":
        raise UserError(f"an image's id must be a text or an integer, not {given!r}")
    return str(array.reshape(-1)[0])


def as_array(value: Any) -> NDArray[Any]:
    """Return lists, arrays or tensors, which may be on a GPU or of bfloat16, as a NumPy array.

    Raises:
        ValueError, TypeError: NumPy cannot hold the value, such as lists of different lengths.
    """
    if isinstance(value, list | tuple):
        return np.asarray([as_array(one) if hasattr(one, "cpu") else one for one in value])
    for method in ("detach", "cpu"):
        value = getattr(value, method)() if hasattr(value, method) else value
    try:
        return np.asarray(value)
    except TypeError:
        if not hasattr(value, "float"):
            raise
        return np.asarray(value.float())  # NumPy has no bfloat16


def _given(given: Mapping[str, Any], key: str, where: str, error: type[UserError]) -> NDArray[Any]:
    if given.get(key) is None:
        parts = "boxes, scores and labels" if error is ResultsError else "boxes and labels"
        raise error(f"{where}: {key!r} is missing; give {parts}")
    try:
        return as_array(given[key])
    except (TypeError, ValueError) as reason:
        raise error(f"{where}: {key!r} is no array ({reason})") from reason


def _boxes(given: Mapping[str, Any], where: str, error: type[UserError]) -> NDArray[np.float64]:
    layout = getattr(getattr(given.get("boxes"), "format", None), "name", "XYXY")  # torchvision's BoundingBoxes say it
    if layout != "XYXY":
        raise error(f"{where}: boxes are {layout}; convert them to x1, y1, x2, y2")
    array = _given(given, "boxes", where, error)
    if array.size == 0:
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] != 4 or array.dtype.kind not in "iufb":
        raise error(f"{where}: boxes must be numbers of shape [N, 4], not {array.dtype} of {list(array.shape)}")
    boxes = array.astype(np.float64)
    if not np.isfinite(boxes).all():
        raise error(f"{where}: a box is not finite")
    return boxes


def _column(
    given: Mapping[str, Any], key: str, length: int, where: str, error: type[UserError], kinds: str = "iufb"
) -> NDArray[Any]:
    array = _given(given, key, where, error)
    if array.size == 0 and length == 0:
        return np.zeros(0, np.int64)
    if array.shape != (length,):
        raise error(f"{where}: {length} boxes, but {key} of shape {list(array.shape)}; it must be [{length}]")
    if array.dtype.kind not in kinds:
        raise error(f"{where}: {key} must be numbers{' or names' if 'U' in kinds else ''}, not {array.dtype}")
    return array


def _labels(
    given: Mapping[str, Any], length: int, where: str, classes: ClassTable, error: type[UserError]
) -> NDArray[np.int64]:
    values = _column(given, "labels", length, where, error, "iufU")
    if values.dtype.kind == "f" and (values == np.round(values)).all():
        values = values.astype(np.int64)
    known: Mapping[Any, int] = classes.label_of if values.dtype.kind == "U" else classes.label_of_id
    different, inverse = np.unique(values, return_inverse=True)
    labels = np.array([known.get(value, -1) for value in different.tolist()], np.int64)
    if (labels < 0).any():
        shown = [f"{number} {name}" for number, name in zip(classes.ids, classes.names, strict=True)]
        unknown = different[labels < 0].tolist()[0]
        hint = (
            " Where labels count from another number, key the classes by label." if not isinstance(unknown, str) else ""
        )
        raise error(f"{where}: unknown label {unknown!r}. The classes are {listed(shown, _LISTED)}.{hint}")
    return labels[inverse.reshape(-1)]
