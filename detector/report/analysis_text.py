"""The analyses of a report as lines of text: tables fitted to a terminal, and sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from detector.analysis.comparing import ManyComparison
from detector.analysis.label_errors import Kind, Suspect
from detector.analysis.slices import SliceRow
from detector.analysis.thresholds import ClassThresholds, Thresholds
from detector.evaluation.operating_points import OperatingPoint
from detector.evaluation.shown import number
from detector.report.answers import cause, display_name
from detector.report.contents import Report
from detector.report.phrases import sides, signed, verdict
from detector.table import columns

Row = Sequence[str]
Limits = tuple[float, float] | None

SUSPECTS: dict[Kind, str] = {
    "unlabelled": "detected without a label",
    "unfound": "labelled but not found",
    "double": "labelled twice",
    "swapped": "detected as another class",
}
"""Kinds of labels that may be wrong, in words."""
LISTED = 8  # confusions in a line


def analysis_lines(report: Report, width: int | None, *, whole: bool) -> list[str]:
    """Format the analyses of a report, each behind an empty line.

    Args:
        report: The numbers.
        width: Most characters in a line; None for no limit.
        whole: Whether to add those that a report has without being asked: all but the slices and the comparison.
    """
    parts: list[str] = []
    if whole and report.diagnosis:
        gains = report.diagnosis.gains.items()
        rows = [(kind, str(report.diagnosis.counts[kind]), signed(gain)) for kind, gain in gains]
        parts += _table([("error", "number", "gain of mean AP if fixed"), *rows], width)
    if whole and report.confusion:
        parts += _confusions(report)
    if whole and report.thresholds:
        parts += _table(_thresholds(report, report.thresholds), width)
    if whole and report.sizes:
        head = ("size of objects", "objects", "mean AP", "low", "high", "recall", "low", "high")
        sizes = [
            (
                f"{row.name}, {sides(row.low, row.high)}" if row.name.isalpha() else row.name,
                str(row.objects),
                *_with_limits(row.mean_ap, row.ap_interval),
                *_with_limits(row.recall, row.recall_interval),
            )
            for row in report.sizes
        ]
        parts += _table([head, *sizes], width)
    if whole and report.object_counts:
        parts += _table(_slices("objects per image", report.object_counts, lambda row: row.value), width)
    if report.slices:
        parts += _table(_slices("slice", report.slices, lambda row: f"{row.column} {row.value}"), width)
    if whole and report.calibration:
        parts += _calibration(report)
    if whole and report.suspects is not None:
        parts += ["", suspects_line(report.suspects)]
    if whole and report.fates:
        parts += _table([("object", "number"), *((name, str(count)) for name, count in report.fates.items())], width)
    if whole and report.perfect:
        base = report.evaluation.mean_ap
        perfect = [(stage, number(value), signed(value - base)) for stage, value in report.perfect.items()]
        parts += _table([("oracle stage", "mean AP", "gain"), *perfect], width)
    if report.comparison:
        parts += _comparison(report, report.comparison, width, whole=whole)
    return parts


def suspects_line(suspects: Sequence[Suspect]) -> str:
    """Count the labels that may be wrong, by kind."""
    counts = Counter(suspect.kind for suspect in suspects)
    kinds = ", ".join(f"{counts[kind]} {meaning}" for kind, meaning in SUSPECTS.items() if counts[kind])
    return f"labels that may be wrong: {kinds or 'none'}"


def _table(rows: Iterable[Row], width: int | None) -> list[str]:
    return ["", *columns(list(rows), width=width)]


def _confusions(report: Report) -> list[str]:
    assert report.confusion
    confusion = report.confusion
    last = len(confusion.matrix) - 1
    pairs = sorted(
        (
            (-count, real, taken)
            for real, counts in enumerate(confusion.matrix[:last, :last].tolist())
            for taken, count in enumerate(counts)
            if count and real != taken
        )
    )
    if not pairs:
        return []
    names = [display_name(report, label) for label in range(last)]
    text = ", ".join(f"{names[real]} as {names[taken]} {-count}" for count, real, taken in pairs[:LISTED])
    return ["", f"confused classes (scores from {confusion.score:g}): {text}"]


def _thresholds(report: Report, found: Thresholds) -> list[Row]:
    head = ["class", "from score", "low", "high", "F1", "precision", "recall"]
    if found.precision is not None:
        head += [f"score for precision {found.precision:g}", "recall there"]
    if found.recall is not None:
        head += [f"score for recall {found.recall:g}", "precision there"]
    head.append("main loss")
    losses = {one.label: cause(one) for one in report.causes}
    by_class = [(display_name(report, label), one, losses.get(label, "-")) for label, one in enumerate(found.by_class)]
    all_classes = [*by_class, ("one threshold", found.pooled, "")]
    return [head, *([name, *_threshold(found, one), loss] for name, one, loss in all_classes if one)]


def _threshold(found: Thresholds, one: ClassThresholds) -> list[str]:
    best = one.best
    low, high = one.interval or (None, None)
    cells = [_short(best.score if best else None), _short(low), _short(high)]
    cells += [_short(value) for value in ((best.f1, best.precision, best.recall) if best else (None,) * 3)]
    if found.precision is not None:
        cells += _point(one.at_precision, "recall")
    if found.recall is not None:
        cells += _point(one.at_recall, "precision")
    return cells


def _point(point: OperatingPoint | None, other: str) -> list[str]:
    return [_short(point.score), _short(getattr(point, other))] if point else ["-", "-"]


def _slices(first: str, rows: Sequence[SliceRow], name: Callable[[SliceRow], str]) -> list[Row]:
    head = (first, "images", "objects", "mean AP", "low", "high", "recall", "low", "high")
    return [
        head,
        *(
            (
                name(row),
                str(row.images),
                str(row.objects),
                *_with_limits(row.mean_ap, row.ap_interval),
                *_with_limits(row.recall, row.recall_interval),
            )
            for row in rows
        ),
    ]


def _calibration(report: Report) -> list[str]:
    assert report.calibration
    errors = [(-error, label) for label, error in enumerate(report.calibration.error_by_class) if error is not None]
    text = f"expected calibration error {number(report.calibration.error)}"
    if errors:
        error, label = min(errors)
        text += f", greatest for {display_name(report, label)}: {number(-error)}"
    return ["", text]


def _comparison(report: Report, comparison: ManyComparison, width: int | None, *, whole: bool) -> list[str]:
    """Format the mean APs, and each pair: the verdict, the surest differences of classes, what one has alone."""
    means = zip(comparison.names, comparison.mean_ap, strict=True)
    rows = [(name, number(mean.value), number(mean.low), number(mean.high)) for name, mean in means]
    pairs = [
        (
            f"{pair.second} - {pair.first}",
            *map(signed, (pair.difference.value, pair.difference.low, pair.difference.high)),
        )
        for pair in comparison.pairs
    ]
    parts = ["", *columns([("comparison", "mean AP", "low", "high"), *rows, *pairs], width=width, cut=(0,))]
    for pair in comparison.pairs:
        sure = [
            (-abs(one.value), label, one)
            for label, one in enumerate(pair.by_class)
            if one and (one.low > 0 or one.high < 0)
        ]
        parts.append(f"{pair.second} and {pair.first}: {verdict(pair)}")
        if sure:
            names = (f"{display_name(report, label)} {signed(one.value)}" for _, label, one in sorted(sure)[:LISTED])
            parts.append(f"classes whose difference is significant by itself: {', '.join(names)}")
        if whole:
            for name, alone in ((pair.first, pair.first_alone), (pair.second, pair.second_alone)):
                parts.append(
                    f"{name} alone, scores from {comparison.score:g}: {len(alone.found)} objects found, "
                    f"{len(alone.false)} false positives"
                )
    return parts


def _with_limits(value: float | None, limits: Limits) -> tuple[str, str, str]:
    low, high = limits or (None, None)
    return _short(value), _short(low), _short(high)


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
