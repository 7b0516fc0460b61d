"""The training loop: batches -> steps of SGD -> averaged weights -> a row of metrics an epoch, safe against kills.

What is learned is a `Task`; this file is how. A step depends on the task's batch of that number, the weights and the
seed alone, so that a run which was killed and resumed ends, on a CPU, with the bits of an unbroken one. Under torchrun
every process takes its share of each batch, and DistributedDataParallel averages their gradients.
"""

from __future__ import annotations

import math
import pickle
import signal
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import update_bn
from tqdm import tqdm

from detector.device import autocast, choose_precision
from detector.training.optimisation import OptimisationConfig, build_average, build_optimiser, learning_rate
from detector.training.ranks import Ranks
from detector.training.record import TrainingError
from proposals.files import write_whole

Batch = tuple[Tensor, ...]
"""Tensors of one first axis, the examples."""

LISTED = 8  # files that a message names


class Task(Protocol):
    """What is learned.

    Attributes:
        network: learns in place.
        criterion: the column of `measure` by which the best epoch is chosen; the lower the better.
        unit: what an example is called, in the plural.
        batches_per_epoch: steps between two rows of metrics.
    """

    criterion: str
    unit: str
    batches_per_epoch: int

    @property
    def network(self) -> nn.Module: ...  # noqa: D102 - above

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """This process's shares of the batches start..stop - 1, which depend on their numbers alone."""

    def inputs(self, batch: Batch) -> Tensor:
        """What the network reads of a batch."""

    def loss(self, batch: Batch) -> Tensor:
        """The mean loss of a batch, or of a part of one, under the network's weights."""

    def measure(self, network: nn.Module) -> dict[str, float]:
        """Metrics of other weights of the same network on images it does not learn from; the same on every process."""

    def save(self, network: nn.Module, path: Path) -> None:
        """Write those weights with all it takes to use them."""

    def contents(self, step: int) -> list[str]:
        """The files in the batch of that number."""


class _Loss(nn.Module):
    """The task's loss as a module: DistributedDataParallel watches the forward of what it wraps."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.network = task.network
        self._loss = task.loss

    def forward(self, *batch: Tensor) -> Tensor:
        return self._loss(batch)


class Loop:
    """A run: a task, its optimiser, its average and how far it has come."""

    def __init__(
        self, task: Task, config: OptimisationConfig, folder: Path, ranks: Ranks | None = None, *, data: str = ""
    ) -> None:
        """Begin at step 0.

        Args:
            task: what is learned.
            config: how.
            folder: of the run.
            ranks: the processes.
            data: digest of what is learned from: a state of other data is not resumed.

        Raises:
            TrainingError: the batch cannot be shared equally by the processes and parts.
        """
        self.task, self.config, self.folder, self.ranks, self.data = task, config, folder, ranks or Ranks(), data
        if config.batch % (self.ranks.world * config.accumulate):
            raise TrainingError(
                f"a batch of {config.batch} cannot be shared by {self.ranks.world} processes in "
                f"{config.accumulate} parts each; set batch to a multiple of {self.ranks.world * config.accumulate}"
            )
        self.step = 0
        self.best = math.inf
        self.losses: list[float] = []  # of the epoch under way
        self.stopping = False  # set by a signal: save and stop after the batch under way
        self.optimiser = build_optimiser(task.network, config)
        self.average = build_average(task.network, config)
        self._loss: nn.Module | None = None
        self._precision = choose_precision(config.precision, self.ranks.device)

    @property
    def steps(self) -> int:
        """Batches of the whole run."""
        return self.config.epochs * self.task.batches_per_epoch

    @property
    def finished_epochs(self) -> int:
        """Epochs that were measured; one that was stopped after its last batch still has its losses."""
        return (self.step - bool(self.losses)) // self.task.batches_per_epoch

    def run(self) -> Iterator[dict[str, float]]:
        """Train to the end; yields the row of metrics of each epoch, and saves the state when the caller has taken it.

        Raises:
            KeyboardInterrupt: a signal came; the state after the last batch is on disk.
            TrainingError: the loss is not finite.
        """
        with self._stop_after_batch():
            saved = time.monotonic()
            while self.finished_epochs < self.config.epochs:
                started, begin = time.perf_counter(), self.step
                epoch = self.finished_epochs + 1
                stop = epoch * self.task.batches_per_epoch
                bar = tqdm(
                    self.task.batches(begin, stop),
                    total=stop - begin,
                    desc=f"epoch {epoch}/{self.config.epochs}",
                    unit="batch",
                    dynamic_ncols=True,
                    disable=not self.ranks.leads,
                )
                for batch in bar:
                    self.losses.append(self.learn(batch))
                    bar.set_postfix(loss=f"{np.mean(self.losses[-20:]):.4f}", refresh=False)
                    if self.stopping:
                        bar.close()
                        self.save_state()
                        raise KeyboardInterrupt
                    if time.monotonic() - saved > 60 * self.config.save_minutes:
                        self.save_state()
                        saved = time.monotonic()
                trained = time.perf_counter() - started
                row = {
                    "epoch": epoch,
                    "train_loss": float(np.mean(self.losses)),
                    "learning_rate": self.learning_rate(self.step - 1),
                }
                row |= self.finish_epoch()
                row |= {
                    f"{self.task.unit}_per_second": (self.step - begin) * self.config.batch / trained,
                    "seconds": time.perf_counter() - started,
                }
                yield row
                self.save_state()
                saved = time.monotonic()

    def finish_epoch(self, keep: Sequence[str] = ("last",)) -> dict[str, float]:
        """Measure the averaged weights and keep them, as the best if they are; all processes call it together.

        Args:
            keep: names of the files that they are written to whether or not they are the best.

        Returns:
            the metrics.
        """
        network = self.measured_weights()
        with autocast(self.ranks.device, self._precision):
            metrics = self.task.measure(network)
        self.losses = []
        if metrics[self.task.criterion] < self.best:
            self.best = float(metrics[self.task.criterion])
            if self.ranks.leads:
                self.task.save(network, self.folder / "best.safetensors")
        for name in keep if self.ranks.leads else ():
            self.task.save(network, self.folder / f"{name}.safetensors")
        return metrics

    def learn(self, batch: Batch) -> float:
        """One step of SGD on this process's share of a batch; returns the whole batch's loss.

        Raises:
            TrainingError: the loss is not finite.
        """
        # Dropout depends on seed, step and process alone: exact resume.
        torch.manual_seed((self.config.seed * 1_000_003 + self.step) * 1009 + self.ranks.rank)
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate(self.step)
        if self._loss is None:
            module = _Loss(self.task)
            self._loss = DistributedDataParallel(module) if self.ranks.world > 1 else module
        self.task.network.train()
        self.optimiser.zero_grad()
        parts = list(zip(*(tensor.chunk(self.config.accumulate) for tensor in batch), strict=True))
        value = 0.0
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            wrapped = isinstance(self._loss, DistributedDataParallel) and not last
            with cast(DistributedDataParallel, self._loss).no_sync() if wrapped else nullcontext():
                with autocast(self.ranks.device, self._precision):
                    loss = self._loss(*part) / len(parts)
                loss.backward()
            value += loss.item()
        total, stops = self.ranks.total([value, float(self.stopping)])
        value, self.stopping = total / self.ranks.world, stops > 0
        if not math.isfinite(value):
            raise self._not_finite(value)
        self.optimiser.step()
        if self.config.averaging != "none" and self.step >= self.config.average_start * self.task.batches_per_epoch:
            self.average.update_parameters(self.task.network)
        self.step += 1
        return value

    def learning_rate(self, step: int) -> float:
        """Of a step, counted from 0."""
        return learning_rate(self.config, step, self.task.batches_per_epoch)

    def measured_weights(self) -> nn.Module:
        """The weights to measure and keep, in evaluation mode: the averaged ones as soon as there are any.

        With batch normalisation the processes bring their statistics together: all of them must call this.
        """
        network = self.average.module
        if self.average.n_averaged == 0:
            network.load_state_dict(self.task.network.state_dict())
        if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()):
            count = min(self.config.batch_norm_batches, self.steps)
            if count:
                network.train()
                with autocast(self.ranks.device, self._precision):
                    update_bn((self.task.inputs(batch) for batch in self.task.batches(0, count)), network)
            self.ranks.average_buffers(network)
        return network.eval()

    def save_state(self) -> None:
        """Write all that resuming needs; the file appears whole or not at all."""
        if not self.ranks.leads:
            return
        state = {
            "step": self.step,
            "data": self.data,
            "best": self.best,
            "losses": self.losses,
            "network": self.task.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        with write_whole(self.folder / "state.pt") as path:
            torch.save(state, path)

    def load_state(self) -> None:
        """Continue from the folder's state.pt.

        Raises:
            TrainingError: it is of other data, or damaged.
        """
        path = self.folder / "state.pt"
        try:
            state = torch.load(path, map_location=self.ranks.device, weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
            raise TrainingError(f"{path} is damaged; delete {self.folder} to start anew") from error
        if state.get("data", self.data) != self.data:
            raise TrainingError(
                f"{self.folder} was trained on other images, boxes or classes than those that train and val name now; "
                "name=OTHER starts another run"
            )
        self.step, self.best, self.losses = state["step"], state["best"], state["losses"]
        self.task.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])

    def _not_finite(self, value: float) -> TrainingError:
        files = self.task.contents(self.step)
        rest = f" and {len(files) - LISTED} more" if len(files) > LISTED else ""
        epoch = self.step // self.task.batches_per_epoch + 1
        return TrainingError(
            f"the loss is {value} in epoch {epoch} at batch {self.step} of {self.folder}: lower learning_rate "
            f"(now {self.config.learning_rate:g}) and start another run with name=OTHER. "
            f"The batch: {', '.join(files[:LISTED])}{rest}"
        )

    @contextmanager
    def _stop_after_batch(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM let the batch under way finish and be saved; a second one stops at once."""

        def stop(number: int, _: FrameType | None) -> None:
            if self.stopping:
                raise KeyboardInterrupt
            self.stopping = True

        numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        before = [signal.signal(number, stop) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)
