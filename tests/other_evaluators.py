"""The evaluators that ours are compared with: the devkits' rules written out slowly, COCO's programs, tidecv."""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.evaluation import DetectionTable, Truth
from detector.evaluation.truth import HALF_OPEN, convert

Boxes = list[tuple[int, list[float]]]
KINDS = {
    "ClassError": "classification",
    "BoxError": "localisation",
    "OtherError": "both",
    "DuplicateError": "duplicate",
    "BackgroundError": "background",
    "MissedError": "missed",
}


def devkit_overlap(first: list[float], second: list[float]) -> float:
    """The lines that VOCevaldet.m and eval_detection.m share: IoU in inclusive pixels, 0 where they compute none."""
    width = min(first[2], second[2]) - max(first[0], second[0]) + 1
    height = min(first[3], second[3]) - max(first[1], second[1]) + 1
    if not (width > 0 and height > 0):
        return 0.0
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (first, second)]
    return width * height / (areas[0] + areas[1] - width * height)


def area_under(recalls: list[float], precisions: list[float]) -> float:
    """VOCap.m."""
    recalls, precisions = [0.0, *recalls, 1.0], [0.0, *precisions, 0.0]
    for place in range(len(precisions) - 2, -1, -1):
        precisions[place] = max(precisions[place], precisions[place + 1])
    return sum((recalls[k] - recalls[k - 1]) * precisions[k] for k in range(1, len(recalls)))


def eleven_points(recalls: list[float], precisions: list[float]) -> float:
    """VOCevaldet.m of 2007; a recall of 3/5 is at the point 0.6, which it would miss in binary."""
    total = 0.0
    for point in range(11):
        total += max((p for r, p in zip(recalls, precisions, strict=True) if r >= point / 10 - 1e-9), default=0.0)
    return total / 11


def curve_of(hits: list[bool], positives: int) -> tuple[list[float], list[float]]:
    """Recall and precision after each detection."""
    found, recalls, precisions = 0, [], []
    for count, hit in enumerate(hits, start=1):
        found += hit
        recalls.append(found / positives)
        precisions.append(found / count)
    return recalls, precisions


def ap_of(
    outcome: tuple[list[bool], int], ap: Callable[[list[float], list[float]], float] = area_under
) -> float | None:
    """AP of hits and misses, best first, and a number of objects; None without objects."""
    hits, positives = outcome
    return ap(*curve_of(hits, positives)) if positives else None


def objects_by_image(truth: Truth, label: int) -> dict[int, Boxes]:
    """(position, corners) of the objects of a class, keyed by image."""
    result: dict[int, Boxes] = defaultdict(list)
    for place in np.flatnonzero(truth.labels == label).tolist():
        result[int(truth.image_index[place])].append((place, truth.boxes[place].tolist()))
    return result


def slow_voc(truth: Truth, table: DetectionTable, label: int) -> tuple[list[bool], int]:
    """VOCevaldet.m: hits and misses of a class, best first, and the number of its objects that are not difficult.

    All images' detections by falling score; each is held against the object that it overlaps most.
    """
    objects = objects_by_image(truth, label)
    positives = sum(not truth.ignored[place] for own in objects.values() for place, _ in own)
    detected: set[int] = set()
    hits = []
    rows = np.flatnonzero(table.labels == label).tolist()
    for row in sorted(rows, key=lambda row: -table.scores[row]):
        most, best = 0.0, -1  # from minus infinity there: an overlap of 0 is below any threshold
        for place, corners in objects[int(table.image_index[row])]:
            overlap = devkit_overlap(table.boxes[row].tolist(), corners)
            if overlap > most:
                most, best = overlap, place
        if most < 0.5:
            hits.append(False)
        elif not truth.ignored[best]:
            hits.append(best not in detected)
            detected.add(best)
    return hits, positives


def slow_ilsvrc(truth: Truth, table: DetectionTable, label: int, *, relaxed: bool) -> tuple[list[bool], int]:
    """eval_detection.m: hits and misses of a class, best first, and the number of its objects.

    Image by image in the order of their numbers; each detection takes the best object that is not taken and whose own
    threshold it reaches.
    """
    assert truth.numbers is not None
    objects = objects_by_image(truth, label)
    rows: dict[int, list[int]] = defaultdict(list)
    for row in np.flatnonzero(table.labels == label).tolist():
        rows[int(table.image_index[row])].append(row)
    positives = 0
    outcome: list[tuple[float, bool]] = []
    for image in sorted(range(len(truth)), key=truth.numbers.tolist().__getitem__):
        if (image, label) in truth.blacklist:
            continue
        positives += len(objects[image])
        taken: set[int] = set()
        for row in sorted(rows[image], key=lambda row: -table.scores[row]):
            most, best = -1.0, -1
            for place, corners in objects[image]:
                width, height = corners[2] - corners[0] + 1, corners[3] - corners[1] + 1
                threshold = min(0.5, width * height / ((width + 10) * (height + 10))) if relaxed else 0.5
                overlap = devkit_overlap(table.boxes[row].tolist(), corners)
                if place not in taken and overlap >= threshold and overlap > most:
                    most, best = overlap, place
            if best >= 0:
                taken.add(best)
            outcome.append((float(table.scores[row]), best >= 0))
    return [hit for _, hit in sorted(outcome, key=lambda item: -item[0])], positives


def coco_evaluator(program: str, truth: Truth, table: DetectionTable) -> Any:
    """COCOeval of pycocotools or hotcoco after its three steps, on files' contents: own ids, gaps in the classes.

    A difficult object is ignored by an area beyond all ranges.
    """
    if program == "hotcoco":
        from hotcoco import COCO, COCOeval
    else:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    ids = [int(name) for name in truth.image_ids]
    areas = np.where(truth.difficult, 1e15, truth.areas)
    objects = zip(truth.image_index.tolist(), truth.labels.tolist(), sides_of(truth), strict=True)
    real = [
        {"id": number, "image_id": ids[image], "category_id": truth.classes.ids[label], "bbox": box}
        | {"area": float(areas[number - 1]), "iscrowd": int(truth.crowd[number - 1])}
        for number, (image, label, box) in enumerate(objects, start=1)
    ]
    rows = zip(table.image_index.tolist(), table.labels.tolist(), table.scores.tolist(), sides_of(table), strict=True)
    found = [
        {"id": number, "image_id": ids[image], "category_id": truth.classes.ids[label], "bbox": box}
        | {"score": score, "area": box[2] * box[3], "iscrowd": 0}
        for number, (image, label, score, box) in enumerate(rows, start=1)
    ]
    sides = []
    with contextlib.redirect_stdout(io.StringIO()):
        for annotations in (real, found):
            side = COCO()
            side.dataset = {
                "images": [{"id": image_id} for image_id in ids],
                "categories": [{"id": number, "name": str(number)} for number in truth.classes.ids],
                "annotations": annotations,
            }
            side.createIndex()
            sides.append(side)
        evaluator = COCOeval(*sides, "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


def tidecv_result(
    truth: Truth, table: DetectionTable, min_iou: float
) -> tuple[dict[str, int], dict[str, float], float]:
    """tidecv's counts, gains and mean AP."""
    import tidecv

    real, found = tidecv.Data("real", max_dets=10_000), tidecv.Data("found", max_dets=10_000)
    for image in range(len(truth)):
        real.add_image(image, str(image))
    for image, label, box in zip(truth.image_index.tolist(), truth.labels.tolist(), sides_of(truth), strict=True):
        real.add_ground_truth(image, label, box)
    columns = table.image_index.tolist(), table.labels.tolist(), table.scores.tolist(), sides_of(table)
    for image, label, score, box in zip(*columns, strict=True):
        found.add_detection(image, label, score, box)
    run = tidecv.TIDE().evaluate(real, found, pos_threshold=min_iou, mode=tidecv.TIDE.BOX)
    gains = {KINDS[kind.__name__]: value / 100 for kind, value in run.fix_main_errors().items()}
    return {KINDS[kind.__name__]: count for kind, count in run.count_errors().items()}, gains, run.ap / 100


def sides_of(part: Truth | DetectionTable) -> list[list[float]]:
    """x, y, width and height of the boxes, px."""
    boxes: NDArray[np.float64] = np.array(convert(part.boxes, part.convention, HALF_OPEN))
    boxes[:, 2:] -= boxes[:, :2]
    return boxes.tolist()  # type: ignore[no-any-return]


def versions(*names: str) -> str:
    return ", ".join(f"{name} {version(name)}" for name in names)
