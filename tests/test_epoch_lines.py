"""The line of an epoch, and the time that is left."""

from __future__ import annotations

import pytest

from detector.table import duration
from detector.training.epoch_lines import EpochLines, seconds_left


def test_the_lines_of_a_run_fit_a_terminal_below_one_heading() -> None:
    """80 columns less the name of the command; what is not measured in an epoch is a dash."""
    lines = EpochLines(120)
    rows = [{"epoch": 0.0, "val_loss": 2.5, "val_ap": 0.1, "seconds": 9.0}]
    shown = lines.lines(rows, best=True)
    assert [line.split() for line in shown] == [
        ["epoch", "loss", "val", "loss", "val", "AP", "data", "compute", "ETA"],
        ["0/120", "-", "2.5000", "0.1000", "-", "-", "-", "*"],
    ]
    times = {"data_seconds": 0.04, "compute_seconds": 185.2, "eta_seconds": 5430.0}
    rows.append({"epoch": 119, "train_loss": 12.3456, "val_loss": 0.30004, "learning_rate": 0.1, **times})
    shown += lines.lines(rows, best=False)
    assert shown[2:] == ["119/120  12.346    0.3000       -    0.0s    3m05s   1h30m"]
    assert len({len(line.removesuffix(" *")) for line in shown}) == 1
    assert all(len("train_classifier: " + line) <= 80 for line in shown)
    rows.append({"epoch": 120, "train_loss": 1.0, "val_missed": 0.25})
    assert lines.lines(rows, best=False)[0].split()[4] == "missed"  # a new column brings its heading


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0s"), (9.94, "9.9s"), (9.96, "10s"), (59.4, "59s"), (59.6, "1m00s"), (3599.4, "59m59s"), (3599.6, "1h00m"),
     (86_369, "23h59m"), (86_371, "1d00h"), (97_200, "1d03h"), (8_553_600, "99d00h")],
)  # fmt: skip
def test_durations_round_to_the_next_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text
    assert len(text) <= 6


def test_the_time_left_counts_the_measurements_that_are_due() -> None:
    """Ten epochs of 100 examples at 50 a second, so 2 s each; AP, 30 s, is measured every third and in the last."""
    due = {0, 3, 6, 9, 10}.__contains__
    rows = [{"epoch": 0.0, "measure_seconds": 30.0}]
    rows += [{"epoch": epoch, "images_per_second": 50.0, "measure_seconds": 1.0} for epoch in (1.0, 2.0)]
    assert seconds_left(rows, 10, "images_per_second", 100, due) == 8 * 2 + 4 * 30 + 4 * 1
    rows[1]["measure_seconds"] = 9.0  # of each kind the last counts
    assert seconds_left(rows, 10, "images_per_second", 100, due) == 8 * 2 + 4 * 30 + 4 * 1
    assert seconds_left(rows[:2], 10, "images_per_second", 100, due) == 9 * 2 + 4 * 30 + 5 * 9
    last = [*rows, {"epoch": 10.0, "images_per_second": 50.0, "measure_seconds": 31.0}]
    assert seconds_left(last, 10, "images_per_second", 100, due) == 0
    # Another speed holds for the epochs after it, once five were as fast.
    faster = [{"epoch": 2.0 + n, "images_per_second": 200.0, "measure_seconds": 1.0} for n in range(1, 6)]
    assert seconds_left([*rows, *faster], 8, "images_per_second", 100, lambda _: False) == pytest.approx(0.5 + 1.0)


def test_without_a_trained_batch_the_time_left_is_unknown() -> None:
    """A run that was killed between an epoch's last batch and its measurement resumes with nothing to train."""
    rows = [{"epoch": 1.0, "images_per_second": 0.0, "measure_seconds": 1.0}]
    assert seconds_left(rows, 3, "images_per_second", 100, lambda _: False) is None
