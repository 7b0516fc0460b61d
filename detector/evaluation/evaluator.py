"""Score detections while they are made: batches of images in, from one process or several, an Evaluation out.

In: ids, objects and detections of images, as given.py reads them.  Out: a Truth and a DetectionTable, and their score.
The tables are sorted by image id, so the result does not depend on the order of updates and merges. A detection takes
48 bytes and an object 50; the arrays that hold them grow by a half when they are full.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from detector.detections import Detections
from detector.evaluation.checking import Raw, checked
from detector.evaluation.given import (
    DETECTION,
    OBJECT,
    GivenClasses,
    GivenDetections,
    GivenTruth,
    Rows,
    as_array,
    class_table_of,
    image_id_of,
    rows_of_detections,
    rows_of_truth,
)
from detector.evaluation.growing import Growing, rows_by_image
from detector.evaluation.outcome import Evaluation
from detector.evaluation.protocols import ScoringConfig, evaluate_table, protocol_named
from detector.evaluation.results import DetectionTable, ResultsError, id_ranks
from detector.evaluation.truth import Convention, Truth

_LOG = logging.getLogger(__name__)

_PARTS = {"object": OBJECT, "detection": DETECTION}


class Evaluator:
    """Collects the objects and detections of images, batch by batch, and scores them all.

    Give each image once, and make a new Evaluator for each epoch. To join processes, send `state()`, or the Evaluator
    itself, which can be pickled, to one of them and `merge` it there.

    >>> evaluator = Evaluator(["cat", "dog"], protocol="coco")
    >>> truth = {"boxes": [[4, 8, 40, 60]], "labels": [1]}
    >>> evaluator.update("a.jpg", truth, {"boxes": [[5, 8, 40, 60]], "scores": [0.9], "labels": [1]})
    >>> evaluator.update(["b.jpg", "c.jpg"], [truth, truth], [None, None])  # a batch; nothing is found in it
    >>> result = evaluator.result()
    >>> round(result.ap["dog"], 2), result.objects["dog"]
    (0.34, 3)
    """

    def __init__(
        self, classes: GivenClasses, protocol: str = "voc", *, min_iou: float = 0.5, inclusive: bool = False
    ) -> None:
        """Make an Evaluator without images.

        Args:
            classes: The K class names, whose positions are the labels, or a mapping from label to name, such as
                {1: "cat", 2: "dog"} where 0 is background.
            protocol: "voc", "voc07", "ilsvrc" or "coco", as in `evaluate`.
            min_iou: IoU from which a detection matches an object, in (0, 1]; coco has its own ten.
            inclusive: Whether x2 and y2 are the last pixels of a box, so that its width is x2 - x1 + 1, as in the files
                of PASCAL VOC and ILSVRC; else they are beyond it, as in COCO, torchvision and this package.

        Raises:
            ValueError: an unknown protocol, no classes or two of one name, or a number outside its range.
        """
        self._config = ScoringConfig(protocol=protocol_named(protocol), min_iou=min_iou)
        self._classes = class_table_of(classes)
        self._numbered = isinstance(classes, Mapping)
        self._convention = Convention(0, int(inclusive))
        self._index_of: dict[str, int] = {}
        self._objects = Growing(OBJECT)
        self._detections = Growing(DETECTION)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._index_of)

    def __repr__(self) -> str:
        images, objects, found = len(self), len(self._objects.rows), len(self._detections.rows)
        return f"<Evaluator, {self._config.protocol.value}: {images} images, {objects} objects, {found} detections>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_state, (self.state(),)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays that hold objects and detections."""
        return self._objects.nbytes + self._detections.nbytes

    def update(
        self,
        image_ids: Any,
        truth: GivenTruth | Sequence[GivenTruth],
        detections: GivenDetections | Sequence[GivenDetections],
    ) -> None:
        """Add the objects and the detections of one image, or of a batch as lists of equal length.

        Arrays are lists, NumPy arrays or tensors, on any device.

        Args:
            image_ids: A text or an integer an image.
            truth: Mapping with boxes [M, 4] px (x1, y1, x2, y2) and labels [M]; where known also difficult [M], crowd
                or iscrowd [M], and area [M] px², which decides COCO's size range. None or {}: no objects.
            detections: Detections, or a mapping with boxes [D, 4], scores [D] and labels [D]. None or {}: none.

        Raises:
            DataError: objects that cannot be right; nothing of the batch is added.
            ResultsError: detections that cannot be right, or an image that was given before.
            ValueError: lists of different lengths, or an id that is neither text nor integer.
        """
        if truth is None or isinstance(truth, Mapping):
            batch = [(image_ids, truth, detections)]
        else:
            if isinstance(detections, Mapping | Detections) or detections is None:
                raise ValueError("truth is a list of images, and detections are those of one")
            ids = image_ids if isinstance(image_ids, list | tuple) else list(as_array(image_ids).reshape(-1))
            if not len(ids) == len(truth) == len(detections):
                raise ValueError(
                    f"{len(ids)} image ids, ground truth of {len(truth)} images and detections of {len(detections)}"
                )
            batch = list(zip(ids, truth, detections, strict=True))
        added: dict[str, tuple[Rows, Rows]] = {}
        for image, its_truth, found in batch:
            name = image_id_of(image)
            if name in self._index_of or name in added:
                raise ResultsError(
                    f"image {name!r} was given before; give each image once, and make a new Evaluator for each epoch"
                )
            objects = rows_of_truth(its_truth, name, self._classes, self._convention)
            added[name] = objects, rows_of_detections(found, name, self._classes)  # type: ignore[arg-type]
        for name, (objects, rows) in added.items():
            objects["image"] = rows["image"] = len(self._index_of)
            self._index_of[name] = len(self._index_of)
            self._objects.append(objects)
            self._detections.append(rows)

    def merge(self, other: Evaluator) -> None:
        """Add the images of another Evaluator, which stays as it is.

        An image that both have counts once, since samplers for several processes repeat images to fill the last batch.
        Where its detections differ, which may happen by rounding, one of the two is taken by their values, whatever the
        order of merges.

        Raises:
            ValueError: the other has other classes or settings.
            ResultsError: both have an image, with different objects.
        """
        for name, mine, theirs in (
            ("classes", self._classes, other._classes),
            ("settings", (self._config, self._convention), (other._config, other._convention)),
        ):
            if mine != theirs:
                raise ValueError(f"cannot merge: the {name} differ, {mine} and {theirs}")
        doubles = [name for name in other._index_of if name in self._index_of]
        if doubles:
            self._settle(other, doubles)
        position = np.full(len(other), -1, np.int64)
        for name, index in other._index_of.items():
            if name not in self._index_of:
                self._index_of[name] = position[index] = len(self._index_of)
        for growing, rows in ((self._objects, other._objects.rows), (self._detections, other._detections.rows)):
            moved = rows.copy()
            moved["image"] = position[rows["image"]]
            growing.append(moved[moved["image"] >= 0])

    def _settle(self, other: Evaluator, doubles: Sequence[str]) -> None:
        """Compare images that both have; take the other's detections where they come first by value."""
        mine, theirs = (rows_by_image(one._objects.rows, len(one)) for one in (self, other))
        for name in doubles:
            if mine[self._index_of[name]] != theirs[other._index_of[name]]:
                raise ResultsError(f"image {name!r} was given twice, with different objects; ids must be unique")
        mine, theirs = (rows_by_image(one._detections.rows, len(one)) for one in (self, other))
        replaced = {
            self._index_of[name]: theirs[other._index_of[name]]
            for name in doubles
            if theirs[other._index_of[name]] < mine[self._index_of[name]]
        }
        if not replaced:
            return
        rows = self._detections.rows
        self._detections = Growing(DETECTION)
        self._detections.append(rows[~np.isin(rows["image"], list(replaced))])
        for index, content in replaced.items():
            taken = np.frombuffer(content, DETECTION).copy()
            taken["image"] = index
            self._detections.append(taken)

    def tables(self) -> tuple[Truth, DetectionTable]:
        """Return all that was given, sorted by image id, for `evaluate` and the other functions of this package.

        Raises:
            ResultsError: no image was given, or most boxes of detections cannot be x1, y1, x2, y2.
        """
        truth, raw = self._sorted()
        table, warnings = checked(raw, truth)
        for line in warnings if len(table) else ():
            _LOG.warning("%s", line)
        return truth, table

    def result(self) -> Evaluation:
        """Score all images that were given; more may be given afterwards.

        Raises:
            ResultsError: no image was given, none has an object, or most boxes cannot be x1, y1, x2, y2.
        """
        return evaluate_table(*self.tables(), self._config)

    def _sorted(self) -> tuple[Truth, Raw]:
        if not self._index_of:
            raise ResultsError("no image was given: call update first")
        ranks = id_ranks(list(self._index_of))
        objects, found = self._objects.rows, self._detections.rows
        objects = objects[np.argsort(ranks[objects["image"]], kind="stable")]
        found = found[np.argsort(ranks[found["image"]], kind="stable")]
        image_index = ranks[found["image"]]
        image_ids = tuple(sorted(self._index_of, key=lambda name: ranks[self._index_of[name]]))
        truth = Truth(
            name="the ground truth",
            classes=self._classes,
            image_ids=image_ids,
            paths=tuple(map(Path, image_ids)),
            sizes=np.zeros((len(image_ids), 2), np.int64),
            numbers=None,
            image_index=ranks[objects["image"]],
            labels=objects["label"].astype(np.int64),
            boxes=objects["box"].copy(),
            difficult=objects["difficult"].copy(),
            crowd=objects["crowd"].copy(),
            areas=objects["area"].copy(),
            convention=self._convention,
            numbered=self._numbered,
        )
        raw = Raw(
            path=Path("detections"),
            describe=lambda i: (f"image {image_ids[image_index[i]]!r}", image_ids[image_index[i]]),
            image_index=image_index,
            labels=found["label"].astype(np.int64),
            class_name=lambda i: self._classes.names[found["label"][i]],
            given=found["box"].copy(),
            scores=found["score"].copy(),
            convention=self._convention,
            known_classes=self._classes.names,
            named=np.arange(len(image_ids)),
        )
        return truth, raw

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all that was given as plain arrays, which `numpy.savez` writes without pickle."""
        columns = {
            f"{part}_{name}": np.ascontiguousarray(growing.rows[name])
            for part, growing in (("object", self._objects), ("detection", self._detections))
            for name in growing.rows.dtype.names or ()
        }
        return {
            "protocol": np.array(self._config.protocol.value),
            "min_iou": np.array(self._config.min_iou),
            "inclusive": np.array(bool(self._convention.inclusive)),
            "class_names": np.array(self._classes.names, np.str_),
            "class_ids": np.array(self._classes.ids, np.int64),
            "numbered": np.array(self._numbered),
            "image_ids": np.array(list(self._index_of), np.str_),
            **columns,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Self:
        """Make an Evaluator from the arrays of `state`, such as `numpy.load` returns.

        Raises:
            ResultsError: an array is missing, or they do not fit each other.
        """
        try:
            names, ids = state["class_names"].tolist(), state["class_ids"].tolist()
            classes = dict(zip(ids, names, strict=True)) if state["numbered"] else names
            min_iou, inclusive = float(state["min_iou"]), bool(state["inclusive"])
            result = cls(classes, str(state["protocol"]), min_iou=min_iou, inclusive=inclusive)
            result._index_of = {name: index for index, name in enumerate(state["image_ids"].tolist())}
            for part, growing in (("object", result._objects), ("detection", result._detections)):
                rows = np.zeros(len(state[f"{part}_image"]), _PARTS[part])
                for name in rows.dtype.names or ():
                    if len(state[f"{part}_{name}"]) != len(rows):
                        raise ValueError(f"{part}_{name} has another length than {part}_image")
                    rows[name] = state[f"{part}_{name}"]
                for name, limit in (("image", len(result)), ("label", len(names))):
                    if len(rows) and not 0 <= rows[name].min() <= rows[name].max() < limit:
                        raise ValueError(f"{part}_{name} is outside 0..{limit - 1}")
                growing.append(rows)
        except (KeyError, TypeError, ValueError) as error:
            raise ResultsError(f"this is no state of an Evaluator: {error}") from error
        return result
