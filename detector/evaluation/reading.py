"""Files of detections -> DetectionTable, checked before anything is scored; and back.

    COCO results    [{"image_id", "category_id", "bbox": [x, y, width, height], "score"}, ...]
    journal         lines of {"image_id", "boxes", "scores", "labels"}, as a run of ours writes them
    ILSVRC          lines "image-number det-id confidence x1 y1 x2 y2" of the devkit
    PASCAL VOC      a folder of comp4_det_SPLIT_CLASS.txt, or one of them: lines "image confidence x1 y1 x2 y2"

Each is read against any kind of ground truth. A mistake that would cost the score in silence is an error that says how
many detections have it and where the first is, or a warning where it may be meant.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from detector.detections import Detections
from detector.evaluation.matching import nearest_objects
from detector.evaluation.results import DetectionTable, ResultsError, class_keys, numeric_ids
from detector.evaluation.truth import HALF_OPEN, ILSVRC, VOC, Convention, Truth
from proposals.boxes import from_xywh, to_xywh

SAMPLE = 20_000  # detections that the checks of layout and numbering look at
ILSVRC_COLUMNS = ("image number", "class number", "confidence", "x1", "y1", "x2", "y2")
VOC_COLUMNS = ("image", "confidence", "x1", "y1", "x2", "y2")


class Results(NamedTuple):
    """What a file holds: the detections, and warnings of what is odd about them, one line each."""

    table: DetectionTable
    warnings: tuple[str, ...]


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
        return _empty(path, truth)
    if start.startswith(b"["):
        return _read_coco(path, truth)
    if start.startswith(b"{"):
        return _read_lines(path, truth)
    columns = len(start.split(b"\n")[0].split())
    if columns == len(VOC_COLUMNS) and "_det_" in path.name:
        return _read_voc(path, [path], truth)
    return _read_ilsvrc(path, truth)


@dataclass(frozen=True)
class _Raw:
    """What a file says, before it is believed.

    Attributes:
        path: the file.
        where: position of a detection -> where it stands in the file.
        image_index: [D], -1 where the image is unknown.
        image_name: position of a detection -> how the file names its image.
        labels: [D], -1 where the class is unknown.
        class_name: position of a detection -> how the file names its class.
        boxes: [D, 4] corners.
        given: [D, 4] as in the file, x, y, width, height in COCO's.
        scores: [D].
        convention: of the corners.
        known_classes: to list in a message.
    """

    path: Path
    where: Callable[[int], str]
    image_index: NDArray[np.int64]
    image_name: Callable[[int], object]
    labels: NDArray[np.int64]
    class_name: Callable[[int], object]
    boxes: NDArray[np.float64]
    given: NDArray[np.float64]
    scores: NDArray[np.float64]
    convention: Convention
    known_classes: Sequence[object]


def _checked(raw: _Raw, truth: Truth) -> Results:
    """Refuse what cannot be right, warn of what may be."""
    errors = []

    def refuse(bad: NDArray[np.bool_], problem: Callable[[int], str]) -> None:
        count = int(bad.sum())
        if count:
            first = int(np.flatnonzero(bad)[0])
            more = f" ({count:,} of {len(bad):,} detections)" if count > 1 else ""
            errors.append(f"{raw.path}: {raw.where(first)}: {problem(first)}{more}")

    refuse(~np.isfinite(raw.scores), lambda i: f"score must be a finite number, not {raw.scores[i]}")
    refuse(
        np.asarray(~np.isfinite(raw.boxes).all(axis=1)),
        lambda i: f"a box must be finite numbers, not {raw.given[i].tolist()}",
    )
    refuse(raw.image_index < 0, lambda i: _unknown_image(str(raw.image_name(i)), truth))
    refuse(raw.labels < 0, lambda i: _unknown_class(raw, truth, i))
    inverted = np.asarray((raw.boxes[:, 2:] - raw.boxes[:, :2] + raw.convention.inclusive < 0).any(axis=1))
    if raw.convention == HALF_OPEN and raw.given is not raw.boxes:
        refuse(inverted, lambda i: f"bbox {raw.given[i].tolist()} has a negative width or height")
    else:
        hint = "; these look like x, y, width, height" if inverted.sum() > len(inverted) / 5 else ""
        refuse(inverted, lambda i: f"box {raw.given[i].tolist()} ends before it begins; boxes are x1, y1, x2, y2{hint}")
    if errors:
        raise ResultsError("\n".join(errors))
    table = DetectionTable(raw.image_index, raw.labels, raw.scores, raw.boxes, raw.convention)
    if not len(table):
        return _empty(raw.path, truth)
    _check_layout(raw, truth, table)
    return Results(table, tuple(_warnings(raw, truth, table)))


def _empty(path: Path, truth: Truth) -> Results:
    nothing = np.zeros(0, np.int64)
    table = DetectionTable(nothing, nothing, np.zeros(0), np.zeros((0, 4)), truth.convention)
    return Results(table, (f"{path}: holds no detections; every AP is 0",))


def _warnings(raw: _Raw, truth: Truth, table: DetectionTable) -> Iterable[str]:
    sizes = truth.sizes[table.image_index]
    first, inclusive = table.convention
    outside = (table.boxes[:, :2] < first - 1).any(axis=1)
    outside |= ((table.boxes[:, 2:] > sizes + first - inclusive + 1) & (sizes > 0)).any(axis=1)
    if outside.any():
        where = raw.where(int(np.flatnonzero(outside)[0]))
        yield f"{raw.path}: {int(outside.sum()):,} of {len(table):,} boxes reach outside their image (first: {where})"
    flat = (table.boxes[:, 2:] - table.boxes[:, :2] + inclusive <= 0).any(axis=1)
    if flat.any():
        where = raw.where(int(np.flatnonzero(flat)[0]))
        yield f"{raw.path}: {int(flat.sum()):,} of {len(table):,} boxes have no area (first: {where})"
    without = np.setdiff1d(np.arange(len(truth)), table.image_index)
    if len(without):
        name = truth.image_ids[without[0]]
        yield f"{raw.path}: {len(without):,} of {len(truth):,} images have no detections (first: {name})"
    present = np.bincount(truth.labels, minlength=len(truth.classes)) > 0
    absent = ~present[table.labels]
    if absent.any():
        name = truth.classes.names[table.labels[np.flatnonzero(absent)[0]]]
        yield (
            f"{raw.path}: {int(absent.sum()):,} of {len(table):,} detections are of classes without any object in "
            f"{truth.name} (first: {name}); nothing counts them"
        )
    if (shift := _label_shift(truth, table)) is not None:
        yield (
            f"{raw.path}: class numbers look shifted: of the boxes that lie on an object hardly any is of its class, "
            f"and most are with {shift:+d}"
        )


def _label_shift(truth: Truth, table: DetectionTable) -> int | None:
    """The shift of all labels by one that makes localised detections agree with their objects, if there is one."""
    sample = table[np.argsort(-table.scores, kind="stable")[:SAMPLE]]
    own, own_iou, other, other_iou = nearest_objects(truth, sample)
    position = np.where(own_iou >= other_iou, own, other)
    localised = np.maximum(own_iou, other_iou) >= 0.5
    if localised.sum() < 20:
        return None
    wanted, given = truth.labels[position[localised]], sample.labels[localised]
    share = {shift: float((given + shift == wanted).mean()) for shift in (-1, 0, 1)}
    best = max((-1, 1), key=share.__getitem__)
    return best if share[0] < 0.1 and share[best] > 0.5 else None


def _check_layout(raw: _Raw, truth: Truth, table: DetectionTable) -> None:
    """Corners for x, y, width, height, or the other way round, make an AP of 0 in silence.

    They show by leaving their images, or by lying on the objects as soon as they are read the other way.
    """
    is_xywh = raw.given is not raw.boxes
    other = raw.given if is_xywh else np.asarray(from_xywh(raw.given), np.float64)
    sizes = truth.sizes[table.image_index]
    outside = ((table.boxes[:, 2:] > 1.1 * sizes + 1) & (sizes > 0)).any(axis=1)
    right = "x, y, width, height" if is_xywh else "x1, y1, x2, y2"
    wrong = "x1, y1, x2, y2" if is_xywh else "x, y, width, height"
    kind = "bbox" if is_xywh else "a box"
    if is_xywh and outside.sum() > len(table) / 2:
        raise ResultsError(
            f"{raw.path}: {outside.sum():,} of {len(table):,} boxes reach beyond their image: "
            f"{kind} must be {right} and these look like {wrong}"
        )
    sample = np.argsort(-table.scores, kind="stable")[:SAMPLE]
    upright = (other[sample, 2:] > other[sample, :2]).all(axis=1)
    if upright.mean() < 0.9:
        return
    as_read = table[sample[upright]]
    turned = DetectionTable(as_read.image_index, as_read.labels, as_read.scores, other[sample[upright]], raw.convention)
    hits, hits_turned = (_share_on_objects(truth, part) for part in (as_read, turned))
    if hits_turned > 0.2 and hits < hits_turned / 4:
        raise ResultsError(
            f"{raw.path}: {hits:.0%} of the best boxes lie on an object, and {hits_turned:.0%} if they are read as "
            f"{wrong}: {kind} must be {right}"
        )


def _share_on_objects(truth: Truth, table: DetectionTable) -> float:
    _, own, _, other = nearest_objects(truth, table)
    return float((np.maximum(own, other) >= 0.5).mean())


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
            "none; name them instead, as category_id or category: " + _listing(list(truth.classes.names))
        )
    given = np.array([entry.bbox for entry in entries], np.float64).reshape(-1, 4)
    raw = _Raw(
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
    return _checked(raw, truth)


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
                raise ResultsError(f"{where}: {_unknown_image(str(entry['image_id']), truth)}")
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
            raise ResultsError(f"{where}: unknown class {name!r}.{_hint(str(name), known)} Known: {_listing(known)}")
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
    raw = _Raw(
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
    return _checked(raw, truth)


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
            hint = _hint(name, list(labels))
            raise ResultsError(f"{file}: no class of {truth.name} ends its name.{hint} Known: {_listing(list(labels))}")
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
    raw = _Raw(
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
    results = _checked(raw, truth)
    absent = sorted({*range(len(truth.classes))} - {*label_of_row})
    if path.is_dir() and absent:
        note = f"{path}: {len(absent)} of {len(truth.classes)} classes have no detections (first: "
        return Results(results.table, (*results.warnings, f"{note}{truth.classes.names[absent[0]]})"))
    return results


# ---- writing


def write_results(path: Path, truth: Truth, table: DetectionTable) -> None:
    """Write detections in the form that the path's ending names: .json COCO's, .txt ILSVRC's, no ending VOC's folder.

    Raises:
        ValueError: another ending, or the truth's images have no ILSVRC numbers.
    """
    match path.suffix:
        case ".json":
            write_coco(path, truth, table)
        case ".txt":
            write_ilsvrc(path, truth, table)
        case "":
            write_voc(path, truth, table, truth.name.split()[-1])
        case _:
            raise ValueError(f"{path}: detections are written as .json (COCO), .txt (ILSVRC) or a folder (PASCAL VOC)")


def write_coco(path: Path, truth: Truth, table: DetectionTable) -> None:
    """Write COCO's results JSON, one detection a line, which read_results and pycocotools read.

    An image_id is a number where all of the truth's are (see numeric_ids), else text; a category_id is the truth's own
    number, with the class's name beside it where that number is of our own making; a box is x, y, width, height, so
    that its far corner may come back off by the last bit.
    """
    table.check_fits(truth)
    ids: Sequence[int | str] = numeric_ids(truth) or truth.image_ids
    keys = class_keys(truth.classes)
    boxes = to_xywh(table.to(HALF_OPEN).boxes).tolist()
    columns = (table.image_index.tolist(), table.labels.tolist(), boxes, table.scores.tolist())
    lines = []
    for index, label, box, score in zip(*columns, strict=True):
        entry: dict[str, Any] = {"image_id": ids[index], "category_id": truth.classes.ids[label]}
        if not truth.numbered:
            entry["category"] = keys[label]
        lines.append(json.dumps({**entry, "bbox": box, "score": score}))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def write_ilsvrc(path: Path, truth: Truth, table: DetectionTable) -> None:
    """Write the devkit's text, "image-number det-id confidence x1 y1 x2 y2", numbers exact to the last bit.

    Raises:
        ValueError: the truth's images have no numbers.
    """
    table.check_fits(truth)
    if truth.numbers is None:
        raise ValueError(f"{truth.name}: images without ILSVRC's numbers cannot be written as a submission")
    found = table.to(ILSVRC)
    numbers, ids = truth.numbers[found.image_index].tolist(), np.array(truth.classes.ids)[found.labels].tolist()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="ascii") as file:
        for number, det_id, score, box in zip(numbers, ids, found.scores.tolist(), found.boxes.tolist(), strict=True):
            file.write(f"{number} {det_id} {score!r} {' '.join(map(_shortest, box))}\n")


def write_voc(folder: Path, truth: Truth, table: DetectionTable, split: str) -> None:
    """Write comp4_det_SPLIT_CLASS.txt for every class, best first, numbers exact to the last bit."""
    table.check_fits(truth)
    found = table.to(VOC)
    order = np.argsort(-found.scores, kind="stable")
    folder.mkdir(parents=True, exist_ok=True)
    for label, key in enumerate(class_keys(truth.classes)):
        rows = order[found.labels[order] == label].tolist()
        lines = (
            f"{truth.image_ids[found.image_index[row]]} {found.scores[row].item()!r} "
            f"{' '.join(map(_shortest, found.boxes[row].tolist()))}\n"
            for row in rows
        )
        (folder / f"comp4_det_{split}_{key}.txt").write_text("".join(lines), encoding="utf-8")


# ---- words


def _labels_by_name(truth: Truth) -> dict[str, int]:
    return {key: label for label, key in enumerate(class_keys(truth.classes))} | truth.classes.label_of


def _unknown_image(name: str, truth: Truth) -> str:
    return f"unknown image {name!r}, not in {truth.name}.{_hint(name, list(truth.index_of))}"


def _unknown_class(raw: _Raw, truth: Truth, position: int) -> str:
    name = raw.class_name(position)
    ids = sorted(truth.classes.label_of_id)
    unknown = {str(raw.class_name(int(i))) for i in np.flatnonzero(raw.labels < 0)[:SAMPLE]}
    hint = ""
    if isinstance(name, str) and not name.isdecimal():
        hint = _hint(name, [str(known) for known in raw.known_classes])
    elif unknown == {"0"} and ids[0] == 1:
        hint = " Numbers from 0? They begin at 1, and all of them may be shifted by one."
    elif ids[-1] > len(ids) and all(text.isdecimal() and int(text) <= len(ids) for text in unknown):
        hint = f" Numbers 1 to {len(ids)}? Those of {truth.name} have gaps."
    return f"unknown category {name!r}. {truth.name} has {_listing(raw.known_classes)}.{hint}".removesuffix(".")


def _hint(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known[:5000], n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _listing(known: Sequence[object], limit: int = 100) -> str:
    texts = [str(item) for item in known[:limit]]
    return ", ".join(texts) + (f" and {len(known) - limit} more" if len(known) > limit else "")


def _shortest(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
