"""COCO's instances JSON and a folder of images -> Dataset.

Category ids are kept as they are, gaps and all. A box is x, y, width, height in continuous pixels. Crowd boxes are
flagged.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np

from detector.data.ground_truth import ClassTable, DataError, Dataset, Repairs, make_record
from detector.data.image import ImageError, read_size
from proposals.boxes import from_xywh

Row = dict[str, Any]  # JSON's values, of any kind

NEEDS = "is an object with images, annotations and categories"


def read_coco(annotations: Path, images: Path, *, as_written: bool = False) -> Dataset:
    """Read a file of instances. It does not look whether the photographs are there; open_dataset does.

    The classes stand in the order of their ids. An image_id is COCO's number as text. Annotations of images that the
    file does not list, as the sub-sets people cut leave them, are left out and counted; so are boxes without area. An
    annotation id that occurs twice is counted, and both boxes are kept.

    Args:
        annotations: the JSON file.
        images: the folder that its file names start from.
        as_written: keep boxes that reach outside their image or have no area, for scoring.

    Raises:
        DataError: no such file, malformed JSON (line and column), not an instances file, a field that is missing or no
            number, an id that two images or two categories share, a category that is not listed, or no images.
    """
    content = _read_json(annotations)
    rows = {key: _rows(annotations, content, key) for key in ("images", "annotations", "categories")}
    if not rows["images"]:
        raise DataError(f"{annotations}: lists no images")
    classes = _class_table(annotations, rows["categories"])
    repairs = Repairs()

    image_ids = _ids(annotations, "images", rows["images"])
    row_of = {image_id: row for row, image_id in enumerate(image_ids)}
    objects = _owned(annotations, rows["annotations"], row_of, repairs)
    owner = np.array([row_of[item["image_id"]] for item in objects], dtype=np.int64)
    labels = np.array([_label(annotations, item, classes) for item in objects], dtype=np.int64)
    boxes = from_xywh(np.array([_box(annotations, item) for item in objects], dtype=np.float64).reshape(-1, 4))
    areas = np.array([_area(annotations, item) for item in objects], dtype=np.float64)
    crowd = np.array([bool(item.get("iscrowd")) for item in objects], dtype=np.bool_)

    order = np.argsort(owner, kind="stable")
    ends = np.searchsorted(owner[order], np.arange(len(image_ids) + 1))
    records = []
    for row, image in enumerate(rows["images"]):
        mine = order[ends[row] : ends[row + 1]]
        path = images / str(_field(annotations, "images", image, "file_name"))
        records.append(
            make_record(
                str(image_ids[row]),
                path,
                _size(annotations, image, path, repairs),
                boxes[mine],
                labels[mine],
                crowd=crowd[mine],
                areas=areas[mine],
                repairs=repairs,
                where=f"image {image_ids[row]}",
                as_written=as_written,
            )
        )
    return Dataset(annotations.stem, classes, tuple(records), repairs.lines())


def _read_json(path: Path) -> Any:  # whatever the file holds
    if not path.is_file():
        raise DataError(f"{path}: no such annotation file; set data.annotations=FILE")
    try:
        return json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}, column {error.colno}: malformed JSON ({error.msg})") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def _rows(path: Path, content: Any, section: str) -> list[Row]:  # content: whatever the file holds
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}, as files of results do; ground truth {NEEDS}")
    rows = content.get(section)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: has no list of {section!r}; ground truth {NEEDS}")
    return rows


def _field(path: Path, section: str, row: Row, key: str) -> Any:  # JSON's value, of any kind
    if key not in row:
        raise DataError(f"{path}: an entry of {section!r} has no {key!r}: {json.dumps(row)[:120]}")
    return row[key]


def _ids(path: Path, section: str, rows: list[Row]) -> list[int | str]:
    ids: list[int | str] = []
    for row in rows:
        number = _field(path, section, row, "id")
        if not isinstance(number, int | str):
            raise DataError(f"{path}: an entry of {section!r} has the id {number!r}; ids are whole numbers")
        ids.append(number)
    twins = [number for number, count in Counter(map(str, ids)).items() if count > 1]
    if twins:
        raise DataError(f"{path}: two entries of {section!r} share the id {twins[0]}")
    return ids


def _class_table(path: Path, categories: list[Row]) -> ClassTable:
    ids = _ids(path, "categories", categories)
    names = {number: str(_field(path, "categories", row, "name")) for number, row in zip(ids, categories, strict=True)}
    numbers = sorted(number for number in ids if isinstance(number, int))
    if len(numbers) < len(ids):
        raise DataError(f"{path}: a category has an id that is no whole number")
    return ClassTable(tuple(names[number] for number in numbers), (None,) * len(numbers), tuple(numbers))


def _owned(path: Path, objects: list[Row], images: Container[int | str], repairs: Repairs) -> list[Row]:
    """The annotations of listed images; repairs counts the others, and ids that come again."""
    seen: set[str] = set()
    owned = []
    for item in objects:
        if str(item.get("id")) in seen:
            repairs.note("annotation ids occur more than once; every box was kept", _name(item))
        elif "id" in item:
            seen.add(str(item["id"]))
        if item.get("id") == 0:
            repairs.note("annotations have the id 0, which pycocotools takes for none; numbered anew", _name(item))
        image_id = _field(path, "annotations", item, "image_id")
        if isinstance(image_id, int | str) and image_id in images:
            owned.append(item)
        else:
            repairs.note("annotations belong to no listed image and were left out", _name(item))
    return owned


def _label(path: Path, item: Row, classes: ClassTable) -> int:
    category = _field(path, "annotations", item, "category_id")
    if not isinstance(category, int) or category not in classes.label_of_id:
        raise DataError(f"{path}: {_name(item)} has category_id {category!r}, which 'categories' does not list")
    return classes.label_of_id[category]


def _box(path: Path, item: Row) -> list[float]:
    box = _field(path, "annotations", item, "bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
        raise DataError(f"{path}: {_name(item)} has bbox {box!r}, not four numbers x, y, width, height")
    return box


def _area(path: Path, item: Row) -> float:
    """The stated area, or NaN."""
    stated = item.get("area")
    if stated is None:
        return math.nan
    if not _is_number(stated):
        raise DataError(f"{path}: {_name(item)} has area {stated!r}, not a number")
    return float(stated)


def _size(path: Path, image: Row, file: Path, repairs: Repairs) -> tuple[int, int]:
    width, height = image.get("width"), image.get("height")
    if isinstance(width, int | float) and isinstance(height, int | float) and min(width, height) > 0:
        return int(width), int(height)
    try:
        size = read_size(file)
    except ImageError as error:
        raise DataError(f"{path}: states no size of image {image['id']}, and the file gives none: {error}") from error
    repairs.note("images had no stated size; taken from the photograph", f"image {image['id']}")
    return size


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _name(item: Row) -> str:
    return f"annotation {item.get('id', 'without id')}"
