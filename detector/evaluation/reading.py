"""Files of detections -> DetectionTable, checked (checking.py) before anything is scored.

    COCO results    [{"image_id", "category_id", "bbox": [x, y, width, height], "score"}, ...]
    lines of JSON   {"image_id", "boxes", "scores", "labels"} per image, as a run of this project writes them
    ILSVRC          lines "image-number det-id confidence x1 y1 x2 y2" of the devkit
    PASCAL VOC      a folder of comp4_det_SPLIT_CLASS.txt, or one of them: lines "image confidence x1 y1 x2 y2"

Each format is read against any kind of ground truth.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import reduce
from itertools import islice
from operator import getitem
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

ILSVRC_COLUMNS = ("image number", "class number", "confidence", "x1", "y1", "x2", "y2")
VOC_COLUMNS = ("image", "confidence", "x1", "y1", "x2", "y2")

NUMERIC = re.compile(r"[-+]?(\d+\.?\d*([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?|nan|inf|infinity)", re.ASCII | re.I)
ENCODED = {
    b"\x1f\x8b": "compressed by gzip; unpack it first",
    b"PK\x03\x04": "a zip file; unpack it first",
    b"\xff\xfe": "a text in UTF-16, as PowerShell's > writes; save it in UTF-8",
    b"\xfe\xff": "a text in UTF-16; save it in UTF-8",
}
"""First bytes of files that cannot be read, and the reason."""
MEANING = {
    **dict.fromkeys(("image_id", "category_id", "category"), "a number or a name"),
    "score": "a finite number",
    "bbox": "x, y, width, height",
    "labels": "a list of numbers or names",
    "scores": "a list of finite numbers",
    "boxes": "a list of x1, y1, x2, y2",
}
"""Expected values of each JSON key, for messages."""
EXACT = 2.0**53
"""From here on float64 does not distinguish all whole numbers."""

Box = tuple[float, float, float, float]


def read_results(path: Path, truth: Truth) -> Results:
    """Read a file of detections, or a folder of PASCAL VOC's.

    An image may be named by its id, its number, its file name with or without ending, or the end of its path. A class
    may be named by its number in the truth's table, its name or its WordNet id. Detections on images that the truth's
    image list leaves out are left out and counted.

    Raises:
        ResultsError: no such file; a malformed file, with the line; unknown images or classes; numbers for classes that
            have none; numbers that are not finite; boxes in another layout.
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
    of_numbers = len(words) == len(ILSVRC_COLUMNS) and all(map(NUMERIC.fullmatch, words))
    if "_det_" in path.name and len(words) >= len(VOC_COLUMNS) and not (of_numbers and truth.numbers is not None):
        return _read_voc(path, [path], truth)
    return _read_ilsvrc(path, truth)


# ---- JSON


class _Entry(msgspec.Struct, gc=False):
    image_id: Name
    category_id: Name
    bbox: Box
    score: float
    category: Name | None = None


def _read_coco(path: Path, truth: Truth) -> Results:
    entries: list[_Entry] = _decoded(path.read_bytes(), list[_Entry], str(path), "detection")
    names = Names(truth)
    keys = [entry.category_id if entry.category is None else entry.category for entry in entries]
    named = np.array([entry.category is not None for entry in entries], np.bool_)
    raw = Raw(
        path,
        describe=lambda i: (f"detection {i + 1}", as_text(entries[i].image_id)),
        image_index=names.images([entry.image_id for entry in entries]),
        labels=np.where(named, names.labels(keys, number=False), names.labels(keys, number=True)),
        class_name=keys.__getitem__,
        given=np.array([entry.bbox for entry in entries], np.float64).reshape(-1, 4),
        is_xywh=True,
        scores=np.array([entry.score for entry in entries], np.float64),
        convention=HALF_OPEN,
        known_classes=sorted(truth.classes.label_of_id) if truth.numbered else list(names.classes),
    )
    return checked(raw, truth)


class _Line(msgspec.Struct, gc=False):
    image_id: Name
    boxes: list[Box]
    scores: list[float]
    labels: list[Name]


def _read_lines(path: Path, truth: Truth) -> Results:
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
                    raise ResultsError(f"{path}: holds ground truth ('annotations'), not detections") from None
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
        given=np.array([box for line in lines for box in line.boxes], np.float64).reshape(-1, 4),
        scores=np.array([score for line in lines for score in line.scores], np.float64),
        convention=HALF_OPEN,
        known_classes=list(names.classes),
        named=index_of_line[index_of_line >= 0],
    )
    table, warnings = checked(raw, truth)
    # The truth's order decides between equal scores, in whichever order a run finished its images.
    return Results(table[np.argsort(table.image_index, kind="stable")], warnings)


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


# ---- ILSVRC's text


def _read_ilsvrc(path: Path, truth: Truth) -> Results:
    columns = _columns(path)
    if truth.numbers is None:
        raise ResultsError(
            f"{path}: names images by ILSVRC's numbers, and those of {truth.name} have none; "
            "write COCO results or lines of JSON instead"
        )
    numbers, ids = columns[:, 0], columns[:, 1]
    if (np.abs(numbers) < EXACT).all():
        order = np.argsort(truth.numbers)
        position = np.minimum(np.searchsorted(truth.numbers[order], numbers), len(order) - 1)
        image_index = np.where(truth.numbers[order][position] == numbers, order[position], UNKNOWN)
    else:
        index_of = {str(number): index for number, index in truth.index_of_number.items()}
        texts = np.loadtxt(path, dtype=np.str_, comments=None, usecols=0, ndmin=1, encoding="utf-8-sig").tolist()
        image_index = np.array([index_of.get(text, UNKNOWN) for text in texts], np.int64)
    label_of = np.full(max(truth.classes.ids) + 1, -1, np.int64)
    label_of[list(truth.classes.ids)] = np.arange(len(truth.classes))
    whole = (ids == np.floor(ids)) & (ids >= 0) & (ids < len(label_of))

    def describe(row: int) -> tuple[str, str]:
        with path.open(encoding="utf-8-sig") as file:
            filled = ((number, line) for number, line in enumerate(file, 1) if line.strip())
            number, line = next(islice(filled, row, None))
        return f"line {number}", line.split()[0]

    raw = Raw(
        path,
        describe=describe,
        image_index=image_index,
        labels=np.where(whole, label_of[np.where(whole, ids, 0).astype(np.int64)], -1),
        class_name=lambda i: as_text(ids[i].item()),
        given=np.ascontiguousarray(columns[:, 3:]),
        scores=np.ascontiguousarray(columns[:, 2]),
        convention=ILSVRC,
        known_classes=[f"{min(truth.classes.ids)} to {max(truth.classes.ids)}"],
    )
    return checked(raw, truth)


def _columns(path: Path) -> NDArray[np.float64]:
    """Read a text of numbers, [lines, 7]; a message names the first bad line and counts them."""
    try:
        columns = np.loadtxt(path, dtype=np.float64, comments=None, ndmin=2, encoding="utf-8-sig")
        if columns.shape[1] == len(ILSVRC_COLUMNS):
            return columns
        problem = f"has {columns.shape[1]} columns"
    except (ValueError, UnicodeDecodeError) as error:
        problem = f"cannot be read as numbers ({error})"
    bad: list[tuple[int, str]] = []
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            words = line.split()
            if words and (len(words) != len(ILSVRC_COLUMNS) or not all(map(NUMERIC.fullmatch, words))):
                bad.append((number, line.strip()[:80]))
    if bad:
        more = f" ({len(bad):,} such lines)" if bad[1:] else ""
        expected = f"expected {len(ILSVRC_COLUMNS)} numbers, {', '.join(ILSVRC_COLUMNS)}"
        problem = f"line {bad[0][0]}: {expected}; found {bad[0][1]!r}{more}"
    raise ResultsError(f"{path}: {problem}")


# ---- PASCAL VOC's text


def _read_voc(path: Path, files: Sequence[Path], truth: Truth) -> Results:
    if not files:
        raise ResultsError(f"{path}: no files named comp4_det_SPLIT_CLASS.txt in this folder")
    names = Names(truth)
    images: list[str] = []
    locations: list[tuple[Path, int]] = []
    numbers: list[list[float]] = []
    labels: list[int] = []
    for file, label in labels_of_files(files, names.classes, truth).items():
        try:
            text = file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ResultsError(f"{file}: not a text in UTF-8 ({error})") from error
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            words = line.rsplit(maxsplit=len(VOC_COLUMNS) - 1)  # the name in front may contain blanks
            if len(words) != len(VOC_COLUMNS) or not all(map(NUMERIC.fullmatch, words[1:])):
                raise ResultsError(
                    f"{file}: line {number}: expected {', '.join(VOC_COLUMNS)}; found {line.strip()[:80]!r}"
                )
            images.append(words[0])
            locations.append((file, number))
            numbers.append([float(word) for word in words[1:]])
            labels.append(label)
    columns = np.array(numbers, np.float64).reshape(-1, 5)
    raw = Raw(
        path,
        describe=lambda i: (f"{locations[i][0].name} line {locations[i][1]}", images[i]),
        image_index=names.images(images),
        labels=np.array(labels, np.int64),
        class_name=labels.__getitem__,
        given=np.ascontiguousarray(columns[:, 1:]),
        scores=np.ascontiguousarray(columns[:, 0]),
        convention=VOC,
        known_classes=list(names.classes),
    )
    results = checked(raw, truth)
    absent = sorted({*range(len(truth.classes))} - {*labels})
    if path.is_dir() and absent:
        note = f"{path}: {len(absent)} of {len(truth.classes)} classes have no detections (first: "
        return Results(results.table, (*results.warnings, f"{note}{truth.classes.names[absent[0]]})"))
    return results
