"""labelme's JSON files -> Dataset.

    a.json    beside a.jpg: shapes with label, points and shape_type; imagePath, imageWidth, imageHeight

Rectangles are boxes; polygons, circles and masks become the boxes around them; points and lines are left out. An image
without JSON is unlabelled, not empty, and is left out. Coordinates are continuous, (0, 0) at the corner of the first
pixel. The flag "difficult" of a shape is PASCAL VOC's.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

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
    side,
)
from detector.data.image import ImageError, read_size
from detector.data.image_list import chosen
from detector.data.listing import IMAGE_SUFFIXES
from detector.data.trees import IMAGE_FOLDERS, LABEL_FOLDERS, Counterparts, files_below, ids_of, in_part
from detector.progress import progress
from detector.words import list_override

JSON = (".json",)
BOXES = ("rectangle",)
AROUND = ("polygon", "circle", "mask", "rotation", "oriented_rectangle")
OTHERS = ("point", "points", "line", "linestrip")
UNLABELLED = "images have no JSON file, hence are unlabelled, and were left out"


@dataclass(frozen=True)
class Shape:
    """A shape as a file states it.

    Attributes:
        label: Name of its class.
        box: Corners x1, y1, x2, y2 of the box around it, px.
        difficult: The flag of that name.
        score: The shape's score or the number in its description, as detectors write them; None for neither.
    """

    label: str
    box: tuple[float, float, float, float]
    difficult: bool
    score: float | None = None


@dataclass(frozen=True)
class Annotated:
    """One JSON file.

    Attributes:
        path: The file.
        image: Its image, which need not exist.
        size: Stated width and height, px; 0 where they are not stated.
        shapes: Its shapes that have a box.
        kinds: Numbers of the things that were changed or left out, by kind.
    """

    path: Path
    image: Path
    size: tuple[int, int]
    shapes: tuple[Shape, ...]
    kinds: Counter[str]


def read_labelme(
    root: Path, split: str = "", *, class_names: Sequence[str] = (), image_list: str = "", as_written: bool = False
) -> Dataset:
    """Read a folder of labelme's JSON files, or one of its parts.

    Whether its image files exist is not checked here but by open_dataset. An image's id is the path of its JSON file
    without suffix, below the folder that all files of the part share.

    Args:
        root: Folder of the data set.
        split: Name of the part's folder; empty for all files.
        class_names: The K class names, in label order; empty for the names found in all files, sorted.
        image_list: File that names the images to read (image_list.py); empty for all of the part.
        as_written: Keep boxes that reach outside their image or have no area, for scoring.

    Raises:
        DataError: there is no such part, or no file of labelme's; a file is malformed (the message names line and
            column); a shape lacks a label or points; a class is not among class_names; the image list names others.
    """
    left_out = Repairs()
    found = _all_files(root, left_out)
    if not found:
        raise DataError(f"{root}: no JSON files of labelme's in it, which have imagePath and shapes; check data.root")
    paths = in_part(list(found), root, split)
    names = tuple(map(composed, class_names)) or tuple(
        sorted({shape.label for one in found.values() for shape in one.shapes})
    )
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"class {twice!r} is named twice; fix data.classes")
    if not names:
        raise DataError(f"{root}: no box, polygon or circle in any of its {len(found):,} JSON files")
    classes = ClassTable(names, (None,) * len(names), tuple(range(1, len(names) + 1)))
    named = [(image_id, found[path]) for image_id, path in zip(ids_of(paths), paths, strict=True)]
    if not image_list:
        _note_unlabelled([one for _, one in named], found.values(), left_out)
    named = chosen(named, lambda pair: (pair[0], pair[1].image), image_list)
    _check_labels([one for _, one in named], classes)
    repairs = Repairs()
    records = tuple(_record(image_id, one, classes, repairs, as_written) for image_id, one in named)
    name = f"{root.resolve().name} {split}".strip()
    return Dataset(name, classes, records, (*left_out.lines(), *repairs.lines()))


def read_shapes(path: Path, images: Counterparts) -> Annotated | None:
    """Read one JSON file; None where it is another kind of JSON.

    Args:
        path: The file.
        images: Finds an image by the name of the JSON file, where imagePath leads nowhere.

    Raises:
        DataError: the file cannot be read or is malformed; a shape lacks a label or points.
    """
    try:
        content = path.read_bytes()
        try:
            found = msgspec.json.decode(content, type=_File)
        except msgspec.ValidationError:
            return None  # a list, or another kind of object
        except msgspec.DecodeError:
            json.loads(content)  # names line and column
            raise
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}, column {error.colno}: malformed JSON ({error.msg})") from error
    except (OSError, ValueError, RecursionError, msgspec.DecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    shapes, kinds = [], Counter[str]()
    for place, shape in enumerate(found.shapes, 1):
        read = _shape(shape, f"{path}: shape {place}", kinds)
        if read is not None:
            shapes.append(read)
    image = _image(path, found.imagePath, images)
    if found.imageData not in (b"null", b"", b'""') and not image.is_file():
        kinds["image files are absent and only embedded in their JSON (imageData), which is not read"] += 1
    return Annotated(path, image, (side(found.imageWidth), side(found.imageHeight)), tuple(shapes), kinds)


class _File(msgspec.Struct, gc=False):
    """The parts of a file that are used; imageData, megabytes of text, is not decoded."""

    shapes: list[Any]
    imagePath: Any
    imageWidth: Any = None
    imageHeight: Any = None
    imageData: msgspec.Raw = msgspec.Raw(b"null")


def _all_files(root: Path, left_out: Repairs) -> dict[Path, Annotated]:
    """Read all JSON files of a folder; other kinds of JSON are counted."""
    images = Counterparts(root, IMAGE_SUFFIXES, LABEL_FOLDERS, IMAGE_FOLDERS)
    found: dict[Path, Annotated] = {}
    for path in progress(files_below(root, JSON), f"JSON files of {root.name}", delay=3):
        one = read_shapes(path, images)
        if one is None:
            left_out.note("JSON files are not labelme's and were left out", path.name)
        else:
            found[path] = one
    return found


def _note_unlabelled(part: Sequence[Annotated], every: Iterable[Annotated], left_out: Repairs) -> None:
    """Count the images without JSON in the folders of a part."""
    known = {one.image for one in every}
    for folder in sorted({one.image.parent for one in part}):
        if folder.is_dir():
            others = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES]
            absent = [path for path in others if path not in known and not path.name.startswith(".")]
            left_out.note(UNLABELLED, absent[0].name if absent else "", len(absent))


def _check_labels(part: Sequence[Annotated], classes: ClassTable) -> None:
    known = set(classes.names)
    for one in part:
        for shape in one.shapes:
            if shape.label not in known:
                present = sorted({shape.label for one in part for shape in one.shapes})
                raise DataError(
                    f"{one.path}: unknown class {shape.label!r}; known: {', '.join(classes.names)}\n"
                    f"  to take all classes of this part:  {list_override('data.classes', present)}"
                )


def _record(image_id: str, one: Annotated, classes: ClassTable, repairs: Repairs, as_written: bool) -> Record:
    where = one.path.name
    for kind, count in one.kinds.items():
        repairs.note(kind, where, count)
    boxes = np.array([shape.box for shape in one.shapes], np.float64).reshape(-1, 4)
    size = settled_size(one.size, boxes, one.image, repairs, where)
    if not all(size):
        try:
            size = read_size(one.image)
        except ImageError as error:
            raise DataError(f"{one.path}: states no image size, and the image gives none: {error}") from error
    return make_record(
        image_id,
        one.image,
        size,
        boxes,
        np.array([classes.names.index(shape.label) for shape in one.shapes], np.int64),
        difficult=np.array([shape.difficult for shape in one.shapes], np.bool_),
        repairs=repairs,
        where=where,
        as_written=as_written,
    )


def _shape(shape: Any, where: str, kinds: Counter[str]) -> Shape | None:  # JSON's value, of any kind
    """Read a shape; None, counted, where it has no box."""
    if not isinstance(shape, dict):
        raise DataError(f"{where} is no object with label and points")
    label = shape.get("label")
    if isinstance(label, bool) or not isinstance(label, str | int) or not str(label).strip():
        raise DataError(f"{where} has the label {label!r}, which names no class")
    name = composed(str(label).strip())
    kind = shape.get("shape_type") or "polygon"  # as the first versions meant it
    if kind not in (*BOXES, *AROUND, *OTHERS):
        raise DataError(f"{where} ({name}) has the unknown shape_type {kind!r}")
    points = _points(shape.get("points"), f"{where} ({name})")
    if kind in OTHERS or len(points) < (3 if kind == "polygon" else 2):
        kinds["shapes without a box (points, lines) were left out"] += 1
        return None
    if kind == "circle":
        radius = math.dist(points[0], points[1])
        low, high = points[0] - radius, points[0] + radius
    else:
        low, high = points.min(axis=0), points.max(axis=0)
    if kind in AROUND:
        kinds["polygons, circles and masks were replaced by the boxes around them"] += 1
    flags = shape.get("flags")
    stated = [shape.get("difficult"), flags.get("difficult") if isinstance(flags, dict) else None]
    difficult = [flag(value) for value in stated]
    if None in difficult:
        raise DataError(f"{where} ({name}) has a flag 'difficult' that is neither true nor false")
    scores = [number(shape.get(key)) for key in ("score", "description")]
    score = next(filter(math.isfinite, scores), None)
    return Shape(name, (float(low[0]), float(low[1]), float(high[0]), float(high[1])), any(difficult), score)


def _points(value: Any, where: str) -> NDArray[np.float64]:  # JSON's value, of any kind
    """Return points [P, 2]."""
    points = value if isinstance(value, list) else []
    pairs = [[number(one) for one in point] if isinstance(point, list) else [] for point in points]
    if not pairs or any(len(pair) != 2 or not all(map(math.isfinite, pair)) for pair in pairs):
        raise DataError(f"{where} has points {str(value)[:60]}, which are no pairs x, y")
    return np.array(pairs, np.float64)


def _image(path: Path, stated: Any, images: Counterparts) -> Path:
    """Return the image of a JSON file, or where it would be."""
    text = stated.replace("\\", "/").strip() if isinstance(stated, str) else ""
    last = PurePosixPath(text).name
    for place in (path.parent / text, path.parent / last) if last else ():
        if os.path.isfile(place):
            return Path(os.path.normpath(place))
    return images.find(path) or path.parent / (last or f"{path.stem}.jpg")
