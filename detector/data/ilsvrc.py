"""The ILSVRC detection tree -> Dataset.

    ROOT/ImageSets/DET/SPLIT.txt                      "name number" lines; train's names hold their folder
    ROOT/Annotations/DET/{train,val,test}/NAME.xml    VOC's XML with WordNet ids as names
    ROOT/Data/DET/{train,val,test}/NAME.JPEG

Corner pixels count from 0 and both lie inside the box. val1 and val2, R-CNN's halves of val, keep their files in val's
folders. An image without objects may lack its XML. The 200 classes, the two halves and the blacklist of the 2014
development kit are tables beside this file (NOTICE.md). What is particular to train: ilsvrc_train.py.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from detector.data.files import Files
from detector.data.ground_truth import ClassTable, DataError, Dataset, Record, Repairs, make_record, read_lines
from detector.data.ilsvrc_train import (
    LEFT_OUT,
    ClassLists,
    choose_boxes,
    has_class_lists,
    image_file,
    in_2014_folder,
    keep_chosen,
    read_class_lists,
)
from detector.data.image import ImageError, read_size
from detector.data.progress import progress
from detector.data.voc import Annotation, known_size, note_thin_boxes, read_annotation, read_split_list
from proposals.boxes import from_inclusive

FOLDERS = ("train", "val", "test")
LISTED_AGAIN = "images were listed again in the split and read once"


@cache
def det_classes() -> ClassTable:
    """The 200 classes of ILSVRC DET in the order of their numbers, 1-200."""
    rows = _table("det_synsets.csv")
    return ClassTable(
        names=tuple(row["name"] for row in rows),
        wnids=tuple(row["wnid"] for row in rows),
        ids=tuple(int(row["det_id"]) for row in rows),
    )


def read_ilsvrc_det(root: Path, split: str, *, boxes_per_class: int = 0) -> Dataset:
    """Read a split, or several joined. It does not look whether the photographs are there; open_dataset does.

    Images without XML have no objects; the Dataset's warnings count them. Their size is read from the photograph; it is
    0 x 0 where that is absent too.

    Args:
        root: the folder that holds ImageSets, Annotations and Data.
        split: name of a list in ImageSets/DET, without .txt, that begins with train, val or test; several with "+"
            between them are joined, train's images behind the others. R-CNN's val1 and val2 need no list, nor does
            train: without one it is the images that the lists of the classes give an object.
        boxes_per_class: so many boxes of each class are taken from the images of train, those without any are left
            out, and other objects in the rest are examples of nothing; 0 takes all. Images of val keep theirs.

    Raises:
        DataError: no such tree or split; an empty one; no folder of annotations (test may lack it); malformed XML; an
            object without name or box or of none of the 200 classes; a photograph without XML that cannot be read; a
            malformed list of a class.
    """
    reader = _Reader(root)
    seen: set[str] = set()
    train: list[Record] = []
    records: list[Record] = []
    for part in split.split("+"):
        listed = reader.names(part)
        names = [name for name in listed if name not in seen]
        reader.repairs.note(LISTED_AGAIN, f"{part}.txt", len(listed) - len(names))
        seen.update(names)
        of_train = _folder(part) == "train"
        (train if of_train else records).extend(
            reader.records(part, names, skip_unmarked=of_train and boxes_per_class > 0)
        )
    if boxes_per_class:
        train = keep_chosen(train, choose_boxes(train, boxes_per_class), reader.repairs)
    name = f"{root.resolve().name} {split}"
    return Dataset(name, det_classes(), (*records, *train), reader.repairs.lines())


class _Reader:
    """Reads the splits of a tree that are joined to one, and counts what it mends in all of them together."""

    def __init__(self, root: Path) -> None:
        self.root, self.lists = root, root / "ImageSets" / "DET"
        self.repairs = Repairs()
        self._files = cache(Files)  # of each folder of photographs

    @cached_property
    def class_lists(self) -> ClassLists:
        """The lists of the classes, read once, and only where something of train asks for them."""
        return read_class_lists(self.lists, self.repairs)

    def names(self, part: str) -> Sequence[str]:
        """The images of a split."""
        if self.lists.is_dir() and not (self.lists / f"{part}.txt").is_file():
            if part in ("val1", "val2"):
                return [name for name, _ in rcnn_split(part)]
            if part == "train" and has_class_lists(self.lists) and self.class_lists.present:
                return self.class_lists.present
        names = [re.sub(r"\s+-?[0-9]+$", "", line) for line in read_split_list(self.lists, part)]  # a number or a label
        unique = list(dict.fromkeys(names))
        self.repairs.note(LISTED_AGAIN, f"{part}.txt", len(names) - len(unique))
        return unique

    def records(self, part: str, names: Sequence[str], *, skip_unmarked: bool) -> Iterator[Record]:
        """Those images of a split; skip_unmarked leaves out the ones without XML."""
        folder = _folder(part)
        annotations, images = annotation_folder(self.root, part), image_folder(self.root, part)
        if not annotations.is_dir() and folder != "test":
            raise DataError(f"no folder {annotations}, where the annotations of split {part} belong; check data.root")
        partly = self.class_lists.partly if folder == "train" and any(map(in_2014_folder, names)) else frozenset()
        classes = det_classes()
        for name in progress(names, f"annotations of {part}", "image"):
            path = annotations / f"{name}.xml"
            marked = os.path.isfile(path)
            if skip_unmarked and not marked:
                self.repairs.note(LEFT_OUT, name)
                continue
            image = self._files(images).find(name) or images / f"{name}.JPEG"
            exhaustive = folder != "train" or (in_2014_folder(name) and image_file(name) not in partly)
            if marked:
                yield _annotated(name, image, read_annotation(path), classes, self.repairs, exhaustive)
            else:
                self.repairs.note("images have no annotation file and count as without objects", name)
                yield _empty(name, image, self.repairs, exhaustive)


def split_entries(root: Path, split: str) -> list[tuple[str, int]]:
    """(image, number) of a split: from its list in the tree, or R-CNN's where a tree has no val1 or val2.

    The number is what submissions and the blacklist name the image by.

    Raises:
        DataError: as read_image_list; or several splits joined, whose numbers may meet.
    """
    if "+" in split:
        raise DataError(f"splits are joined to train on them, not to score; set data.split to one of {split}")
    path = root / "ImageSets" / "DET" / f"{split}.txt"
    if not path.is_file() and split in ("val1", "val2"):
        return rcnn_split(split)
    if not path.is_file():
        read_split_list(path.parent, split)  # says which lists there are
    return read_image_list(path)


def read_image_list(path: Path) -> list[tuple[str, int]]:
    """The (image, number) lines of a list of the devkit.

    Raises:
        DataError: cannot be read, a line of another form, or a name or number that comes twice; with the line.
    """
    entries = []
    seen: dict[str | int, int] = {}
    for line, text in enumerate(read_lines(path), 1):
        if not text:
            continue
        name, number = _name_and_number(text)
        if number is None:
            raise DataError(f'{path}, line {line}: {" ".join(text.split())[:80]!r} is no line of "name number"')
        for key in (name, number):
            if key in seen:
                raise DataError(f"{path}, line {line}: {key} is on line {seen[key]} too")
            seen[key] = line
        entries.append((name, number))
    if not entries:
        raise DataError(f"{path}: no images in this list")
    return entries


def read_blacklist(path: Path | str) -> list[tuple[str, str]]:
    """(image, wnid) pairs that do not count: lines "number wnid" as the devkit's, or "name wnid".

    Args:
        path: a file, or "ilsvrc2014" for the devkit's own of the 2014 val images, which this package holds by name.

    Raises:
        DataError: cannot be read, a line of another form, or a class that is none of the 200; with the line.
    """
    if str(path) == "ilsvrc2014":
        return [(row["image"], row["wnid"]) for row in _table("det_val_blacklist.csv")]
    pairs = []
    for line, columns in enumerate(_lines(Path(path)), 1):
        if not columns:
            continue
        if len(columns) != 2:
            raise DataError(f'{path}, line {line}: {" ".join(columns)[:80]!r} is no line of "number wnid"')
        if columns[1] not in det_classes().wnids:
            raise DataError(f"{path}, line {line}: {columns[1]!r} is none of the 200 WordNet ids of ILSVRC DET")
        pairs.append((columns[0], columns[1]))
    return pairs


@cache
def rcnn_split(split: str) -> list[tuple[str, int]]:
    """R-CNN's val1 or val2: (image, number in that list). No image of the blacklist is in them.

    The numbers are R-CNN's own, not those of the devkit's val.txt, which its blacklist means.
    """
    names = [f"ILSVRC{row['year']}_val_{int(row['number']):08}" for row in _table(f"det_{split}.csv")]
    return [(name, number) for number, name in enumerate(names, 1)]


def annotation_folder(root: Path, split: str) -> Path:
    """Where the XML files of a split are."""
    return root / "Annotations" / "DET" / _folder(split)


def image_folder(root: Path, split: str) -> Path:
    """Where the photographs of a split are."""
    return root / "Data" / "DET" / _folder(split)


def _table(name: str) -> list[dict[str, str]]:
    """The rows of a table of this package."""
    lines = Path(__file__).with_name(name).read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def _lines(path: Path) -> list[list[str]]:
    """The columns of every line, empty ones too."""
    return [line.split() for line in read_lines(path)]


def _name_and_number(line: str) -> tuple[str, int | None]:
    """The name, which may hold blanks, and the number behind it, where there is one."""
    name, _, last = line.replace("\t", " ").rpartition(" ")
    return (name.strip(), int(last)) if name and last.isascii() and last.isdecimal() else (line, None)


def _folder(split: str) -> str:
    for folder in FOLDERS:
        if split.startswith(folder):
            return folder
    raise DataError(f"split {split!r}: its name must begin with {', '.join(FOLDERS)}, which say where its files are")


def _annotated(
    name: str, image: Path, annotation: Annotation, classes: ClassTable, repairs: Repairs, exhaustive: bool
) -> Record:
    known = set(classes.wnids)
    for wnid in annotation.names:
        if wnid not in known:
            raise DataError(
                f"{annotation.path}: unknown class {wnid!r}; <name> must be one of the 200 WordNet ids of ILSVRC DET"
            )
    note_thin_boxes(annotation, repairs)
    boxes = from_inclusive(annotation.boxes, first_pixel=0)
    return make_record(
        name,
        image,
        known_size(annotation, boxes, image, repairs),
        boxes,
        np.array([classes.label_of[wnid] for wnid in annotation.names], dtype=np.int64),
        difficult=annotation.difficult,
        repairs=repairs,
        where=annotation.path.name,
        exhaustive=exhaustive,
    )


def _empty(name: str, image: Path, repairs: Repairs, exhaustive: bool) -> Record:
    size = (0, 0)
    if os.path.isfile(image):
        try:
            size = read_size(image)
        except ImageError as error:
            raise DataError(f"{name} has no annotation file, and its photograph cannot be read: {error}") from error
    none = np.zeros((0, 4)), np.zeros(0, dtype=np.int64)
    return make_record(name, image, size, *none, repairs=repairs, where=name, exhaustive=exhaustive)
