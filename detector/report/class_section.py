"""The classes of an evaluation's page: the rows of their tables, and their precision-recall curves.

In: a Report and the curves of its classes.  Out: ClassRows, worst first, and plots of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from numpy.typing import NDArray

from detector.analysis.thresholds import ClassThresholds
from detector.evaluation.average import precision_at
from detector.evaluation.operating_points import OperatingPoint
from detector.report.answers import cause
from detector.report.contents import Report
from detector.report.plots import ACCENT, INK, plot
from detector.report.sections import AtScores, score_plot

FEW_CLASSES = 30  # with more classes only the worst and the best get a curve of their own
EXTREMES = 12
RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class ClassRow:
    """A row of the table of classes, which have objects.

    Attributes:
        label: The class.
        key: Its key in the evaluation.
        name: Display name.
        ap: Average precision.
        point: Score threshold with the greatest F1; None where no object is found.
        precision: [101] best precision at recall 0, 0.01, ..., 1 or more.
        missed: Number of objects that no shown detection finds.
        false: Number of false positives that are shown.
        at: What its detections are worth at the slider's scores.
        thresholds: Its thresholds, if they were asked for.
        cause: Main reason why objects are missed.
        calibration: Expected calibration error; -1 where there is none.
        score_plot: Precision, recall and F1 against the score; empty where it is not drawn.
    """

    label: int
    key: str
    name: str
    ap: float
    point: OperatingPoint | None
    precision: NDArray[np.float64]
    missed: int
    false: int
    at: AtScores
    thresholds: ClassThresholds | None
    cause: str
    calibration: float
    score_plot: Markup


def class_rows(
    report: Report,
    curves: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]] | None],
    at: Sequence[AtScores],
    missed: Sequence[int],
    false: Sequence[int],
) -> list[ClassRow]:
    """Make the rows of the classes that have objects, worst first."""
    evaluation = report.evaluation
    causes = {one.label: cause(one) for one in report.causes}
    ranked = sorted(
        ((ap, label, key) for label, (key, ap) in enumerate(evaluation.ap.items()) if ap is not None),
        key=lambda row: row[0],
    )
    rows = []
    for place, (ap, label, key) in enumerate(ranked):
        curve = curves[label]
        if curve is None:
            continue
        found = report.thresholds.by_class[label] if report.thresholds else None
        name = evaluation.names.get(key, key)
        error = report.calibration.error_by_class[label] if report.calibration else None
        drawn = found and found.best and (len(ranked) <= FEW_CLASSES or place < EXTREMES)
        rows.append(
            ClassRow(
                label,
                key,
                name,
                ap,
                evaluation.operating_points.get(key),
                precision_at(RECALLS - 1e-9, *curve),
                missed[label],
                false[label],
                at[label],
                found,
                causes.get(label, "–"),
                -1.0 if error is None else error,
                score_plot(found.curve, name, f"s{label}") if found and drawn else Markup(),
            )
        )
    return rows


def overview(rows: Sequence[ClassRow]) -> Markup:
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


def curves(rows: Sequence[ClassRow]) -> list[tuple[str, list[tuple[ClassRow, Markup]]]]:
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
