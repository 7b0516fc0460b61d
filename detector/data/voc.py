"""A tree in PASCAL VOC's layout -> Dataset.

    ROOT/ImageSets/Main/SPLIT.txt    one image name a line; the second column of VOC's lists of a class is passed over
    ROOT/Annotations/NAME.xml        size and objects; corner pixels counted from 1 and both inside the box
    ROOT/JPEGImages/NAME.jpg         or another suffix of detector.data.image

VOC's XML is written by many tools, so floats, a missing <difficult> and a missing <size> are read as what they mean.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.data.ground_truth import ClassTable, DataError, Dataset, Repairs, make_record
from detector.data.image import IMAGE_SUFFIXES, ImageError, read_size
from proposals.boxes import from_inclusive

VOC_WNIDS = {
    "aeroplane": "n02691156",
    "bicycle": "n02834778",
    "bird": "n01503061",
    "boat": "n04530566",
    "bottle": "n02876657",
    "bus": "n02924116",
    "car": "n02958343",
    "cat": "n02121808",
    "chair": "n03001627",
    "cow": "n02402425",
    "diningtable": "n04379243",
    "dog": "n02084071",
    "horse": "n02374451",
    "motorbike": "n03790512",
    "person": "n00007846",
    "pottedplant": "n03991062",
    "sheep": "n02411705",
    "sofa": "n04256520",
    "train": "n04468005",
    "tvmonitor": "n03211117",
}
"""VOC's classes and the WordNet ids closest to them."""

VOC_CLASSES = tuple(VOC_WNIDS)
"""The 20 class names, in VOC's own (alphabetical) order."""

CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Annotation:
    """One XML file as it is written, of VOC or ILSVRC.

    Attributes:
        path: the file.
        size: width, height in px; (0, 0) where the file states none.
        names: M object names.
        boxes: [M, 4] float64, corner pixels in the file's own counting.
        difficult: [M] bool, False where not stated.
    """

    path: Path
    size: tuple[int, int]
    names: tuple[str, ...]
    boxes: NDArray[np.float64]
    difficult: NDArray[np.bool_]


def read_voc(root: Path, split: str, *, class_names: Sequence[str] = VOC_CLASSES, one_based: bool = True) -> Dataset:
    """Read a split. It does not look whether the photographs are there; open_dataset does.

    Args:
        root: the folder that holds ImageSets, Annotations and JPEGImages.
        split: name of a list in ImageSets/Main, without .txt.
        class_names: the K class names; label = position, id = position + 1. VOC's own 20 carry WordNet ids.
        one_based: the corner pixels count from 1, as VOC's; else from 0. Both ways the far one belongs to the box.

    Raises:
        DataError: no such tree, split or annotation; an empty split; malformed XML or an object without name or box
            (file and place); a class that is not among class_names; a class named twice.
    """
    classes = class_table(class_names)
    repairs = Repairs()
    names = [columns[0] for columns in read_split_list(root / "ImageSets" / "Main", split, repairs)]
    annotations = []
    for name in names:
        path = root / "Annotations" / f"{name}.xml"
        if not path.is_file():
            raise DataError(f"{path}: no such annotation, but ImageSets/Main/{split}.txt lists {name}")
        annotations.append(read_annotation(path))
    check_names(annotations, classes)
    images = image_files(root / "JPEGImages")
    records = []
    for name, annotation in zip(names, annotations, strict=True):
        image = images.get(name, root / "JPEGImages" / f"{name}.jpg")
        records.append(
            make_record(
                name,
                image,
                known_size(annotation, image, repairs),
                from_inclusive(annotation.boxes, first_pixel=int(one_based)),
                np.array([classes.label_of[item] for item in annotation.names], dtype=np.int64),
                difficult=annotation.difficult,
                repairs=repairs,
                where=annotation.path.name,
            )
        )
        note_thin_boxes(annotation, repairs)
        if one_based:
            first = int((annotation.boxes[:, :2] == 0).any(axis=1).sum())
            repairs.note(
                "boxes begin at pixel 0; data.one_based=false if all count from 0", annotation.path.name, first
            )
    return Dataset(f"{root.resolve().name} {split}", classes, tuple(records), repairs.lines())


def read_annotation(path: Path) -> Annotation:
    """Parse one XML file of VOC or ILSVRC.

    Raises:
        DataError: cannot be read, malformed (with the line), another kind of XML, or an object without name or box.
    """
    try:
        top = ElementTree.fromstring(path.read_bytes())
    except ElementTree.ParseError as error:
        reason = str(error).split(":")[0]
        raise DataError(f"{path}, line {error.position[0]}: malformed XML ({reason})") from error
    except (OSError, ValueError, LookupError) as error:  # the last two: a text encoding that nobody knows
        raise DataError(f"{path}: cannot be read ({error})") from error
    if top.tag != "annotation":
        raise DataError(f"{path}: holds <{top.tag}>, where VOC and ILSVRC files hold <annotation>")
    names, boxes, difficult = [], [], []
    for number, item in enumerate(top.findall("object"), 1):
        name = (item.findtext("name") or "").strip()
        if not name:
            raise DataError(f"{path}: object {number} has no <name>")
        names.append(name)
        boxes.append(_corners(item, f"{path}: object {number} ({name})"))
        difficult.append(item.findtext("difficult", "0").strip().lower() in ("1", "true"))
    return Annotation(
        path=path,
        size=(_whole(top.findtext("size/width")), _whole(top.findtext("size/height"))),
        names=tuple(names),
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        difficult=np.array(difficult, dtype=np.bool_),
    )


def read_split_list(folder: Path, split: str, repairs: Repairs) -> list[list[str]]:
    """The columns of each line of FOLDER/SPLIT.txt, the image's name first; repairs counts names that come again.

    Raises:
        DataError: no such folder or list (the message lists those there are), not a text, or no image in it.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {folder}; check data.root and data.kind")
    path = folder / f"{split}.txt"
    if not path.is_file():
        there = sorted(file.stem for file in folder.glob("*.txt"))
        there = [
            name for name in there if "_" not in name
        ] or there  # VOC and ILSVRC have hundreds of lists of one class
        raise DataError(f"no split {split!r} in {folder}; there are: {', '.join(there) or 'none'}; set data.split=NAME")
    return read_list(path, repairs)


def read_list(path: Path, repairs: Repairs) -> list[list[str]]:
    """The same of a file.

    Raises:
        DataError: cannot be read, not a text, or no image in it.
    """
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except OSError as error:
        raise DataError(f"no list of images {path} ({(error.strerror or str(error)).lower()})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text ({error})") from error
    if not lines:
        raise DataError(f"{path}: no images in this split")
    unique = {columns[0]: columns for columns in reversed(lines)}
    kept = [columns for columns in lines if unique.get(columns[0]) is columns]
    repairs.note("images were listed again in the split and read once", path.name, len(lines) - len(kept))
    return kept


def image_files(folder: Path) -> dict[str, Path]:
    """The images in a folder by name without suffix; empty where there is no such folder."""
    if not folder.is_dir():
        return {}
    files = sorted(folder.iterdir(), reverse=True)
    return {file.stem: file for file in files if file.suffix.lower() in IMAGE_SUFFIXES}


def known_size(annotation: Annotation, image: Path, repairs: Repairs) -> tuple[int, int]:
    """Width and height in px as the annotation states them, else the photograph's own.

    Raises:
        DataError: the annotation states none and the photograph cannot be read.
    """
    if all(annotation.size):
        return annotation.size
    try:
        size = read_size(image)
    except ImageError as error:
        raise DataError(
            f"{annotation.path}: states no image size, and the photograph has none to give: {error}"
        ) from error
    repairs.note("annotations stated no image size; taken from the photograph", annotation.path.name)
    return size


def note_thin_boxes(annotation: Annotation, repairs: Repairs) -> None:
    """Count boxes whose far corner is their near one: slips of the mouse, but a pixel by the format's own counting."""
    thin = (annotation.boxes[:, 2:] == annotation.boxes[:, :2]).any(axis=1)
    repairs.note("boxes are one pixel wide or high, as written, and were kept", annotation.path.name, int(thin.sum()))


def class_table(names: Sequence[str]) -> ClassTable:
    """Classes by name, label = position; VOC's own 20 carry WordNet ids. DataError if one is named twice."""
    for name in names:
        if list(names).count(name) > 1:
            raise DataError(f"class {name!r} is named twice; mend data.classes")
    wnids = tuple(VOC_WNIDS.values()) if tuple(names) == VOC_CLASSES else (None,) * len(names)
    return ClassTable(names=tuple(names), wnids=wnids, ids=tuple(range(1, len(names) + 1)))


def check_names(annotations: Sequence[Annotation], classes: ClassTable) -> None:
    """Raise DataError, naming the file, if an object is of none of the classes."""
    known = set(classes.names)
    for annotation in annotations:
        for name in annotation.names:
            if name not in known:
                present = sorted({name for annotation in annotations for name in annotation.names})
                raise DataError(
                    f"{annotation.path}: unknown class {name!r}; known: {', '.join(classes.names)}\n"
                    f"  to take all classes of this split:  data.classes=[{','.join(present)}]"
                )


def _corners(item: ElementTree.Element, where: str) -> list[float]:
    box = item.find("bndbox")
    if box is None:
        raise DataError(f"{where} has no <bndbox>")
    texts = [box.findtext(corner) for corner in CORNERS]
    try:
        values = [float(text) for text in texts]  # type: ignore[arg-type]  # None is refused below
    except (TypeError, ValueError):
        values = [math.nan]
    if not all(map(math.isfinite, values)):
        stated = ", ".join(f"{corner}={text}" for corner, text in zip(CORNERS, texts, strict=True))
        raise DataError(f"{where} has a box that is not four numbers: {stated}")
    return values


def _whole(text: str | None) -> int:
    try:
        return max(0, int(float(text or 0)))
    except (ValueError, OverflowError):
        return 0
