"""Detections of a whole data set, and the numbers an evaluation makes of them, in memory and on disk.

In: a detector's Detections per image, or a results file. Out: a DetectionTable, which every protocol evaluates, and the
Evaluation that each returns. Two kinds of file are read: COCO's results JSON, and lines of JSON, one image a line (see
journal.py).
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.data.ground_truth import ClassTable, Dataset
from detector.detections import Detections
from proposals.boxes import from_xywh, to_xywh


class ResultsError(ValueError):
    """A results file that cannot be used; the message is one line that names the file, the place and the reason."""


@dataclass(frozen=True)
class DetectionTable:
    """D detections over a data set. Their order decides between equal scores, and nothing else.

    Attributes:
        image_index: [D] int64, position in the data set's records.
        labels: [D] int64, 0..K-1 in the data set's class table.
        scores: [D] float64, finite, higher is better.
        boxes: [D, 4] float64, px, far edge exclusive.

    Raises:
        ValueError: lengths differ, a number is not finite, or an index is negative.
    """

    image_index: NDArray[np.int64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float64]
    boxes: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name, kind, shape in (
            ("image_index", np.int64, (-1,)),
            ("labels", np.int64, (-1,)),
            ("scores", np.float64, (-1,)),
            ("boxes", np.float64, (-1, 4)),
        ):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=kind).reshape(shape))
        lengths = {len(self.image_index), len(self.labels), len(self.scores), len(self.boxes)}
        if len(lengths) != 1:
            raise ValueError(f"detection table: columns of different lengths {sorted(lengths)}")
        if not (np.isfinite(self.boxes).all() and np.isfinite(self.scores).all()):
            raise ValueError("detection table: a box or a score is not finite")
        if (self.image_index < 0).any() or (self.labels < 0).any():
            raise ValueError("detection table: a negative image index or label")

    @classmethod
    def from_images(cls, dataset: Dataset, found: Mapping[str, Detections]) -> DetectionTable:
        """Detections by image_id -> one table in the order of the data set's records, whatever the mapping's order.

        An image that the mapping does not name has no detections.

        Raises:
            ValueError: the mapping names an image that the data set has not.
        """
        unknown = [image_id for image_id in found if image_id not in dataset.index_of]
        if unknown:
            raise ValueError(f"{_unknown_image(unknown[0], dataset)} ({len(unknown)} unknown in all)")
        parts = [(index, found[r.image_id]) for index, r in enumerate(dataset.records) if r.image_id in found]
        return cls(
            np.concatenate([np.full(len(part), index, np.int64) for index, part in parts] or [np.zeros(0, np.int64)]),
            np.concatenate([part.labels for _, part in parts] or [np.zeros(0, np.int64)]),
            np.concatenate([part.scores for _, part in parts] or [np.zeros(0)]),
            np.concatenate([part.boxes for _, part in parts] or [np.zeros((0, 4))]),
        )

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: slice | NDArray[Any]) -> DetectionTable:
        """A part of them: a slice, a mask or positions."""
        return DetectionTable(self.image_index[index], self.labels[index], self.scores[index], self.boxes[index])

    def check_fits(self, dataset: Dataset) -> None:
        """Refuse a table made for another data set.

        Raises:
            ValueError: an image index or a label beyond the data set's.
        """
        if len(self) and self.image_index.max() >= len(dataset):
            raise ValueError(f"detections name image {self.image_index.max()}, {dataset.name} has {len(dataset)}")
        if len(self) and self.labels.max() >= len(dataset.classes):
            raise ValueError(f"detections name class {self.labels.max()}, {dataset.name} has {len(dataset.classes)}")


@dataclass(frozen=True)
class Evaluation:
    """What one protocol says of one table of detections.

    Attributes:
        protocol: "ilsvrc", "voc10" (area under the curve), "voc07" (11 points) or "coco". Never compare across them.
        min_iou: overlap from which a detection counts as the object, in [0, 1].
        ap: average precision by class key (see class_keys), in [0, 1]; None for a class without ground truth.
        mean_ap: mean over the classes with ground truth.
        median_ap: median over the same.
        objects: ground truths that count, by class key.
        detections: detections evaluated, by class key.
        counts: images, objects, detections, classes, classes_without_ground_truth.
        summary: further numbers of the protocol, such as COCO's AP75; None where there is no ground truth for one.
    """

    protocol: str
    min_iou: float
    ap: dict[str, float | None]
    mean_ap: float
    median_ap: float
    objects: dict[str, int]
    detections: dict[str, int]
    counts: dict[str, int]
    summary: dict[str, float | None]


def evaluation_of(
    protocol: str,
    min_iou: float,
    dataset: Dataset,
    table: DetectionTable,
    *,
    ap: Sequence[float | None],
    objects: NDArray[np.int64],
    summary: Mapping[str, float | None] | None = None,
) -> Evaluation:
    """An Evaluation from the K values of AP and the K numbers of ground truths that count, both in label order.

    Raises:
        ValueError: no class has ground truth, so that there is nothing to evaluate.
    """
    known = [value for value in ap if value is not None]
    if not known:
        raise ValueError(f"{dataset.name}: no ground truth in {len(dataset)} images, nothing to evaluate against")
    keys = class_keys(dataset.classes)
    detections = np.bincount(table.labels, minlength=len(keys))
    return Evaluation(
        protocol=protocol,
        min_iou=min_iou,
        ap=dict(zip(keys, ap, strict=True)),
        mean_ap=float(np.mean(known)),
        median_ap=float(np.median(known)),
        objects=dict(zip(keys, objects.tolist(), strict=True)),
        detections=dict(zip(keys, detections.tolist(), strict=True)),
        counts={
            "images": len(dataset),
            "objects": int(objects.sum()),
            "detections": len(table),
            "classes": len(keys),
            "classes_without_ground_truth": len(ap) - len(known),
        },
        summary=dict(summary or {}),
    )


def class_keys(classes: ClassTable) -> list[str]:
    """K texts that tell the classes apart: the name, or its wnid (else its id) where two classes share a name."""
    keys = []
    for name, wnid, number in zip(classes.names, classes.wnids, classes.ids, strict=True):
        keys.append(name if classes.names.count(name) == 1 else wnid or f"{name} #{number}")
    return keys


def numeric_ids(dataset: Dataset) -> list[int] | None:
    """The image ids as numbers if every one is a number without leading zeros, as COCO's are, else None."""
    ids = [record.image_id for record in dataset.records]
    if all(text.isascii() and text.isdecimal() and text == str(int(text)) for text in ids):
        return [int(text) for text in ids]
    return None


def write_results(path: Path, dataset: Dataset, table: DetectionTable) -> None:
    """Write COCO's results JSON, one detection a line, which read_results and pycocotools read.

    An image_id is a number where all of the data set's are (see numeric_ids), else text; a category_id is the data
    set's own number; a box is x, y, width, height, so that its far corner may come back off by the last bit.
    """
    table.check_fits(dataset)
    ids: Sequence[int | str] = numeric_ids(dataset) or [record.image_id for record in dataset.records]
    columns = (table.image_index.tolist(), table.labels.tolist(), to_xywh(table.boxes).tolist(), table.scores.tolist())
    lines = [
        json.dumps({"image_id": ids[index], "category_id": dataset.classes.ids[label], "bbox": box, "score": score})
        for index, label, box, score in zip(*columns, strict=True)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def read_results(path: Path, dataset: Dataset) -> DetectionTable:
    """Read COCO's results JSON, or lines of {"image_id", "boxes", "scores", "labels"} such as a Journal's.

    An image is named by its id in the data set, by number, or by the file's name with or without its ending. In the
    lines, boxes are x1, y1, x2, y2 and labels are class names (or WordNet ids), and the images come back in the data
    set's order, so that an interrupted run and an unbroken one are the same table.

    Raises:
        ResultsError: no such file, malformed JSON, an unknown image or class, a number that is not finite, an image on
            two lines, a box that is none, COCO boxes that look like x1, y1, x2, y2.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path}: cannot read: {getattr(error, 'strerror', None) or error}") from error
    if not text.strip():
        raise ResultsError(f"{path}: empty file; a run without detections writes []")
    if text.lstrip().startswith("["):
        return _read_coco(path, text, dataset)
    images = image_lookup(dataset)
    labels = {key: label for label, key in enumerate(class_keys(dataset.classes))} | dataset.classes.label_of
    found: dict[str, Detections] = {}
    first_line: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        where = f"{path}: line {number}"
        entry = _parse(line, where) if line.strip() else None
        if entry is None or (number == 1 and isinstance(entry, dict) and "journal" in entry):
            continue
        image_id = dataset.records[_image_of(entry, images, dataset, where)].image_id
        if image_id in found:
            raise ResultsError(f"{where}: image {image_id!r} occurs twice, first on line {first_line[image_id]}")
        found[image_id] = _detections_of(entry, labels, where)
        first_line[image_id] = number
    return DetectionTable.from_images(dataset, found)


def image_lookup(dataset: Dataset) -> dict[str, int]:
    """Position in records by every text that names one image: its id, its file name, the stem, the stem as a number."""
    names: dict[str, set[int]] = {}
    for index, record in enumerate(dataset.records):
        stem = record.path.stem
        number = [str(int(stem))] if stem.isascii() and stem.isdecimal() else []
        for name in (record.path.name, stem, *number):
            names.setdefault(name, set()).add(index)
    unique = {name: indices.pop() for name, indices in names.items() if len(indices) == 1}
    return unique | dataset.index_of


def _read_coco(path: Path, text: str, dataset: Dataset) -> DetectionTable:
    images, labels = image_lookup(dataset), dataset.classes.label_of_id
    image_index: list[int] = []
    found_labels: list[int] = []
    scores: list[float] = []
    boxes: list[list[float]] = []
    for number, entry in enumerate(_parse(text, str(path)), start=1):
        where = f"{path}: detection {number}"
        index = _image_of(entry, images, dataset, where)
        for key in ("category_id", "bbox", "score"):
            if key not in entry:
                raise ResultsError(f"{where}: no {key!r}")
        category, box, score = entry["category_id"], entry["bbox"], entry["score"]
        if not isinstance(category, int) or category not in labels:
            raise ResultsError(f"{where}: unknown category {category!r}. {dataset.name} has {_listing(sorted(labels))}")
        if not isinstance(box, list) or len(box) != 4 or not all(_is_finite(value) for value in box):
            raise ResultsError(f"{where}: bbox must be x, y, width, height, not {box!r}")
        if box[2] < 0 or box[3] < 0:
            raise ResultsError(f"{where}: bbox {box!r} has a negative width or height")
        if not _is_finite(score):
            raise ResultsError(f"{where}: score must be a finite number, not {score!r}")
        image_index.append(index)
        found_labels.append(labels[category])
        scores.append(float(score))
        boxes.append(box)
    corners = from_xywh(np.array(boxes, np.float64).reshape(-1, 4)).astype(np.float64)
    table = DetectionTable(np.array(image_index, np.int64), np.array(found_labels, np.int64), np.array(scores), corners)
    _check_layout(path, dataset, table)
    return table


def _check_layout(path: Path, dataset: Dataset, table: DetectionTable) -> None:
    """Corners given for x, y, width, height make an AP of 0 in silence; they show by leaving their images."""
    sizes = np.array([(record.width, record.height) for record in dataset.records], np.float64).reshape(-1, 2)
    limits = sizes[table.image_index]
    outside = ((table.boxes[:, 2:] > 1.1 * limits + 1) & (limits > 0)).any(axis=1)
    if outside.sum() > len(table) / 2:
        raise ResultsError(
            f"{path}: {outside.sum()} of {len(table)} boxes reach beyond their image: "
            "bbox must be x, y, width, height and these look like x1, y1, x2, y2"
        )


def _image_of(entry: Any, images: Mapping[str, int], dataset: Dataset, where: str) -> int:
    if not isinstance(entry, dict) or "image_id" not in entry:
        raise ResultsError(f"{where}: expected an object with 'image_id', not {str(entry)[:60]!r}")
    name = str(entry["image_id"])
    if name not in images:
        raise ResultsError(f"{where}: {_unknown_image(name, dataset)}")
    return images[name]


def _detections_of(entry: Mapping[str, Any], labels: Mapping[str, int], where: str) -> Detections:
    for key in ("boxes", "scores", "labels"):
        if not isinstance(entry.get(key), list):
            raise ResultsError(f"{where}: no list {key!r}")
    for name in entry["labels"]:
        if not isinstance(name, str) or name not in labels:
            known = list(labels)
            raise ResultsError(f"{where}: unknown class {name!r}.{_hint(str(name), known)} Known: {_listing(known)}")
    for box in entry["boxes"]:
        if not isinstance(box, list) or len(box) != 4 or not all(_is_finite(value) for value in box):
            raise ResultsError(f"{where}: a box must be x1, y1, x2, y2, not {box!r}")
        if box[2] < box[0] or box[3] < box[1]:
            raise ResultsError(f"{where}: box {box!r} ends before it begins; boxes are x1, y1, x2, y2")
    for score in entry["scores"]:
        if not _is_finite(score):
            raise ResultsError(f"{where}: score must be a finite number, not {score!r}")
    try:
        return Detections(
            np.array(entry["boxes"], np.float64),
            np.array(entry["scores"], np.float64),
            np.array([labels[name] for name in entry["labels"]], np.int64),
        )
    except ValueError as error:
        raise ResultsError(f"{where}: {error}") from error


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if "\n" in text.strip() else f"column {error.colno}"
        raise ResultsError(f"{where}: malformed JSON at {place}: {error.msg}") from error


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _unknown_image(name: str, dataset: Dataset) -> str:
    return f"unknown image {name!r}, not in {dataset.name}.{_hint(name, list(dataset.index_of))}"


def _hint(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _listing(known: Sequence[object], limit: int = 100) -> str:
    texts = [str(item) for item in known[:limit]]
    return ", ".join(texts) + (f" and {len(known) - limit} more" if len(known) > limit else "")
