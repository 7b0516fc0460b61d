"""Ground truth of any data set in one form.

The readers (voc.py, ilsvrc.py, coco.py) turn a tree on disk into a Dataset: a class table and one Record per image.
Boxes are float64 in the convention of proposals.boxes; photographs are read when asked for.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
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


INVERTED = "boxes end before they begin and were left out"


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
        """Label 0..K-1 by wnid, and by name, in either Unicode form, where only one class has that name."""
        unique = {name: label for label, name in enumerate(self.names) if self.names.count(name) == 1}
        for form in ("NFC", "NFD"):
            unique = {unicodedata.normalize(form, name): label for name, label in unique.items()} | unique
        return unique | {wnid: label for label, wnid in enumerate(self.wnids) if wnid is not None}

    def labels_in(self, other: ClassTable) -> NDArray[np.int64]:
        """Where another table has each of these classes, whatever order and numbers the two have.

        Returns:
            [K] labels in the other table, -1 where it has no such class. Classes are the same by WordNet id where both
            have one, else by name.
        """
        wnids, others = ([_wnid(*pair) for pair in zip(one.names, one.wnids, strict=True)] for one in (self, other))
        by_wnid = {wnid: label for label, wnid in enumerate(others) if wnid}
        result = [by_wnid.get(wnid or "", -1) for wnid in wnids]
        taken = set(result)
        named: dict[str, list[int]] = {}
        for position, name in enumerate(other.names):
            if position not in taken:
                named.setdefault(composed(name), []).append(position)
        rest = Counter(composed(name) for name, label in zip(self.names, result, strict=True) if label < 0)
        for label, name in enumerate(map(composed, self.names)):
            alike = [position for position in named.get(name, []) if not (wnids[label] and others[position])]
            if result[label] < 0 and len(alike) == 1 and rest[name] == 1:
                result[label] = alike[0]
        return np.array(result, np.int64)

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
        width: width of the image that the boxes belong to, px; 0 where nobody knows it.
        height: its height.
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
        """The photograph, [H, W, 3] uint8 RGB.

        Raises:
            ImageError: it cannot be read.
            DataError: its size is not the one that the boxes belong to.
        """
        image = read_image(self.path)
        height, width = image.shape[:2]
        if (self.width, self.height) not in ((width, height), (0, 0)):
            raise DataError(
                f"{self.path}: is {width} x {height} and its annotation says {self.width} x {self.height}; it was "
                "turned or resized after it was labelled (data.size_mismatch=skip leaves such images out)"
            )
        return image


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


def with_classes(dataset: Dataset, classes: ClassTable, owner: str) -> Dataset:
    """The same images under another table of classes (see ClassTable.labels_in).

    Args:
        dataset: whose classes all of its objects keep.
        classes: the table to take on.
        owner: whose it is, for the messages.

    Raises:
        DataError: objects of a class that the table does not have.
    """
    labels = dataset.classes.labels_in(classes)
    used = np.bincount(np.concatenate([np.zeros(0, np.int64), *(record.labels for record in dataset.records)]))
    foreign = [label for label in np.flatnonzero(used).tolist() if labels[label] < 0]
    if foreign:
        counts = ", ".join(f"{dataset.classes.names[label]} ({used[label]:,} objects)" for label in foreign[:10])
        raise DataError(
            f"{dataset.name} has classes that {owner} does not have: {counts}{', ...' * (len(foreign) > 10)}; "
            f"{owner} has {listed(classes.names)}"
        )
    warnings = dataset.warnings
    absent = [name for label, name in enumerate(classes.names) if label not in labels]
    if absent:
        warnings += (f"{dataset.name} lacks classes that {owner} has: {listed(absent)}",)
    records = tuple(replace(record, labels=labels[record.labels]) for record in dataset.records)
    return replace(dataset, classes=classes, records=records, warnings=warnings)


def listed(names: Sequence[str], limit: int = 10) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


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
    """The lines of a list, without blanks at their ends.

    Raises:
        DataError: it cannot be read, or is not a text.
    """
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n")]
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
        as_written: cut nothing, and leave out only boxes that end before they begin.
        exhaustive: as in Record.
    """
    inside = np.asarray(boxes if as_written or size == (0, 0) else clip(boxes, *size), dtype=np.float64)
    own = np.asarray(area(inside), dtype=np.float64)
    inverted = np.asarray((boxes[:, 2:] < boxes[:, :2]).any(axis=1))
    kept = ~inverted if as_written else own > 0
    repairs.note(INVERTED, where, int(inverted.sum()))
    repairs.note(
        "boxes reached outside their image and were cut at its border", where, int((inside != boxes)[kept].any(1).sum())
    )
    if not as_written:
        repairs.note("boxes had no area inside their image and were left out", where, int((~kept & ~inverted).sum()))
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


def composed(text: str) -> str:
    """The text in Unicode's composed form (NFC), in which equal names are equal texts."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _wnid(name: str, wnid: str | None) -> str | None:
    """The class's WordNet id, which may be its name."""
    return wnid or (name if re.fullmatch(r"n\d{8}", name) else None)
