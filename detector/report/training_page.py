"""A training as one self-contained page of HTML, rewritten after each epoch and completed at the end.

In: what is trained, the rows of metrics.jsonl and, at the end, what the finished detector does on val.  Out: a file.
Curves are drawn in curves.py, images in pictures.py. Layout and texts: training.html.jinja.

K classes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from detector.evaluation.operating_points import OperatingPoint
from detector.evaluation.outcome import Evaluation
from detector.report.contents import TITLES
from detector.report.curves import Row, columns_of, curves
from detector.report.pictures import FALSE_DRAWN, Picture
from detector.report.rendering import without_folders, write_rendered
from detector.table import duration

CLASS_AP = "val_ap/"
"""Beginning of the columns of AP of single classes; the key of the class follows (evaluation.results.class_keys)."""


@dataclass(frozen=True)
class Training:
    """What is trained.

    Attributes:
        name: Name of the run.
        what: Kind of network.
        unit: What is counted of each class: "objects" or "images".
        keys: K unique keys of the classes.
        names: K display names.
        train: K numbers of examples to train on.
        val: K numbers of examples to measure on.
        init: Weights it starts from.
        facts: Further facts by name, such as the data sets.
        settings: Settings that differ from the defaults: key -> (value, default).
        epochs: Number of epochs.
    """

    name: str
    what: str
    unit: str
    keys: tuple[str, ...]
    names: tuple[str, ...]
    train: tuple[int, ...]
    val: tuple[int, ...]
    init: str
    facts: Mapping[str, str]
    settings: Mapping[str, tuple[str, str]]
    epochs: int


@dataclass(frozen=True)
class Outcome:
    """What the finished detector does on val.

    Attributes:
        evaluation: Its average precision.
        scores: K lowest scores that are shown.
        points: K precisions and recalls of what is shown; None where nothing is.
        missed: Images that miss most objects, of what is shown.
        false: Images with the false positives of the highest scores.
    """

    evaluation: Evaluation
    scores: tuple[float, ...]
    points: tuple[OperatingPoint | None, ...]
    missed: Sequence[Picture] = ()
    false: Sequence[Picture] = ()


@dataclass(frozen=True)
class Progress:
    """How far a training has come.

    Attributes:
        rows: The rows of metrics.jsonl.
        criterion: Column by which the best epoch is chosen.
        best: The best epoch so far; None before the first measurement.
        state: "running", "stopped", or "finished".
        note: A sentence on the state, such as how to go on.
        run: Content of run.json: the command, versions and the device.
        commands: What to do next, a description -> a command.
    """

    rows: Sequence[Row]
    criterion: str
    best: int | None
    state: str
    note: str = ""
    run: Mapping[str, str] = field(default_factory=dict)
    commands: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ClassRow:
    """A row of the table of classes; AP is None where it is unknown."""

    key: str
    name: str
    train: int
    val: int
    last: float | None
    best: float | None
    detector: float | None
    score: float | None
    point: OperatingPoint | None

    @property
    def ap(self) -> float | None:
        """The AP that says most: the finished detector's, else the best epoch's, else the last measured."""
        return next((value for value in (self.detector, self.best, self.last) if value is not None), None)


def write_training_page(path: Path, training: Training, progress: Progress, outcome: Outcome | None = None) -> None:
    """Write the page; the file appears whole or not at all.

    Args:
        path: The file.
        training: What is trained.
        progress: How far it has come.
        outcome: What the finished detector does on val; None where that is not measured.

    Raises:
        OSError: the file cannot be written.
    """
    rows = progress.rows
    best = next((row for row in rows if row["epoch"] == progress.best), None)
    measured = [row for row in rows if "val_ap" in row]
    pictures = [
        (title, shown)
        for title, shown in (
            ("Most objects missed", outcome.missed if outcome else ()),
            ("Most confident false positives", outcome.false if outcome else ()),
        )
        if shown
    ]
    write_rendered(
        path,
        "training.html.jinja",
        training=training,
        progress=progress,
        outcome=outcome,
        best=best,
        last=rows[-1] if rows else None,
        measured=measured[-1] if measured else None,
        seconds=sum(row.get("seconds", 0.0) for row in rows),
        classes=_class_rows(training, measured, best, outcome),
        curves=curves(rows, progress.best),
        columns=columns_of(rows),
        settings={key: tuple(map(without_folders, pair)) for key, pair in training.settings.items()},
        init=without_folders(training.init),
        pictures=pictures,
        absent=bool(pictures) and all(picture.absent for _, shown in pictures for picture in shown),
        rules=TITLES.get(outcome.evaluation.protocol, outcome.evaluation.protocol) if outcome else "",
        false_drawn=FALSE_DRAWN,
        duration=duration,
        written=time.strftime("%Y-%m-%d %H:%M"),
    )


def _class_rows(
    training: Training, measured: Sequence[Row], best: Row | None, outcome: Outcome | None
) -> list[ClassRow]:
    """Make the rows of the classes: those with AP first, the worst first, then the others in their order."""
    rows = []
    final = list(outcome.evaluation.ap.values()) if outcome else [None] * len(training.keys)
    for label, key in enumerate(training.keys):
        column = CLASS_AP + key
        rows.append(
            ClassRow(
                key,
                training.names[label],
                training.train[label],
                training.val[label],
                measured[-1].get(column) if measured else None,
                best.get(column) if best else None,
                final[label],
                outcome.scores[label] if outcome else None,
                outcome.points[label] if outcome else None,
            )
        )
    return sorted(rows, key=lambda row: (row.ap is None, row.ap or 0.0))
