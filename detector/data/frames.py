"""The frame in which boxes were drawn: the size that an annotation states, against the photograph's own.

A photograph whose size is another than the stated one was turned by its EXIF note behind the labelling tool's back, or
resized after labelling; its boxes show something else. Where the stated size does not even hold its own objects, it is
the statement that is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import numpy as np

from detector.data.ground_truth import DataError, Dataset, Record, Repairs
from detector.data.image import ImageError, read_orientation, read_size
from detector.data.progress import progress
from proposals.boxes import Boxes


class SizeMismatch(Enum):
    """What becomes of photographs whose size is not their annotation's."""

    error = "error"
    skip = "skip"
    turn = "turn"


Size = tuple[int, int]
LARGEST_SIDE = 2**31  # px; more is no size
SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange width and height

EXCHANGED = "stated image sizes have width and height exchanged; taken from the photograph"
UNHELD = "stated image sizes did not hold their own objects; taken from the photograph"
SKIPPED = "images of another size than their annotation states were left out (size_mismatch=skip)"
TURNED = "boxes of images were turned as EXIF turns the photograph (size_mismatch=turn)"


def turned(boxes: Boxes, size: Size, orientation: int) -> Boxes:
    """Boxes drawn on a photograph as it is stored -> the same boxes on the photograph set upright.

    Args:
        boxes: [N, 4] px, far edge exclusive.
        size: width and height of the photograph as it is stored, px.
        orientation: EXIF's number, 1 to 8; others turn nothing.
    """
    width, height = size
    x1, y1, x2, y2 = boxes.T
    left, right, top, bottom = x1, x2, y1, y2
    if orientation in (2, 3, 7, 8):  # what was right is on the left, or on top
        left, right = width - x2, width - x1
    if orientation in (3, 4, 6, 7):
        top, bottom = height - y2, height - y1
    sides = (top, left, bottom, right) if orientation in SIDEWAYS else (left, top, right, bottom)
    return np.stack(sides, axis=1)


def holds(size: Size, boxes: Boxes, *, slack: float = 1.0) -> bool:
    """Whether boxes [N, 4] lie inside a size, but for `slack` px."""
    return bool((boxes[:, 2:] <= np.array(size) + slack).all())


def settled_size(stated: Size, boxes: Boxes, image: Path, repairs: Repairs, where: str) -> Size:
    """The size to work with: the stated one, or the photograph's.

    The photograph's is taken where none is stated, and where the stated one does not hold its own objects and it does.

    Args:
        stated: width, height in px; a 0 says that it is not stated.
        boxes: [M, 4] px, the objects.
        image: the photograph, which need not be there.
        repairs: takes the counts.
        where: the file to name in them.

    Returns:
        (0, 0) where nothing is known.
    """
    known = all(stated)
    if known and holds(stated, boxes):
        return stated
    try:
        own = read_size(image)
    except ImageError:
        return stated if known else (0, 0)
    if not known:
        repairs.note("annotations stated no image size; taken from the photograph", where)
        return own
    if own == stated or not holds(own, boxes):
        return stated
    repairs.note(EXCHANGED if own == stated[::-1] else UNHELD, where)
    return own


@dataclass(frozen=True)
class Frame:
    """How a photograph differs from the size that its annotation states.

    Attributes:
        stated: width, height, px.
        own: the photograph's, upright.
        orientation: EXIF's number.
    """

    stated: Size
    own: Size
    orientation: int

    @property
    def differs(self) -> bool:
        """Whether the sizes are two."""
        return self.own != self.stated

    @property
    def explained(self) -> bool:
        """Whether EXIF turns the stated size into the photograph's."""
        return self.differs and self.sideways and self.own == self.stated[::-1]

    @property
    def sideways(self) -> bool:
        """Whether EXIF turns the photograph by 90 degrees."""
        return self.orientation in SIDEWAYS

    def describe(self) -> str:
        """What it looks like, in one clause."""
        sizes = f"is {self.own[0]} x {self.own[1]} and its annotation says {self.stated[0]} x {self.stated[1]}"
        if self.explained:
            return f"{sizes}: EXIF (orientation {self.orientation}) turns it, and it was labelled unturned"
        ratio = self.own[0] / self.stated[0], self.own[1] / self.stated[1]
        if self.own == self.stated[::-1]:
            return f"{sizes}: turned after it was labelled, or width and height are swapped"
        even = "evenly" if abs(ratio[0] / ratio[1] - 1) < 0.02 else "unevenly, or cropped,"
        return f"{sizes}: resized {even} after it was labelled"


def read_frames(images: Sequence[tuple[Path, Size]], label: str, *, orientations: bool = False) -> dict[int, Frame]:
    """Compare the sizes of photographs, from their headers, with the stated ones.

    Args:
        images: file and stated size; unknown sizes are passed over, as are photographs that are absent or unreadable.
        label: Text in front of the progress bar.
        orientations: tell of photographs that EXIF turns or mirrors within their size too.

    Returns:
        by position in images, those that differ.
    """
    frames: dict[int, Frame] = {}
    for position, (path, stated) in enumerate(progress(images, f"sizes of {label}", "image")):
        if not all(stated):
            continue
        try:
            own = read_size(path)
            if own != stated or orientations:
                frame = Frame(stated, own, read_orientation(path))
                if frame.differs or frame.orientation in range(2, 9):
                    frames[position] = frame
        except ImageError:
            continue  # whoever reads it says so
    return frames


@dataclass(frozen=True)
class Verdict:
    """What becomes of images.

    Attributes:
        left_out: their positions.
        turned: EXIF's orientation by position, of those whose boxes are turned.
        exchanged: positions of those whose stated sides are to be exchanged.
        warnings: one line a kind.
    """

    left_out: frozenset[int]
    turned: dict[int, int]
    exchanged: frozenset[int]
    warnings: tuple[str, ...]


def judge(
    images: Sequence[tuple[Path, Size]], mode: SizeMismatch, name: str, *, warnings: Sequence[str] = ()
) -> Verdict:
    """Decide by a data set's `size_mismatch` what becomes of the images whose photograph has another size.

    In mode turn, photographs that EXIF turns without changing the size (upside down, mirrored, square) follow the
    others: where the boxes of some were drawn on the unturned picture and of none on the turned one, theirs were too.
    In any mode, stated sides are taken as exchanged where their reader found others so that do not hold their objects.

    Args:
        images: photograph and stated size.
        mode: The data set's `size_mismatch` setting.
        name: The data set's name, for messages.
        warnings: Warnings of the data set's reader, which say whether stated sides were exchanged.

    Raises:
        DataError: mode error, and there is one; or mode turn, and EXIF does not explain it.
    """
    frames = read_frames(images, name, orientations=mode is SizeMismatch.turn)
    differing = {position: frame for position, frame in frames.items() if frame.differs}
    repairs = Repairs()
    exchanged: frozenset[int] = frozenset()
    if any(line.startswith(EXCHANGED) for line in warnings):
        exchanged = frozenset(
            position for position, frame in differing.items() if frame.own == frame.stated[::-1] and not frame.sideways
        )
        differing = {position: frame for position, frame in differing.items() if position not in exchanged}
        for position in sorted(exchanged):
            repairs.note(f"{EXCHANGED}, as others' were", images[position][0].name)
    if mode is SizeMismatch.skip:
        for position in differing:
            repairs.note(SKIPPED, images[position][0].name)
        if len(differing) == len(images):
            raise DataError(f"{name}: every image is of another size than its annotation states; none is left")
        return Verdict(frozenset(differing), {}, exchanged, repairs.lines())
    unexplained = {
        position: frame for position, frame in differing.items() if mode is SizeMismatch.error or not frame.explained
    }
    if unexplained:
        raise DataError(_message(images, unexplained, name))
    to_turn = {position: frame.orientation for position, frame in differing.items()}
    within = {position: frame for position, frame in frames.items() if not frame.differs}
    was_upright = {position for position, frame in within.items() if frame.sideways and frame.own != frame.own[::-1]}
    alike = {position: frame.orientation for position, frame in within.items() if position not in was_upright}
    if to_turn and not was_upright:
        to_turn |= alike
    elif alike:
        first = images[min(alike)][0].name
        repairs.note("photographs that EXIF turns within their size were taken as labelled upright", first, len(alike))
    for position in sorted(to_turn):
        repairs.note(TURNED, images[position][0].name)
    return Verdict(frozenset(), to_turn, exchanged, repairs.lines())


def match_frames(dataset: Dataset, mode: SizeMismatch) -> Dataset:
    """The data set with every box in the frame of its photograph; see judge.

    Raises:
        DataError: as judge.
    """
    records = dataset.records
    images = [(record.path, (record.width, record.height)) for record in records]
    verdict = judge(images, mode, dataset.name, warnings=dataset.warnings)
    kept = tuple(
        _in_frame(record, verdict.turned.get(position, 1), exchanged=position in verdict.exchanged)
        for position, record in enumerate(records)
        if position not in verdict.left_out
    )
    return replace(dataset, records=kept, warnings=(*dataset.warnings, *verdict.warnings))


def _in_frame(record: Record, orientation: int, *, exchanged: bool) -> Record:
    if exchanged:
        return replace(record, width=record.height, height=record.width)
    if orientation == 1:
        return record
    size = (record.width, record.height)
    width, height = size[::-1] if orientation in SIDEWAYS else size
    boxes = np.asarray(turned(record.boxes, size, orientation), np.float64)
    return replace(record, width=width, height=height, boxes=boxes)


def _message(images: Sequence[tuple[Path, Size]], frames: dict[int, Frame], name: str) -> str:
    first = min(frames)
    path, frame = images[first][0], frames[first]
    count = f"{len(frames):,} of {len(images):,} images are of another size than their annotation states"
    explained = sum(one.explained for one in frames.values())
    lines = [f"{name}: {count} (first: {path})", f"  it {frame.describe()}"]
    if explained:
        lines.append(f"  to turn the boxes of those that EXIF explains ({explained:,}):  data.size_mismatch=turn")
    lines.append(
        "  to leave all of them out:  data.size_mismatch=skip   (train.size_mismatch, val.size_mismatch in training)"
    )
    return "\n".join(lines)
