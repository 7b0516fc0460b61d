"""The best epoch by a column, against a search over all of them, and when patience ends."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detector.training.choice import Choice


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("column", "best_of"), [("val_loss", min), ("val_missed", min), ("val_ap", max)])
def test_it_is_the_best_of_all_that_were_measured(column: str, best_of: object, seed: int) -> None:
    generator = np.random.default_rng(seed)
    values = generator.integers(0, 6, 12) / 10  # with ties
    measured = np.flatnonzero(generator.random(12) < 0.6)
    choice = Choice(column)
    assert choice.best is None
    offered = [
        epoch
        for epoch in range(12)
        if choice.offer(epoch, {"other": 0.0} | ({column: values[epoch]} if epoch in measured else {}))
    ]
    if len(measured):
        best = best_of(values[measured])  # type: ignore[operator]
        assert choice.best == best
        assert choice.epoch == next(epoch for epoch in measured if values[epoch] == best)  # the first of equal ones
        assert offered[-1] == choice.epoch
        assert choice.worse == (measured > choice.epoch).sum()
    assert not choice.exhausted  # patience is 0


def test_patience_counts_measurements_in_a_row() -> None:
    choice = Choice("val_ap", patience=2)
    ends = []
    for epoch, value in enumerate([0.3, None, 0.2, None, 0.4, 0.4, None, None, 0.1]):
        choice.offer(epoch, {} if value is None else {"val_ap": value})
        ends.append(choice.exhausted)
    assert ends == [False] * 8 + [True]
    assert str(choice) == "epoch 4, chosen by val_ap (0.4)"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_never_the_best(value: float) -> None:
    for column in ("val_loss", "val_ap"):
        choice = Choice(column, patience=1)
        assert not choice.offer(1, {column: value})
        assert choice.exhausted
        assert choice.offer(2, {column: 0.5})
        assert not choice.exhausted
