"""The best epoch by a column, against a search over all of them, and when patience ends."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detector.training.best_epoch import BestEpoch


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("column", "best_of"), [("val_loss", min), ("val_missed", min), ("val_ap", max)])
def test_it_is_the_best_of_all_that_were_measured(column: str, best_of: object, seed: int) -> None:
    generator = np.random.default_rng(seed)
    values = generator.integers(0, 6, 12) / 10  # with ties
    measured = np.flatnonzero(generator.random(12) < 0.6)
    best = BestEpoch(column)
    assert best.value is None
    offered = [
        epoch
        for epoch in range(12)
        if best.offer(epoch, {"other": 0.0} | ({column: values[epoch]} if epoch in measured else {}))
    ]
    if len(measured):
        expected = best_of(values[measured])  # type: ignore[operator]
        assert best.value == expected
        assert best.epoch == next(epoch for epoch in measured if values[epoch] == expected)  # the first of equal ones
        assert offered[-1] == best.epoch
        assert best.worse == (measured > best.epoch).sum()
    assert not best.exhausted  # patience is 0


def test_patience_counts_measurements_in_a_row() -> None:
    best = BestEpoch("val_ap", patience=2)
    ends = []
    for epoch, value in enumerate([0.3, None, 0.2, None, 0.4, 0.4, None, None, 0.1]):
        best.offer(epoch, {} if value is None else {"val_ap": value})
        ends.append(best.exhausted)
    assert ends == [False] * 8 + [True]
    assert str(best) == "epoch 4, chosen by val_ap (0.4)"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_never_the_best(value: float) -> None:
    for column in ("val_loss", "val_ap"):
        best = BestEpoch(column, patience=1)
        assert not best.offer(1, {column: value})
        assert best.exhausted
        assert best.offer(2, {column: 0.5})
        assert not best.exhausted
