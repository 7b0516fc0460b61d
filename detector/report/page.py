"""An evaluation as one self-contained page of HTML: no network, no second file, complete without its short script.

In: the config, the ground truth, the detections and their Report.  Out: a file; the same arguments and command line
give the same bytes. Numbers come from the report, curves are drawn here and in sections.py, images in gallery.py, all
from the same matches. Layout and texts: page.html.jinja. Each number leads to the pictures behind it (evidence.py).

K classes, D detections, M objects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from markupsafe import Markup

from detector.config import to_yaml
from detector.evaluation.average import class_curves
from detector.evaluation.matching import match
from detector.evaluation.protocols import RULES, ScoringConfig
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import Truth
from detector.report.analysis_text import SUSPECTS
from detector.report.answers import answers
from detector.report.class_section import class_rows, curves, overview
from detector.report.comparing_view import compared, wanted_images
from detector.report.contents import TITLES, Report
from detector.report.evidence import Evidence, collect
from detector.report.gallery import Crop, Gallery, make_gallery, with_pictures
from detector.report.pictures import FALSE_DRAWN
from detector.report.rendering import command_line, inline_script, inline_style, versions, write_rendered
from detector.report.sections import (
    MATRIX,
    at_scores,
    confused_pairs,
    matrix,
    reliability,
    score_plot,
    score_steps,
    suspect_crop,
    suspicion,
)

SUSPECTS_SHOWN = 18  # labels that may be wrong, shown as pictures


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
        others: All detections that are compared, keyed as in the report; without them its pairs are left out.

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
    labels = range(len(truth.classes))
    missed = [len(evidence.get(f"missed-{label}", Evidence()).objects) for label in labels]
    false = [len(evidence.get(f"false-{label}", Evidence()).detections) for label in labels]
    rows = class_rows(report, class_curves(matches, table), at_scores(matches, table, steps), missed, false)
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
        overview=overview(rows),
        curves=curves(rows),
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
        compared=compared(report.comparison, others, truth, gallery) if report.comparison and others else (),
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
