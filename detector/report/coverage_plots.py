"""The curves of a comparison of proposal methods: as a picture file, and as the plots of its page.

In: a Bench.  Out: a file of matplotlib's formats, or <svg> elements in the page's colours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from detector.report.coverage import GOAL, Bench, Coverage, Span
from detector.report.plots import INK, SERIES, plot
from proposals.files import write_whole


class Look(NamedTuple):
    """How a method looks in every plot.

    Attributes:
        colour: Position in SERIES, the colours of a page.
        dash: Pattern of its lines, px drawn and left out in turn.
        marker: matplotlib's letter of its marker.
    """

    colour: int
    dash: tuple[float, ...]
    marker: str


def looks(bench: Bench) -> dict[str, Look]:
    """Give each method a look of its own: methods differ in colour and marker, references have dashed lines."""
    dashes: tuple[tuple[float, ...], ...] = ((1, 0), (7, 2, 2, 2), (2, 2))
    result = {}
    for place, name in enumerate(bench.rows):
        result[name] = Look(place % len(SERIES), dashes[place // len(SERIES) % 3], "osD^vPX*"[place % 8])
    for place, name in enumerate(bench.references):
        dash = (4.0, 3.0) if place < len(SERIES) else (1.0, 3.0)
        result[name] = Look((len(bench.rows) + place) % len(SERIES), dash, "osD^vPX*"[(len(bench.rows) + place) % 8])
    return result


@dataclass(frozen=True)
class Curve:
    """A kind of curve: its title, its attribute in Coverage, the axes' labels and the x axis's scale."""

    title: str
    values: str
    x: str
    y: str
    scale: str


CURVES = (
    Curve("Recall over IoU", "recall_by_iou", "IoU", "recall", "linear"),
    Curve("Recall over number of boxes", "recall_by_boxes", "boxes per image", "recall at IoU 0.5", "log"),
    Curve("Average recall over number of boxes", "average_recall_by_boxes", "boxes per image", "average recall", "log"),
)


@rc_context({"text.parse_math": False})  # names may have dollar signs
def plot_coverage(path: Path, bench: Bench) -> None:
    """Plot recall over IoU, and recall and average recall over the number of boxes, with 95 % intervals.

    Raises:
        ValueError: matplotlib cannot write a file of this suffix.
    """
    figure = Figure(figsize=(13, 4), layout="constrained")
    colours = [f"C{place}" for place in range(len(SERIES))]
    for axis, curve in zip(figure.subplots(1, len(CURVES)), CURVES, strict=True):
        _draw_curve(axis, curve, bench, colours)
        axis.set(xlabel=curve.x, ylabel=curve.y)
        axis.grid(alpha=0.3)
    figure.axes[0].legend(fontsize="small")
    figure.suptitle(f"{bench.data}: {bench.images} images")
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as temporary:
        figure.savefig(temporary, dpi=120)


def panels(bench: Bench) -> list[tuple[str, Markup]]:
    """Plot the curves, recall over the seconds, and mean AP over average recall, as titles and plots of a page.

    Without any seconds the third is left out, with less than two mean AP the last.
    """
    result = []
    for number, curve in enumerate(CURVES):
        description = f"{curve.title} of {len(bench.all_rows)} methods; the numbers are in the tables below"
        result.append((curve.title, _panel(_curves_of(curve, bench), curve.x, curve.y, f"p{number}", description)))
    timed = {name: row for name, row in bench.all_rows.items() if row.seconds}
    if timed:
        said = ", ".join(
            f"{name} {row.coverage:.3f} in {row.seconds[1]:.3f} s" for name, row in timed.items() if row.seconds
        )
        draw = _points(bench, timed, lambda row: row.seconds or (0, 0, 0), _recall_of, "log", GOAL)
        result.append(
            ("Recall over seconds", _panel(draw, "seconds per image", "recall at IoU 0.5", "p3", f"Recall: {said}"))
        )
    scored = {name: row for name, row in bench.all_rows.items() if row.ap}
    if len(scored) > 1:
        said = ", ".join(f"{name} {row.ap.value:.3f}" for name, row in scored.items() if row.ap)
        draw = _points(bench, scored, _average_of, _ap_of, "linear")
        result.append(
            ("Mean AP over average recall", _panel(draw, "average recall", "mean AP", "p4", f"Mean AP: {said}"))
        )
    return result


def _panel(draw: Callable[[Axes], None], x: str, y: str, prefix: str, description: str) -> Markup:
    def labelled(axes: Axes) -> None:
        draw(axes)
        axes.set_xlabel(x, fontsize=9)
        axes.set_ylabel(y, fontsize=9)
        axes.tick_params(labelsize=9)

    return plot(labelled, (4.4, 3.2), (0.125, 0.155, 0.845, 0.82), prefix, description)


def _curves_of(curve: Curve, bench: Bench) -> Callable[[Axes], None]:
    return lambda axes: _draw_curve(axes, curve, bench, SERIES)


def _draw_curve(axes: Axes, curve: Curve, bench: Bench, colours: tuple[str, ...] | list[str]) -> None:
    for name, row in bench.all_rows.items():
        look = looks(bench)[name]
        values: dict[float, float] = getattr(row, curve.values)
        spans: dict[float, Span | None] = getattr(row, f"{curve.values}_interval")
        low, high = zip(*(spans.get(x) or (y, y) for x, y in values.items()), strict=True)
        if name in bench.rows:  # with the bands of references too, none could be told apart
            axes.fill_between(list(values), low, high, color=colours[look.colour], alpha=0.13, linewidth=0)
        axes.plot(
            list(values),
            list(values.values()),
            color=colours[look.colour],
            linestyle="-" if look.dash == (1, 0) else (0, look.dash),
            linewidth=1.5,
            marker=look.marker,
            markersize=3.2,
            label=f"{name} ({row.boxes:.0f} boxes)",
            clip_on=False,
        )
    axes.set(ylim=(0, 1 if curve.values.startswith("recall") else None), xscale=curve.scale)
    if curve.scale == "log":
        _plain_log(axes)


def _points(
    bench: Bench,
    rows: Mapping[str, Coverage],
    x: Callable[[Coverage], tuple[float, float, float]],
    y: Callable[[Coverage], tuple[float, float, float]],
    scale: str,
    goal: float | None = None,
) -> Callable[[Axes], None]:
    """Draw a point a method with its limits, and a dotted line at the goal; x and y return low, value, high."""

    def draw(axes: Axes) -> None:
        for name, row in rows.items():
            look = looks(bench)[name]
            (left, middle, right), (low, value, high) = x(row), y(row)
            colour = SERIES[look.colour]
            axes.plot([left, right], [value, value], color=colour, linewidth=1.2)
            axes.plot([middle, middle], [low, high], color=colour, linewidth=1.2)
            axes.plot([middle], [value], color=colour, marker=look.marker, markersize=6)
        if goal is not None:
            axes.axhline(goal, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
        axes.set_xscale(scale)
        if scale == "log":
            _plain_log(axes)

    return draw


def _plain_log(axes: Axes) -> None:
    """Label a logarithmic axis with plain numbers; on less than two decades also at 2 and 5."""
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 100 else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _recall_of(row: Coverage) -> tuple[float, float, float]:
    low, high = row.coverage_interval or (row.coverage, row.coverage)
    return low, row.coverage, high


def _average_of(row: Coverage) -> tuple[float, float, float]:
    low, high = row.average_recall_interval or (row.average_recall, row.average_recall)
    return low, row.average_recall, high


def _ap_of(row: Coverage) -> tuple[float, float, float]:
    assert row.ap is not None
    low, high = row.ap.interval or (row.ap.value, row.ap.value)
    return low, row.ap.value, high
