"""What detections are held against: the boxes of a split exactly as its files state them, in the protocol's own pixels.

Training reads a Dataset, whose boxes are cut at the image border and in the project's one convention. A score must not
depend on that: here coordinates stay as written, in float64, and say which convention they are in.
"""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detector.data.frames import SIDEWAYS, SizeMismatch, judge, settled_size, turned
from detector.data.ground_truth import ClassTable, Dataset, Repairs
from proposals.boxes import Boxes

FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")
BEYOND = 1.1  # an object that ends so many times its image's size from the corner is not in it


class Convention(NamedTuple):
    """How a file counts pixels.

    Attributes:
        first: number of the first pixel, 0 or 1.
        inclusive: 1 where the far corner is a pixel of the box, so that its width is x2 - x1 + 1; else 0.
    """

    first: int
    inclusive: int


HALF_OPEN = Convention(0, 0)
"""The project's own, and COCO's."""
VOC = Convention(1, 1)
ILSVRC = Convention(0, 1)


def convert(boxes: Boxes, given: Convention, wanted: Convention) -> Boxes:
    """Boxes [N, 4] of one convention in another; the same array where they agree."""
    if given == wanted:
        return boxes
    near = wanted.first - given.first
    far = near + given.inclusive - wanted.inclusive
    result: Boxes = boxes + np.array([near, near, far, far], dtype=boxes.dtype)
    return result


@dataclass(frozen=True)
class Truth:
    """The M objects marked in I images.

    Attributes:
        name: what to call the split in a report.
        classes: its K classes.
        image_ids: I names of images.
        paths: I photographs, which need not be there.
        sizes: [I, 2] int64 width and height that detections may be judged by; 0 where none is stated, or where the
            stated one does not hold the image's own objects (see with_trusted_sizes).
        numbers: [I] int64 by which ILSVRC's texts name the images; None elsewhere.
        image_index: [M] int64, rising.
        labels: [M] int64, 0..K-1.
        boxes: [M, 4] float64 as written.
        difficult: [M] bool.
        crowd: [M] bool.
        areas: [M] float64, px², under which COCO files an object.
        convention: of boxes.
        numbered: whether files of results may name a class by its number; a table that we made up has none.
        blacklist: pairs of image and label that do not count (ILSVRC).
        whole: the file of which an image list takes a part; detections on its other images are left out too.
        warnings: what is odd about the files, one line a kind.
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
        """The records of a Dataset, as they are there."""
        records = dataset.records
        return cls(
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

    def __len__(self) -> int:
        return len(self.image_ids)

    @cached_property
    def index_of(self) -> dict[str, int]:
        """Position of an image by its id."""
        return {image_id: index for index, image_id in enumerate(self.image_ids)}

    @cached_property
    def index_of_number(self) -> dict[int, int]:
        """Position of an image by its number; empty where they have none."""
        return {} if self.numbers is None else {number: index for index, number in enumerate(self.numbers.tolist())}

    @cached_property
    def index_of_any_name(self) -> dict[str, int]:
        """Position by every text that names one image, in either Unicode form.

        Its id, its file name, the stem, and id and stem as a number.
        """
        names: dict[str, set[int]] = {}
        for index, (image_id, path) in enumerate(zip(self.image_ids, self.paths, strict=True)):
            texts = {path.name, path.stem, image_id}
            texts |= {str(int(text)) for text in texts if text.isascii() and text.isdecimal()}
            texts |= {unicodedata.normalize(form, text) for text in texts if not text.isascii() for form in FORMS}
            for text in texts:
                names.setdefault(text, set()).add(index)
        unique = {name: indices.pop() for name, indices in names.items() if len(indices) == 1}
        numbers = {str(number): index for number, index in self.index_of_number.items()}
        return numbers | unique | self.index_of

    @cached_property
    def ignored(self) -> NDArray[np.bool_]:
        """[M] objects that are neither to be found nor punished: difficult or crowd."""
        return self.difficult | self.crowd

    def is_blacklisted(self, image_index: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[N] whether a pair of image and label is on the blacklist."""
        pairs = np.array([image * len(self.classes) + label for image, label in self.blacklist], np.int64)
        return np.isin(image_index * len(self.classes) + labels, pairs)

    def objects_of(self, index: int) -> slice:
        """Where the objects of image `index` are."""
        start, end = np.searchsorted(self.image_index, (index, index + 1)).tolist()
        return slice(start, end)

    def part(self, kept: NDArray[np.bool_]) -> Truth:
        """The same of some of the images; kept is [I]."""
        objects = kept[self.image_index]
        position = np.cumsum(kept) - 1
        images = np.flatnonzero(kept).tolist()
        return replace(
            self,
            image_ids=tuple(self.image_ids[index] for index in images),
            paths=tuple(self.paths[index] for index in images),
            sizes=self.sizes[kept],
            numbers=None if self.numbers is None else self.numbers[kept],
            image_index=position[self.image_index[objects]],
            labels=self.labels[objects],
            boxes=self.boxes[objects],
            difficult=self.difficult[objects],
            crowd=self.crowd[objects],
            areas=self.areas[objects],
            blacklist=frozenset((int(position[image]), label) for image, label in self.blacklist if kept[image]),
        )

    def with_trusted_sizes(self) -> Truth:
        """The same without the sizes that cannot be right: those that do not hold their own objects.

        Where these are more than a tenth of the images with objects, the others' are as doubtful (width and height
        exchanged, say) and go too.
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
            f"stated sizes do not hold their own objects: {int(wrong.sum()):,} (first: {first}); no detection "
            f"is judged by the sizes of {int(doubted.sum()):,} images"
        )
        return replace(
            self, sizes=np.where((known & ~doubted)[:, None], self.sizes, 0), warnings=(*self.warnings, note)
        )

    def in_frames(self, mode: SizeMismatch) -> Truth:
        """The same with the images left out, or the boxes turned, that size_mismatch says; see detector.data.frames.

        Photographs that are not there say nothing, and mode error asks none: scoring needs no photographs.

        Raises:
            DataError: mode turn, and EXIF does not explain a photograph's size; or no image is left.
        """
        if mode is SizeMismatch.error:
            return self
        repairs = Repairs()
        boxes = np.asarray(convert(self.boxes, self.convention, HALF_OPEN), np.float64).copy()
        sizes = self.sizes.copy()
        for index, path in enumerate(self.paths):  # as the readers of photographs and boxes settle it
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
            missing = f"{len(self) - there:,} of {len(self):,} photographs are not there to compare sizes with"
            warnings += (f"{missing}; size_mismatch={mode.value} does nothing to those images",)
        result = replace(self, sizes=sizes, warnings=warnings)
        if verdict.turned:
            result = replace(result, boxes=np.asarray(convert(boxes, HALF_OPEN, self.convention), np.float64))
        return result.part(kept)
