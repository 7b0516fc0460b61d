"""The layout of PASCAL VOC -> Dataset, and VOC's XML files, which ILSVRC uses too.

    ROOT/ImageSets/Main/SPLIT.txt    one image name per line, which may hold blanks; a flag behind it is ignored
    ROOT/Annotations/NAME.xml        size and objects; corner pixels count from 1 and both belong to the box
    ROOT/JPEGImages/NAME.jpg         or another suffix of detector.data.listing

Many tools write VOC's XML. Floats, a missing <difficult> and a missing <size> are accepted, and names find their files
in any Unicode form (files.py).
"""

from __future__ import annotations

import math
import os
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.data.files import Files
from detector.data.frames import settled_size
from detector.data.ground_truth import (
    ClassTable,
    DataError,
    Dataset,
    Record,
    Repairs,
    composed,
    flag,
    make_record,
    number,
    read_lines,
    side,
)
from detector.data.image import ImageError, read_size
from detector.data.listing import IMAGE_SUFFIXES
from detector.words import list_override
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
"""VOC's 20 classes and the WordNet ids closest to them."""

VOC_CLASSES = tuple(VOC_WNIDS)
"""The 20 class names, in VOC's own (alphabetical) order."""

CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Annotation:
    """One XML file of VOC or ILSVRC as it is written.

    Attributes:
        path: The file.
        size: Width and height, px; (0, 0) where the file states none.
        names: M names of the objects' classes.
        boxes: [M, 4] float64, corner pixels in the file's own counting.
        difficult: [M] bool; False where the file does not state it.
    """

    path: Path
    size: tuple[int, int]
    names: tuple[str, ...]
    boxes: NDArray[np.float64]
    difficult: NDArray[np.bool_]


def read_voc(root: Path, split: str, *, class_names: Sequence[str] = VOC_CLASSES, one_based: bool = True) -> Dataset:
    """Read a split. Whether its image files exist is not checked here but by open_dataset.

    Args:
        root: Folder that holds ImageSets, Annotations and JPEGImages.
        split: Name of a list in ImageSets/Main, without .txt.
        class_names: The K class names; label = position, id = position + 1. VOC's own 20 carry WordNet ids.
        one_based: Whether corner pixels count from 1, as VOC's do, or from 0. The far corner belongs to the box.

    Raises:
        DataError: there is no such tree, split or annotation; the split is empty; the XML is malformed; an object lacks
            a name or box (the message names file and object); a class is not in class_names or occurs there twice.
    """
    classes = class_table(class_names)
    repairs = Repairs()
    tree = VocTree(root / "Annotations", root / "JPEGImages")
    names = tree.names(read_split_list(root / "ImageSets" / "Main", split), f"{split}.txt", repairs)
    annotations = [read_annotation(tree.annotation(name, f"ImageSets/Main/{split}.txt lists")) for name in names]
    check_names(annotations, classes)
    records = []
    for name, annotation in zip(names, annotations, strict=True):
        records.append(
            annotated_record(name, tree.image(name), annotation, classes, first_pixel=int(one_based), repairs=repairs)
        )
        if one_based:
            first = int((annotation.boxes[:, :2] == 0).any(axis=1).sum())
            repairs.note(
                "boxes begin at pixel 0; data.one_based=false if all count from 0", annotation.path.name, first
            )
    return Dataset(f"{root.resolve().name} {split}", classes, tuple(records), repairs.lines())


def annotated_record(
    name: str,
    image: Path,
    annotation: Annotation,
    classes: ClassTable,
    *,
    first_pixel: int,
    repairs: Repairs,
    exhaustive: bool = True,
) -> Record:
    """Turn an XML file into a Record.

    Args:
        name: The image's id.
        image: Its file, which need not exist.
        annotation: The XML file; all of its classes are in the table.
        classes: The table of classes.
        first_pixel: The number of an image's first pixel in the file, 0 or 1.
        repairs: Receives the counts of what is fixed or left out.
        exhaustive: Whether every object in the image is boxed.

    Raises:
        DataError: the file states no size, and the image cannot be read.
    """
    where = annotation.path.name
    boxes = from_inclusive(annotation.boxes, first_pixel)
    size = settled_size(annotation.size, boxes, image, repairs, where)
    if not all(size):
        try:
            size = read_size(image)
        except ImageError as error:
            raise DataError(f"{annotation.path}: states no image size, and the image gives none: {error}") from error
    record = make_record(
        name,
        image,
        size,
        boxes,
        np.array([classes.label_of[item] for item in annotation.names], dtype=np.int64),
        difficult=annotation.difficult,
        repairs=repairs,
        where=where,
        exhaustive=exhaustive,
    )
    # Slips of the mouse, but a pixel wide by the format's own counting.
    thin = (annotation.boxes[:, 2:] == annotation.boxes[:, :2]).any(axis=1)
    repairs.note("boxes are one pixel wide or high, as written, and were kept", where, int(thin.sum()))
    return record


def read_annotation(path: Path) -> Annotation:
    """Parse one XML file of VOC or ILSVRC.

    Raises:
        DataError: the file cannot be read, is malformed (the message names the line) or another kind of XML, or an
            object lacks a name or box.
    """
    try:
        top = _parsed(path.read_bytes())
    except ElementTree.ParseError as error:
        reason = str(error).split(":")[0]
        raise DataError(f"{path}, line {error.position[0]}: malformed XML ({reason})") from error
    except (OSError, ValueError, LookupError) as error:  # the last two: an unknown text encoding
        raise DataError(f"{path}: cannot be read ({error})") from error
    for element in top.iter():  # a namespace has no meaning here
        if isinstance(element.tag, str):
            element.tag = element.tag.rpartition("}")[2]
    if top.tag != "annotation":
        raise DataError(f"{path}: holds <{top.tag}>, where VOC and ILSVRC files hold <annotation>")
    names, boxes, difficult = [], [], []
    for index, item in enumerate(top.findall("object"), 1):
        name = (item.findtext("name") or "").strip()
        if not name:
            raise DataError(f"{path}: object {index} has no <name>")
        where = f"{path}: object {index} ({name})"
        names.append(composed(name))
        boxes.append(_corners(item, where))
        stated = item.findtext("difficult", "")
        difficult.append(flag(stated))
        if flag(stated) is None:
            raise DataError(f"{where} has <difficult>{stated.strip()[:40]}</difficult>, which is neither 0 nor 1")
    return Annotation(
        path=path,
        size=(side(top.findtext("size/width")), side(top.findtext("size/height"))),
        names=tuple(names),
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        difficult=np.array(difficult, dtype=np.bool_),
    )


class VocTree:
    """Finds the annotation and the image of a name.

    Args:
        annotations: Folder of XML files.
        images: Folder of image files, which need not exist.
    """

    def __init__(self, annotations: Path, images: Path) -> None:
        self.annotations, self.images = annotations, images
        self._annotations, self._images = Files(annotations, (".xml",)), Files(images)

    def names(self, lines: Sequence[str], source: str, repairs: Repairs) -> list[str]:
        """Return the names in the lines of a list, each once; repeated ones are counted in `repairs`.

        A line is a name if there is such an annotation or image, else a name with a flag behind it. An image's file
        name counts as the name without suffix.
        """
        found: dict[str, str] = {}
        for line in lines:
            candidates = [line]
            while len(parts := candidates[-1].rsplit(None, 1)) == 2:
                candidates.append(parts[0])
            flagged = len(candidates) > 1 and candidates[0].rsplit(None, 1)[1] in ("-1", "0", "1")
            name = next(filter(self._exists, candidates), candidates[1] if flagged else line)
            if self._annotation(name) is None and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                name = name[: -len(Path(name).suffix)]
            found.setdefault(composed(name), name)
        repairs.note("images were listed again in the split and read once", source, len(lines) - len(found))
        return list(found.values())

    def annotation(self, name: str, lister: str) -> Path:
        """Return the XML file of a name.

        Raises:
            DataError: there is none; the message says that `lister` the name.
        """
        path = self._annotation(name)
        if path is None:
            wanted = self.annotations / f"{name}.xml"
            raise DataError(f"{wanted}: no such annotation, but {lister} {name}")
        return path

    def image(self, name: str) -> Path:
        """Return the image file of a name; NAME.jpg where there is none."""
        return self._images.find(name) or self.images / f"{name}.jpg"

    def _annotation(self, name: str) -> Path | None:
        path = self.annotations / f"{name}.xml"
        return path if os.path.isfile(path) else self._annotations.find(name)

    def _exists(self, name: str) -> bool:
        return self._annotation(name) is not None or self._images.find(name) is not None


def read_split_list(folder: Path, split: str) -> list[str]:
    """Return the lines of FOLDER/SPLIT.txt that name an image.

    Raises:
        DataError: there is no such folder or list (the message shows the existing lists), or as read_list.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {folder}; check data.root and data.kind")
    path = folder / f"{split}.txt"
    if not path.is_file():
        stems = sorted(file.stem for file in folder.glob("*.txt"))
        there = [name for name in stems if "_" not in name] or stems  # not the hundreds of lists of one class
        raise DataError(f"no split {split!r} in {folder}; there are: {', '.join(there) or 'none'}; set data.split=NAME")
    return read_list(path)


def read_list(path: Path) -> list[str]:
    """Return the lines of a file that name an image.

    Raises:
        DataError: the file cannot be read, is not a text, or names no image.
    """
    lines = [line for line in read_lines(path) if line]
    if not lines:
        raise DataError(f"{path}: no images in this split")
    return lines


def class_table(names: Sequence[str]) -> ClassTable:
    """Make a table of classes, label = position; VOC's own 20 carry WordNet ids.

    Raises:
        DataError: a name occurs twice.
    """
    names = [composed(name) for name in names]
    for name, count in Counter(names).items():
        if count > 1:
            raise DataError(f"class {name!r} is named twice; fix data.classes")
    wnids = tuple(VOC_WNIDS.values()) if tuple(names) == VOC_CLASSES else (None,) * len(names)
    return ClassTable(names=tuple(names), wnids=wnids, ids=tuple(range(1, len(names) + 1)))


def check_names(annotations: Sequence[Annotation], classes: ClassTable) -> None:
    """Raise DataError, naming the file, if an object's class is not in the table."""
    known = set(classes.names)
    for annotation in annotations:
        for name in annotation.names:
            if name not in known:
                present = sorted({name for annotation in annotations for name in annotation.names})
                raise DataError(
                    f"{annotation.path}: unknown class {name!r}; known: {', '.join(classes.names)}\n"
                    f"  to take all classes of this split:  {list_override('data.classes', present)}"
                )


def _parsed(content: bytes) -> ElementTree.Element:
    """Parse an XML file in any encoding that Python knows; Expat knows few, GBK not among them."""
    try:
        return ElementTree.fromstring(content)
    except ValueError:
        declaration = re.match(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)["'][^>]*\?>""", content)
        if declaration is None:
            raise
        return ElementTree.fromstring(content[declaration.end() :].decode(declaration[1].decode()))


def _corners(item: ElementTree.Element, where: str) -> list[float]:
    box = item.find("bndbox")
    if box is None:
        raise DataError(f"{where} has no <bndbox>")
    texts = [box.findtext(corner) for corner in CORNERS]
    values = [number(text) for text in texts]
    if not all(map(math.isfinite, values)):
        stated = ", ".join(f"{corner}={text}" for corner, text in zip(CORNERS, texts, strict=True))
        raise DataError(f"{where} has a box that is not four numbers: {stated}")
    return values
