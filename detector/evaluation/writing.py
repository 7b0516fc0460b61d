"""DetectionTable -> files for other programs: COCO's results JSON, ILSVRC's submission, PASCAL VOC's comp4 files.

Boxes are converted to each format's own pixel convention. reading.py reads all three. A file is written whole or not at
all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detector.evaluation.results import DetectionTable, ResultsError, class_keys, numeric_ids
from detector.evaluation.truth import HALF_OPEN, ILSVRC, VOC, Truth
from detector.evaluation.voc_names import prefix_of, quoted, split_of
from proposals.boxes import to_xywh
from proposals.files import write_whole


def check_format(path: Path, truth: Truth) -> None:
    """Reject a path that write_results cannot write, before the detections exist.

    Raises:
        ResultsError: its ending belongs to no format, or to ILSVRC's where the truth's images have no numbers.
    """
    if path.suffix not in ("", ".json", ".txt"):
        raise ResultsError(f"{path}: detections are written as .json (COCO), .txt (ILSVRC) or a folder (PASCAL VOC)")
    if path.suffix == ".txt" and truth.numbers is None:
        raise ResultsError(f"{path}: the images of {truth.name} lack the numbers that an ILSVRC submission needs")


def write_results(path: Path, truth: Truth, table: DetectionTable) -> None:
    """Write detections in the format of the path's ending: .json COCO, .txt ILSVRC, no ending a folder of VOC files.

    Raises:
        ResultsError: see check_format; or the format cannot represent the name of an image.
    """
    check_format(path, truth)
    match path.suffix:
        case ".json":
            write_coco(path, truth, table)
        case ".txt":
            write_ilsvrc(path, truth, table)
        case _:
            write_voc(path, truth, table, split_of(truth))


def write_coco(path: Path, truth: Truth, table: DetectionTable) -> None:
    """Write COCO's results JSON, one detection per line.

    An image_id is a number where all of the truth's are (see numeric_ids), else text. A category_id is the truth's own
    number, followed by the class's name where the data set itself has no numbers. A box is x, y, width, height, so its
    far corner may change in the last bit when it is read back.
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
    with write_whole(path) as part:
        part.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def write_ilsvrc(path: Path, truth: Truth, table: DetectionTable) -> None:
    """Write the devkit's text, "image-number det-id confidence x1 y1 x2 y2", exact to the last bit.

    Raises:
        ResultsError: the truth's images have no numbers.
    """
    table.check_fits(truth)
    if truth.numbers is None:
        raise ResultsError(f"{path}: the images of {truth.name} lack the numbers that an ILSVRC submission needs")
    found = table.to(ILSVRC)
    numbers, ids = truth.numbers[found.image_index].tolist(), np.array(truth.classes.ids)[found.labels].tolist()
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as part, part.open("w", encoding="ascii") as file:
        for number, det_id, score, box in zip(numbers, ids, found.scores.tolist(), found.boxes.tolist(), strict=True):
            file.write(f"{number} {det_id} {score!r} {' '.join(map(_shortest, box))}\n")


def write_voc(folder: Path, truth: Truth, table: DetectionTable, split: str) -> None:
    """Write comp4_det_SPLIT_CLASS.txt for every class, best detection first, exact to the last bit.

    Characters that file names cannot contain are written as in URLs, "/" as %2F.

    Raises:
        ResultsError: the name of an image contains a line break, or begins or ends with a blank.
    """
    table.check_fits(truth)
    broken = next((name for name in truth.image_ids if name != name.strip() or {*"\r\n"} & {*name}), None)
    if broken is not None:
        raise ResultsError(f"{folder}: image {broken!r} cannot be written in VOC's files; write .json instead")
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
        with write_whole(folder / f"{prefix_of(split)}{quoted(key)}.txt") as part:
            part.write_text("".join(lines), encoding="utf-8")


def _shortest(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)
