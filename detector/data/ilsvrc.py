"""The ILSVRC detection tree -> Dataset.

    ROOT/ImageSets/DET/SPLIT.txt                      "name number" lines; train's names hold their folder
    ROOT/Annotations/DET/{train,val,test}/NAME.xml    VOC's XML with WordNet ids as names
    ROOT/Data/DET/{train,val,test}/NAME.JPEG

Corner pixels count from 0 and both lie inside the box. val1 and val2, R-CNN's halves of val, keep their files in val's
folders. An image without objects may lack its XML. The 200 classes, the two halves and the blacklist of the 2014
development kit are tables beside this file (NOTICE.md).
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

import numpy as np

from detector.data.ground_truth import ClassTable, DataError, Dataset, Record, Repairs, make_record
from detector.data.image import ImageError, read_size
from detector.data.voc import Annotation, image_files, known_size, note_thin_boxes, read_annotation, read_split_list
from proposals.boxes import from_inclusive

FOLDERS = ("train", "val", "test")


@cache
def det_classes() -> ClassTable:
    """The 200 classes of ILSVRC DET in the order of their numbers, 1-200."""
    rows = _table("det_synsets.csv")
    return ClassTable(
        names=tuple(row["name"] for row in rows),
        wnids=tuple(row["wnid"] for row in rows),
        ids=tuple(int(row["det_id"]) for row in rows),
    )


def read_ilsvrc_det(root: Path, split: str) -> Dataset:
    """Read a split. It does not look whether the photographs are there; open_dataset does.

    Images without XML have no objects; the Dataset's warnings count them. Their size is read from the photograph; it is
    0 x 0 where that is absent too.

    Args:
        root: the folder that holds ImageSets, Annotations and Data.
        split: name of a list in ImageSets/DET, without .txt, that begins with train, val or test. R-CNN's val1 and
            val2 need no list.

    Raises:
        DataError: no such tree or split; an empty one; no folder of annotations (test may lack it); malformed XML; an
            object without name or box or of none of the 200 classes; a photograph without XML that cannot be read.
    """
    classes = det_classes()
    repairs = Repairs()
    lists = root / "ImageSets" / "DET"
    shipped = split in ("val1", "val2") and lists.is_dir() and not (lists / f"{split}.txt").is_file()
    names = (
        [name for name, _ in rcnn_split(split)] if shipped else [c[0] for c in read_split_list(lists, split, repairs)]
    )
    annotations, images = annotation_folder(root, split), image_folder(root, split)
    if not annotations.is_dir() and _folder(split) != "test":
        raise DataError(f"no folder {annotations}, where the annotations of split {split} belong; check data.root")
    listing = cache(image_files)  # train has a folder for each class and source
    records = []
    for name in names:
        image = images / f"{name}.JPEG"
        image = listing(image.parent).get(image.stem, image)
        path = annotations / f"{name}.xml"
        if path.is_file():
            records.append(_annotated(name, image, read_annotation(path), classes, repairs))
        else:
            repairs.note("images have no annotation file and count as without objects", name)
            records.append(_empty(name, image, repairs))
    return Dataset(f"{root.resolve().name} {split}", classes, tuple(records), repairs.lines())


def split_entries(root: Path, split: str) -> list[tuple[str, int]]:
    """(image, number) of a split: from its list in the tree, or R-CNN's where a tree has no val1 or val2.

    The number is what submissions and the blacklist name the image by.

    Raises:
        DataError: as read_image_list.
    """
    path = root / "ImageSets" / "DET" / f"{split}.txt"
    if not path.is_file() and split in ("val1", "val2"):
        return rcnn_split(split)
    if not path.is_file():
        read_split_list(path.parent, split, Repairs())  # says which lists there are
    return read_image_list(path)


def read_image_list(path: Path) -> list[tuple[str, int]]:
    """The (image, number) lines of a list of the devkit.

    Raises:
        DataError: cannot be read, a line of another form, or a name or number that comes twice; with the line.
    """
    entries = []
    seen: dict[str | int, int] = {}
    for line, columns in enumerate(_lines(path), 1):
        if not columns:
            continue
        if len(columns) != 2 or not columns[1].isdecimal():
            raise DataError(f'{path}, line {line}: {" ".join(columns)[:80]!r} is no line of "name number"')
        name, number = columns[0], int(columns[1])
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
    try:
        return [line.split() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text ({error})") from error


def _folder(split: str) -> str:
    for folder in FOLDERS:
        if split.startswith(folder):
            return folder
    raise DataError(f"split {split!r}: its name must begin with {', '.join(FOLDERS)}, which say where its files are")


def _annotated(name: str, image: Path, annotation: Annotation, classes: ClassTable, repairs: Repairs) -> Record:
    known = set(classes.wnids)
    for wnid in annotation.names:
        if wnid not in known:
            raise DataError(
                f"{annotation.path}: unknown class {wnid!r}; <name> must be one of the 200 WordNet ids of ILSVRC DET"
            )
    note_thin_boxes(annotation, repairs)
    return make_record(
        name,
        image,
        known_size(annotation, image, repairs),
        from_inclusive(annotation.boxes, first_pixel=0),
        np.array([classes.label_of[wnid] for wnid in annotation.names], dtype=np.int64),
        difficult=annotation.difficult,
        repairs=repairs,
        where=annotation.path.name,
    )


def _empty(name: str, image: Path, repairs: Repairs) -> Record:
    size = (0, 0)
    if image.is_file():
        try:
            size = read_size(image)
        except ImageError as error:
            raise DataError(f"{name} has no annotation file, and its photograph cannot be read: {error}") from error
    none = np.zeros((0, 4)), np.zeros(0, dtype=np.int64)
    return make_record(name, image, size, *none, repairs=repairs, where=name)
