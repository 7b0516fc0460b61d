"""Files of detections -> DetectionTable, checked (validation.py) before anything is scored.

    COCO results    [{"image_id", "category_id", "bbox": [x, y, width, height], "score"}, ...]
    lines of JSON   {"image_id", "boxes", "scores", "labels"} an image, as a run of ours writes them
    ILSVRC          lines "image-number det-id confidence x1 y1 x2 y2" of the devkit
    PASCAL VOC      a folder of comp4_det_SPLIT_CLASS.txt, or one of them: lines "image confidence x1 y1 x2 y2"

Each is read against any kind of ground truth.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from detector.evaluation.checking import Raw, Results, checked, no_detections, unknown_image
from detector.evaluation.names import UNKNOWN, Name, Names, as_text
from detector.evaluation.results import ResultsError
from detector.evaluation.truth import HALF_OPEN, ILSVRC, VOC, Truth
from detector.evaluation.voc_names import labels_of_files
from proposals.boxes import from_xywh

ILSVRC_COLUMNS = ("image number", "class number", "confidence", "x1", "y1", "x2", "y2")
VOC_COLUMNS = ("image", "confidence", "x1", "y1", "x2", "y2")

NUMERIC = re.compile(r"\s*[-+]?(\d+\.?\d*([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?|nan|inf|infinity)\s*", re.ASCII | re.I)
ENCODED = {
    b"\x1f\x8b": "packed by gzip; unpack it first",
    b"PK\x03\x04": "packed as a zip file; unpack it first",
    b"\xff\xfe": "a text in UTF-16, as PowerShell's > writes; save it in UTF-8",
    b"\xfe\xff": "a text in UTF-16; save it in UTF-8",
}
"""What is wrong with a file that begins so."""
EXACT = 2.0**53
"""From here on float64 does not tell all whole numbers apart."""


def read_results(path: Path, truth: Truth) -> Results:
    """Read a file of detections, or a folder of VOC's.

    An image is named by its id, by number, by the file's name with or without its ending, or by the end of its path. A
    class is named by its number in the truth's table, its name or its WordNet id. Detections on images that the truth's
    image list leaves out are left out and counted.

    Raises:
        ResultsError: no such file; malformed, with the line; unknown images or classes; numbers for classes that have
            none; numbers that are not finite; boxes in another layout.
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
    for magic, kind in ENCODED.items():
        if start.startswith(magic):
            raise ResultsError(f"{path}: {kind}")
    if start.startswith(b"["):
        return _read_coco(path, truth)
    if start.startswith(b"{"):
        return _read_lines(path, truth)
    words = start.split(b"\n")[0].decode(errors="replace").split()
    of_numbers = len(words) == len(ILSVRC_COLUMNS) and all(number_of(word) is not None for word in words)
    if "_det_" in path.name and len(words) >= len(VOC_COLUMNS) and not (of_numbers and truth.numbers is not None):
        return _read_voc(path, [path], truth)
    return _read_ilsvrc(path, truth)


def number_of(value: object) -> float | None:
    """A number, or a text that is one, as float; None for all else. NaN and infinity are numbers here."""
    if isinstance(value, bool) or not (
        isinstance(value, int | float) or (isinstance(value, str) and NUMERIC.fullmatch(value))
    ):
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf")


# ---- JSON


class _Entry(msgspec.Struct, gc=False):
    image_id: Name
    category_id: Name
    bbox: tuple[float, float, float, float]
    score: float
    category: Name | None = None


def _read_coco(path: Path, truth: Truth) -> Results:
    content = path.read_bytes()
    try:
        entries = msgspec.json.decode(content, type=list[_Entry])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        entries = _parsed_slowly(path, content)
    names = Names(truth)
    keys = [entry.category_id if entry.category is None else entry.category for entry in entries]
    named = np.array([entry.category is not None for entry in entries], np.bool_)
    given = np.array([entry.bbox for entry in entries], np.float64).reshape(-1, 4)
    raw = Raw(
        path,
        where=lambda i: f"detection {i + 1}",
        image_index=names.images([entry.image_id for entry in entries]),
        image_name=lambda i: as_text(entries[i].image_id),
        labels=np.where(named, names.labels(keys, number=False), names.labels(keys, number=True)),
        class_name=keys.__getitem__,
        boxes=np.asarray(from_xywh(given), np.float64),
        given=given,
        scores=np.array([entry.score for entry in entries], np.float64),
        convention=HALF_OPEN,
        known_classes=_known_classes(names, truth),
    )
    return checked(raw, truth)


def _parsed_slowly(path: Path, content: bytes) -> list[_Entry]:
    """The entries of a file that msgspec refused: with NaN, which Python writes, or numbers written as texts."""
    result = []
    for number, entry in enumerate(_parse(content, str(path)), 1):
        where = f"{path}: detection {number}"
        if not isinstance(entry, dict):
            raise ResultsError(f"{where}: expected an object with 'image_id', not {str(entry)[:60]!r}")
        for key in ("image_id", "category_id", "bbox", "score"):
            if key not in entry:
                raise ResultsError(f"{where}: no {key!r}")
        image_id, category_id = (_name(entry[key], key, where) for key in ("image_id", "category_id"))
        category = entry.get("category")
        box = _box(entry["bbox"], "bbox must be x, y, width, height", where)
        named = None if category is None else _name(category, "category", where)
        result.append(_Entry(image_id, category_id, box, _score(entry["score"], where), named))
    return result


class _Line(msgspec.Struct, gc=False):
    image_id: Name
    boxes: list[tuple[float, float, float, float]]
    scores: list[float]
    labels: list[Name]


def _read_lines(path: Path, truth: Truth) -> Results:
    names = Names(truth)
    lines: list[_Line] = []
    places: list[int] = []
    first_line: dict[int, int] = {}
    with path.open("rb") as file:
        for number, text in enumerate(file, start=1):
            if not text.strip() or (not lines and text.lstrip(b"\xef\xbb\xbf ").startswith(b'{"journal"')):
                continue
            line = _parsed_line(text, f"{path}: line {number}", path)
            index = names.image(line.image_id)
            if index >= 0 and index in first_line:
                raise ResultsError(
                    f"{path}: line {number}: image {truth.image_ids[index]!r} occurs twice, first on line "
                    f"{first_line[index]}"
                )
            first_line[index] = number
            lines.append(line)
            places.append(number)
    counts = [len(line.scores) for line in lines]
    of_row = np.repeat(np.arange(len(lines)), counts)
    keys = [key for line in lines for key in line.labels]
    index_of_line = names.images([line.image_id for line in lines])
    for number, line, index in zip(places, lines, index_of_line.tolist(), strict=True):
        if index == UNKNOWN and not line.scores:  # no row of the table would show it
            raise ResultsError(f"{path}: line {number}: {unknown_image(as_text(line.image_id), truth)}")
    boxes = np.array([box for line in lines for box in line.boxes], np.float64).reshape(-1, 4)
    raw = Raw(
        path,
        where=lambda i: f"line {places[of_row[i]]}",
        image_index=index_of_line[of_row],
        image_name=lambda i: as_text(lines[of_row[i]].image_id),
        labels=names.labels(keys, number=False),
        class_name=keys.__getitem__,
        boxes=boxes,
        given=boxes,
        scores=np.array([score for line in lines for score in line.scores], np.float64),
        convention=HALF_OPEN,
        known_classes=_known_classes(names, truth, by_name=True),
        named=index_of_line[index_of_line >= 0],
    )
    table, warnings = checked(raw, truth)
    # In the truth's order, whichever images a run finished first: it decides between equal scores.
    return Results(table[np.argsort(table.image_index, kind="stable")], warnings)


def _parsed_line(text: bytes, where: str, path: Path) -> _Line:
    try:
        line = msgspec.json.decode(text, type=_Line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        line = _parsed_line_slowly(text, where, path)
    lengths = len(line.boxes), len(line.scores), len(line.labels)
    if len(set(lengths)) > 1:
        raise ResultsError(f"{where}: {lengths[0]} boxes, {lengths[1]} scores, {lengths[2]} labels")
    return line


def _parsed_line_slowly(text: bytes, where: str, path: Path) -> _Line:
    try:
        entry = _parse(text.strip(), where)
    except ResultsError:
        _refuse_ground_truth(_parse_or_none(path.read_bytes()), path)  # pretty-printed, on many lines
        raise
    _refuse_ground_truth(entry, path)
    if not isinstance(entry, dict) or "image_id" not in entry:
        raise ResultsError(f"{where}: expected an object with 'image_id', not {str(entry)[:60]!r}")
    for key in ("boxes", "scores", "labels"):
        if not isinstance(entry.get(key), list):
            raise ResultsError(f"{where}: no list {key!r}")
    return _Line(
        _name(entry["image_id"], "image_id", where),
        [_box(box, "a box must be x1, y1, x2, y2", where) for box in entry["boxes"]],
        [_score(score, where) for score in entry["scores"]],
        [_name(name, "a label", where) for name in entry["labels"]],
    )


def _refuse_ground_truth(content: object, path: Path) -> None:
    if isinstance(content, dict) and "annotations" in content:
        raise ResultsError(f"{path}: holds ground truth ('annotations'), not detections")


def _parse(content: bytes, where: str) -> Any:
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if b"\n" in content.strip() else f"column {error.colno}"
        raise ResultsError(f"{where}: malformed JSON at {place}: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise ResultsError(f"{where}: not a text in UTF-8 ({error})") from error
    except ValueError as error:
        raise ResultsError(f"{where}: cannot be read ({error})") from error
    except RecursionError as error:
        raise ResultsError(f"{where}: malformed JSON, nested too deeply") from error


def _parse_or_none(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _name(value: object, key: str, where: str) -> Name:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ResultsError(f"{where}: {key} must be a number or a name, not {value!r}")
    return value


def _box(value: object, layout: str, where: str) -> tuple[float, float, float, float]:
    numbers = [number_of(item) for item in value] if isinstance(value, list) else []
    if len(numbers) != 4 or None in numbers:
        raise ResultsError(f"{where}: {layout}, not {str(value)[:80]}")
    return tuple(numbers)  # type: ignore[return-value]  # the line above


def _score(value: object, where: str) -> float:
    number = number_of(value)
    if number is None:
        raise ResultsError(f"{where}: score must be a finite number, not {value!r}")
    return number


def _known_classes(names: Names, truth: Truth, *, by_name: bool = False) -> Sequence[object]:
    """What a message lists: the numbers by which a file names the classes, or their names."""
    return list(names.classes) if by_name or not truth.numbered else sorted(truth.classes.label_of_id)


# ---- ILSVRC's text


def _read_ilsvrc(path: Path, truth: Truth) -> Results:
    columns = _columns(path, ILSVRC_COLUMNS)
    if truth.numbers is None:
        raise ResultsError(
            f"{path}: names images by ILSVRC's numbers, and those of {truth.name} have none; "
            "write COCO results or lines of JSON instead"
        )
    numbers, ids = columns[:, 0], columns[:, 1]
    if (np.abs(numbers) >= EXACT).any() or (np.abs(truth.numbers) >= EXACT).any():
        index_of = {str(number): index for number, index in truth.index_of_number.items()}
        texts = np.loadtxt(path, dtype=np.str_, comments=None, usecols=0, ndmin=1, encoding="utf-8-sig").tolist()
        image_index = np.array([index_of.get(text, UNKNOWN) for text in texts], np.int64)
    else:
        texts = None
        order = np.argsort(truth.numbers)
        position = np.minimum(np.searchsorted(truth.numbers[order], numbers), len(order) - 1)
        image_index = np.where(truth.numbers[order][position] == numbers, order[position], UNKNOWN)
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
        image_index=image_index,
        image_name=lambda i: texts[i] if texts else as_text(numbers[i].item()),
        labels=np.where(whole, label_of[np.where(whole, ids, 0).astype(np.int64)], -1),
        class_name=lambda i: as_text(ids[i].item()),
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
            if words and (len(words) != len(names) or any(number_of(word) is None for word in words)):
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
    names = Names(truth)
    images: list[str] = []
    places: list[tuple[Path, int]] = []
    numbers: list[list[float]] = []
    label_of_row: list[int] = []
    for file, label in labels_of_files(files, names.classes, truth).items():
        try:
            text = file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ResultsError(f"{file}: not a text in UTF-8 ({error})") from error
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            words = line.rsplit(maxsplit=len(VOC_COLUMNS) - 1)  # the name in front may hold blanks
            row = [number_of(word) for word in words[1:]]
            if len(words) != len(VOC_COLUMNS) or None in row:
                raise ResultsError(
                    f"{file}: line {number}: expected {', '.join(VOC_COLUMNS)}; found {line.strip()[:80]!r}"
                )
            images.append(words[0])
            places.append((file, number))
            numbers.append(row)  # type: ignore[arg-type]  # no None among them
            label_of_row.append(label)
    columns = np.array(numbers, np.float64).reshape(-1, 5)
    boxes = np.ascontiguousarray(columns[:, 1:])
    raw = Raw(
        path,
        where=lambda i: f"{places[i][0].name} line {places[i][1]}",
        image_index=names.images(images),
        image_name=images.__getitem__,
        labels=np.array(label_of_row, np.int64),
        class_name=lambda i: label_of_row[i],
        boxes=boxes,
        given=boxes,
        scores=np.ascontiguousarray(columns[:, 0]),
        convention=VOC,
        known_classes=list(names.classes),
    )
    results = checked(raw, truth)
    absent = sorted({*range(len(truth.classes))} - {*label_of_row})
    if path.is_dir() and absent:
        note = f"{path}: {len(absent)} of {len(truth.classes)} classes have no detections (first: "
        return Results(results.table, (*results.warnings, f"{note}{truth.classes.names[absent[0]]})"))
    return results
