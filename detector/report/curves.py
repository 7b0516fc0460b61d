"""The curves of a training over its epochs, one panel for the columns that share an axis.

In: the rows of metrics.jsonl.  Out: panels with a title and an <svg> each.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from detector.report.plots import ACCENT, INK, LINE, LOSS, plot

Row = dict[str, float]

PANELS = {
    "Loss": r"\w*loss",
    "AP on val": "val_ap",
    "Error on val": r"val_\w+_error",
    "Objects of val missed": "val_missed",
    "Recall at IoU 0.5": r"val_recall_\d+",
    "Recall at IoU 0.7": r"val_recall70_\d+",
    "Accuracy on windows of val": r"val_\w+_accuracy",
    "On val": r"val_\w+",
    "Learning rate": "learning_rate",
    "Seconds per epoch": "data_seconds|compute_seconds|measure_seconds",
}
"""Title -> pattern of its columns; a column is in the first panel that it fits."""

SECONDS = "Seconds per epoch"
ORDER = ("epoch", "train_loss", "val_loss", "val_ap", "val_top1_error", "val_missed", "learning_rate")
LAST = ("data_seconds", "compute_seconds", "measure_seconds", "seconds", "eta_seconds")
"""Columns that come first and last; the others are between them as they come in the rows."""

BARS = 60  # with more epochs the bars of the seconds would be thinner than lines
COLOURS = (ACCENT, LOSS, INK, LINE)


def curves(rows: Sequence[Row], best: int | None) -> list[tuple[str, Markup]]:
    """Plot the columns of the rows over the epochs; return the panels' titles and plots.

    Columns whose name has a slash, which are those of single classes, are left out.

    Args:
        rows: One for each epoch, with the epoch's number as `epoch`; a row need not have every column.
        best: The best epoch, which a dotted line marks; None for none.
    """
    names, panels = columns_of(rows), []
    for number, (title, pattern) in enumerate(PANELS.items()):
        mine = [name for name in names if re.fullmatch(pattern, name)]
        names = [name for name in names if name not in mine]
        if mine:
            panels.append((title, _panel(title, mine, rows, best, f"p{number}")))
    return panels


def columns_of(rows: Sequence[Row]) -> list[str]:
    """Return the columns of all rows in the order in which they are shown, without those of single classes."""
    found = dict.fromkeys(name for row in rows for name in row if "/" not in name)
    middle = [name for name in found if name not in ORDER + LAST]
    return [name for name in (*ORDER, *middle, *LAST) if name in found]


def _panel(title: str, names: Sequence[str], rows: Sequence[Row], best: int | None, prefix: str) -> Markup:
    if title == "Loss":
        names = sorted(names, reverse=True)  # that of val gets the first colour, as in the other panels
    lines = {name: [(row["epoch"], row[name]) for row in rows if name in row] for name in names}

    def draw(axes: Axes) -> None:
        if title == SECONDS:
            _stack(axes, names, rows)
        else:
            for place, (name, points) in enumerate(lines.items()):
                axes.plot(
                    *zip(*points, strict=True),
                    color=COLOURS[place % len(COLOURS)],
                    linestyle=("-", "--", ":", "-.")[place % 4],
                    linewidth=1.6,
                    marker="o" if len(points) < 30 else None,
                    markersize=2.8,
                    label=_label(name),
                    clip_on=False,
                )
            if best is not None:
                axes.axvline(best, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
        if title == SECONDS or min(value for points in lines.values() for _, value in points) >= 0:
            axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.tick_params(labelsize=9)
        if len(names) > 1:
            axes.legend(fontsize=9, frameon=False, loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=4, **_TIGHT)

    spans = (f"{_label(name)} from {points[0][1]:.4g} to {points[-1][1]:.4g}" for name, points in lines.items())
    return plot(draw, (4.0, 2.3), (0.13, 0.12, 0.84, 0.74), prefix, f"{title} over the epochs: {', '.join(spans)}")


_TIGHT = {"handlelength": 1.4, "handletextpad": 0.4, "columnspacing": 1.0, "borderpad": 0.0}


def _stack(axes: Axes, names: Sequence[str], rows: Sequence[Row]) -> None:
    """Stack the parts of each epoch's time."""
    rows = [row for row in rows if any(name in row for name in names)]
    epochs = [row["epoch"] for row in rows]
    parts = {name: [row.get(name, 0.0) for row in rows] for name in names}
    colours = (LOSS, ACCENT, LINE)[: len(parts)]
    if len(rows) > BARS:
        axes.stackplot(epochs, *parts.values(), colors=colours, labels=list(map(_label, parts)))
        return
    bottom = [0.0] * len(rows)
    for (name, values), colour in zip(parts.items(), colours, strict=True):
        axes.bar(epochs, values, bottom=bottom, width=0.8, label=_label(name), linewidth=0, color=colour)
        bottom = [sum(pair) for pair in zip(bottom, values, strict=True)]


def _label(name: str) -> str:
    """Shorten the name of a column by what its panel says already."""
    short = re.sub(r"^val_recall(70)?_(\d+)$", r"\2 boxes", name)
    return re.sub(r"_(seconds|loss|error|accuracy)$", "", short.removeprefix("val_") if short != "val_loss" else short)
