"""A report as text for a terminal: the table of classes, the analyses, and the answers last."""

from __future__ import annotations

from detector.evaluation.shown import number
from detector.report.analysis_text import analysis_lines
from detector.report.answers import answers
from detector.report.contents import TITLES, Report
from detector.report.phrases import span, without_objects
from detector.table import columns, wrapped


def format_report(report: Report, *, diagnosis: bool = False, width: int | None = None) -> str:
    """Format a table with one row per class, the mean and the median below it, and the other numbers as lines.

    Best F1 is that of the detections from the score behind it on (detector.evaluation.operating_points). The classes
    without objects have no rows; a line states their number.

    Args:
        report: The numbers.
        diagnosis: Whether to add the analyses, errors by type first, and the losses of each stage.
        width: Most characters in a line, see `detector.table.columns`; None for no limit.
    """
    evaluation = report.evaluation
    counts = evaluation.counts
    lines = columns(evaluation.table(), width=width, footer=2)
    title = TITLES.get(evaluation.protocol, evaluation.protocol)
    parts = [
        f"{title}, IoU {evaluation.min_iou:g}: {counts['images']} images, {counts['classes']} classes",
        *lines,
    ]
    if counts["classes_without_ground_truth"]:
        parts.append(without_objects(counts["classes_without_ground_truth"]))
    if report.interval:
        resamples = f"{report.interval.resamples:,} bootstrap resamples of the images"
        parts.append(f"95 % confidence interval ({resamples}): {span(report.interval)}")
    if evaluation.summary:
        parts.append("  ".join(f"{name} {number(value)}" for name, value in evaluation.summary.items()))
    parts += analysis_lines(report, width, whole=diagnosis)
    if found := answers(report, whole=diagnosis):
        parts += ["", *(f"{question}: {answer}" for question, answer in found.items())]
    return "\n".join(wrapped(line, width) for line in parts)
