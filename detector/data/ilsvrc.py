"""The tree of ILSVRC's detection task -> Dataset.

    ROOT/ImageSets/DET/SPLIT.txt                      "name number" lines; train's names hold their folder
    ROOT/Annotations/DET/{train,val,test}/NAME.xml    VOC's XML with WordNet ids as names
    ROOT/Data/DET/{train,val,test}/NAME.JPEG

Corner pixels count from 0 and both belong to the box. val1 and val2, R-CNN's halves of val, keep their files in val's
folders. An image without objects may lack its XML. The 200 classes, the two halves and the blacklist of the 2014
development kit are tables beside this file (NOTICE.md). What is particular to train is in ilsvrc_train.py.
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
from detector.data.ground_truth import (
    ClassTable,
    DataError,
    Dataset,
    Record,
    Repairs,
    make_record,
    read_lines,
)
from detector.data.ilsvrc_train import (
    BOXED_THROUGHOUT,
    LEFT_OUT,
    ClassLists,
    class_list_paths,
    limit_boxes,
    read_class_lists,
)
from detector.data.image import ImageError, read_size
from detector.data.voc import read_split_list
from detector.data.voc_xml import annotated_record, read_annotation
from detector.progress import progress

FOLDERS = ("train", "val", "test")


@cache
def det_classes() -> ClassTable:
    """Return the 200 classes of ILSVRC DET in the order of their numbers, 1-200."""
    rows = _table("det_synsets.csv")
    names, wnids, ids = ([row[key] for row in rows] for key in ("name", "wnid", "det_id"))
    return ClassTable(tuple(names), tuple(wnids), tuple(map(int, ids)))


def read_ilsvrc_det(root: Path, split: str, *, boxes_per_class: int = 0) -> Dataset:
    """Read a split, or several joined. Whether its image files exist is not checked here but by open_dataset.

    Images without XML have no objects; the Dataset's warnings count them. Their size is read from the image file; it is
    0 x 0 where that is absent too.

    Args:
        root: Folder that holds ImageSets, Annotations and Data.
        split: Name of a list in ImageSets/DET, without .txt, that begins with train, val or test. Several joined by "+"
            are read as one, train's images last. R-CNN's val1 and val2 need no list, nor does train: without one it
            consists of the images to which the lists of the classes give an object.
        boxes_per_class: Boxes of each class drawn from the images of train. Images without any are left out; other
            objects in the rest are ignored. 0 takes all boxes. Images of val keep all of theirs.

    Raises:
        DataError: there is no such tree or split; it is empty; the folder of annotations is absent (test may lack it);
            the XML is malformed; an object lacks a name or box or has none of the 200 classes; an image without XML
            cannot be read; a list of a class is malformed.
    """
    reader = _Reader(root)
    seen: set[str] = set()
    train: list[Record] = []
    records: list[Record] = []
    for part in split.split("+"):
        listed = reader.names(part)
        names = [name for name in dict.fromkeys(listed) if name not in seen]
        reader.repairs.note(
            "images were listed again in the split and read once", f"{part}.txt", len(listed) - len(names)
        )
        seen.update(names)
        of_train = _folder(part) == "train"
        (train if of_train else records).extend(
            reader.records(part, names, skip_unmarked=of_train and boxes_per_class > 0)
        )
    if boxes_per_class:
        train = limit_boxes(train, boxes_per_class, reader.repairs)
    name = f"{root.resolve().name} {split}"
    return Dataset(name, det_classes(), (*records, *train), reader.repairs.lines())


class _Reader:
    """Reads the splits of a tree, and counts what is fixed in all of them together."""

    def __init__(self, root: Path) -> None:
        self.root, self.lists = root, root / "ImageSets" / "DET"
        self.repairs = Repairs()
        self._wnids = frozenset(det_classes().wnids)
        self._files = cache(Files)  # one for each folder of images

    @cached_property
    def class_lists(self) -> ClassLists:
        """The lists of the classes, read once, and only where they are needed."""
        return read_class_lists(self.lists, self.repairs)

    def names(self, part: str) -> Sequence[str]:
        """Return the images of a split, as often as they are listed."""
        if self.lists.is_dir() and not (self.lists / f"{part}.txt").is_file():
            if part in ("val1", "val2"):
                return [name for name, _ in rcnn_split(part)]
            if part == "train" and any(path.is_file() for path in class_list_paths(self.lists)):
                return self.class_lists.present or read_split_list(self.lists, part)
        return [re.sub(r"\s+-?[0-9]+$", "", line) for line in read_split_list(self.lists, part)]  # a number or a label

    def records(self, part: str, names: Sequence[str], *, skip_unmarked: bool) -> Iterator[Record]:
        """Yield the images of a split; skip_unmarked leaves out images without XML."""
        folder = _folder(part)
        annotations, images = annotation_folder(self.root, part), image_folder(self.root, part)
        if not annotations.is_dir() and folder != "test":
            raise DataError(f"no folder {annotations}, where the annotations of split {part} belong; check data.root")
        any_2014 = folder == "train" and any(name.startswith(BOXED_THROUGHOUT) for name in names)
        for name in progress(names, f"annotations of {part}", delay=3):
            path = annotations / f"{name}.xml"
            marked = os.path.isfile(path)
            if skip_unmarked and not marked:
                self.repairs.note(LEFT_OUT, name)
                continue
            image = self._files(images).find(name) or images / f"{name}.JPEG"
            exhaustive = folder != "train" or (any_2014 and self.class_lists.fully_annotated(name))
            yield self._marked(name, image, path, exhaustive) if marked else self._unmarked(name, image, exhaustive)

    def _marked(self, name: str, image: Path, path: Path, exhaustive: bool) -> Record:
        annotation = read_annotation(path)
        for wnid in annotation.names:
            if wnid not in self._wnids:
                raise DataError(
                    f"{path}: unknown class {wnid!r}; <name> must be one of the 200 WordNet ids of ILSVRC DET"
                )
        return annotated_record(
            name, image, annotation, det_classes(), first_pixel=0, repairs=self.repairs, exhaustive=exhaustive
        )

    def _unmarked(self, name: str, image: Path, exhaustive: bool) -> Record:
        self.repairs.note("images have no annotation file and count as without objects", name)
        try:
            size = read_size(image) if os.path.isfile(image) else (0, 0)
        except ImageError as error:
            raise DataError(f"{name} has no annotation file, and its image cannot be read: {error}") from error
        none = np.zeros((0, 4)), np.zeros(0, dtype=np.int64)
        return make_record(name, image, size, *none, repairs=self.repairs, where=name, exhaustive=exhaustive)


def split_entries(root: Path, split: str) -> list[tuple[str, int]]:
    """Return (image, number) of a split: from its list in the tree, or R-CNN's where a tree has no val1 or val2.

    Submissions and the blacklist name an image by this number.

    Raises:
        DataError: the same as in read_image_list; or several splits are joined, whose numbers may collide.
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
    """Return the (image, number) lines of a list of the development kit. A name may hold blanks.

    Raises:
        DataError: the list cannot be read, a line has another form, or a name or number occurs twice; with the line.
    """
    entries = []
    seen: dict[str | int, int] = {}
    for line, text in enumerate(read_lines(path), 1):
        if not text:
            continue
        match = re.fullmatch(r"(.*\S)[ \t]+([0-9]+)", text)
        if match is None:
            raise DataError(f'{path}, line {line}: {" ".join(text.split())[:80]!r} is no line of "name number"')
        name, number = match[1], int(match[2])
        for key in (name, number):
            if key in seen:
                raise DataError(f"{path}, line {line}: {key} is on line {seen[key]} too")
            seen[key] = line
        entries.append((name, number))
    if not entries:
        raise DataError(f"{path}: no images in this list")
    return entries


def read_blacklist(path: Path | str) -> list[tuple[str, str]]:
    """Return (image, wnid) pairs that are ignored in scoring: lines "number wnid" as the kit's, or "name wnid".

    Args:
        path: A file, or "ilsvrc2014" for the kit's list of the 2014 val images, which this package holds by name.

    Raises:
        DataError: the file cannot be read, a line has another form, or a class is none of the 200; with the line.
    """
    if str(path) == "ilsvrc2014":
        return [(row["image"], row["wnid"]) for row in _table("det_val_blacklist.csv")]
    pairs = []
    for line, text in enumerate(read_lines(Path(path)), 1):
        columns = text.split()
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
    """Return R-CNN's val1 or val2 as (image, number in that list). No image of the blacklist is in them.

    The numbers are R-CNN's own, not those of the kit's val.txt, to which its blacklist refers.
    """
    names = [f"ILSVRC{row['year']}_val_{int(row['number']):08}" for row in _table(f"det_{split}.csv")]
    return [(name, number) for number, name in enumerate(names, 1)]


def annotation_folder(root: Path, split: str) -> Path:
    """Return the folder of a split's XML files."""
    return root / "Annotations" / "DET" / _folder(split)


def image_folder(root: Path, split: str) -> Path:
    """Return the folder of a split's image files."""
    return root / "Data" / "DET" / _folder(split)


def _table(name: str) -> list[dict[str, str]]:
    """Return the rows of a table of this package."""
    lines = Path(__file__).with_name(name).read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def _folder(split: str) -> str:
    for folder in FOLDERS:
        if split.startswith(folder):
            return folder
    raise DataError(f"split {split!r}: its name must begin with {', '.join(FOLDERS)}, which say where its files are")
