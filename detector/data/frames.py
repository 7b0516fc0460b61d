"""The frame in which boxes were drawn: the size that an annotation states, against the image file's own.

In: image files with stated sizes and boxes.  Out: the same with every box in the frame of its file, or a DataError.
A file of another size than stated was turned by its EXIF orientation without the labelling tool's knowledge, or resized
after labelling; its boxes then lie beside their objects. Where the stated size does not hold its own objects, the
statement is wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import numpy as np

from detector.data.ground_truth import DataError, Dataset, Record, Repairs, Size
from detector.data.image import ImageError, read_orientation, read_size
from detector.progress import progress
from proposals.boxes import Boxes


class SizeMismatch(Enum):
    """Ways to treat images whose file has another size than the annotation states."""

    error = "error"
    skip = "skip"
    turn = "turn"


SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange width and height

EXCHANGED = "stated image sizes have width and height exchanged; taken from the image file"
UNHELD = "stated image sizes did not hold their own objects; taken from the image file"
SKIPPED = "images of another size than their annotation states were left out (size_mismatch=skip)"
TURNED = "boxes of images were turned as EXIF turns the image (size_mismatch=turn)"


def turned(boxes: Boxes, size: Size, orientation: int) -> Boxes:
    """Turn boxes drawn on an image as it is stored to the same boxes on the upright image.

    Args:
        boxes: [N, 4] px, far edge exclusive.
        size: Width and height of the image as it is stored, px.
        orientation: EXIF's number, 1 to 8; others turn nothing.
    """
    width, height = size
    x1, y1, x2, y2 = boxes.T
    left, right, top, bottom = x1, x2, y1, y2
    if orientation in (2, 3, 7, 8):  # the right side is on the left, or on top
        left, right = width - x2, width - x1
    if orientation in (3, 4, 6, 7):
        top, bottom = height - y2, height - y1
    sides = (top, left, bottom, right) if orientation in SIDEWAYS else (left, top, right, bottom)
    return np.stack(sides, axis=1)


def holds(size: Size, boxes: Boxes, *, slack: float = 1.0) -> bool:
    """Whether boxes [N, 4] px lie inside a size, with a tolerance of `slack` px."""
    return bool((boxes[:, 2:] <= np.array(size) + slack).all())


def settled_size(stated: Size, boxes: Boxes, image: Path, repairs: Repairs, where: str) -> Size:
    """Decide which size to work with: the stated one, or the image file's.

    The file's is taken where none is stated, and where the stated one does not hold its own objects and the file's
    does.

    Args:
        stated: Width and height, px; a 0 means that it is not stated.
        boxes: [M, 4] px, the objects.
        image: The image file, which need not exist.
        repairs: Receives the counts.
        where: Name of the file in the counts.

    Returns:
        Width and height, px; (0, 0) where neither is known.
    """
    known = all(stated)
    if known and holds(stated, boxes):
        return stated
    try:
        own = read_size(image)
    except ImageError:
        return stated if known else (0, 0)
    if not known:
        repairs.note("annotations stated no image size; taken from the image file", where)
        return own
    if own == stated or not holds(own, boxes):
        return stated
    repairs.note(EXCHANGED if own == stated[::-1] else UNHELD, where)
    return own


@dataclass(frozen=True)
class Frame:
    """An image file's size and orientation beside the size that its annotation states.

    Attributes:
        stated: Stated width and height, px.
        own: Width and height of the upright image, px.
        orientation: EXIF's number.
    """

    stated: Size
    own: Size
    orientation: int

    @property
    def differs(self) -> bool:
        """Whether the two sizes differ."""
        return self.own != self.stated

    @property
    def swapped(self) -> bool:
        """Whether one size is the other with width and height exchanged; a square is equal to itself."""
        return self.own == self.stated[::-1]

    @property
    def explained(self) -> bool:
        """Whether EXIF turns the stated size into the file's."""
        return self.differs and self.sideways and self.swapped

    @property
    def sideways(self) -> bool:
        """Whether EXIF turns the image by 90 degrees."""
        return self.orientation in SIDEWAYS

    def describe(self) -> str:
        """Describe the difference in one clause."""
        sizes = f"is {self.own[0]} x {self.own[1]} and its annotation states {self.stated[0]} x {self.stated[1]}"
        if self.explained:
            return f"{sizes}: EXIF (orientation {self.orientation}) turns it, and it was labelled unturned"
        ratio = self.own[0] / self.stated[0], self.own[1] / self.stated[1]
        if self.swapped:
            return f"{sizes}: turned after it was labelled, or width and height are swapped"
        even = "evenly" if abs(ratio[0] / ratio[1] - 1) < 0.02 else "unevenly, or cropped,"
        return f"{sizes}: resized {even} after it was labelled"


def read_frames(images: Sequence[tuple[Path, Size]], label: str, *, orientations: bool = False) -> dict[int, Frame]:
    """Compare the sizes of image files, from their headers, with the stated ones.

    Args:
        images: File and stated size of each image; unknown sizes and absent or unreadable files are passed over.
        label: Text in front of the progress bar.
        orientations: Include images that EXIF turns or mirrors within their size.

    Returns:
        The frames that differ, by position in `images`.
    """
    frames: dict[int, Frame] = {}
    for position, (path, stated) in enumerate(progress(images, f"sizes of {label}", delay=3)):
        if not all(stated):
            continue
        try:
            own = read_size(path)
            if own != stated or orientations:
                frame = Frame(stated, own, read_orientation(path))
                if frame.differs or frame.orientation in range(2, 9):
                    frames[position] = frame
        except ImageError:
            continue  # its reader reports it
    return frames


@dataclass(frozen=True)
class Verdict:
    """A decision on the images of a data set: which are left out, turned, or of exchanged sides.

    Attributes:
        left_out: Positions of the images to leave out.
        turned: EXIF's orientation by position, for the images whose boxes are turned.
        exchanged: Positions of the images whose stated width and height are exchanged.
        warnings: One line per kind.
    """

    left_out: set[int]
    turned: dict[int, int]
    exchanged: set[int]
    warnings: tuple[str, ...]


def judge(
    images: Sequence[tuple[Path, Size]], mode: SizeMismatch, name: str, *, warnings: Sequence[str] = ()
) -> Verdict:
    """Decide what to do with images whose file has another size than stated.

    In mode turn, images that EXIF turns without changing the size (upside down, mirrored, square) are treated like the
    others: where the boxes of some sideways images were drawn on the stored image and of none on the upright one, the
    boxes of these were too. In any mode, stated sides are taken as exchanged if the reader found exchanged sides in
    other images of the data set.

    Args:
        images: File and stated size of each image.
        mode: The data set's `size_mismatch` setting.
        name: The data set's name, for messages.
        warnings: Warnings of the data set's reader, which state whether sides were exchanged.

    Raises:
        DataError: a size differs in mode error; or in mode turn, and EXIF does not explain it.
    """
    repairs = Repairs()

    def note(kind: str, positions: Collection[int]) -> None:
        if positions:
            repairs.note(kind, images[min(positions)][0].name, len(positions))

    turns = mode is SizeMismatch.turn
    frames = read_frames(images, name, orientations=turns)
    differing = {position: frame for position, frame in frames.items() if frame.differs}
    exchanged: set[int] = set()
    if any(line.startswith(EXCHANGED) for line in warnings):
        exchanged = {position for position, frame in differing.items() if frame.swapped and not frame.sideways}
        differing = {position: frame for position, frame in differing.items() if position not in exchanged}
        note(f"{EXCHANGED}, as others' were", exchanged)
    if mode is SizeMismatch.skip:
        note(SKIPPED, differing)
        if len(differing) == len(images):
            raise DataError(f"{name}: every image is of another size than its annotation states; none is left")
        return Verdict(set(differing), {}, exchanged, repairs.lines())
    unexplained = {position: frame for position, frame in differing.items() if not (turns and frame.explained)}
    if unexplained:
        raise DataError(_message(images, unexplained, name))
    to_turn = {position: frame.orientation for position, frame in differing.items()}
    within = {position: frame for position, frame in frames.items() if not frame.differs}
    was_upright = {position for position, frame in within.items() if frame.sideways and not frame.swapped}
    alike = {position: frame.orientation for position, frame in within.items() if position not in was_upright}
    if to_turn and not was_upright:
        to_turn |= alike
    else:
        note("images that EXIF turns within their size were taken as labelled upright", alike)
    note(TURNED, to_turn)
    return Verdict(set(), to_turn, exchanged, repairs.lines())


def match_frames(dataset: Dataset, mode: SizeMismatch) -> Dataset:
    """Bring every box of a data set into the frame of its image file; see judge.

    Raises:
        DataError: the same as in judge.
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
