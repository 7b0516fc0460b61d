"""Which epoch is kept as the best, and when a training stops because none is better any more.

In: the metrics of each epoch.  Out: whether its weights become best.safetensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

HIGHER_IS_BETTER = ("val_ap",)
"""Columns of which the highest value is the best; of all others it is the lowest."""


@dataclass
class BestEpoch:
    """The best epoch so far, by one column of the metrics.

    An epoch without that column cannot be chosen and does not count for `patience`.

    Attributes:
        column: Name of the column.
        patience: Measurements in a row without a better value after which the training stops; 0 never stops it.
        epoch: The best epoch; 0 is the state before the first step.
        value: Its value in that column; None before the first measurement.
        worse: Measurements in a row since then.
    """

    column: str
    patience: int = 0
    epoch: int = 0
    value: float | None = None
    worse: int = 0

    def offer(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Return whether an epoch is better than those before, and remember it; of equal epochs the first is best."""
        if self.column not in metrics:
            return False
        value = metrics[self.column]
        sign = -1 if self.column in HIGHER_IS_BETTER else 1
        if not math.isfinite(value) or (self.value is not None and sign * value >= sign * self.value):
            self.worse += 1
            return False
        self.epoch, self.value, self.worse = epoch, value, 0
        return True

    @property
    def exhausted(self) -> bool:
        """Whether `patience` measurements in a row were no better."""
        return 0 < self.patience <= self.worse

    @property
    def reason(self) -> str:
        """Why the training stops."""
        return (
            f"{self.column} was no better than in epoch {self.epoch} in {self.worse} measurements in a row "
            f"(patience={self.patience})"
        )

    def __str__(self) -> str:
        value = "never measured" if self.value is None else f"{self.value:.5g}"
        return f"epoch {self.epoch}, chosen by {self.column} ({value})"
