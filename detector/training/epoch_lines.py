"""One line an epoch for the terminal: losses, the measures on val, the time, and the time left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from detector.table import duration

Row = Mapping[str, float]

TITLES = {
    "train_loss": "loss",
    "val_loss": "val loss",
    "val_top1_error": "error",
    "val_missed": "missed",
    "val_ap": "val AP",
}
"""Columns of the metrics in the order of the line, and their headings."""
TIMES = {"data_seconds": "data", "compute_seconds": "compute", "eta_seconds": "ETA"}
RECENT = 5  # epochs whose mean speed tells the time left


class EpochLines:
    """Formats rows below a heading that comes again when the columns change.

    Args:
        epochs: Number of epochs of the run; 0 if it is unknown.
    """

    def __init__(self, epochs: int = 0) -> None:
        self._epochs = epochs
        self._columns: list[str] = []

    def lines(self, rows: Sequence[Row], *, best: bool) -> list[str]:
        """Return the line of the last row, with its heading where that is due.

        Args:
            rows: All rows so far.
            best: Whether the last is the best epoch so far; a star says so.
        """
        row = rows[-1]
        columns = [name for name in TITLES if name == "train_loss" or any(name in one for one in rows)]
        total = f"/{self._epochs}" if self._epochs else ""
        number = f"{row['epoch']:g}{total}"
        width = max(len("epoch"), 2 * len(total) - 1)
        titles = [(TITLES | TIMES)[name] for name in (*columns, *TIMES)]
        widths = [max(len(title), 6) for title in titles]
        values = [_shown(row[name]) if name in row else "-" for name in columns]
        values += [duration(row[name]) if name in row else "-" for name in TIMES]

        def line(first: str, cells: Sequence[str]) -> str:
            return "  ".join([first.rjust(width), *map(str.rjust, cells, widths)])

        heading = [line("epoch", titles)] if columns != self._columns else []
        self._columns = columns
        return [*heading, line(number, values) + " *" * best]


def _shown(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.5g}"


def seconds_left(
    rows: Sequence[Row], epochs: int, rate: str, examples: int, due: Callable[[int], bool]
) -> float | None:
    """Estimate the time to the end of the last epoch, s, if no patience ends the training before.

    It is None where no row has a rate above 0, as after an interruption between the last batch and the measurement.

    Args:
        rows: The rows so far, the last one of a trained epoch.
        epochs: Number of epochs of the run.
        rate: Column of the examples per second; an epoch that was interrupted has its own.
        examples: Number of examples of an epoch.
        due: Whether the occasional, slower measurement is made after an epoch.
    """
    done = int(rows[-1]["epoch"])
    trained = [row for row in rows if row.get(rate, 0) > 0][-RECENT:]
    if not trained:
        return None
    training = sum(examples / row[rate] for row in trained) / len(trained)
    measured = {due(int(row["epoch"])): row["measure_seconds"] for row in rows if "measure_seconds" in row}
    known = max(measured.values(), default=0.0)
    return sum(training + measured.get(due(epoch), known) for epoch in range(done + 1, epochs + 1))
