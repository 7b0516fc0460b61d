"""An evaluation as one self-contained page of HTML: no network, no script, no second file.

In: the config, the ground truth, the detections and their Report.  Out: a file; the same arguments and command line
give the same bytes. Numbers come from the report, curves are drawn here, images in pictures.py, all from the same
matches. Layout and texts: page.html.jinja.

K classes, D detections, M objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from numpy.typing import NDArray

from detector.config import to_yaml
from detector.evaluation.average import class_curves, precision_at
from detector.evaluation.matching import match
from detector.evaluation.operating_points import OperatingPoint
from detector.evaluation.protocols import RULES, ScoringConfig
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import Truth
from detector.report.pictures import FALSE_DRAWN, worst_and_best
from detector.report.plots import ACCENT, INK, plot
from detector.report.rendering import command_line, versions, without_folders, write_rendered
from detector.report.text import TITLES, Report

FEW_CLASSES = 30  # with more classes only the worst and the best get a curve of their own
EXTREMES = 12
RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class ClassRow:
    """A row of the table of classes, which have objects.

    Attributes:
        key: Key of the class in the evaluation.
        name: Display name.
        ap: Average precision.
        point: Score threshold with the greatest F1; None where no object is found.
        precision: [101] best precision at recall 0, 0.01, ..., 1 or more.
        difference: AP of the compared file minus this AP; None without a comparison.
    """

    key: str
    name: str
    ap: float
    point: OperatingPoint | None
    precision: NDArray[np.float64]
    difference: float | None


def write_page(path: Path, config: ScoringConfig, truth: Truth, table: DetectionTable, report: Report) -> None:
    """Write the page.

    Args:
        path: The file; its folder is created if needed.
        config: Settings of the evaluation; its score is the minimum score of detections on images.
        truth: The M objects.
        table: The D detections.
        report: Result of analyse(config, truth, table).

    Raises:
        ValueError: the table was made for another split.
        OSError: the file cannot be written.
    """
    evaluation = report.evaluation
    matches = match(truth, table, RULES[config.protocol][0], evaluation.min_iou)
    rows = _class_rows(report, class_curves(matches, table))
    worst, best = worst_and_best(truth, table, matches, config.score)
    write_rendered(
        path,
        "page.html.jinja",
        truth=truth,
        table=table,
        config=config,
        report=report,
        evaluation=evaluation,
        title=TITLES.get(evaluation.protocol, evaluation.protocol),
        other=without_folders(report.other),
        rows=rows,
        overview=_overview(rows),
        curves=_curves(rows),
        worst=worst,
        best=best,
        absent=all(picture.absent for picture in (*worst, *best)),
        false_drawn=FALSE_DRAWN,
        settings=to_yaml(config),
        versions=versions("pycocotools", "googlenet-rcnn"),
        command=command_line(),
    )


# ---- classes


def _class_rows(
    report: Report, curves: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]] | None]
) -> list[ClassRow]:
    """Make the rows of the classes that have objects, worst first."""
    evaluation = report.evaluation
    differences = report.comparison.by_class if report.comparison else [None] * len(curves)
    rows = []
    for (key, ap), curve, difference in zip(evaluation.ap.items(), curves, differences, strict=True):
        if ap is None or curve is None:
            continue
        recall, precision = curve
        levels = precision_at(RECALLS - 1e-9, recall, precision)
        name = evaluation.names.get(key, key)
        rows.append(ClassRow(key, name, ap, evaluation.operating_points.get(key), levels, difference))
    return sorted(rows, key=lambda row: row.ap)


def _overview(rows: Sequence[ClassRow]) -> Markup:
    """Plot every class as a thin line and their mean as a thick one."""
    lines = [row.precision for row in rows]

    def draw(axes: Axes) -> None:
        _unit_square(axes)
        axes.plot(RECALLS, np.transpose(lines), drawstyle="steps-pre", color=INK, linewidth=0.6, alpha=0.35)
        axes.plot(RECALLS, np.mean(lines, axis=0), drawstyle="steps-pre", color=ACCENT, linewidth=2.2)
        axes.set_xlabel("recall")
        axes.set_ylabel("precision")

    description = f"Precision over recall: {len(lines)} classes as thin lines and their mean as a thick one"
    return plot(draw, (5.0, 3.2), (0.1, 0.13, 0.87, 0.84), "all", description)


def _curves(rows: Sequence[ClassRow]) -> list[tuple[str, list[tuple[ClassRow, Markup]]]]:
    """Plot the curves of all classes, or of the worst and the best where there are many, under headings."""
    if len(rows) <= FEW_CLASSES:
        groups = [("Each class, worst first", rows)]
    else:
        groups = [(f"Worst {EXTREMES}", rows[:EXTREMES]), (f"Best {EXTREMES}", rows[: -EXTREMES - 1 : -1])]
    return [
        (heading, [(row, _curve(row, f"c{section}-{position}")) for position, row in enumerate(group)])
        for section, (heading, group) in enumerate(groups)
    ]


def _curve(row: ClassRow, prefix: str) -> Markup:
    def draw(axes: Axes) -> None:
        _unit_square(axes)
        axes.fill_between(RECALLS, row.precision, step="pre", color=ACCENT, alpha=0.2, linewidth=0)
        axes.plot(RECALLS, row.precision, drawstyle="steps-pre", color=ACCENT, linewidth=1.3, clip_on=False)

    return plot(draw, (2.0, 1.4), (0.13, 0.14, 0.83, 0.8), prefix, f"Precision over recall of {row.name}")


def _unit_square(axes: Axes) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
