"""An Evaluation as a table to read and as JSON to keep."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from detector.evaluation.results import Evaluation

_TITLES = {
    "ilsvrc": "ILSVRC DET",
    "voc10": "PASCAL VOC2010+, area under the curve",
    "voc07": "PASCAL VOC2007, 11 points",
    "coco": "COCO, 101 points",
}


def format_report(evaluation: Evaluation) -> str:
    """A table of one row per class (AP, ground truths, detections), the mean and the median below, then the summary.

    A class without ground truth has "-" for its AP and no part in the mean.
    """
    counts = evaluation.counts
    rows = [
        (name, _value(ap), str(evaluation.objects[name]), str(evaluation.detections[name]))
        for name, ap in evaluation.ap.items()
    ]
    totals = [
        ("mean", _value(evaluation.mean_ap), str(counts["objects"]), str(counts["detections"])),
        ("median", _value(evaluation.median_ap), "", ""),
    ]
    heading = ("class", "AP", "objects", "detections")
    widths = [max(len(row[column]) for row in (heading, *rows, *totals)) for column in range(4)]
    rule = "-" * (sum(widths) + 2 * 3)
    lines = [
        f"{_TITLES.get(evaluation.protocol, evaluation.protocol)}, IoU {evaluation.min_iou:g}: "
        f"{counts['images']} images, {counts['classes']} classes",
        *(_aligned(row, widths) for row in (heading, *rows)),
        rule,
        *(_aligned(row, widths) for row in totals),
    ]
    if counts["classes_without_ground_truth"]:
        lines.append(f"{counts['classes_without_ground_truth']} classes without ground truth are not in the mean")
    if evaluation.summary:
        lines.append("  ".join(f"{name} {_value(value)}" for name, value in evaluation.summary.items()))
    return "\n".join(lines)


def write_report(path: Path, evaluation: Evaluation) -> None:
    """Write the evaluation as JSON: protocol, min_iou, ap by class, mean_ap, median_ap, counts, summary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(evaluation), indent=2) + "\n", encoding="utf-8")


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _aligned(row: tuple[str, str, str, str], widths: list[int]) -> str:
    name, *numbers = row
    columns = [name.ljust(widths[0]), *(text.rjust(width) for text, width in zip(numbers, widths[1:], strict=True))]
    return "  ".join(columns).rstrip()
