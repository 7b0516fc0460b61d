"""Ground truth of any data set in one form, and what its readers share.

In: a tree on disk, read by voc.py, ilsvrc.py or coco.py.  Out: a Dataset, a class table and one Record per image.
Boxes are float64 in the convention of proposals.boxes. Images are read when they are needed.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from detector.data.image import Image, read_image
from proposals.boxes import Boxes, area, clip
from proposals.errors import UserError

Size = tuple[int, int]
"""Width and height, px; 0 where it is unknown."""

LARGEST_SIDE = 2**31  # px; more is no size

INVERTED = "boxes end before they begin and were left out"
OUTSIDE = "boxes reached outside their image and were cut at its border"
FLAT = "boxes had no area inside their image and were left out"

VOC_NAMES = {
    "airplane": "aeroplane",
    "couch": "sofa",
    "dining table": "diningtable",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "tv": "tvmonitor",
}
"""COCO's names of PASCAL VOC's classes, where they differ -> VOC's."""


class DataError(UserError):
    """A data set that cannot be read; the message says what is wrong, in which file, and what to do next."""


@dataclass(frozen=True)
class ClassTable:
    """The K object classes of a data set, without background.

    Attributes:
        names: K display names, in label order.
        wnids: K WordNet ids, or None where a class has none. Two ImageNet classes may share a name, never an id.
        ids: K numbers by which the data set's own files name the classes (VOC 1-20, ILSVRC DET 1-200, COCO with gaps).
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

    @cached_property
    def label_of_id(self) -> dict[int, int]:
        """Label 0..K-1 by the data set's own number."""
        return {number: label for label, number in enumerate(self.ids)}

    def labels_in(self, other: ClassTable) -> NDArray[np.int64]:
        """Find each of these classes in another table, whose order and numbers may differ.

        Returns:
            [K] labels in the other table, -1 where it has no such class. Classes are matched by WordNet id where both
            have one, else by name, else by the name that VOC has for COCO's (VOC_NAMES).
        """
        wnids, others = ([_wnid(*pair) for pair in zip(one.names, one.wnids, strict=True)] for one in (self, other))
        by_wnid = {wnid: label for label, wnid in enumerate(others) if wnid}
        result = [by_wnid.get(wnid or "", -1) for wnid in wnids]
        for spelled in (composed, _voc_name):
            taken = set(result)
            named: dict[str, list[int]] = {}
            for position, name in enumerate(map(spelled, other.names)):
                if position not in taken:
                    named.setdefault(name, []).append(position)
            rest = Counter(spelled(name) for name, label in zip(self.names, result, strict=True) if label < 0)
            for label, name in enumerate(map(spelled, self.names)):
                alike = [position for position in named.get(name, []) if not (wnids[label] and others[position])]
                if result[label] < 0 and len(alike) == 1 and rest[name] == 1:
                    result[label] = alike[0]
        return np.array(result, np.int64)


@dataclass(frozen=True)
class Record:
    """One image and the M objects marked in it.

    Attributes:
        image_id: Name by which results refer to the image: a VOC stem, an ILSVRC list entry, COCO's number as text.
        path: The image file, not yet read.
        width: Width of the image to which the boxes belong, px; 0 where it is unknown.
        height: Its height, px.
        boxes: [M, 4] float64, px.
        labels: [M] int64, 0..K-1; -1 for ignored objects of other classes (sources.py), which are difficult.
        difficult: [M] bool; ignored in training and scoring, neither positive nor negative: PASCAL VOC's difficult
            objects, ILSVRC's beyond boxes_per_class, and objects of classes that a run leaves out.
        crowd: [M] bool; COCO's boxes that stand for many objects.
        areas: [M] float64, px²; the area by which COCO groups an object (its mask's where stated), else the box's.
        exhaustive: Whether every object of every class is boxed, so that everything else is background.
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
        """Read the image, [H, W, 3] uint8 RGB.

        Raises:
            ImageError: the image cannot be read.
            DataError: the image has another size than the one to which the boxes belong.
        """
        image = read_image(self.path)
        height, width = image.shape[:2]
        if (self.width, self.height) not in ((width, height), (0, 0)):
            raise DataError(
                f"{self.path}: is {width} x {height} and its annotation states {self.width} x {self.height}; it was "
                "turned or resized after it was labelled (data.size_mismatch=skip leaves such images out)"
            )
        return image


@dataclass(frozen=True)
class Dataset:
    """A split of a data set.

    Attributes:
        name: Name for reports, such as "voc12 val100".
        classes: Its K classes.
        records: Its images, in the order of the split's list.
        warnings: One line per kind of thing that the reader fixed or left out, with a count and the first file's name.
        sources: Names of the data sets that it was joined from, whose positions begin its image ids (sources.py); empty
            for one data set.
    """

    name: str
    classes: ClassTable
    records: tuple[Record, ...]
    warnings: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def index_of(self) -> dict[str, int]:
        """Position in records by image_id."""
        return {record.image_id: index for index, record in enumerate(self.records)}


def with_classes(dataset: Dataset, classes: ClassTable, owner: str) -> Dataset:
    """Renumber the objects of a data set by another table of classes (see ClassTable.labels_in).

    Args:
        dataset: The data set.
        classes: The new table; it has the classes of all objects.
        owner: Owner of the table, for the messages.

    Raises:
        DataError: the table lacks the class of an object.
    """
    labels = dataset.classes.labels_in(classes)
    every = np.concatenate([np.zeros(0, np.int64), *(record.labels for record in dataset.records)])
    used = np.bincount(every[every >= 0])
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
    labels = np.append(labels, -1)  # of ignored objects, too
    records = tuple(replace(record, labels=labels[record.labels]) for record in dataset.records)
    return replace(dataset, classes=classes, records=records, warnings=warnings)


def exhaustive_part(dataset: Dataset) -> Dataset:
    """Keep the images whose every object is boxed; in others, unboxed objects would count as background.

    Raises:
        DataError: there are none.
    """
    records = tuple(record for record in dataset.records if record.exhaustive)
    if not records:
        raise DataError(
            f"{dataset.name}: in none of these images is every object boxed, so that there is no background to learn "
            "from; of ILSVRC join val1, as split=val1+train"
        )
    return dataset if len(records) == len(dataset) else replace(dataset, records=records)


class Repair(str):
    """A line of Dataset.warnings that counts one kind of repair.

    Attributes:
        kind: What was fixed or left out.
        cases: Number of cases.
        first: File or image of the first case.
    """

    kind: str
    cases: int
    first: str

    def __new__(cls, kind: str, cases: int, first: str) -> Self:
        """Write the line, as "boxes reached outside ...: 3 (first: 000012.xml)"."""
        line = super().__new__(cls, f"{kind}: {cases:,} (first: {first})")
        line.kind, line.cases, line.first = kind, cases, first
        return line

    def __getnewargs__(self) -> tuple[str, int, str]:  # type: ignore[override]
        return self.kind, self.cases, self.first


@dataclass
class Repairs:
    """Counts what a reader fixed or left out, with the first file of each kind; becomes Dataset.warnings."""

    found: dict[str, tuple[int, str]] = field(default_factory=dict)

    def note(self, kind: str, where: str, count: int = 1) -> None:
        """Add `count` cases of a kind, found in the file or image named by `where`; 0 cases add nothing."""
        if count:
            before, first = self.found.get(kind, (0, where))
            self.found[kind] = (before + count, first)

    def lines(self) -> tuple[Repair, ...]:
        """Return one line per kind."""
        return tuple(Repair(kind, cases, first) for kind, (cases, first) in self.found.items())


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
    """Make a Record whose boxes lie inside the image: cut at its border, dropped where nothing remains.

    Args:
        image_id: Name by which results refer to the image.
        path: The image file, which need not exist.
        size: Width and height, px; (0, 0) where it is unknown, and then nothing is cut.
        boxes: [M, 4] px, in the convention of proposals.boxes.
        labels: [M], 0..K-1.
        repairs: Receives the counts of boxes that are cut or dropped.
        where: Name of the file in the counts.
        difficult: [M]; none where absent.
        crowd: [M]; none where absent.
        areas: [M] px², NaN where the file states none; the boxes' own where absent.
        as_written: Cut nothing, and drop only boxes that end before they begin.
        exhaustive: Whether every object of every class is boxed.
    """
    inside = np.asarray(boxes if as_written or size == (0, 0) else clip(boxes, *size), dtype=np.float64)
    own = np.asarray(area(inside), dtype=np.float64)
    inverted = np.asarray((boxes[:, 2:] < boxes[:, :2]).any(axis=1))
    kept = ~inverted if as_written else own > 0
    repairs.note(INVERTED, where, int(inverted.sum()))
    cut = int((inside != boxes)[kept].any(axis=1).sum())
    repairs.note(OUTSIDE, where, cut)
    if not as_written:
        repairs.note(FLAT, where, int((~kept & ~inverted).sum()))
    absent = np.zeros(len(boxes), dtype=np.bool_)
    return Record(
        image_id,
        path,
        *size,
        inside[kept],
        labels[kept],
        (absent if difficult is None else difficult)[kept],
        (absent if crowd is None else crowd)[kept],
        (own if areas is None else np.where(np.isnan(areas), own, areas))[kept],
        exhaustive,
    )


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file, without blanks at their ends.

    Raises:
        DataError: the file cannot be read, or is not a text.
    """
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n")]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text ({error})") from error


def number(value: object) -> float:
    """Return a number, which tools may write as text; NaN where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def side(value: object) -> int:
    """Return a side of an image, px; 0 where it is not a number from 1 up."""
    return int(number(value)) if 1 <= number(value) < LARGEST_SIDE else 0


def flag(value: object) -> bool | None:
    """Return a flag, which tools write as number or text; False where nothing is stated, None for any other value."""
    word = "" if value is None else str(value).strip().lower()
    known = {"1": True, "true": True, "yes": True, "1.0": True}
    return known.get(word, False if word in ("", "0", "false", "no", "0.0", "unspecified") else None)


def composed(text: str) -> str:
    """Return the text in Unicode's composed form (NFC), in which equal names are equal texts."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def listed(names: Sequence[str], limit: int = 10) -> str:
    """Return the first names, and how many more there are."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _voc_name(name: str) -> str:
    return VOC_NAMES.get(composed(name), composed(name))


def _wnid(name: str, wnid: str | None) -> str | None:
    """Return the class's WordNet id, which may be its name."""
    return wnid or (name if re.fullmatch(r"n\d{8}", name) else None)
