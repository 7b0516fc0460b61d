"""The ILSVRC detection tree -> Dataset.

    ROOT/ImageSets/DET/SPLIT.txt                      "name number" lines; train's names hold their folder
    ROOT/Annotations/DET/{train,val,test}/NAME.xml    VOC's XML with WordNet ids as names
    ROOT/Data/DET/{train,val,test}/NAME.JPEG

Corner pixels count from 0 and both lie inside the box. val1 and val2, R-CNN's halves of val, keep their files in val's
folders. An image without objects may lack its XML. The 200 classes are in det_synsets.csv, from the 2014 development
kit (NOTICE.md).
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
    lines = Path(__file__).with_name("det_synsets.csv").read_text(encoding="utf-8").splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
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
        split: name of a list in ImageSets/DET, without .txt, that begins with train, val or test.

    Raises:
        DataError: no such tree or split; an empty one; no folder of annotations (test may lack it); malformed XML; an
            object without name or box or of none of the 200 classes; a photograph without XML that cannot be read.
    """
    classes = det_classes()
    repairs = Repairs()
    lines = read_split_list(root / "ImageSets" / "DET", split, repairs)
    folder = _folder(split)
    annotation_folder, image_folder = root / "Annotations" / "DET" / folder, root / "Data" / "DET" / folder
    if not annotation_folder.is_dir() and folder != "test":
        raise DataError(
            f"no folder {annotation_folder}, where the annotations of split {split} belong; check data.root"
        )
    listing = cache(image_files)  # train has a folder for each class and source
    records = []
    for name in (columns[0] for columns in lines):
        image = image_folder / f"{name}.JPEG"
        image = listing(image.parent).get(image.stem, image)
        path = annotation_folder / f"{name}.xml"
        if path.is_file():
            records.append(_annotated(name, image, read_annotation(path), classes, repairs))
        else:
            repairs.note("images have no annotation file and count as without objects", name)
            records.append(_empty(name, image, repairs))
    return Dataset(f"{root.resolve().name} {split}", classes, tuple(records), repairs.lines())


def image_numbers(root: Path, split: str) -> dict[str, int]:
    """The number by which submissions and the blacklist name an image, by image_id: the second column of the list.

    Raises:
        DataError: no such split, or a line without a number.
    """
    numbers = {}
    for columns in read_split_list(root / "ImageSets" / "DET", split, Repairs()):
        if len(columns) < 2 or not columns[1].isdecimal():
            raise DataError(f'{root}/ImageSets/DET/{split}.txt: {" ".join(columns)!r} is no line of "name number"')
        numbers[columns[0]] = int(columns[1])
    return numbers


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
