"""COCO's instances JSON and a folder of images -> Dataset.

Category ids are kept as they are, with gaps. A box is x, y, width, height in continuous pixels; crowds are flagged.
Exporters write numbers as texts and as floats: "2", 2.0 and 2 are one id.
"""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from detector.data.files import Files
from detector.data.frames import settled_size
from detector.data.ground_truth import (
    ClassTable,
    DataError,
    Dataset,
    Repairs,
    composed,
    flag,
    make_record,
    number,
    side,
)
from detector.data.image import ImageError, read_size
from proposals.boxes import from_xywh

Row = dict[str, Any]  # JSON's values, of any kind

GZIP = b"\x1f\x8b"  # first bytes of its files

NEEDS = "is an object with images, annotations and categories"


def read_coco(annotations: Path, images: Path, *, as_written: bool = False) -> Dataset:
    """Read a file of instances. Whether its image files exist is not checked here but by open_dataset.

    Classes are in the order of their ids. An image_id is COCO's number as text. Annotations of images that the file
    does not list are dropped and counted, as sub-sets often have them; so are boxes without area, boxes that end before
    they begin, and the heading that Roboflow writes over all classes. Both boxes of a repeated annotation id are kept
    and counted. An image or category that is listed twice, word for word, is read once.

    Args:
        annotations: The JSON file.
        images: Folder to which its file names are relative.
        as_written: Keep boxes that reach outside their image or have no area, for scoring; an image then needs neither
            size nor file name.

    Raises:
        DataError: the file is absent, malformed (the message names line and column) or no instances file; a field is
            absent or not a number; two images or two categories share an id; a category is not listed; no images.
    """
    content = _read_json(annotations)
    try:
        return _dataset(annotations, content, Files(images), as_written)
    except DataError as error:
        raise DataError(f"{annotations}: {error}") from error


def _dataset(annotations: Path, content: Any, files: Files, as_written: bool) -> Dataset:
    """Make the Dataset; messages lack the name of the file."""
    if not isinstance(content, dict):
        raise DataError(f"holds a {type(content).__name__}, as files of results do; ground truth {NEEDS}")
    rows: dict[str, Any] = {key: content.get(key) for key in ("images", "annotations", "categories")}
    for key, part in rows.items():
        if not isinstance(part, list) or not all(isinstance(row, dict) for row in part):
            raise DataError(f"has no list of {key!r}; ground truth {NEEDS}")
    if not rows["images"]:
        raise DataError("lists no images")
    repairs = Repairs()
    for key, kind in (("images", "images"), ("categories", "classes")):
        rows[key] = _once(rows[key], f"{kind} were listed again, alike, and read once", repairs)
    classes = _class_table(_without_heading(rows["categories"], rows["annotations"], repairs))

    image_ids = _ids("images", rows["images"])
    objects, owners = _owned(rows["annotations"], image_ids, repairs)
    owner = np.array(owners, dtype=np.int64)
    labels = np.array([_label(item, classes) for item in objects], dtype=np.int64)
    boxes = from_xywh(np.array([_box(item) for item in objects], dtype=np.float64).reshape(-1, 4))
    areas = np.array([_area(item) for item in objects], dtype=np.float64)
    crowd = np.array([_is_crowd(item) for item in objects], dtype=np.bool_)

    order = np.argsort(owner, kind="stable")
    ends = np.searchsorted(owner[order], np.arange(len(image_ids) + 1))
    records = []
    for row, (image_id, image) in enumerate(zip(image_ids, rows["images"], strict=True)):
        mine = order[ends[row] : ends[row + 1]]
        path = _file(image, image_id, files, named=not as_written)
        where = path.name if image.get("file_name") else f"image {image_id}"
        size = settled_size((side(image.get("width")), side(image.get("height"))), boxes[mine], path, repairs, where)
        if not all(size) and not as_written:
            try:
                read_size(path)
            except ImageError as error:
                raise DataError(f"states no size of image {image_id}, and the file gives none: {error}") from error
        records.append(
            make_record(
                image_id,
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
        if not content.startswith(GZIP):
            return json.loads(content)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}, column {error.colno}: malformed JSON ({error.msg})") from error
    except RecursionError as error:
        raise DataError(f"{path}: malformed JSON, nested too deeply") from error
    except (OSError, ValueError) as error:  # no UTF-8, or a number of thousands of digits
        raise DataError(f"{path}: cannot be read ({error})") from error
    raise DataError(f"{path}: packed by gzip; unpack it first")


def _once(rows: list[Row], kind: str, repairs: Repairs) -> list[Row]:
    """Drop and count the rows that equal an earlier one, as merged exports contain."""
    kept: dict[str, list[Row]] = {}
    for row in rows:
        alike = kept.setdefault(str(row.get("id")), [])
        if "id" in row and row in alike:
            repairs.note(kind, f"id {row['id']}")
        else:
            alike.append(row)
    return [row for alike in kept.values() for row in alike]


def _field(section: str, row: Row, key: str) -> Any:  # JSON's value, of any kind
    if key not in row:
        raise DataError(f"an entry of {section!r} has no {key!r}: {json.dumps(row)[:120]}")
    return row[key]


def _ids(section: str, rows: list[Row]) -> list[str]:
    """Return the ids of images or categories as texts: a whole number in its shortest form, else the name as it is."""
    ids: dict[str, None] = {}
    for row in rows:
        stated = _field(section, row, "id")
        own = _key(stated)
        if own is None:
            raise DataError(f"an entry of {section!r} has the id {stated!r}; ids are whole numbers")
        if own in ids:
            raise DataError(f"two entries of {section!r} share the id {own}")
        ids[own] = None
    return list(ids)


def _without_heading(categories: list[Row], objects: list[Row], repairs: Repairs) -> list[Row]:
    """Leave out the category that Roboflow puts above all others, of which there are no objects."""
    used = {_key(item.get("category_id")) for item in objects}
    for row in categories:
        others = [one.get("supercategory") for one in categories if one is not row]
        named = str(row.get("supercategory")) == "none" and others and all(one == row.get("name") for one in others)
        if named and _key(row.get("id")) not in used:
            kind = "classes are only the heading over all others, as Roboflow writes it, and were left out"
            repairs.note(kind, str(row.get("name")))
            return [one for one in categories if one is not row]
    return categories


def _class_table(categories: list[Row]) -> ClassTable:
    names = {}
    for own, row in zip(_ids("categories", categories), categories, strict=True):
        if not _is_whole(own):
            raise DataError(f"a category has an id that is no whole number: {own!r}")
        name = _field("categories", row, "name")
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            raise DataError(f"category {own} has the name {name!r}, which is no text")
        if int(own) in names:
            raise DataError(f"two categories share the id {int(own)}")
        names[int(own)] = composed(str(name).strip())
    ids = sorted(names)
    return ClassTable(tuple(names[own] for own in ids), (None,) * len(ids), tuple(ids))


def _owned(objects: list[Row], images: list[str], repairs: Repairs) -> tuple[list[Row], list[int]]:
    """Return the annotations of listed images and each one's image; count the others, and repeated ids."""
    # 12 names the image "000012" too, if there is no other image 12.
    row_of = {_without_zeros(images[row]): row for row in reversed(range(len(images)))}
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
            repairs.note("annotations have the id 0, which pycocotools takes for none; renumbered", _name(item))
        image_id = _key(_field("annotations", item, "image_id")) or ""
        row = row_of.get(image_id, row_of.get(_without_zeros(image_id), -1))
        if row >= 0:
            owned.append(item)
            owners.append(row)
        else:
            repairs.note("annotations belong to no listed image and were left out", _name(item))
    return owned, owners


def _label(item: Row, classes: ClassTable) -> int:
    stated = _field("annotations", item, "category_id")
    category = _key(stated) or ""
    label = classes.label_of_id.get(int(category)) if _is_whole(category) else None
    if label is None:
        raise DataError(f"{_name(item)} has category_id {stated!r}, which 'categories' does not list")
    return label


def _box(item: Row) -> list[float]:
    stated = _field("annotations", item, "bbox")
    box = [number(value) for value in stated] if isinstance(stated, list) else []
    if len(box) != 4 or not all(map(math.isfinite, box)):
        raise DataError(f"{_name(item)} has bbox {stated!r}, not four numbers x, y, width, height")
    return box


def _area(item: Row) -> float:
    """Return the stated area, or NaN."""
    stated = item.get("area")
    area = number(stated)
    if stated is not None and not math.isfinite(area):
        raise DataError(f"{_name(item)} has area {stated!r}, not a number")
    return area


def _is_crowd(item: Row) -> bool:
    """Whether a box stands for many objects."""
    stated = flag(item.get("iscrowd"))
    if stated is None or item.get("iscrowd") == "":
        raise DataError(f"{_name(item)} has iscrowd {item['iscrowd']!r}, which is neither 0 nor 1")
    return stated


def _file(image: Row, image_id: str, files: Files, *, named: bool) -> Path:
    """Return the image's file, or where it would be; with `named` the entry must state a name."""
    name = image.get("file_name")
    if not isinstance(name, str) or not name.strip():
        if named:
            _field("images", image, "file_name")
            raise DataError(f"image {image_id} has the file_name {name!r}, which names no file")
        return files.root / image_id
    file = files.root / name
    return file if os.path.isfile(file) else files.find(name) or file


def _key(value: object) -> str | None:
    """Return the text that names an image or a class; None for what is neither a name nor a whole number."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    text = str(value).strip()
    whole = text.partition(".")[0] if re.fullmatch(r"-?[0-9]+\.0+", text) else text
    return composed(whole) or None


def _is_whole(text: str) -> bool:
    return re.fullmatch(r"-?[0-9]{1,4000}", text) is not None


def _without_zeros(text: str) -> str:
    """Return a whole number without leading zeros, any other text as it is."""
    return str(int(text)) if _is_whole(text) else text


def _name(item: Row) -> str:
    return f"annotation {item.get('id', 'without id')}"
