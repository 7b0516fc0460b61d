"""An Evaluation as rows of a table, as text, as a DataFrame of pandas and as curves of matplotlib.

Pandas and matplotlib are imported where they are used; pandas is no dependency.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from detector.evaluation.average import class_curves
from detector.evaluation.results import MissingPackageError
from detector.table import columns

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from detector.evaluation.outcome import Evaluation

_COLUMN = 24  # most classes in a column of the legend


def number(value: float | None, absent: str = "-") -> str:
    """Format a mean AP or the like with four decimals."""
    return absent if value is None else f"{value:.4f}"


def rows_of(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """Return the rows of an evaluation's table; see Evaluation.table."""
    counts, plain = evaluation.counts, evaluation.plain_ap
    rows: list[tuple[str, ...]] = [("class", "AP", "AP plain", "objects", "detections", "best F1", "from score")]
    for key, ap in evaluation.ap.items():
        if ap is None:
            continue
        numbers = str(evaluation.objects[key]), str(evaluation.detections[key])
        point = evaluation.operating_points.get(key)
        best = (number(point.f1), number(point.score)) if point else ("-", "-")
        rows.append((title_of(evaluation, key), number(ap), number(plain[key] if plain else None), *numbers, *best))
    rows.append(("mean", number(evaluation.mean_ap), "", str(counts["objects"]), str(counts["detections"]), "", ""))
    rows.append(("median", number(evaluation.median_ap), "", "", "", "", ""))
    return rows if plain else [(*row[:2], *row[3:]) for row in rows]


def text_of(evaluation: Evaluation) -> str:
    """Return an evaluation as text: its rules, and its table."""
    counts = evaluation.counts
    rules = f"{evaluation.protocol}, IoU {evaluation.min_iou:g}: {counts['images']} images, {counts['classes']} classes"
    further = "  ".join(f"{name} {number(value)}" for name, value in evaluation.summary.items())
    return "\n".join([rules, *columns(rows_of(evaluation), footer=2), *[further] * bool(further)])


def frame_of(evaluation: Evaluation) -> pandas.DataFrame:
    """Return an evaluation as a DataFrame; see Evaluation.to_pandas."""
    try:
        import pandas
    except ImportError as error:
        raise MissingPackageError(
            f"to_pandas needs pandas, which is not installed ({error}): pip install pandas"
        ) from error
    keys = list(evaluation.ap)
    points = [evaluation.operating_points.get(key) for key in keys]
    frame = pandas.DataFrame(
        {
            "name": [evaluation.names.get(key, key) for key in keys],
            "ap": [evaluation.ap[key] for key in keys],
            "objects": [evaluation.objects[key] for key in keys],
            "detections": [evaluation.detections[key] for key in keys],
            **{
                column: [getattr(point, column) if point else None for point in points]
                for column in ("score", "precision", "recall", "f1")
            },
        },
        index=pandas.Index(keys, name="class"),
    )
    if evaluation.plain_ap is not None:
        frame.insert(2, "plain_ap", [evaluation.plain_ap[key] for key in keys])
    numbers = [name for name in frame if name not in ("name", "objects", "detections")]
    return frame.astype(dict.fromkeys(numbers, float))


def curves_figure(evaluation: Evaluation, classes: Sequence[str] | None = None) -> Figure:
    """Plot precision against recall by class; see Evaluation.plot_curves."""
    if evaluation.scored is None:
        raise ValueError("this evaluation does not have the detections that its curves are made of")
    curves = dict(zip(evaluation.ap, class_curves(evaluation.scored.matches, evaluation.scored.table), strict=True))
    wanted = [key for key, curve in curves.items() if curve is not None] if classes is None else list(classes)
    for key in wanted:
        if curves.get(key) is None:
            known = ", ".join(key for key, curve in curves.items() if curve is not None)
            raise ValueError(f"no curve of class {key!r}; classes with objects: {known}")
    try:
        from matplotlib import colormaps
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError(
            f"plot_curves needs matplotlib, which is not installed ({error}): pip install matplotlib"
        ) from error
    beside = -(-len(wanted) // _COLUMN)
    figure = Figure(figsize=(5.5 + 1.7 * beside, 5), layout="constrained")
    axes = figure.add_subplot()
    colours = colormaps["tab10" if len(wanted) <= 10 else "tab20"]
    for place, key in enumerate(wanted):
        recall, precision = curves[key] or (np.zeros(0), np.zeros(0))
        axes.plot(
            np.append(0, recall),
            np.append(precision[:1], precision) if len(precision) else [0],
            label=f"{number(evaluation.ap[key])}  {title_of(evaluation, key)}",
            color=colours(place % 20),
            linestyle=("-", "--", ":", "-.")[place // 20 % 4],
            linewidth=1.4,
        )
    axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="recall", ylabel="precision")
    axes.set_title(f"{evaluation.protocol}, IoU {evaluation.min_iou:g}, mean AP {number(evaluation.mean_ap)}")
    axes.grid(linewidth=0.4)
    if wanted:
        figure.legend(loc="outside right upper", frameon=False, fontsize=8, ncols=beside, title="AP")
    return figure


def title_of(evaluation: Evaluation, key: str) -> str:
    """Return a class's key, with its name where that is another."""
    name = evaluation.names.get(key, key)
    return key if name in key else f"{key} {name}"
