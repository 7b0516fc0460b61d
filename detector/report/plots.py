"""Plots as <svg> elements of a page, in its colours, light or dark; drawn by matplotlib."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# matplotlib has no CSS variables: it draws in these colours, which become the page's, light or dark.
INK, LINE, ACCENT, LOSS = "#010203", "#010204", "#010205", "#010206"
SERIES = tuple(f"#01021{place}" for place in range(8))
"""Colours of up to eight things to compare; a page that uses them sets --series0 to --series7."""
STYLE: dict[Any, Any] = {  # Any: its stubs know each key by name
    "svg.fonttype": "none",
    "font.size": 8,
    **dict.fromkeys(("axes.facecolor", "figure.facecolor"), "none"),
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), LINE),
}


def plot(
    draw: Callable[[Axes], None],
    size: tuple[float, float],
    area: tuple[float, float, float, float],
    prefix: str,
    description: str,
) -> Markup:
    """Plot lines as an <svg> element of a page.

    Args:
        draw: Function that draws on the axes and sets their limits.
        size: Width and height, inches.
        area: Left, bottom, width and height of the axes in the figure, in [0, 1].
        prefix: Prefix of all ids, so that no two plots on a page share one.
        description: Text for screen readers.
    """
    buffer = io.StringIO()
    with rc_context({**STYLE, "svg.hashsalt": prefix}):
        figure = Figure(figsize=size)
        axes = figure.add_axes(area)
        axes.grid(linewidth=0.5)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes)
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]  # without <?xml> and the doctype
    # Its style sheet would apply to the whole page.
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>|<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{prefix}-", text)
    names = {INK: "ink", LINE: "line", ACCENT: "accent", LOSS: "loss"}
    names |= {colour: f"series{place}" for place, colour in enumerate(SERIES)}
    for colour, name in names.items():
        text = text.replace(colour, f"var(--{name})")
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1))
