"""An evaluation with all that was computed beside it, as text for a terminal and as JSON (as a page: page.py)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from detector.evaluation.bootstrap import Comparison, Interval
from detector.evaluation.diagnosis import Diagnosis
from detector.evaluation.outcome import Evaluation
from detector.table import columns, wrapped
from proposals.files import write_whole

TITLES = {
    "ilsvrc": "ILSVRC DET, lower IoU thresholds for small objects",
    "voc": "PASCAL VOC2010+, area under the curve",
    "voc07": "PASCAL VOC2007, 11 points",
    "coco": "COCO, 101 points",
}


@dataclass(frozen=True)
class Report:
    """An evaluation and the analyses that were asked for.

    Attributes:
        evaluation: The numbers of the protocol.
        interval: 95 % confidence interval of mean AP.
        diagnosis: Errors by type.
        fates: Number of objects found, and lost at each stage of the detector.
        perfect: Mean AP with one stage replaced by an oracle, keyed by stage.
        comparison: Comparison with another file of detections.
        other: Name of that file.
        warnings: Warnings about the files, one line each.
    """

    evaluation: Evaluation
    interval: Interval | None = None
    diagnosis: Diagnosis | None = None
    fates: dict[str, int] | None = None
    perfect: dict[str, float] | None = None
    comparison: Comparison | None = None
    other: str = ""
    warnings: tuple[str, ...] = ()


def format_report(report: Report, *, diagnosis: bool = False, width: int | None = None) -> str:
    """Format a table with one row per class, the mean and the median below it, and the other numbers as lines.

    Best F1 is that of the detections from the score behind it on (detector.evaluation.operating_points). The classes
    without objects have no rows; a line states their number.

    Args:
        report: The numbers.
        diagnosis: Whether to add the errors by type and the losses of each stage.
        width: Most characters in a line, see `detector.table.columns`; None for no limit.
    """
    evaluation = report.evaluation
    counts, plain = evaluation.counts, evaluation.plain_ap
    rows = [("class", "AP", "AP plain", "objects", "detections", "best F1", "from score")]
    for key, ap in evaluation.ap.items():
        if ap is None:
            continue
        name = evaluation.names.get(key, key)
        numbers = str(evaluation.objects[key]), str(evaluation.detections[key])
        title = key if name in key else f"{key} {name}"
        point = evaluation.operating_points.get(key)
        best = (number(point.f1), number(point.score)) if point else ("-", "-")
        rows.append((title, number(ap), number(plain[key] if plain else None), *numbers, *best))
    rows.append(("mean", number(evaluation.mean_ap), "", str(counts["objects"]), str(counts["detections"]), "", ""))
    rows.append(("median", number(evaluation.median_ap), "", "", "", "", ""))
    lines = columns([row if plain else (*row[:2], *row[3:]) for row in rows], width=width, footer=2)
    title = TITLES.get(evaluation.protocol, evaluation.protocol)
    parts = [
        f"{title}, IoU {evaluation.min_iou:g}: {counts['images']} images, {counts['classes']} classes",
        *lines,
    ]
    if counts["classes_without_ground_truth"]:
        parts.append(without_objects(counts["classes_without_ground_truth"]))
    if pooled := evaluation.pooled_point:
        parts.append(
            f"best F1 of all classes by one threshold: {number(pooled.f1)} from score {number(pooled.score)} "
            f"(precision {number(pooled.precision)}, recall {number(pooled.recall)})"
        )
    if report.interval:
        resamples = f"{report.interval.resamples:,} bootstrap resamples of the images"
        parts.append(f"95 % confidence interval ({resamples}): {span(report.interval)}")
    if evaluation.summary:
        parts.append("  ".join(f"{name} {number(value)}" for name, value in evaluation.summary.items()))
    if diagnosis:
        parts += _diagnosis_lines(report, width)
    if report.comparison:
        result = report.comparison
        table: list[Sequence[str]] = [
            ("comparison", "mean AP", "95 % confidence interval"),
            ("these detections", number(result.first.value), span(result.first)),
            (report.other, number(result.second.value), span(result.second)),
            ("difference", signed(result.difference.value), span(result.difference)),
        ]
        parts += ["", *columns(table, width=width, cut=(0,)), verdict(result)]
    return "\n".join(wrapped(line, width) for line in parts)


def write_report(path: Path, report: Report) -> None:
    """Write JSON: the evaluation's fields, and each further analysis under its own key.

    Values by class, including comparison.by_class, are keyed like `ap`.
    """
    content = asdict(replace(report, evaluation=replace(report.evaluation, scored=None)))
    content["evaluation"] = report.evaluation.to_dict()
    if report.comparison:
        content["comparison"]["by_class"] = dict(zip(report.evaluation.ap, report.comparison.by_class, strict=True))
    content = {**content.pop("evaluation"), **{key: value for key, value in content.items() if value not in (None, "")}}
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def without_objects(classes: int) -> str:
    """State the number of classes that have no AP because no image has an object of theirs."""
    if classes == 1:
        return "1 class has no objects in these images and is not in the mean"
    return f"{classes} classes have no objects in these images and are not in the mean"


def number(value: float | None, absent: str = "-") -> str:
    """Format a mean AP or the like with four decimals."""
    return absent if value is None else f"{value:.4f}"


def signed(value: float) -> str:
    """Format a difference with its sign and four decimals."""
    return f"{value:+.4f}"


def span(interval: Interval) -> str:
    """Format the limits of an interval."""
    return f"{interval.low:.4f} to {interval.high:.4f}"


def verdict(result: Comparison) -> str:
    """Say whether a difference is significant at the 5 % level, with the p-value."""
    significant = result.difference.low > 0 or result.difference.high < 0
    return (
        f"the difference is {'' if significant else 'not '}statistically significant: p = {result.p_value:.3g}, "
        f"{result.difference.resamples:,} bootstrap resamples of the images, the same for both"
    )


def _diagnosis_lines(report: Report, width: int | None) -> list[str]:
    parts: list[str] = []
    if report.diagnosis:
        counts, gains = report.diagnosis.counts, report.diagnosis.gains
        rows = [("error", "number", "gain of mean AP if fixed")]
        rows += [(kind, str(counts[kind]), signed(gain)) for kind, gain in gains.items()]
        parts += ["", *columns(rows, width=width)]
        if report.diagnosis.confused:
            pairs = ", ".join(f"{real} as {taken} {count}" for real, taken, count in report.diagnosis.confused[:8])
            parts.append(f"confused classes (scores from {report.diagnosis.score:g}): {pairs}")
    if report.fates:
        lost = [("object", "number"), *((name, str(count)) for name, count in report.fates.items())]
        parts += ["", *columns(lost, width=width)]
    if report.perfect:
        base = report.evaluation.mean_ap
        rows = [("oracle stage", "mean AP", "gain")]
        rows += [(stage, number(value), signed(value - base)) for stage, value in report.perfect.items()]
        parts += ["", *columns(rows, width=width)]
    return parts
