"""Check the detections of a file before they are scored.

In: the columns of a file.  Out: Results, a table and warnings. A mistake that would lower the score unnoticed is an
error, with the number of cases and the first of them, or a warning where it may be intended.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detector.data.ground_truth import listed
from detector.evaluation.box_layouts import better
from detector.evaluation.matching import nearest_objects
from detector.evaluation.names import UNLISTED
from detector.evaluation.results import DetectionTable, ResultsError
from detector.evaluation.truth import Convention, Truth
from proposals.boxes import from_xywh

SAMPLE = 20_000  # best detections that the checks of layout and numbering use
INVERTED = 0.1  # greatest tolerated share of boxes that end before they begin
LISTED = 100  # most classes that a message lists


class Results(NamedTuple):
    """The detections of a file, and warnings of its oddities, one line each."""

    table: DetectionTable
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Raw:
    """The D detections of a file, unchecked.

    Attributes:
        path: The file.
        describe: Function from a detection's position to its location in the file, such as "line 3", and image there.
        image_index: [D] indices of images, negative where the image is unknown or unlisted, see names.py.
        labels: [D] class labels, -1 where the class is unknown.
        class_name: Function from a detection's position to the name of its class in the file.
        given: [D, 4] boxes as in the file.
        scores: [D] scores.
        convention: Pixel convention of the corners.
        known_classes: Names or numbers of the classes, for messages.
        is_xywh: Whether the file's boxes are x, y, width, height, as in COCO's format; else x1, y1, x2, y2.
        named: Indices of the images that the file names, including those without detections; None in formats that name
            images only with detections.
        advice: End of the messages about boxes in another layout.
    """

    path: Path
    describe: Callable[[int], tuple[str, object]]
    image_index: NDArray[np.int64]
    labels: NDArray[np.int64]
    class_name: Callable[[int], object]
    given: NDArray[np.float64]
    scores: NDArray[np.float64]
    convention: Convention
    known_classes: Sequence[object]
    is_xywh: bool = False
    named: NDArray[np.int64] | None = None
    advice: str = ""

    @cached_property
    def boxes(self) -> NDArray[np.float64]:
        """[D, 4] corners x1, y1, x2, y2."""
        return np.asarray(from_xywh(self.given), np.float64) if self.is_xywh else self.given

    @cached_property
    def sizes(self) -> NDArray[np.float64]:
        """[D, 2] width and height of the boxes in their pixel convention, px; negative where inverted."""
        return self.boxes[:, 2:] - self.boxes[:, :2] + self.convention.inclusive

    @cached_property
    def inverted(self) -> NDArray[np.bool_]:
        """[D] boxes that end before they begin; in inclusive conventions also those that contain no pixel."""
        return np.asarray((self.sizes <= 0 if self.convention.inclusive else self.sizes < 0).any(axis=1))

    def __getitem__(self, kept: NDArray[np.int64]) -> Raw:
        """Return the detections at these positions."""
        return replace(
            self,
            describe=lambda i: self.describe(int(kept[i])),
            image_index=self.image_index[kept],
            labels=self.labels[kept],
            class_name=lambda i: self.class_name(int(kept[i])),
            given=self.given[kept],
            scores=self.scores[kept],
        )


def checked(raw: Raw, truth: Truth) -> Results:
    """Reject detections that cannot be right, and warn of suspicious ones.

    Raises:
        ResultsError: one line per kind of mistake, with its number of cases and the first of them.
    """
    errors = []
    notes = []
    unlisted = raw.image_index == UNLISTED
    if unlisted.any():
        name = raw.describe(int(np.flatnonzero(unlisted)[0]))[1]
        notes.append(
            f"{raw.path}: {int(unlisted.sum()):,} of {len(unlisted):,} detections are on images that the image list "
            f"leaves out (first: {name}), and are left out too"
        )
        raw = raw[np.flatnonzero(~unlisted)]

    def reject(bad: NDArray[np.bool_], problem: Callable[[int], str]) -> None:
        count = int(bad.sum())
        if count:
            first = int(np.flatnonzero(bad)[0])
            more = f" ({count:,} of {len(bad):,} detections)" if count > 1 else ""
            errors.append(f"{raw.path}: {raw.describe(first)[0]}: {problem(first)}{more}")

    reject(~np.isfinite(raw.scores), lambda i: f"score must be a finite number, not {raw.scores[i]}")
    reject(
        np.asarray(~np.isfinite(raw.boxes).all(axis=1)),
        lambda i: f"a box must be finite numbers, not {raw.given[i].tolist()}",
    )
    reject(raw.image_index < 0, lambda i: unknown_image(str(raw.describe(i)[1]), truth))
    reject(raw.labels < 0, lambda i: _unknown_class(raw, truth, i))
    inverted = np.asarray((raw.sizes < 0).any(axis=1))  # by more than the rounding of a box without area
    if inverted.sum() > INVERTED * len(inverted):
        right, wrong = _layouts(raw)
        reject(
            inverted,
            lambda i: (
                f"box {raw.given[i].tolist()} ends before it begins; boxes are {right}, these look like {wrong}"
                + raw.advice
            ),
        )
    if errors:
        raise ResultsError("\n".join(errors))
    table = DetectionTable(raw.image_index, raw.labels, raw.scores, raw.boxes, raw.convention)
    if not len(table):
        return Results(table, (*notes, *no_detections(raw.path, truth).warnings))
    _check_layout(raw, truth, table)
    return Results(table, (*notes, *_warnings(raw, truth, table)))


def no_detections(path: Path, truth: Truth) -> Results:
    """Return an empty table and a warning."""
    return Results(DetectionTable.from_images(truth, {}), (f"{path}: contains no detections; every AP is 0",))


def _warnings(raw: Raw, truth: Truth, table: DetectionTable) -> Iterable[str]:
    sizes = known_sizes(truth)[table.image_index]
    first, inclusive = table.convention
    outside = (table.boxes[:, :2] < first - 1).any(axis=1)
    outside |= (table.boxes[:, 2:] > sizes + first - inclusive + 1).any(axis=1)  # False where NaN
    for odd, problem in (
        (raw.inverted, "end before they begin and overlap nothing"),
        (outside & ~raw.inverted, "reach outside their image"),
        ((raw.sizes <= 0).any(axis=1) & ~raw.inverted, "have no area"),
    ):
        if odd.any():
            where = raw.describe(int(np.flatnonzero(odd)[0]))[0]
            yield f"{raw.path}: {int(odd.sum()):,} of {len(table):,} boxes {problem} (first: {where})"
    named = table.image_index if raw.named is None else raw.named
    without = np.flatnonzero(np.bincount(named, minlength=len(truth)) == 0)
    if len(without):
        name = truth.image_ids[without[0]]
        yield f"{raw.path}: {len(without):,} of {len(truth):,} images have no detections (first: {name})"
    present = np.bincount(truth.labels, minlength=len(truth.classes)) > 0
    absent = ~present[table.labels]
    if absent.any():
        name = truth.classes.names[table.labels[np.flatnonzero(absent)[0]]]
        yield (
            f"{raw.path}: {int(absent.sum()):,} of {len(table):,} detections are of classes without any object in "
            f"{truth.name} (first: {name}) and do not affect the score"
        )
    if (shift := _label_shift(truth, table)) is not None:
        yield (
            f"{raw.path}: class numbers look shifted: hardly any box on an object has the object's class, and most do "
            f"with {shift:+d}"
        )


def _label_shift(truth: Truth, table: DetectionTable) -> int | None:
    """Find the shift of all labels, by 1 or -1, with which localised detections have the classes of their objects."""
    sample = table[_best(table.scores)]
    own, own_iou, other, other_iou = nearest_objects(truth, sample)
    position = np.where(own_iou >= other_iou, own, other)
    localised = np.maximum(own_iou, other_iou) >= 0.5
    if localised.sum() < 20:
        return None
    wanted, given = truth.labels[position[localised]], sample.labels[localised]
    share = {shift: float((given + shift == wanted).mean()) for shift in (-1, 0, 1)}
    best = max((-1, 1), key=share.__getitem__)
    return best if share[0] < 0.1 and share[best] > 0.5 else None


def _check_layout(raw: Raw, truth: Truth, table: DetectionTable) -> None:
    """Reject corners given as x, y, width, height, and the reverse, which would score AP 0.

    Such boxes lie on the objects once they are read the other way, or leave their images unless they are.
    """
    right, wrong = _layouts(raw)
    kind = "bbox" if raw.is_xywh else "a box"
    kept = np.flatnonzero(~raw.inverted)
    sample = kept[_best(table.scores[kept])]
    other = replace(raw[sample], is_xywh=not raw.is_xywh).boxes
    upright = (other[:, 2:] > other[:, :2]).all(axis=1)
    if not upright.any() or upright.mean() < 0.9:
        return
    as_read = table[sample[upright]]
    as_other = replace(as_read, boxes=other[upright])
    on, on_other = (on_objects(truth, part) for part in (as_read, as_other))
    hits, hits_other = float(on.mean()), float(on_other.mean())
    limits = 1.1 * known_sizes(truth)[as_read.image_index] + 1
    outside, outside_other = ((part.boxes[:, 2:] > limits).any(axis=1).mean() for part in (as_read, as_other))
    if raw.is_xywh and outside > 0.5 > outside_other and hits <= hits_other:
        raise ResultsError(
            f"{raw.path}: {outside:.0%} of the best boxes reach outside their image: "
            f"{kind} must be {right}, but these look like {wrong}{raw.advice}"
        )
    if hits_other > 0.2 and (hits < hits_other / 4 or better(on_other, on)):
        raise ResultsError(
            f"{raw.path}: {hits:.0%} of the best boxes lie on an object, and {hits_other:.0%} if they are read as "
            f"{wrong}: {kind} must be {right}{raw.advice}"
        )


def _best(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the positions of the SAMPLE best scores, best first, equal ones in their order; sorts only these."""
    among = np.arange(len(scores))
    if len(scores) > SAMPLE:
        among = np.flatnonzero(scores >= np.partition(scores, -SAMPLE)[-SAMPLE])
    return among[np.argsort(-scores[among], kind="stable")][:SAMPLE]


def _layouts(raw: Raw) -> tuple[str, str]:
    """Return the layout of the format's boxes, and the layout that they may be in by mistake."""
    corners, sizes = "x1, y1, x2, y2", "x, y, width, height"
    return (sizes, corners) if raw.is_xywh else (corners, sizes)


def known_sizes(truth: Truth) -> NDArray[np.float64]:
    """Return the width and height of the images, [I, 2] px; NaN where unknown."""
    return np.where((truth.sizes > 0).all(axis=1, keepdims=True), truth.sizes, np.nan)


def on_objects(truth: Truth, table: DetectionTable) -> NDArray[np.bool_]:
    """Tell which detections lie on an object of any class, [D]."""
    _, own, _, other = nearest_objects(truth, table)
    return np.asarray(np.maximum(own, other) >= 0.5)


def unknown_image(name: str, truth: Truth) -> str:
    """Describe an image that the ground truth does not have, with a similar name as a hint."""
    return f"unknown image {name!r}, not in {truth.name}.{hint_at(name, list(truth.index_of))}"


def _unknown_class(raw: Raw, truth: Truth, position: int) -> str:
    name = raw.class_name(position)
    if not truth.numbered and not isinstance(name, str):
        known = listed(list(map(str, raw.known_classes)), LISTED)
        return f"category {name} is a number, and the classes of {truth.name} have none; name them instead: {known}"
    ids = sorted(truth.classes.label_of_id)
    unknown = {str(raw.class_name(int(i))) for i in np.flatnonzero(raw.labels < 0)[:SAMPLE]}
    hint = ""
    if isinstance(name, str) and not name.isdecimal():
        hint = hint_at(name, [str(known) for known in raw.known_classes])
    elif unknown == {"0"} and ids[0] == 1:
        hint = " Numbers from 0? They begin at 1, and all of them may be shifted by one."
    elif ids[-1] > len(ids) and all(text.isdecimal() and int(text) <= len(ids) for text in unknown):
        hint = f" Numbers 1 to {len(ids)}? Those of {truth.name} have gaps."
    known = listed(list(map(str, raw.known_classes)), LISTED)
    return f"unknown category {name!r}. {truth.name} has {known}.{hint}".removesuffix(".")


def hint_at(name: str, known: Sequence[str]) -> str:
    """Return the most similar known text as a question to append to a message, or an empty text."""
    close = difflib.get_close_matches(name, known[:5000], n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
