"""A trace as one self-contained page of HTML: no network, no second file.

In: an ImageTrace.  Out: a file. Numbers come from data.py, words from stages.py; engine.js and state.js compute again
what a reader changes, the other scripts draw. Layout: page.html.jinja.
"""

from __future__ import annotations

import json
from pathlib import Path

import jinja2
from markupsafe import Markup

from detector.trace.data import page_data
from detector.trace.objects import Objects
from detector.trace.stages import counted, stages_of
from detector.trace.tracing import ImageTrace
from proposals.files import write_whole

FOLDER = Path(__file__).parent
SCRIPTS = (
    *("engine", "state", "picture", "controls"),
    *("stages_pieces", "stages_boxes", "stages_scores", "stages_result", "stages_why", "main"),
)


def write_page(path: Path, found: ImageTrace, truth: Objects | None = None) -> None:
    """Write the page of a trace.

    Args:
        path: The file; its folder is created if needed.
        found: The trace.
        truth: The objects of the image, where they are known.

    Raises:
        OSError: the file cannot be written.
    """
    data = page_data(found, truth)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = found.detector.classes.names
    shown = [
        f"{names[label]} {score:.3f}"
        for label, score in zip(found.detections.labels.tolist(), found.detections.scores.tolist(), strict=True)
    ]
    page = environment.get_template("page.html.jinja").render(
        name=found.name,
        width=data["width"],
        height=data["height"],
        summary=_summary(found),
        found=shown,
        stages=stages_of(data),
        style=Markup((FOLDER / "style.css").read_text(encoding="utf-8")),
        script=Markup("\n".join((FOLDER / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)),
        # "<" cannot end the script element, nor open a comment in it.
        data=Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as part:
        part.write_text(page, encoding="utf-8", errors="backslashreplace")  # file names need not be valid text


def _summary(found: ImageTrace) -> str:
    seconds = sum(found.scored.seconds.values())
    boxes, detections = len(found.proposals.boxes), len(found.detections)
    became = f"{counted(boxes, 'proposed box', 'proposed boxes')} became {counted(detections, 'detection')}"
    return f"{became} in {seconds:.1f} seconds."
