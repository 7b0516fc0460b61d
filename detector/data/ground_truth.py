"""Ground truth of any data set in one form.

The readers (voc.py, ilsvrc.py, coco.py) turn a tree on disk into a Dataset: a class table and one Record per image.
Boxes are float64 in the convention of proposals.boxes; photographs are read when asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.data.image import Image, read_image
from proposals.boxes import Boxes, area, clip
from proposals.errors import UserError


class DataError(UserError):
    """A data set that cannot be read; the message says what is wrong, in which file, and what to do next."""


@dataclass(frozen=True)
class ClassTable:
    """The K object classes of a data set, background not among them.

    Attributes:
        names: K display names, in label order.
        wnids: K WordNet ids, or None where a class has none. Two ImageNet classes may share a name, never an id.
        ids: K numbers by which the data set's own files name the classes (VOC 1-20, ILSVRC DET 1-200, COCO's gaps).
    """

    names: tuple[str, ...]
    wnids: tuple[str | None, ...]
    ids: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.wnids) == len(self.ids):
            raise ValueError(f"class table: {len(self.names)} names, {len(self.wnids)} wnids, {len(self.ids)} ids")
        if len(set(self.ids)) != len(self.ids):
            raise ValueError("class table: an id occurs twice")

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def label_of(self) -> dict[str, int]:
        """Label 0..K-1 by wnid, and by name where only one class has that name."""
        unique = {name: label for label, name in enumerate(self.names) if self.names.count(name) == 1}
        return unique | {wnid: label for label, wnid in enumerate(self.wnids) if wnid is not None}

    @cached_property
    def label_of_id(self) -> dict[int, int]:
        """Label 0..K-1 by the data set's own number."""
        return {number: label for label, number in enumerate(self.ids)}


@dataclass(frozen=True)
class Record:
    """One photograph and the M objects marked in it.

    Attributes:
        image_id: the name by which results refer to it: a VOC stem, an ILSVRC list entry, COCO's number as text.
        path: the image file, not yet read.
        width: image width as the annotation states it, px.
        height: image height as the annotation states it, px.
        boxes: [M, 4] float64, px.
        labels: [M] int64, 0..K-1.
        difficult: [M] bool; PASCAL VOC neither rewards nor punishes finding these, and they are examples of nothing, as
            are ILSVRC's beyond boxes_per_class.
        crowd: [M] bool; COCO boxes that stand for many objects.
        areas: [M] float64, px²: the area COCO files an object under (its mask's where given), else the box's.
        exhaustive: every object of every class is boxed, so that what no box covers is background.
    """

    image_id: str
    path: Path
    width: int
    height: int
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    exhaustive: bool = True

    def read(self) -> Image:
        """The photograph, [H, W, 3] uint8 RGB; raises ImageError naming the file."""
        return read_image(self.path)


@dataclass(frozen=True)
class Dataset:
    """A split of a data set.

    Attributes:
        name: what to call it in a report, such as "voc12 val100".
        classes: its K classes.
        records: its images, in the order of the split's list.
        warnings: what the reader mended or left out, one line a kind, with a count and the first file's name.
    """

    name: str
    classes: ClassTable
    records: tuple[Record, ...]
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def index_of(self) -> dict[str, int]:
        """Position in records by image_id."""
        return {record.image_id: index for index, record in enumerate(self.records)}


def exhaustive_part(dataset: Dataset) -> Dataset:
    """The images whose every object is boxed: in no others can background be told from an object nobody boxed.

    Raises:
        DataError: there are none.
    """
    records = tuple(record for record in dataset.records if record.exhaustive)
    if not records:
        raise DataError(
            f"{dataset.name}: in none of these images is every object boxed, hence there is no background to learn "
            "from; of ILSVRC join val1, as split=val1+train"
        )
    return dataset if len(records) == len(dataset) else replace(dataset, records=records)


def read_lines(path: Path) -> list[str]:
    """The lines of a list.

    Raises:
        DataError: it cannot be read, or is not a text.
    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text ({error})") from error


@dataclass
class Repairs:
    """What a reader mended or left out: how often, and the first file, by kind. Becomes Dataset.warnings."""

    found: dict[str, tuple[int, str]] = field(default_factory=dict)

    def note(self, kind: str, where: str, count: int = 1) -> None:
        """Add count cases of a kind, met in the file or image named by where; 0 cases add nothing."""
        if count:
            before, first = self.found.get(kind, (0, where))
            self.found[kind] = (before + count, first)

    def lines(self) -> tuple[str, ...]:
        """One line a kind, as "boxes reached outside ...: 3 (first: 000012.xml)"."""
        return tuple(f"{kind}: {count:,} (first: {first})" for kind, (count, first) in self.found.items())


def make_record(
    image_id: str,
    path: Path,
    size: tuple[int, int],
    boxes: Boxes,
    labels: NDArray[np.int64],
    *,
    repairs: Repairs,
    where: str,
    difficult: NDArray[np.bool_] | None = None,
    crowd: NDArray[np.bool_] | None = None,
    areas: NDArray[np.float64] | None = None,
    as_written: bool = False,
    exhaustive: bool = True,
) -> Record:
    """A Record whose boxes lie inside the image: cut at its border, left out where nothing remains, and counted so.

    Args:
        image_id: as in Record.
        path: as in Record.
        size: width, height in px; (0, 0) where nobody knows it, and then nothing is cut.
        boxes: [M, 4] px, in the convention of proposals.boxes.
        labels: [M], 0..K-1.
        repairs: takes the counts.
        where: the file to name in them.
        difficult: [M]; none where absent.
        crowd: [M]; none where absent.
        areas: [M] px², NaN where the file states none; the boxes' own where absent.
        as_written: neither cut nor leave out anything.
        exhaustive: as in Record.
    """
    inside = np.asarray(boxes if as_written or size == (0, 0) else clip(boxes, *size), dtype=np.float64)
    own = np.asarray(area(inside), dtype=np.float64)
    kept = (own > 0) | as_written
    repairs.note(
        "boxes reached outside their image and were cut at its border", where, int((inside != boxes)[kept].any(1).sum())
    )
    repairs.note("boxes had no area inside their image and were left out", where, int((~kept).sum()))
    absent = np.zeros(len(boxes), dtype=np.bool_)
    stated = own if areas is None else np.where(np.isnan(areas), own, areas)
    return Record(
        image_id=image_id,
        path=path,
        width=size[0],
        height=size[1],
        boxes=inside[kept],
        labels=labels[kept],
        difficult=(absent if difficult is None else difficult)[kept],
        crowd=(absent if crowd is None else crowd)[kept],
        areas=stated[kept],
        exhaustive=exhaustive,
    )
