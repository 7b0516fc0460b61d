"""The XML files of PASCAL VOC, in which ILSVRC and many tools write boxes too -> Annotation -> Record.

In: an XML file.  Out: its size, names and boxes as they are written; then a Record with boxes in our convention.
Floats, a missing <difficult> and a missing <size> are accepted.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.data.frames import settled_size
from detector.data.ground_truth import ClassTable, DataError, Record, Repairs, composed, flag, make_record, number, side
from detector.data.image import ImageError, read_size
from proposals.boxes import from_inclusive

THIN = "boxes are one pixel wide or high, as written, and were kept"

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


def names_in(path: Path, usual: Set[str] = frozenset()) -> set[str]:
    """Return the names of the objects in an XML file; none where it cannot be read, which read_annotation reports.

    Args:
        path: The file.
        usual: Names that may be taken without parsing the file, where it has no others, not even of parts.
    """
    try:
        content = path.read_bytes()
        written = re.findall(rb"<name>([^<&]*)</name>", content)
        if written and len(written) == content.count(b"<name"):  # else: another encoding, a namespace, a comment
            stripped = {name.strip().decode("ascii", "replace") for name in written}
            if stripped <= usual:
                return stripped
        top = _parsed(content)
    except (ElementTree.ParseError, OSError, ValueError, LookupError):
        return set()
    objects = (item for item in top if str(item.tag).rpartition("}")[2] == "object")
    names = (child.text for item in objects for child in item if str(child.tag).rpartition("}")[2] == "name")
    return {composed(name.strip()) for name in names if name and name.strip()}


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
    repairs.note(THIN, where, int(thin.sum()))
    return record


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
