"""A table in CSV -> Rows: a row a box, with columns found by their names.

    image,class,xmin,ymin,xmax,ymax[,score][,difficult][,width,height]
    image,class,x,y,w,h ...         image,class,cx,cy,w,h ...

A row without a box names an image without objects. Columns of other names are not read.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path

import numpy as np

from detector.data.ground_truth import composed, flag, listed, side
from detector.evaluation.csv_text import IMAGE, columns_of, csv_reader, open_csv
from detector.evaluation.rows import Rows, read_numbers
from proposals.errors import UserError

SUFFIXES = (".csv", ".tsv")
CLASS: tuple[str, ...] = ("classname", "labelname", "categoryname", "name", "label", "class", "category")
CLASS += ("classid", "labelid", "categoryid", "cls")
SCORE = ("score", "confidence", "conf", "probability", "prob")
DIFFICULT = ("difficult", "isdifficult")
SIZES = (("width", "height"), ("imagewidth", "imageheight"), ("imgwidth", "imgheight"), ("imgw", "imgh"))
CORNERS: tuple[tuple[str, ...], ...] = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"))
CORNERS += (("left", "top", "right", "bottom"), ("x0", "y0", "x1", "y1"))
CENTRES = (("cx", "cy"), ("xcenter", "ycenter"), ("xcentre", "ycentre"), ("centerx", "centery"))
NEAR = (("x", "y"), ("xmin", "ymin"), ("left", "top"), ("bboxx", "bboxy"))
EXTENTS = (("width", "height"), ("w", "h"), ("bboxwidth", "bboxheight"), ("bboxw", "bboxh"))
WANTED = (
    "a table of boxes has the columns image, class, xmin, ymin, xmax, ymax (or x, y, w, h, or cx, cy, w, h), for "
    "detections score, and may have difficult, width and height"
)


def is_table(path: Path) -> bool:
    """Whether a file is a table, by its suffix or by the columns that its first line names."""
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with path.open(encoding="utf-8-sig") as file:
            columns = columns_of(next(csv_reader(file.readline()[:4096]), []))
    except (OSError, UnicodeDecodeError, csv.Error):
        return False
    return _first(IMAGE, columns) is not None and _box(columns) is not None


def read_table(path: Path, error: type[UserError], *, scored: bool) -> Rows:
    """Read a table.

    Args:
        path: The file, separated by commas, semicolons or tabs.
        error: Type of the error.
        scored: Whether rows have scores: detections, else ground truth.

    Raises:
        UserError: of the given type: the file is no table of boxes, or a row has another form; the message names it.
    """
    reader = open_csv(path, error)
    header: list[str] = next(reader, [])
    columns = columns_of(header)
    named, found = _first(IMAGE, columns), _box(columns)
    label, score = _first(CLASS, columns), _first(SCORE, columns)
    absent = [
        name
        for name, column in (("image", named), ("class", label), ("box", found), *[("score", score)] * scored)
        if column is None
    ]
    if named is None or label is None or found is None or absent:
        raise error(f"{path}: no column of {', '.join(absent)} among {listed(header, 20)!r}; {WANTED}")
    form, box = found
    size = next((pair for pair in _pairs(SIZES, columns) if not {*pair} & {*box}), None)
    hard = _first(DIFFICULT, columns)
    places: dict[str, int] = {}
    sizes: list[tuple[int, int]] = []
    names: dict[str, str] = {}  # as written -> the class
    of_image: list[int] = []
    classes: list[str] = []
    texts: list[str] = []
    scores: list[str] = []
    difficult: list[bool] = []
    lines: list[int] = []
    corners = itemgetter(*box)
    try:
        for row in reader:
            if len(row) != len(header):
                if not row:
                    continue
                raise error(
                    f"{path}: line {reader.line_num}: {len(row)} columns, and the first line names {len(header)}"
                )
            image = row[named].strip()
            if not image:
                if any(map(str.strip, row)):
                    raise error(f"{path}: line {reader.line_num}: names no image")
                continue
            place = places.setdefault(image, len(places))
            if place == len(sizes):
                sizes.append((0, 0) if size is None else (side(row[size[0]]), side(row[size[1]])))
            if not row[box[0]].strip() and not any(map(str.strip, corners(row))):
                continue
            name = names.get(row[label])
            if name is None:
                name = composed(re.sub(r"^(\d+)\.0$", r"\1", row[label].strip()))
                names[row[label]] = name
                if not name:
                    raise error(f"{path}: line {reader.line_num}: names no class")
            is_difficult = False if hard is None else flag(row[hard])
            if is_difficult is None and hard is not None:
                raise error(
                    f"{path}: line {reader.line_num}: difficult is {row[hard][:40]!r}, which is neither 0 nor 1"
                )
            of_image.append(place)
            classes.append(name)
            texts += corners(row)
            if score is not None and scored:
                scores.append(row[score])
            difficult.append(bool(is_difficult))
            lines.append(reader.line_num)
    except csv.Error as reason:
        raise error(f"{path}: line {reader.line_num}: malformed CSV ({reason})") from reason
    where = f"{path}: line "
    boxes = read_numbers(texts, lambda place, reason: error(f"{where}{lines[place // 4]}: {reason}"))
    return Rows(
        path=path,
        images=list(places),
        files=_files(path, list(places)),
        sizes=np.array(sizes, np.int64).reshape(-1, 2),
        of_image=np.array(of_image, np.int64),
        classes=classes,
        boxes=boxes.reshape(-1, 4),
        scores=read_numbers(scores, lambda row, reason: error(f"{where}{lines[row]}: {reason}")) if scored else None,
        difficult=np.array(difficult, np.bool_),
        forms=(form,),
        where=lambda i: f"line {lines[i]}",
    )


def _first(names: Sequence[str], columns: dict[str, int]) -> int | None:
    return next((columns[name] for name in names if name in columns), None)


def _pairs(names: Sequence[Sequence[str]], columns: dict[str, int]) -> list[tuple[int, ...]]:
    return [tuple(columns[name] for name in group) for group in names if all(name in columns for name in group)]


def _box(columns: dict[str, int]) -> tuple[str, tuple[int, ...]] | None:
    """Return the form of the boxes and their four columns; None where there are none."""
    if corners := _pairs(CORNERS, columns):
        return "xyxy", corners[0]
    extents = _pairs(EXTENTS, columns)
    for form, names in (("cxcywh", CENTRES), ("xywh", NEAR)):
        near = _pairs(names, columns)
        if near and extents:
            return form, (*near[0], *extents[-1 if len(extents) > 1 else 0])
    return None


def _files(path: Path, images: Sequence[str]) -> list[Path]:
    """Return the image files, in the folder near the table that has most of the first ones."""
    names = [Path(image.replace("\\", "/")) for image in images]
    places = [folder / inner for folder in (path.parent, path.parent.parent) for inner in ("", "images", "JPEGImages")]
    best = max(places, key=lambda place: sum((place / name).is_file() for name in names[:5]))
    return [best / name for name in names]
