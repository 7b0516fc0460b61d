"""Communication between the processes of a distributed training (torchrun). A single process is rank 0 of 1."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn

from detector.device import choose_device
from detector.training.record import TrainingError

_LOG = logging.getLogger(__name__)
T = TypeVar("T")
LOST = re.compile(r"(closed|reset) by peer|broken pipe|pair closure|remote process exited", re.IGNORECASE)
"""Messages of gloo and NCCL about a process that has ended."""


@dataclass(frozen=True)
class Ranks:
    """The place of this process among those of a training.

    Attributes:
        rank: Number of this process, 0..world - 1.
        world: Number of processes.
        device: Device of this process.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def say(self, *lines: str) -> None:
        """Log lines once for all processes; those that begin with "warning: " as warnings."""
        for line in lines if self.leads else ():
            text = line.removeprefix("warning: ")
            _LOG.log(logging.INFO if text == line else logging.WARNING, "%s", text)

    def total(self, values: Sequence[float]) -> list[float]:
        """Sum each value over all processes; every process gets the result."""
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def copy_from_first(self, module: nn.Module) -> None:
        """Copy the first process's parameters and buffers to all others."""
        if self.world > 1:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, 0)

    def average_buffers(self, module: nn.Module) -> None:
        """Replace floating-point buffers by their means over all processes."""
        if self.world > 1:
            for buffer in module.buffers():
                if buffer.is_floating_point():
                    dist.all_reduce(buffer)
                    buffer /= self.world

    def from_first(self, value: T | None) -> T:
        """Broadcast a value of the first process; what the other processes pass is ignored."""
        values = [value]
        if self.world > 1:
            dist.broadcast_object_list(values, 0, device=self.device if self.device.type == "cuda" else None)
        return cast(T, values[0])

    def from_all(self, value: T) -> list[T]:
        """Collect a value of each process, in the order of their ranks; every process gets the list."""
        values: list[T | None] = [None] * self.world
        if self.world == 1:
            return [value]
        dist.all_gather_object(values, value)
        return cast(list[T], values)

    def wait(self) -> None:
        """Wait until every process has called this."""
        if self.world > 1:
            dist.barrier()

    @property
    def share(self) -> slice:
        """Every world-th example, from the rank-th on: this process's examples."""
        return slice(self.rank, None, self.world)

    def shares(self, start: int, stop: int, batch: int) -> list[range]:
        """Positions of this process's examples in each of the batches start..stop - 1 of a stream of examples."""
        edges = range(start * batch, stop * batch, batch)
        return [range(edge, edge + batch)[self.share] for edge in edges]


@contextmanager
def joined(device: str = "auto") -> Iterator[Ranks]:
    """Join the processes that torchrun started, by NCCL on GPUs and gloo elsewhere, and leave them at the end.

    A process that fails leaves at once, which makes the others fail where they wait for it.

    Args:
        device: Name of the device, as in detector.device; under torchrun each process takes a GPU of its own.

    Raises:
        ValueError: no such device here.
        TrainingError: another process failed.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks(device=choose_device(device))
        return
    chosen = choose_device(device)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(chosen)
    # The others wait while the first process computes proposals for a whole data set.
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=timedelta(days=1))
    backend = dist.get_backend()
    try:
        yield Ranks(dist.get_rank(), world, chosen)
    except BaseException as error:
        # Close the connections on which the others wait. NCCL would wait for them first; there the end of the process
        # closes them.
        if backend == "gloo":
            dist.destroy_process_group()
        if isinstance(error, RuntimeError) and LOST.search(str(error)):
            raise TrainingError(
                "another process failed, and this one ends with it; the other's message says why"
            ) from error
        raise
    dist.destroy_process_group()
