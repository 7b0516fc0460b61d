"""The processes that train together under torchrun, and what they tell each other. One process alone is rank 0 of 1."""

from __future__ import annotations

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

T = TypeVar("T")
LOST = re.compile(r"(closed|reset) by peer|broken pipe|pair closure|remote process exited", re.IGNORECASE)
"""What gloo and NCCL say of a process that is gone."""


@dataclass(frozen=True)
class Ranks:
    """This process among all.

    Attributes:
        rank: its number, 0..world - 1.
        world: how many there are.
        device: where it computes.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def total(self, values: Sequence[float]) -> list[float]:
        """The sums of the values over all processes, the same everywhere."""
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def copy_from_first(self, module: nn.Module) -> None:
        """Give every process the parameters and buffers of the first."""
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
        """What the first process has, on every process; of the others it is ignored. All wait for it."""
        values = [value]
        if self.world > 1:
            dist.broadcast_object_list(values, 0, device=self.device if self.device.type == "cuda" else None)
        return cast(T, values[0])

    def wait(self) -> None:
        """Until every process is here."""
        if self.world > 1:
            dist.barrier()

    @property
    def share(self) -> slice:
        """Which of a batch's examples are this process's."""
        return slice(self.rank, None, self.world)


@contextmanager
def joined(device: str = "auto") -> Iterator[Ranks]:
    """Join the processes that torchrun started, NCCL on GPUs and gloo elsewhere, and leave them at the end.

    A process that fails leaves at once, which ends the others: what they wait for from it fails.

    Args:
        device: as detector.device names it; under torchrun each process takes a GPU of its own where there are any.

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
    # The others wait while the first proposes boxes for a whole data set.
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=timedelta(days=1))
    backend = dist.get_backend()
    try:
        yield Ranks(dist.get_rank(), world, chosen)
    except BaseException as error:
        # Closes the connections on which the others wait. NCCL would wait for them first: there the process's end does.
        if backend == "gloo":
            dist.destroy_process_group()
        if isinstance(error, RuntimeError) and LOST.search(str(error)):
            raise TrainingError(
                "another process failed, and this one ends with it; the other's message says why"
            ) from error
        raise
    dist.destroy_process_group()
