"""COCO's instances JSON and a folder of images -> Dataset.

Category ids are kept as they are, gaps and all. A box is x, y, width, height in continuous pixels. Crowd boxes are
flagged. Exporters write numbers as texts and as floats: "2", 2.0 and 2 are one id.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from detector.data.files import Files
from detector.data.frames import LARGEST_SIDE, Size, settled_size
from detector.data.ground_truth import ClassTable, DataError, Dataset, Repairs, composed, make_record
from detector.data.image import ImageError, read_size
from proposals.boxes import from_xywh

Row = dict[str, Any]  # JSON's values, of any kind

GZIP = b"\x1f\x8b"  # how its files begin

NEEDS = "is an object with images, annotations and categories"


def read_coco(annotations: Path, images: Path, *, as_written: bool = False) -> Dataset:
    """Read a file of instances. It does not look whether the photographs are there; open_dataset does.

    The classes stand in the order of their ids. An image_id is COCO's number as text. Annotations of images that the
    file does not list, as the sub-sets people cut leave them, are left out and counted; so are boxes without area, and
    those that end before they begin. An annotation id that occurs twice is counted, and both boxes are kept; an image
    or a category that is listed twice, word for word, is read once.

    Args:
        annotations: the JSON file.
        images: the folder that its file names start from.
        as_written: keep boxes that reach outside their image or have no area, for scoring; a size or file name that
            is not stated is then no fault.

    Raises:
        DataError: no such file, malformed JSON (line and column), not an instances file, a field that is missing or no
            number, an id that two images or two categories share, a category that is not listed, or no images.
    """
    content = _read_json(annotations)
    rows = {key: _rows(annotations, content, key) for key in ("images", "annotations", "categories")}
    if not rows["images"]:
        raise DataError(f"{annotations}: lists no images")
    repairs = Repairs()
    for key, kind in (("images", "images"), ("categories", "classes")):
        rows[key] = _once(rows[key], f"{kind} were listed again, alike, and read once", repairs)
    classes = _class_table(annotations, rows["categories"])

    image_ids = _ids(annotations, "images", rows["images"])
    objects, owners = _owned(annotations, rows["annotations"], image_ids, repairs)
    owner = np.array(owners, dtype=np.int64)
    labels = np.array([_label(annotations, item, classes) for item in objects], dtype=np.int64)
    boxes = from_xywh(np.array([_box(annotations, item) for item in objects], dtype=np.float64).reshape(-1, 4))
    areas = np.array([_area(annotations, item) for item in objects], dtype=np.float64)
    crowd = np.array([_is_crowd(annotations, item) for item in objects], dtype=np.bool_)

    order = np.argsort(owner, kind="stable")
    ends = np.searchsorted(owner[order], np.arange(len(image_ids) + 1))
    records = []
    files = Files(images)
    for row, image in enumerate(rows["images"]):
        mine = order[ends[row] : ends[row + 1]]
        where = f"image {image_ids[row]}"
        path = _photograph(annotations, image, image_ids[row], files, named=not as_written)
        size = settled_size(_stated_size(image), boxes[mine], path, repairs, where)
        if not all(size) and not as_written:
            raise DataError(_sizeless(annotations, image_ids[row], path))
        records.append(
            make_record(
                image_ids[row],
                path,
                size,
                boxes[mine],
                labels[mine],
                crowd=crowd[mine],
                areas=areas[mine],
                repairs=repairs,
                where=where,
                as_written=as_written,
            )
        )
    return Dataset(annotations.stem, classes, tuple(records), repairs.lines())


def _read_json(path: Path) -> Any:  # whatever the file holds
    if not path.is_file():
        raise DataError(f"{path}: no such annotation file; set data.annotations=FILE")
    try:
        content = path.read_bytes()
        if content.startswith(GZIP):
            raise DataError(f"{path}: packed by gzip; unpack it first")
        return json.loads(content)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}, column {error.colno}: malformed JSON ({error.msg})") from error
    except RecursionError as error:
        raise DataError(f"{path}: malformed JSON, nested too deeply") from error
    except DataError:
        raise
    except (OSError, ValueError) as error:  # no UTF-8, or a number of thousands of digits
        raise DataError(f"{path}: cannot be read ({error})") from error


def _rows(path: Path, content: Any, section: str) -> list[Row]:  # content: whatever the file holds
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}, as files of results do; ground truth {NEEDS}")
    rows = content.get(section)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: has no list of {section!r}; ground truth {NEEDS}")
    return rows


def _once(rows: list[Row], kind: str, repairs: Repairs) -> list[Row]:
    """The rows without those that repeat an earlier one word for word, as merged exports do; repairs counts them."""
    ids = Counter(str(row.get("id")) for row in rows)
    if ids.total() == len(ids):
        return rows
    seen: set[str] = set()
    kept = []
    for row in rows:
        text = json.dumps(row, sort_keys=True)
        if text in seen and "id" in row:
            repairs.note(kind, f"id {row['id']}")
            continue
        seen.add(text)
        kept.append(row)
    return kept


def _field(path: Path, section: str, row: Row, key: str) -> Any:  # JSON's value, of any kind
    if key not in row:
        raise DataError(f"{path}: an entry of {section!r} has no {key!r}: {json.dumps(row)[:120]}")
    return row[key]


def _ids(path: Path, section: str, rows: list[Row]) -> list[str]:
    """The ids of images or categories as texts: a whole number in its shortest form, else the name as it is."""
    ids: list[str] = []
    seen: set[str] = set()
    for row in rows:
        stated = _field(path, section, row, "id")
        number = _key(stated)
        if number is None:
            raise DataError(f"{path}: an entry of {section!r} has the id {stated!r}; ids are whole numbers")
        if number in seen:
            raise DataError(f"{path}: two entries of {section!r} share the id {number}")
        seen.add(number)
        ids.append(number)
    return ids


def _class_table(path: Path, categories: list[Row]) -> ClassTable:
    names = {}
    for number, row in zip(_ids(path, "categories", categories), categories, strict=True):
        if not _is_whole(number):
            raise DataError(f"{path}: a category has an id that is no whole number: {number!r}")
        name = _field(path, "categories", row, "name")
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            raise DataError(f"{path}: category {number} has the name {name!r}, which is no text")
        if int(number) in names:
            raise DataError(f"{path}: two categories share the id {int(number)}")
        names[int(number)] = composed(str(name).strip())
    numbers = sorted(names)
    return ClassTable(tuple(names[number] for number in numbers), (None,) * len(numbers), tuple(numbers))


def _owned(path: Path, objects: list[Row], images: list[str], repairs: Repairs) -> tuple[list[Row], list[int]]:
    """The annotations of listed images, and which image each belongs to; repairs counts the others, and doubled ids."""
    row_of: dict[str, int] = {}
    for row, image_id in enumerate(images):  # 12 names the image "000012" too, if there is no other image 12
        if _is_whole(image_id):
            row_of.setdefault(str(int(image_id)), row)
    row_of |= {image_id: row for row, image_id in enumerate(images)}
    seen: set[str] = set()
    owned, owners = [], []
    for item in objects:
        own = str(item.get("id"))
        if own in seen:
            repairs.note("annotation ids occur more than once; every box was kept", _name(item))
        elif "id" in item:
            seen.add(own)
        if _key(item.get("id")) == "0":
            repairs.note("annotations have the id 0, which pycocotools takes for none; numbered anew", _name(item))
        image_id = _key(_field(path, "annotations", item, "image_id")) or ""
        row = row_of.get(image_id, row_of.get(str(int(image_id)) if _is_whole(image_id) else "", -1))
        if row >= 0:
            owned.append(item)
            owners.append(row)
        else:
            repairs.note("annotations belong to no listed image and were left out", _name(item))
    return owned, owners


def _label(path: Path, item: Row, classes: ClassTable) -> int:
    stated = _field(path, "annotations", item, "category_id")
    category = _key(stated) or ""
    label = classes.label_of_id.get(int(category)) if _is_whole(category) else None
    if label is None:
        raise DataError(f"{path}: {_name(item)} has category_id {stated!r}, which 'categories' does not list")
    return label


def _box(path: Path, item: Row) -> list[float]:
    stated = _field(path, "annotations", item, "bbox")
    box = [_real(value) for value in stated] if isinstance(stated, list) else []
    if len(box) != 4 or not all(map(math.isfinite, box)):
        raise DataError(f"{path}: {_name(item)} has bbox {stated!r}, not four numbers x, y, width, height")
    return box


def _area(path: Path, item: Row) -> float:
    """The stated area, or NaN."""
    stated = item.get("area")
    area = _real(stated)
    if stated is not None and not math.isfinite(area):
        raise DataError(f"{path}: {_name(item)} has area {stated!r}, not a number")
    return area


def _is_crowd(path: Path, item: Row) -> bool:
    """Whether a box stands for many objects; not where nothing is stated."""
    stated = item.get("iscrowd")
    word = str(stated).strip().lower()
    if stated is None or word in ("0", "0.0", "false"):
        return False
    if word in ("1", "1.0", "true"):
        return True
    raise DataError(f"{path}: {_name(item)} has iscrowd {stated!r}, which is neither 0 nor 1")


def _stated_size(image: Row) -> Size:
    """Width and height in px; (0, 0) where they are not two numbers above 0."""
    width, height = _real(image.get("width")), _real(image.get("height"))
    stated = all(1 <= side < LARGEST_SIDE for side in (width, height))
    return (int(width), int(height)) if stated else (0, 0)


def _photograph(path: Path, image: Row, image_id: str, files: Files, *, named: bool) -> Path:
    """The image's file, or where it would be; `named`: one whose name is not stated cannot be used."""
    name = image.get("file_name")
    if not isinstance(name, str) or not name.strip():
        if named:
            _field(path, "images", image, "file_name")
            raise DataError(f"{path}: image {image_id} has the file_name {name!r}, which names no photograph")
        return files.root / image_id
    file = files.root / name
    return file if os.path.isfile(file) else files.find(name) or file


def _sizeless(path: Path, image_id: str, photograph: Path) -> str:
    try:
        read_size(photograph)
    except ImageError as error:
        return f"{path}: states no size of image {image_id}, and the file gives none: {error}"
    return f"{path}: states no size of image {image_id}"


def _key(value: object) -> str | None:
    """What names an image or a class, as text; None where it is neither a name nor a whole number."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    text = str(value).strip()
    whole = text.partition(".")[0] if re.fullmatch(r"-?[0-9]+\.0+", text) else text
    return composed(whole) or None


def _is_whole(text: str) -> bool:
    return re.fullmatch(r"-?[0-9]{1,4000}", text) is not None


def _real(value: object) -> float:
    """A number, which may be written as text; NaN where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _name(item: Row) -> str:
    return f"annotation {item.get('id', 'without id')}"
