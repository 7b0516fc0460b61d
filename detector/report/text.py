"""What an evaluation found, as text to read and as JSON to keep (as a page: page.py)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from detector.evaluation.bootstrap import Comparison, Interval
from detector.evaluation.diagnosis import Diagnosis
from detector.evaluation.results import Evaluation
from detector.table import columns
from proposals.files import write_whole

TITLES = {
    "ilsvrc": "ILSVRC DET, small objects found sooner",
    "voc": "PASCAL VOC2010+, area under the curve",
    "voc07": "PASCAL VOC2007, 11 points",
    "coco": "COCO, 101 points",
}


@dataclass(frozen=True)
class Report:
    """An evaluation and what was found beside it.

    Attributes:
        evaluation: the numbers of the protocol.
        interval: of the mean AP over images.
        diagnosis: errors by kind.
        fates: number of objects by what became of them: found, or lost at which stage.
        perfect: mean AP with a stage replaced by a perfect one.
        comparison: with another file of detections.
        other: name of that file.
        warnings: of the files, one line each.
    """

    evaluation: Evaluation
    interval: Interval | None = None
    diagnosis: Diagnosis | None = None
    fates: dict[str, int] | None = None
    perfect: dict[str, float] | None = None
    comparison: Comparison | None = None
    other: str = ""
    warnings: tuple[str, ...] = ()


def format_report(report: Report, *, diagnosis: bool = False) -> str:
    """A table of one row per class (AP, ground truths, detections), the mean and the median below, then the rest.

    With diagnosis, also the errors by kind and what each stage lost.

    A class without ground truth has "-" for its AP and no part in the mean.
    """
    evaluation = report.evaluation
    counts = evaluation.counts
    plain = evaluation.plain_ap
    heading = ("class", "AP", *(("AP plain",) if plain else ()), "objects", "detections")
    rows = [
        (
            _class_title(evaluation, key),
            _value(ap),
            *((_value(plain[key]),) if plain else ()),
            str(evaluation.objects[key]),
            str(evaluation.detections[key]),
        )
        for key, ap in evaluation.ap.items()
    ]
    blank = ("",) if plain else ()
    totals = [
        ("mean", _value(evaluation.mean_ap), *blank, str(counts["objects"]), str(counts["detections"])),
        ("median", _value(evaluation.median_ap), *blank, "", ""),
    ]
    lines = columns([heading, *rows, *totals])
    rule = "-" * max(map(len, lines))
    title = TITLES.get(evaluation.protocol, evaluation.protocol)
    parts = [
        f"{title}, IoU {evaluation.min_iou:g}: {counts['images']} images, {counts['classes']} classes",
        *(line.rstrip() for line in [*lines[:-2], rule, *lines[-2:]]),
    ]
    if counts["classes_without_ground_truth"]:
        parts.append(f"{counts['classes_without_ground_truth']} classes without ground truth are not in the mean")
    if report.interval:
        parts.append(
            f"95 % confidence interval ({report.interval.resamples} resamples of the images): {_span(report.interval)}"
        )
    if evaluation.summary:
        parts.append("  ".join(f"{name} {_value(value)}" for name, value in evaluation.summary.items()))
    if diagnosis:
        parts += _diagnosis_lines(report)
    parts += _comparison_lines(report)
    return "\n".join(parts)


def write_report(path: Path, report: Report) -> None:
    """Write the evaluation's fields as JSON, and what was found beside it under its own keys.

    Values by class, comparison.by_class among them, are keyed as `ap` is.
    """
    content = asdict(report)
    if report.comparison:
        content["comparison"]["by_class"] = dict(zip(report.evaluation.ap, report.comparison.by_class, strict=True))
    content = {**content.pop("evaluation"), **{key: value for key, value in content.items() if value not in (None, "")}}
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _diagnosis_lines(report: Report) -> list[str]:
    parts: list[str] = []
    if report.diagnosis:
        rows = [("error", "number", "mean AP without it")]
        for kind, gain in report.diagnosis.gains.items():
            rows.append((kind, str(report.diagnosis.counts[kind]), f"{gain:+.4f}"))
        parts += ["", *columns(rows)]
        if report.diagnosis.confused:
            pairs = ", ".join(f"{real} as {taken} {count}" for real, taken, count in report.diagnosis.confused[:8])
            parts.append(f"taken for another class, scores from {report.diagnosis.score:g}: {pairs}")
    if report.fates:
        parts += ["", *columns([("object", "number"), *((name, str(count)) for name, count in report.fates.items())])]
    if report.perfect:
        base = report.evaluation.mean_ap
        rows = [("perfect stage", "mean AP", "gain")]
        rows += [(stage, _value(value), f"{value - base:+.4f}") for stage, value in report.perfect.items()]
        parts += ["", *columns(rows)]
    return parts


def _comparison_lines(report: Report) -> list[str]:
    if report.comparison is None:
        return []
    result = report.comparison
    certain = result.difference.low > 0 or result.difference.high < 0
    verdict = "a difference beyond chance" if certain else "no difference beyond chance"
    rows: list[Sequence[str]] = [
        ("comparison", "mean AP", "95 % interval"),
        ("these detections", _value(result.first.value), _span(result.first)),
        (report.other, _value(result.second.value), _span(result.second)),
        ("difference", f"{result.difference.value:+.4f}", _span(result.difference)),
    ]
    limit = result.difference.resamples
    return ["", *columns(rows), f"{verdict}: p = {result.p_value:.3g}, {limit} resamples, the same images for both"]


def _class_title(evaluation: Evaluation, key: str) -> str:
    name = evaluation.names.get(key, key)
    return key if name in key else f"{key} {name}"


def _span(interval: Interval) -> str:
    return f"{interval.low:.4f} to {interval.high:.4f}"


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
