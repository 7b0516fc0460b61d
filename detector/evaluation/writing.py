"""DetectionTable -> files that other programs, and reading.py, read.

COCO's results JSON, ILSVRC's submission, PASCAL VOC's comp4 files; in each format's own pixels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detector.evaluation.results import DetectionTable, class_keys, numeric_ids
from detector.evaluation.truth import HALF_OPEN, ILSVRC, VOC, Truth
from proposals.boxes import to_xywh
from proposals.errors import UserError
from proposals.files import write_whole


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
            raise UserError(f"{path}: detections are written as .json (COCO), .txt (ILSVRC) or a folder (PASCAL VOC)")


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
    with write_whole(path) as temporary:
        temporary.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def write_ilsvrc(path: Path, truth: Truth, table: DetectionTable) -> None:
    """Write the devkit's text, "image-number det-id confidence x1 y1 x2 y2", numbers exact to the last bit.

    Raises:
        ValueError: the truth's images have no numbers.
    """
    table.check_fits(truth)
    if truth.numbers is None:
        raise UserError(f"{truth.name}: images without ILSVRC's numbers cannot be written as a submission")
    found = table.to(ILSVRC)
    numbers, ids = truth.numbers[found.image_index].tolist(), np.array(truth.classes.ids)[found.labels].tolist()
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as temporary, temporary.open("w", encoding="ascii") as file:
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
        with write_whole(folder / f"comp4_det_{split}_{key}.txt") as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")


def _shortest(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)
