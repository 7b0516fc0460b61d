"""Files of detections -> DetectionTable, checked (validation.py) before anything is scored.

    COCO results    [{"image_id", "category_id", "bbox": [x, y, width, height], "score"}, ...]
    journal         lines of {"image_id", "boxes", "scores", "labels"}, as a run of ours writes them
    ILSVRC          lines "image-number det-id confidence x1 y1 x2 y2" of the devkit
    PASCAL VOC      a folder of comp4_det_SPLIT_CLASS.txt, or one of them: lines "image confidence x1 y1 x2 y2"

Each is read against any kind of ground truth.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from detector.detections import Detections
from detector.evaluation.results import DetectionTable, ResultsError, class_keys
from detector.evaluation.truth import HALF_OPEN, ILSVRC, VOC, Truth
from detector.evaluation.validation import Raw, Results, checked, hint_at, listing, no_detections, unknown_image
from proposals.boxes import from_xywh

ILSVRC_COLUMNS = ("image number", "class number", "confidence", "x1", "y1", "x2", "y2")
VOC_COLUMNS = ("image", "confidence", "x1", "y1", "x2", "y2")


def read_results(path: Path, truth: Truth) -> Results:
    """Read a file of detections, or a folder of VOC's.

    An image is named by its id, by number, or by the file's name with or without its ending. A class is named by its
    number in the truth's table, its name or its WordNet id.

    Raises:
        ResultsError: no such file; malformed, with the line; unknown images or classes; numbers for classes that have
            none; numbers that are not finite; boxes that end before they begin or are in another layout.
    """
    if path.is_dir():
        return _read_voc(path, sorted(path.glob("*_det_*_*.txt")), truth)
    try:
        with path.open("rb") as file:
            start = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    except OSError as error:
        raise ResultsError(f"{path}: cannot read: {(error.strerror or str(error)).lower()}") from error
    if not start:
        return no_detections(path, truth)
    if start.startswith(b"["):
        return _read_coco(path, truth)
    if start.startswith(b"{"):
        return _read_lines(path, truth)
    columns = len(start.split(b"\n")[0].split())
    if columns == len(VOC_COLUMNS) and "_det_" in path.name:
        return _read_voc(path, [path], truth)
    return _read_ilsvrc(path, truth)


# ---- COCO's results


class _Entry(msgspec.Struct, gc=False):
    image_id: int | str
    category_id: int | str
    bbox: tuple[float, float, float, float]
    score: float
    category: str | None = None


def _read_coco(path: Path, truth: Truth) -> Results:
    content = path.read_bytes()
    try:
        entries = msgspec.json.decode(content, type=list[_Entry])
    except msgspec.DecodeError as error:
        entries = _parsed_slowly(path, content, error)
    images = truth.index_of_any_name
    named = _labels_by_name(truth)
    by_key: dict[int | str, int] = dict(named.items())
    if truth.numbered:
        by_key.update(truth.classes.label_of_id.items())
    keys = [entry.category_id if entry.category is None else entry.category for entry in entries]
    if not truth.numbered and any(isinstance(key, int) for key in keys):
        first = next(number for number, key in enumerate(keys, 1) if isinstance(key, int))
        raise ResultsError(
            f"{path}: detection {first}: category {keys[first - 1]} is a number, and the classes of {truth.name} have "
            "none; name them instead, as category_id or category: " + listing(list(truth.classes.names))
        )
    given = np.array([entry.bbox for entry in entries], np.float64).reshape(-1, 4)
    raw = Raw(
        path,
        where=lambda i: f"detection {i + 1}",
        image_index=np.array([images.get(str(entry.image_id), -1) for entry in entries], np.int64),
        image_name=lambda i: entries[i].image_id,
        labels=np.array([by_key.get(key, -1) for key in keys], np.int64),
        class_name=keys.__getitem__,
        boxes=np.asarray(from_xywh(given), np.float64),
        given=given,
        scores=np.array([entry.score for entry in entries], np.float64),
        convention=HALF_OPEN,
        known_classes=sorted(truth.classes.label_of_id) if truth.numbered else list(named),
    )
    return checked(raw, truth)


def _parsed_slowly(path: Path, content: bytes, error: msgspec.DecodeError) -> list[_Entry]:
    """The entries of a file that msgspec refused: with NaN, which Python writes, or an error that says where."""
    entries: Any = _parse(content, str(path))
    result = []
    for number, entry in enumerate(entries, 1):
        where = f"{path}: detection {number}"
        if not isinstance(entry, dict):
            raise ResultsError(f"{where}: expected an object with 'image_id', not {str(entry)[:60]!r}") from error
        for key in ("image_id", "category_id", "bbox", "score"):
            if key not in entry:
                raise ResultsError(f"{where}: no {key!r}") from error
        box, score = entry["bbox"], entry["score"]
        for key in ("image_id", "category_id"):
            if isinstance(entry[key], bool) or not isinstance(entry[key], int | str):
                raise ResultsError(f"{where}: {key} must be a number or a name, not {entry[key]!r}") from error
        if not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
            raise ResultsError(f"{where}: bbox must be x, y, width, height, not {box!r}") from error
        if not _is_number(score):
            raise ResultsError(f"{where}: score must be a finite number, not {score!r}") from error
        result.append(_Entry(entry["image_id"], entry["category_id"], tuple(map(float, box)), float(score)))  # type: ignore[arg-type]
    return result


def _parse(content: bytes, where: str) -> Any:
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if b"\n" in content.strip() else f"column {error.colno}"
        raise ResultsError(f"{where}: malformed JSON at {place}: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise ResultsError(f"{where}: not a text in UTF-8 ({error})") from error


# ---- lines of JSON


def _read_lines(path: Path, truth: Truth) -> Results:
    images, labels = truth.index_of_any_name, _labels_by_name(truth)
    found: dict[str, Detections] = {}
    first_line: dict[str, int] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}: line {number}"
            entry = _parse(line.strip(), where) if line.strip() else None
            if entry is None or (number == 1 and isinstance(entry, dict) and "journal" in entry):
                continue
            if isinstance(entry, dict) and "annotations" in entry:
                raise ResultsError(f"{path}: holds ground truth ('annotations'), not detections")
            if not isinstance(entry, dict) or "image_id" not in entry:
                raise ResultsError(f"{where}: expected an object with 'image_id', not {str(entry)[:60]!r}")
            index = images.get(str(entry["image_id"]), -1)
            if index < 0:
                raise ResultsError(f"{where}: {unknown_image(str(entry['image_id']), truth)}")
            image_id = truth.image_ids[index]
            if image_id in found:
                raise ResultsError(f"{where}: image {image_id!r} occurs twice, first on line {first_line[image_id]}")
            found[image_id] = _detections_of(entry, labels, where)
            first_line[image_id] = number
    table = DetectionTable.from_images(truth, found)
    missing = len(truth) - len(found)
    notes = []
    if missing:
        name = next(image_id for image_id in truth.image_ids if image_id not in found)
        notes.append(
            f"{path} has no line for {missing:,} of {len(truth):,} images (first: {name}); "
            "they count as having no detections"
        )
    if not len(table):
        notes.append(f"{path}: holds no detections; every AP is 0")
    return Results(table, tuple(notes))


def _detections_of(entry: Mapping[str, Any], labels: Mapping[str, int], where: str) -> Detections:
    for key in ("boxes", "scores", "labels"):
        if not isinstance(entry.get(key), list):
            raise ResultsError(f"{where}: no list {key!r}")
    for name in entry["labels"]:
        if not isinstance(name, str) or name not in labels:
            known = list(labels)
            raise ResultsError(f"{where}: unknown class {name!r}.{hint_at(str(name), known)} Known: {listing(known)}")
    for box in entry["boxes"]:
        if not isinstance(box, list) or len(box) != 4 or not all(_is_number(v) and math.isfinite(v) for v in box):
            raise ResultsError(f"{where}: a box must be x1, y1, x2, y2, not {box!r}")
        if box[2] < box[0] or box[3] < box[1]:
            raise ResultsError(f"{where}: box {box!r} ends before it begins; boxes are x1, y1, x2, y2")
    for score in entry["scores"]:
        if not (_is_number(score) and math.isfinite(score)):
            raise ResultsError(f"{where}: score must be a finite number, not {score!r}")
    try:
        return Detections(
            np.array(entry["boxes"], np.float64),
            np.array(entry["scores"], np.float64),
            np.array([labels[name] for name in entry["labels"]], np.int64),
        )
    except ValueError as error:
        raise ResultsError(f"{where}: {error}") from error


# ---- ILSVRC's text


def _read_ilsvrc(path: Path, truth: Truth) -> Results:
    columns = _columns(path, ILSVRC_COLUMNS)
    if truth.numbers is None:
        raise ResultsError(
            f"{path}: names images by ILSVRC's numbers, and those of {truth.name} have none; "
            "write COCO results or lines of JSON instead"
        )
    numbers, ids = columns[:, 0], columns[:, 1]
    order = np.argsort(truth.numbers)
    position = np.minimum(np.searchsorted(truth.numbers[order], numbers), len(order) - 1)
    known = truth.numbers[order][position] == numbers
    label_of = np.full(max(truth.classes.ids) + 1, -1, np.int64)
    label_of[list(truth.classes.ids)] = np.arange(len(truth.classes))
    whole = (ids == np.floor(ids)) & (ids >= 0) & (ids < len(label_of))

    def where(row: int) -> str:
        with path.open("rb") as file:
            filled = (number for number, line in enumerate(file, 1) if line.strip())
            return f"line {next(islice(filled, row, None))}"

    boxes = np.ascontiguousarray(columns[:, 3:])
    raw = Raw(
        path,
        where=where,
        image_index=np.where(known, order[position], -1),
        image_name=lambda i: f"{numbers[i]:g}",
        labels=np.where(whole, label_of[np.where(whole, ids, 0).astype(np.int64)], -1),
        class_name=lambda i: f"{ids[i]:g}",
        boxes=boxes,
        given=boxes,
        scores=np.ascontiguousarray(columns[:, 2]),
        convention=ILSVRC,
        known_classes=[f"{min(truth.classes.ids)} to {max(truth.classes.ids)}"],
    )
    return checked(raw, truth)


def _columns(path: Path, names: Sequence[str]) -> NDArray[np.float64]:
    """A text of numbers, [lines, columns]; what is wrong with it is told by the line."""
    try:
        columns = np.loadtxt(path, dtype=np.float64, comments=None, ndmin=2, encoding="utf-8-sig")
    except (ValueError, UnicodeDecodeError) as error:
        raise _bad_lines(path, names, f"cannot be read as numbers ({error})") from error
    if columns.shape[1] != len(names):
        raise _bad_lines(path, names, f"has {columns.shape[1]} columns")
    return columns


def _bad_lines(path: Path, names: Sequence[str], otherwise: str) -> ResultsError:
    bad, first, text = 0, 0, ""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            words = line.split()
            if words and (len(words) != len(names) or not all(map(_is_numeric, words))):
                bad += 1
                first, text = first or number, text or line.strip()[:80]
    if not bad:
        return ResultsError(f"{path}: {otherwise}")
    more = f" ({bad:,} such lines)" if bad > 1 else ""
    return ResultsError(
        f"{path}: line {first}: expected {len(names)} numbers, {', '.join(names)}; found {text!r}{more}"
    )


# ---- PASCAL VOC's text


def _read_voc(path: Path, files: Sequence[Path], truth: Truth) -> Results:
    if not files:
        raise ResultsError(f"{path}: no files named comp4_det_SPLIT_CLASS.txt in this folder")
    labels = _labels_by_name(truth)
    images = truth.index_of_any_name
    names: list[str] = []
    places: list[tuple[Path, int]] = []
    numbers: list[list[float]] = []
    label_of_row: list[int] = []
    for file in files:
        label = next((label for name, label in labels.items() if file.stem.endswith(f"_{name}")), None)
        if label is None:
            name = file.stem.rpartition("_")[2]
            hint = hint_at(name, list(labels))
            raise ResultsError(f"{file}: no class of {truth.name} ends its name.{hint} Known: {listing(list(labels))}")
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ResultsError(f"{file}: cannot read: {error}") from error
        for number, line in enumerate(text.splitlines(), 1):
            words = line.split()
            if not words:
                continue
            try:
                row = [float(word) for word in words[1:]]
            except ValueError:
                row = []
            if len(row) != len(VOC_COLUMNS) - 1:
                raise ResultsError(
                    f"{file}: line {number}: expected {', '.join(VOC_COLUMNS)}; found {line.strip()[:80]!r}"
                )
            names.append(words[0])
            places.append((file, number))
            numbers.append(row)
            label_of_row.append(label)
    columns = np.array(numbers, np.float64).reshape(-1, 5)
    boxes = np.ascontiguousarray(columns[:, 1:])
    raw = Raw(
        path,
        where=lambda i: f"{places[i][0].name} line {places[i][1]}",
        image_index=np.array([images.get(name, -1) for name in names], np.int64),
        image_name=names.__getitem__,
        labels=np.array(label_of_row, np.int64),
        class_name=lambda i: label_of_row[i],
        boxes=boxes,
        given=boxes,
        scores=np.ascontiguousarray(columns[:, 0]),
        convention=VOC,
        known_classes=list(labels),
    )
    results = checked(raw, truth)
    absent = sorted({*range(len(truth.classes))} - {*label_of_row})
    if path.is_dir() and absent:
        note = f"{path}: {len(absent)} of {len(truth.classes)} classes have no detections (first: "
        return Results(results.table, (*results.warnings, f"{note}{truth.classes.names[absent[0]]})"))
    return results


def _labels_by_name(truth: Truth) -> dict[str, int]:
    return {key: label for label, key in enumerate(class_keys(truth.classes))} | truth.classes.label_of


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
