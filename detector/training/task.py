"""What the training loop needs to know of a training: its network, batches, loss and metrics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

Batch = tuple[Tensor, ...]
"""Tensors whose first axis is the examples."""


class Task(Protocol):
    """What is trained: a network, its batches, its loss and its metrics.

    Attributes:
        network: Network that is trained in place.
        criterion: Column of the metrics by which the best epoch is chosen, see `BestEpoch`.
        unit: Name of the examples, in the plural.
        batches_per_epoch: Steps between two rows of metrics.
    """

    unit: str
    batches_per_epoch: int

    @property
    def criterion(self) -> str: ...  # noqa: D102 - above

    @property
    def network(self) -> nn.Module: ...  # noqa: D102 - above

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Yield this process's shares of the batches start..stop - 1; a batch depends on its number alone."""

    def inputs(self, batch: Batch) -> Tensor:
        """Compute the network's input from a batch."""

    def loss(self, batch: Batch) -> Tensor:
        """Compute the mean loss of a batch, or of a part of one."""

    def measure(self, network: nn.Module) -> dict[str, float]:
        """Measure a network of the same architecture on the val images; every process gets the same metrics."""

    def save(self, network: nn.Module, path: Path) -> None:
        """Write a weights file that can be used on its own."""

    def contents(self, step: int) -> list[str]:
        """List the files of a batch."""


class Occasional(Protocol):
    """A measurement that is too slow for every epoch."""

    def due(self, epoch: int) -> bool:
        """Whether it is made after this epoch; 0 is the state before the first step."""

    def measure(self, network: nn.Module) -> dict[str, float]:
        """Measure a network in evaluation mode; every process gets the same metrics."""
