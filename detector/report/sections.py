"""What the sections of an evaluation's page show beside the report's own numbers: plots, rows, cells and crops.

In: a Report and what it was made of.  Out: plain values for the templates, page.html.jinja and the section_*.jinja.
K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from numpy.typing import NDArray

from detector.analysis.calibration import Calibration
from detector.analysis.confusion import Confusion
from detector.analysis.label_errors import Suspect
from detector.evaluation.average import ranked_by_class
from detector.evaluation.matching import HIT, Matches
from detector.evaluation.operating_points import ScoreCurve
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import HALF_OPEN, Truth, convert
from detector.report.gallery import Crop, Gallery, crop
from detector.report.plots import ACCENT, INK, LINE, LOSS, plot

MATRIX = 30  # classes up to which the whole confusion matrix is shown
PAIRS = 40  # confusions that are listed where there are more
STEPS = 100  # of the slider of scores
DRAWN = 200  # points of a curve, more than a plot has pixels


# ---- thresholds


def score_steps(table: DetectionTable) -> list[float]:
    """Return the scores at which the slider stops: 0, 0.01, ... 1, or as many from the lowest to the highest score."""
    low, high = float(table.scores.min(initial=0.0)), float(table.scores.max(initial=1.0))
    steps: list[float] = np.round(np.linspace(low, high, STEPS + 1), 4).tolist()
    return steps


@dataclass(frozen=True)
class AtScores:
    """Of a class: what its detections are worth at the slider's scores.

    Attributes:
        objects: Number of objects that count.
        shown: Number of detections with at least each score.
        found: Number of those that are right.
    """

    objects: int
    shown: list[int]
    found: list[int]


def at_scores(matches: Matches, table: DetectionTable, scores: Sequence[float]) -> list[AtScores]:
    """Count the detections of each of the K classes from each score on."""
    rows, bounds = ranked_by_class(matches, table)
    result = []
    for label, objects in enumerate(matches.positives.tolist()):
        mine = rows[bounds[label] : bounds[label + 1]]
        ends = np.searchsorted(-table.scores[mine], -np.asarray(scores), side="right")
        found = np.append(0, np.cumsum(matches.status[mine] == HIT))
        result.append(AtScores(objects, ends.tolist(), found[ends].tolist()))
    return result


def score_plot(curve: ScoreCurve, name: str, prefix: str, *, large: bool = False) -> Markup:
    """Plot precision, recall and F1 against the score threshold; a dotted line marks the best F1."""
    order = _thinned(curve)
    best = int(np.argmax(curve.f1)) if len(curve.f1) else None

    def draw(axes: Axes) -> None:
        lines = (
            ("precision", curve.precision, LOSS, "--"),
            ("recall", curve.recall, INK, ":"),
            ("F1", curve.f1, ACCENT, "-"),
        )
        for label, values, colour, style in lines:
            axes.plot(curve.scores[order], values[order], color=colour, linestyle=style, linewidth=1.4, label=label)
        if best is not None:
            axes.axvline(float(curve.scores[best]), color=LINE, linewidth=1)
        low, high = float(curve.scores.min(initial=0.0)), float(curve.scores.max(initial=1.0))
        axes.set(xlim=(low, high), ylim=(0, 1.02), yticks=(0, 0.5, 1))
        axes.locator_params(axis="x", nbins=4 if not large else 8)
        if large:
            axes.set_xlabel("score threshold")
            axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)

    text = f"Precision, recall and F1 of {name} against the score threshold"
    if best is not None:
        text += f"; F1 is greatest, {curve.f1[best]:.2f}, at {curve.scores[best]:.2f}"
    if large:
        return plot(draw, (5.0, 3.2), (0.08, 0.13, 0.89, 0.78), prefix, text)
    return plot(draw, (2.0, 1.4), (0.13, 0.14, 0.83, 0.8), prefix, text)


def _thinned(curve: ScoreCurve) -> NDArray[np.int64]:
    """Choose the points of a curve that are drawn: as dense over the scores as the plot shows, and its ends."""
    if not len(curve):
        return np.zeros(0, np.int64)
    wanted = np.linspace(curve.scores[0], curve.scores[-1], DRAWN)
    places = np.searchsorted(-curve.scores, -wanted, side="left").clip(0, len(curve) - 1)
    return np.unique(places)


# ---- confusion


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion matrix.

    Attributes:
        real: Name of the object's class, or "background".
        taken: Name of the class that it is detected as, or "missed".
        count: Number of pairs.
        share: Share of its row, in [0, 1].
        tag: Tag of its evidence.
        right: Whether it is on the diagonal.
    """

    real: str
    taken: str
    count: int
    share: float
    tag: str
    right: bool


def matrix(confusion: Confusion, names: Sequence[str]) -> list[list[Cell]]:
    """Return the cells of the matrix by row; the last row is the background, the last column is missed."""
    last = len(confusion.matrix) - 1
    totals = np.maximum(confusion.matrix.sum(axis=1), 1)
    return [
        [
            Cell(
                names[row] if row < last else "background",
                names[column] if column < last else "missed",
                count,
                count / int(totals[row]),
                f"found-{row}" if row == column else f"cell-{row}-{column}",
                row == column < last,
            )
            for column, count in enumerate(counts)
        ]
        for row, counts in enumerate(confusion.matrix.tolist())
    ]


def confused_pairs(cells: Sequence[Sequence[Cell]]) -> list[Cell]:
    """Return the most frequent confusions between two classes, neither missed nor background, most frequent first."""
    pairs = [cell for row in cells[:-1] for cell in row[:-1] if cell.count and not cell.right]
    return sorted(pairs, key=lambda cell: -cell.count)[:PAIRS]


# ---- calibration


def reliability(calibration: Calibration) -> Markup:
    """Plot the precision of the detections in each range of scores, beside what a calibrated score would have."""
    some = calibration.counts > 0
    width = np.diff(calibration.edges)
    worst = int(np.argmax(np.where(some, np.abs(calibration.confidence - calibration.precision), -1)))

    def draw(axes: Axes) -> None:
        axes.bar(
            calibration.edges[:-1][some],
            calibration.precision[some],
            width[some],
            align="edge",
            color=ACCENT,
            alpha=0.55,
        )
        axes.plot(
            calibration.confidence[some],
            calibration.precision[some],
            "o",
            color=ACCENT,
            markersize=4,
            label="detections",
        )
        axes.plot((0, 1), (0, 1), color=LOSS, linestyle="--", linewidth=1.2, label="calibrated")
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="score", ylabel="precision", yticks=(0, 0.5, 1))
        axes.legend(fontsize=8, frameon=False, loc="upper left")

    text = f"Precision by score in {len(width)} ranges; expected calibration error {calibration.error:.3f}"
    if some.any():
        low, high = calibration.edges[worst : worst + 2]
        text += f", greatest for scores {low:.2g} to {high:.2g}"
    return plot(draw, (4.0, 3.2), (0.12, 0.13, 0.85, 0.84), "reliability", text)


# ---- pictures of boxes


Box = tuple[str, str, NDArray[np.float64]]


def object_box(truth: Truth, position: int, kind: str = "missed", text: str = "") -> Box:
    """Return the frame of an object: its kind, its text (by default its class) and its box in px of the image."""
    box = np.asarray(convert(truth.boxes[position : position + 1], truth.convention, HALF_OPEN), np.float64)[0]
    return kind, text or f"labelled {truth.classes.names[truth.labels[position]]}", box


def detection_box(truth: Truth, table: DetectionTable, position: int, kind: str = "false") -> Box:
    """Return the frame of a detection: its kind, its class and score, and its box in px of the image."""
    row = table[np.array([position])].to(HALF_OPEN)
    return kind, f"{truth.classes.names[row.labels[0]]} {row.scores[0]:.2f}", row.boxes[0]


def suspect_crop(gallery: Gallery, truth: Truth, table: DetectionTable, suspect: Suspect) -> Crop | None:
    """Cut the boxes of a suspicious label out of its picture; None where the gallery does not show the image."""
    boxes = [object_box(truth, position) for position in suspect.objects]
    if suspect.detection is not None:
        boxes.append(detection_box(truth, table, suspect.detection))
    return crop(gallery, suspect.image, boxes)


def suspicion(suspect: Suspect, names: Sequence[str]) -> str:
    """Say what is suspicious of a label, in a few words."""
    name, other = names[suspect.label], "" if suspect.other is None else names[suspect.other]
    match suspect.kind:
        case "unlabelled":
            return f"{name} {suspect.score:.2f}: no label"
        case "unfound":
            return f"{name}: labelled, nothing finds it"
        case "double":
            return f"{name}: labelled twice" if other in ("", name) else f"{name}: labelled as {other} too"
        case _:
            return f"{name}: detected as {other}"
