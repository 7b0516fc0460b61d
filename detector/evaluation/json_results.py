"""Detections in JSON -> checked detections: COCO results, a data set whose annotations have scores, lines of JSON.

    COCO results    [{"image_id", "category_id", "bbox": [x, y, width, height], "score"}, ...]
    COCO data set   {"images", "categories", "annotations": [as above]}, as programs that keep both write it
    lines of JSON   {"image_id", "boxes", "scores", "labels"} per image, as a run of this project writes them

D detections.
"""

from __future__ import annotations

import json
import re
from functools import reduce
from itertools import chain
from operator import getitem
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from detector.evaluation.checking import Raw, Results, checked, unknown_image
from detector.evaluation.names import UNKNOWN, Name, Names, as_text
from detector.evaluation.results import ResultsError
from detector.evaluation.truth import HALF_OPEN, Truth

MEANING = {
    **dict.fromkeys(("image_id", "category_id", "category"), "a number or a name"),
    "score": "a finite number",
    "bbox": "x, y, width, height",
    "labels": "a list of numbers or names",
    "scores": "a list of finite numbers",
    "boxes": "a list of x1, y1, x2, y2",
}
"""Expected values of each JSON key, for messages."""

Box = tuple[float, float, float, float]


class _Entry(msgspec.Struct, gc=False):
    image_id: Name
    category_id: Name
    bbox: Box
    score: float
    category: Name | None = None


def read_coco_results(path: Path, truth: Truth) -> Results:
    """Read a list of detections.

    Raises:
        ResultsError: malformed JSON, an entry of another form, or a check failed (checking.py).
    """
    entries: list[_Entry] = _decoded(path.read_bytes(), list[_Entry], str(path), "detection")
    return _checked_entries(path, entries, truth)


class _Image(msgspec.Struct, gc=False):
    id: Name
    file_name: str | None = None


class _Category(msgspec.Struct, gc=False):
    id: Name
    name: str | None = None


class _Dataset(msgspec.Struct, gc=False):
    annotations: list[_Entry]
    images: list[_Image] = []
    categories: list[_Category] = []


def read_scored_dataset(path: Path, truth: Truth) -> Results:
    """Read a COCO data set whose annotations have scores; its images and classes are known by their names in it.

    Raises:
        ResultsError: malformed JSON; annotations without scores, which are ground truth; a check failed (checking.py).
    """
    content = path.read_bytes()
    parsed = _parsed(content, str(path))
    rows = parsed.get("annotations") if isinstance(parsed, dict) else None
    if not isinstance(rows, list) or not any(isinstance(row, dict) and "score" in row for row in rows):
        raise ResultsError(f"{path}: holds ground truth ('annotations'), not detections")
    data: _Dataset = _decoded(content, _Dataset, str(path))
    files = {as_text(image.id): image.file_name for image in data.images if image.file_name}
    classes = {as_text(category.id): category.name for category in data.categories if category.name}
    names = Names(truth)
    ids = {key: index for key, index in zip(files, names.images_at(list(files.values())).tolist(), strict=True)}
    for entry in data.annotations:
        index = ids.get(as_text(entry.image_id), UNKNOWN)
        entry.image_id = truth.image_ids[index] if index >= 0 else files.get(as_text(entry.image_id), entry.image_id)
        entry.category = entry.category or classes.get(as_text(entry.category_id))
    return _checked_entries(path, data.annotations, truth)


def _checked_entries(path: Path, entries: list[_Entry], truth: Truth) -> Results:
    names = Names(truth)
    keys: list[Name] = [entry.category_id for entry in entries]
    categories = [entry.category for entry in entries]
    labels = names.labels(keys, number=True)
    if categories.count(None) < len(categories):
        keys = [key if category is None else category for key, category in zip(keys, categories, strict=True)]
        named = np.array([category is not None for category in categories], np.bool_)
        labels = np.where(named, names.labels(keys, number=False), labels)
    raw = Raw(
        path,
        describe=lambda i: (f"detection {i + 1}", as_text(entries[i].image_id)),
        image_index=names.images([entry.image_id for entry in entries]),
        labels=labels,
        class_name=keys.__getitem__,
        given=_floats([entry.bbox for entry in entries]),
        is_xywh=True,
        scores=np.fromiter((entry.score for entry in entries), np.float64, len(entries)),
        convention=HALF_OPEN,
        known_classes=sorted(truth.classes.label_of_id) if truth.numbered else list(names.classes),
    )
    return checked(raw, truth)


class _Line(msgspec.Struct, gc=False):
    image_id: Name
    boxes: list[Box]
    scores: list[float]
    labels: list[Name]


def read_json_lines(path: Path, truth: Truth) -> Results:
    """Read a line an image.

    Raises:
        ResultsError: malformed JSON, a line of another form, an image twice, or a check failed (checking.py).
    """
    names = Names(truth)
    lines: list[_Line] = []
    line_numbers: list[int] = []
    first_line: dict[int, int] = {}
    with path.open("rb") as file:
        for number, text in enumerate(file, start=1):
            if not text.strip() or (not lines and text.lstrip(b"\xef\xbb\xbf ").startswith(b'{"journal"')):
                continue
            where = f"{path}: line {number}"
            try:
                line: _Line = _decoded(text, _Line, where)
            except ResultsError:
                if b'"annotations"' in path.read_bytes():
                    return read_scored_dataset(path, truth)
                raise
            lengths = len(line.boxes), len(line.scores), len(line.labels)
            if len(set(lengths)) > 1:
                raise ResultsError(f"{where}: {lengths[0]} boxes, {lengths[1]} scores, {lengths[2]} labels")
            index = names.image(line.image_id)
            if index >= 0 and index in first_line:
                raise ResultsError(
                    f"{where}: image {truth.image_ids[index]!r} occurs twice, first on line {first_line[index]}"
                )
            if index == UNKNOWN and not line.scores:  # the table has no row for it, so checked() cannot reject it
                raise ResultsError(f"{where}: {unknown_image(as_text(line.image_id), truth)}")
            first_line[index] = number
            lines.append(line)
            line_numbers.append(number)
    of_row = np.repeat(np.arange(len(lines)), [len(line.scores) for line in lines])
    keys = [key for line in lines for key in line.labels]
    index_of_line = names.images([line.image_id for line in lines])
    raw = Raw(
        path,
        describe=lambda i: (f"line {line_numbers[of_row[i]]}", as_text(lines[of_row[i]].image_id)),
        image_index=index_of_line[of_row],
        labels=names.labels(keys, number=False),
        class_name=keys.__getitem__,
        given=_floats([box for line in lines for box in line.boxes]),
        scores=np.fromiter(chain.from_iterable(line.scores for line in lines), np.float64, len(keys)),
        convention=HALF_OPEN,
        known_classes=list(names.classes),
        named=index_of_line[index_of_line >= 0],
    )
    table, warnings = checked(raw, truth)
    # The truth's order decides between equal scores, in whichever order a run finished its images.
    return Results(table[np.argsort(table.image_index, kind="stable")], warnings)


def _floats(boxes: list[Box]) -> NDArray[np.float64]:
    """Return boxes as an array [D, 4], in half the time of np.array."""
    return np.fromiter(chain.from_iterable(boxes), np.float64, 4 * len(boxes)).reshape(-1, 4)


def _decoded(content: bytes, kind: Any, where: str, item: str = "") -> Any:
    """Decode JSON to a type. Numbers may be written as texts, and NaN as Python writes it.

    Args:
        content: The JSON.
        kind: The type.
        where: The file, or its line, for messages.
        item: Name of the entries, where the content is a list.

    Raises:
        ResultsError: malformed JSON, or a value of another type.
    """
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError):  # json and convert accept more, and name the value
        parsed = _parsed(content.strip(), where)
    try:
        return msgspec.convert(parsed, type=kind, strict=False)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$")
    steps: list[Any] = [int(number) if number else key for number, key in re.findall(r"\[(\d+)\]|\.(\w+)", path)]
    if item and steps:
        where += f": {item} {steps[0] + 1}"
    if reason.startswith("Object missing"):
        raise ResultsError(f"{where}: no {reason.split('`')[1]!r}")
    key = next((step for step in steps if isinstance(step, str)), "an entry")
    if key in steps:
        steps = steps[: steps.index(key) + (1 if key == "bbox" else 2)]
    value = reduce(getitem, steps, parsed)
    raise ResultsError(f"{where}: {key} must be {MEANING.get(key, 'an object')}, not {repr(value)[:80]}")


def _parsed(content: bytes, where: str) -> Any:
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if b"\n" in content else ""
        raise ResultsError(f"{where}: malformed JSON at {line}column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise ResultsError(f"{where}: malformed JSON, nested too deeply") from error
    except ValueError as error:  # no UTF-8, or a number of thousands of digits
        raise ResultsError(f"{where}: cannot be read ({error})") from error
