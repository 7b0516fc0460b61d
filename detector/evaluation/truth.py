"""The ground truth that detections are scored against: objects exactly as their files state them, in one table.

Training reads a Dataset, whose boxes are clipped at the image border and in the project's one convention. A score must
not depend on that: here coordinates stay as written, in float64, together with the pixel convention of their format.
Readers of files: truth_files.py.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detector.data.frames import SIDEWAYS, SizeMismatch, judge, settled_size, turned
from detector.data.ground_truth import ClassTable, Dataset, Repairs
from proposals.boxes import Boxes

BEYOND = 1.1  # a stated size that an object exceeds by this factor is wrong


class Convention(NamedTuple):
    """The pixel convention of a format's boxes.

    Attributes:
        first: Coordinate of the first pixel, 0 or 1.
        inclusive: 1 where the far corner belongs to the box, so that its width is x2 - x1 + 1; else 0.
    """

    first: int
    inclusive: int


HALF_OPEN = Convention(0, 0)
"""The project's own convention, and COCO's."""
VOC = Convention(1, 1)
ILSVRC = Convention(0, 1)


def convert(boxes: Boxes, given: Convention, wanted: Convention) -> Boxes:
    """Convert boxes [N, 4] from one pixel convention to another; returns the same array where they agree."""
    if given == wanted:
        return boxes
    near = wanted.first - given.first
    far = near + given.inclusive - wanted.inclusive
    result: Boxes = boxes + np.array([near, near, far, far], dtype=boxes.dtype)
    return result


@dataclass(frozen=True)
class Truth:
    """The M annotated objects of I images.

    Attributes:
        name: Name of the split, for reports.
        classes: The K classes.
        image_ids: I image ids.
        paths: I image files, which need not exist.
        sizes: [I, 2] int64 width and height, px, for checks of the detections; 0 where none is stated, or where the
            stated one does not contain the image's own objects (see with_trusted_sizes).
        numbers: [I] int64 image numbers of ILSVRC's text files; None for other data.
        image_index: [M] int64 index of each object's image, ascending.
        labels: [M] int64 class labels, 0..K-1.
        boxes: [M, 4] float64 px, as written.
        difficult: [M] bool, PASCAL VOC's flag; ignored in scoring.
        crowd: [M] bool, COCO's flag for a box around many objects.
        areas: [M] float64 px², the area that decides COCO's size range of an object.
        convention: Pixel convention of the boxes.
        numbered: Whether files of detections may name a class by number; False for a class table made up here.
        blacklist: (image index, label) pairs that ILSVRC excludes from scoring.
        whole: The complete ground truth where this is the part chosen by an image list; detections on its other images
            are left out too.
        warnings: Oddities of the files, one line per kind.
    """

    name: str
    classes: ClassTable
    image_ids: tuple[str, ...]
    paths: tuple[Path, ...]
    sizes: NDArray[np.int64]
    numbers: NDArray[np.int64] | None
    image_index: NDArray[np.int64]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float64]
    difficult: NDArray[np.bool_]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    convention: Convention = HALF_OPEN
    numbered: bool = True
    blacklist: frozenset[tuple[int, int]] = field(default_factory=frozenset)
    whole: Truth | None = None
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, dataset: Dataset) -> Truth:
        """Make a table of the records of a Dataset, unchanged but for objects of other classes, which are left out."""
        records = dataset.records
        truth = cls(
            name=dataset.name,
            classes=dataset.classes,
            image_ids=tuple(record.image_id for record in records),
            paths=tuple(record.path for record in records),
            sizes=np.array([(record.width, record.height) for record in records], np.int64).reshape(-1, 2),
            numbers=None,
            image_index=np.repeat(np.arange(len(records)), [len(record.labels) for record in records]).astype(np.int64),
            labels=np.concatenate([np.zeros(0, np.int64), *(record.labels for record in records)]),
            boxes=np.concatenate([np.zeros((0, 4)), *(record.boxes for record in records)]),
            difficult=np.concatenate([np.zeros(0, np.bool_), *(record.difficult for record in records)]),
            crowd=np.concatenate([np.zeros(0, np.bool_), *(record.crowd for record in records)]),
            areas=np.concatenate([np.zeros(0), *(record.areas for record in records)]),
            warnings=dataset.warnings,
        )
        return truth.with_objects(truth.labels >= 0)

    def __len__(self) -> int:
        return len(self.image_ids)

    @cached_property
    def index_of(self) -> dict[str, int]:
        """Index of each image, keyed by its id."""
        return {image_id: index for index, image_id in enumerate(self.image_ids)}

    @cached_property
    def index_of_number(self) -> dict[int, int]:
        """Index of each image, keyed by its number; empty where images have none."""
        return {} if self.numbers is None else {number: index for index, number in enumerate(self.numbers.tolist())}

    @cached_property
    def index_of_any_name(self) -> dict[str, int]:
        """Index of each image, keyed by every text that names one image only.

        These are its id, its file name, the stem, and id and stem as a number.
        """
        names: dict[str, set[int]] = {}
        for index, (image_id, path) in enumerate(zip(self.image_ids, self.paths, strict=True)):
            texts = {path.name, path.stem, image_id}
            texts |= {str(int(text)) for text in texts if text.isascii() and text.isdecimal()}
            for text in texts:
                names.setdefault(text, set()).add(index)
        unique = {name: indices.pop() for name, indices in names.items() if len(indices) == 1}
        numbers = {str(number): index for number, index in self.index_of_number.items()}
        return numbers | unique | self.index_of

    @cached_property
    def ignored(self) -> NDArray[np.bool_]:
        """[M] objects that are ignored, difficult or crowd: a detection on one is neither right nor wrong."""
        return self.difficult | self.crowd

    def is_blacklisted(self, image_index: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which of N pairs of image and label are on the blacklist, [N]."""
        pairs = np.array([image * len(self.classes) + label for image, label in self.blacklist], np.int64)
        return np.isin(image_index * len(self.classes) + labels, pairs)

    def objects_of(self, index: int) -> slice:
        """Return the positions of the objects of image `index`."""
        start, end = np.searchsorted(self.image_index, (index, index + 1)).tolist()
        return slice(start, end)

    def part(self, kept: NDArray[np.bool_]) -> Truth:
        """Return the ground truth of the images chosen by the mask `kept`, [I]."""
        objects = kept[self.image_index]
        position = np.cumsum(kept) - 1
        images = np.flatnonzero(kept).tolist()
        columns = ("labels", "boxes", "difficult", "crowd", "areas")
        return replace(
            self,
            image_ids=tuple(self.image_ids[index] for index in images),
            paths=tuple(self.paths[index] for index in images),
            sizes=self.sizes[kept],
            numbers=None if self.numbers is None else self.numbers[kept],
            image_index=position[self.image_index[objects]],
            blacklist=frozenset((int(position[image]), label) for image, label in self.blacklist if kept[image]),
            **{column: getattr(self, column)[objects] for column in columns},
        )

    def with_objects(self, kept: NDArray[np.bool_]) -> Truth:
        """Return the ground truth of all images with some of the objects, chosen by the mask `kept`, [M]."""
        columns = ("image_index", "labels", "boxes", "difficult", "crowd", "areas")
        return replace(self, **{column: getattr(self, column)[kept] for column in columns})

    def with_trusted_sizes(self) -> Truth:
        """Set the sizes to 0 that cannot be right because they do not contain their own objects.

        Where more than a tenth of the images with objects have such a size, all sizes are dropped: width and height are
        probably exchanged everywhere.
        """
        far = convert(self.boxes, self.convention, HALF_OPEN)[:, 2:]
        known = np.asarray((self.sizes > 0).all(axis=1))
        beyond = np.asarray((far > BEYOND * self.sizes[self.image_index] + 1).any(axis=1)) & known[self.image_index]
        wrong = np.bincount(self.image_index[beyond], minlength=len(self)) > 0
        if not wrong.any():
            return replace(self, sizes=np.where(known[:, None], self.sizes, 0))
        with_objects = len(np.unique(self.image_index))
        doubted = np.ones(len(self), np.bool_) if wrong.sum() > with_objects / 10 else wrong
        first = self.image_ids[int(np.flatnonzero(wrong)[0])]
        note = (
            f"stated sizes do not contain their own objects: {int(wrong.sum()):,} (first: {first}); the sizes of "
            f"{int(doubted.sum()):,} images are not used to check detections"
        )
        sizes = np.where((known & ~doubted)[:, None], self.sizes, 0)
        return replace(self, sizes=sizes, warnings=(*self.warnings, note))

    def in_frames(self, mode: SizeMismatch) -> Truth:
        """Leave out images, or turn boxes, as data.size_mismatch says; see detector.data.frames.

        Images that do not exist change nothing, and mode `error` reads none: scoring needs no images.

        Raises:
            DataError: mode `turn`, and EXIF does not explain an image's size; or no image is left.
        """
        if mode is SizeMismatch.error:
            return self
        repairs = Repairs()
        boxes = np.asarray(convert(self.boxes, self.convention, HALF_OPEN), np.float64).copy()
        sizes = self.sizes.copy()
        for index, path in enumerate(self.paths):  # as the readers of a Dataset settle it
            stated, objects = (int(sizes[index, 0]), int(sizes[index, 1])), boxes[self.objects_of(index)]
            sizes[index] = settled_size(stated, objects, path, repairs, self.image_ids[index])
        stated_sizes = [(width, height) for width, height in sizes.tolist()]
        known = (*self.warnings, *repairs.lines())
        verdict = judge(list(zip(self.paths, stated_sizes, strict=True)), mode, self.name, warnings=known)
        for index in verdict.exchanged:
            sizes[index] = sizes[index, ::-1].copy()
        for index, orientation in verdict.turned.items():
            own = self.objects_of(index)
            boxes[own] = turned(boxes[own], stated_sizes[index], orientation)
            sizes[index] = sizes[index, ::-1].copy() if orientation in SIDEWAYS else sizes[index]
        kept = np.array([index not in verdict.left_out for index in range(len(self))], np.bool_)
        there = sum(map(os.path.isfile, self.paths))
        warnings = (*known, *verdict.warnings)
        if there < len(self):
            missing = f"{len(self) - there:,} of {len(self):,} images do not exist, so their sizes cannot be compared"
            warnings += (f"{missing}; size_mismatch={mode.value} has no effect on them",)
        boxes = np.asarray(convert(boxes, HALF_OPEN, self.convention), np.float64) if verdict.turned else self.boxes
        return replace(self, sizes=sizes, boxes=boxes, warnings=warnings).part(kept)
