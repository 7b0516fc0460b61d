"""An evaluation as one self-contained page of HTML: no network, no second file, complete without its short script.

In: the config, the ground truth, the detections and their Report.  Out: a file; the same arguments and command line
give the same bytes. Numbers come from the report, curves are drawn here and in sections.py, images in gallery.py, all
from the same matches. Layout and texts: page.html.jinja. Each number leads to the pictures behind it (evidence.py).

K classes, D detections, M objects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from numpy.typing import NDArray

from detector.analysis.thresholds import ClassThresholds
from detector.config import to_yaml
from detector.evaluation.average import class_curves, precision_at
from detector.evaluation.matching import match
from detector.evaluation.operating_points import OperatingPoint
from detector.evaluation.protocols import RULES, ScoringConfig
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import Truth
from detector.report.analysis_text import SUSPECTS
from detector.report.answers import answers, cause
from detector.report.comparing_view import compared, wanted_images
from detector.report.contents import TITLES, Report
from detector.report.evidence import collect
from detector.report.gallery import Crop, Gallery, make_gallery, with_pictures
from detector.report.pictures import FALSE_DRAWN
from detector.report.plots import ACCENT, INK, plot
from detector.report.rendering import command_line, inline_script, inline_style, versions, write_rendered
from detector.report.sections import (
    MATRIX,
    AtScores,
    at_scores,
    confused_pairs,
    matrix,
    reliability,
    score_plot,
    score_steps,
    suspect_crop,
    suspicion,
)

FEW_CLASSES = 30  # with more classes only the worst and the best get a curve of their own
EXTREMES = 12
SUSPECTS_SHOWN = 18  # labels that may be wrong, shown as pictures
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


def write_page(
    path: Path,
    config: ScoringConfig,
    truth: Truth,
    table: DetectionTable,
    report: Report,
    *,
    columns: Mapping[str, list[str]] | None = None,
    others: Mapping[str, DetectionTable] | None = None,
) -> None:
    """Write the page.

    Args:
        path: The file; its folder is created if needed.
        config: Settings of the evaluation; its score is the minimum score of detections on images.
        truth: The M objects.
        table: The D detections.
        report: Result of analyse(config, truth, table).
        columns: Values of the slices by image, as read_slices returns them.
        others: All detections that are compared, keyed as in the report.

    Raises:
        ValueError: the table was made for another split.
        OSError: the file cannot be written.
    """
    evaluation = report.evaluation
    matches = match(truth, table, RULES[config.protocol][0], evaluation.min_iou)
    evidence = collect(truth, table, matches, report, config.score, columns)
    suspects = (report.suspects or ())[:SUSPECTS_SHOWN]
    wanted = [suspect.image for suspect in suspects]
    if report.comparison:
        wanted = [*wanted, *wanted_images(report.comparison)]
    gallery = make_gallery(truth, table, matches, config.score, evidence, wanted)
    steps = score_steps(table)
    step = int(np.argmin(np.abs(np.subtract(steps, config.score))))
    shown = [
        len(evidence[tag].objects) if tag in evidence else 0
        for tag in map("missed-{}".format, range(len(truth.classes)))
    ]
    wrong = [
        len(evidence[tag].detections) if tag in evidence else 0
        for tag in map("false-{}".format, range(len(truth.classes)))
    ]
    rows = _class_rows(report, class_curves(matches, table), at_scores(matches, table, steps), shown, wrong)
    cells = matrix(report.confusion, truth.classes.names) if report.confusion else []
    script = inline_script("page.js")
    write_rendered(
        path,
        "page.html.jinja",
        truth=truth,
        table=table,
        config=config,
        report=report,
        evaluation=evaluation,
        title=TITLES.get(evaluation.protocol, evaluation.protocol),
        answers=answers(report),
        sections=_sections(report),
        rows=rows,
        overview=_overview(rows),
        curves=_curves(rows),
        pooled_plot=_pooled_plot(report),
        steps=steps,
        step=step,
        score_data={"scores": steps, "rows": [vars(row.at) for row in rows]},
        cells=cells,
        pairs=confused_pairs(cells),
        matrix_limit=MATRIX,
        reliability_plot=reliability(report.calibration) if report.calibration else "",
        suspects=_suspects(gallery, truth, table, report),
        suspect_counts=Counter(suspect.kind for suspect in report.suspects or ()),
        suspect_kinds=SUSPECTS,
        compared=compared(report.comparison, others or {}, truth, gallery) if report.comparison else (),
        keys=list(evaluation.ap),
        names=truth.classes.names,
        gallery=gallery,
        absent=bool(gallery.pictures) and all(picture.absent for picture in gallery.pictures),
        false_drawn=FALSE_DRAWN,
        settings=to_yaml(config),
        versions=versions("pycocotools", "googlenet-rcnn"),
        command=command_line(),
        style=inline_style("page.css"),
        script=script.text,
        script_hash=script.hash,
    )


def _sections(report: Report) -> dict[str, str]:
    """Name the page's sections, keyed by their anchors."""
    parts = {
        "classes": ("Classes", True),
        "curves": ("Curves", True),
        "thresholds": ("Thresholds", report.thresholds),
        "errors": ("Errors", report.diagnosis),
        "confusion": ("Confusion", report.confusion),
        "sizes": ("Sizes and slices", report.sizes or report.object_counts or report.slices),
        "calibration": ("Calibration", report.calibration),
        "labels": ("Labels", report.suspects is not None),
        "comparison": ("Comparison", report.comparison),
        "stages": ("Stages", report.fates or report.perfect),
        "images": ("Images", True),
        "making": ("Settings and versions", True),
    }
    return {anchor: name for anchor, (name, is_there) in parts.items() if is_there}


def _suspects(
    gallery: Gallery, truth: Truth, table: DetectionTable, report: Report
) -> list[tuple[str, str, Crop | None]]:
    """Return text, image and crop of each label that is shown as one that may be wrong."""
    return with_pictures(
        (
            suspicion(suspect, truth.classes.names),
            truth.image_ids[suspect.image],
            suspect_crop(gallery, truth, table, suspect),
        )
        for suspect in (report.suspects or ())[:SUSPECTS_SHOWN]
    )


def _pooled_plot(report: Report) -> Markup:
    found = report.thresholds and report.thresholds.pooled
    return score_plot(found.curve, "all classes", "pooled", large=True) if found else Markup()


# ---- classes


def _class_rows(
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
