"""The training loop: batches -> steps of SGD -> averaged weights -> one row of metrics per epoch, resumable.

A `Task` says what is trained; the loop is the same for all. A step depends only on the task's batch of that number, the
weights and the seed, so a run that was killed and resumed ends, on a CPU, with exactly the weights of an unbroken run.
Under torchrun every process takes its share of each batch, and DistributedDataParallel averages the gradients.
"""

from __future__ import annotations

import math
import pickle
import signal
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import update_bn

from detector.data.ground_truth import listed
from detector.device import autocast, training_precision
from detector.measuring import timed
from detector.progress import progress
from detector.report.training_page import Training
from detector.training.best_epoch import BestEpoch
from detector.training.epoch_lines import seconds_left
from detector.training.optimisation import TrainingConfig, build_average, build_optimiser, learning_rate
from detector.training.ranks import Ranks
from detector.training.record import Reports, TrainingError, begin
from detector.training.scaling import MOST_IN_A_ROW, ScaledSteps
from detector.training.task import Batch, Occasional, Task
from proposals.files import write_whole

LISTED = 8  # files named in a message


class _Loss(nn.Module):
    """The task's loss as a module, since DistributedDataParallel synchronises in the forward of what it wraps."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.network = task.network
        self._loss = task.loss

    def forward(self, *batch: Tensor) -> Tensor:
        return self._loss(batch)


class Loop:
    """A run: a task, its optimiser, the weight average and the step it has reached.

    Args:
        task: What is trained.
        config: Settings.
        folder: Folder of the run.
        ranks: The processes.
        data: Digest of the training data; the state of a run on other data is not resumed.
        occasional: A further measurement; the epochs in which it is made have its columns too.

    Raises:
        DeviceError: the device does not train in that precision.
        TrainingError: the batch cannot be shared equally by the processes and parts.
    """

    def __init__(
        self,
        task: Task,
        config: TrainingConfig,
        folder: Path,
        ranks: Ranks | None = None,
        *,
        data: str = "",
        occasional: Occasional | None = None,
    ) -> None:
        self.task, self.config, self.folder, self.ranks, self.data = task, config, folder, ranks or Ranks(), data
        if config.batch % (self.ranks.world * config.accumulate):
            raise TrainingError(
                f"a batch of {config.batch} cannot be shared by {self.ranks.world} processes in "
                f"{config.accumulate} parts each; set batch to a multiple of {self.ranks.world * config.accumulate}"
            )
        self.step = 0
        self.best = BestEpoch(task.criterion, config.patience)
        self.losses: list[float] = []  # of the current epoch
        self.stopping = False  # set by a signal: save and stop after the current batch
        self.optimiser = build_optimiser(task.network, config)
        self.average = build_average(task.network, config)
        self._loss: nn.Module | None = None
        self._occasional = occasional
        self._precision = training_precision(config.precision, self.ranks.device)
        self.scaled = ScaledSteps(self.optimiser, self.ranks.device, self._precision)

    @property
    def steps(self) -> int:
        """Number of batches of the whole run."""
        return self.config.epochs * self.task.batches_per_epoch

    @property
    def finished_epochs(self) -> int:
        """Number of measured epochs; one that was stopped after its last batch is not, and still has its losses."""
        return (self.step - bool(self.losses)) // self.task.batches_per_epoch

    @property
    def done(self) -> bool:
        """Whether the last epoch is measured, or the patience exhausted."""
        return self.finished_epochs >= self.config.epochs or self.best.exhausted

    def due(self, epoch: int) -> bool:
        """Whether the occasional measurement is made after this epoch."""
        return self._occasional is not None and self._occasional.due(epoch)

    def seconds_left(self, rows: Sequence[Mapping[str, float]]) -> float | None:
        """Estimate the time to the end of the last epoch, s, from the rows of all epochs so far."""
        examples = self.task.batches_per_epoch * self.config.batch
        return seconds_left(rows, self.config.epochs, self._rate, examples, self.due)

    @property
    def _rate(self) -> str:
        return f"{self.task.unit}_per_second"

    def run(self) -> Iterator[dict[str, float]]:
        """Train to the end; yield the metrics of each epoch, and save the state once the caller has taken them.

        A row has the seconds that this process waited for data, computed and measured, and those of all together.

        Raises:
            KeyboardInterrupt: a signal came; the state after the last batch is saved.
            TrainingError: the loss is not finite.
        """
        with self._stop_after_batch():
            saved = time.monotonic()
            while not self.done:
                started, begin = time.perf_counter(), self.step
                spent = {"data_seconds": 0.0, "compute_seconds": 0.0, "measure_seconds": 0.0}
                epoch = self.finished_epochs + 1
                stop = epoch * self.task.batches_per_epoch
                batches = _waiting(self.task.batches(begin, stop), spent)
                label = f"epoch {epoch}/{self.config.epochs}"
                bar = progress(batches, label, "batch", total=stop - begin, leave=False)
                for batch in bar:
                    with timed(spent, "compute_seconds"):
                        self.losses.append(self.learn(batch))
                    bar.set_postfix(loss=f"{_mean(self.losses[-20:]):.4f}", refresh=False)
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
                    "train_loss": _mean(self.losses),
                    "learning_rate": self.learning_rate(self.step - 1),
                }
                row |= {"skipped_steps": self.scaled.skipped} if self.scaled.scales else {}
                if self.due(epoch):
                    self.save_state()  # it may take minutes, in which a process may be killed
                with timed(spent, "measure_seconds"):
                    row |= self.finish_epoch()
                row |= {self._rate: (self.step - begin) * self.config.batch / trained}
                row |= spent | {"seconds": time.perf_counter() - started}
                yield row
                self.save_state()
                saved = time.monotonic()

    def finish_epoch(self, keep: Sequence[str] = ("last",)) -> dict[str, float]:
        """Measure the averaged weights and save them; all processes must call this together.

        Args:
            keep: Names of the files that are written in any case; "best" is written if the weights are the best so far.

        Returns:
            The metrics.
        """
        network = self.measured_weights()
        with autocast(self.ranks.device, self._precision):
            metrics = self.task.measure(network)
        epoch = self.step // self.task.batches_per_epoch
        if self._occasional and self.due(epoch):
            metrics |= self._occasional.measure(network)
        self.losses, self.scaled.skipped = [], 0
        if self.best.offer(epoch, metrics) and self.ranks.leads:
            self.task.save(network, self.folder / "best.safetensors")
        for name in keep if self.ranks.leads else ():
            self.task.save(network, self.folder / f"{name}.safetensors")
        return metrics

    def learn(self, batch: Batch) -> float:
        """Take one step of SGD on this process's share of a batch; return the loss of the whole batch.

        In float16 a batch whose loss or gradients are not finite changes no weights.

        Raises:
            TrainingError: the loss is not finite; in float16, in many batches in a row no step could be taken.
        """
        # Dropout depends on seed, step and process alone, which makes resuming exact.
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
                self.scaled.backward(loss)
            value += loss.item()
        total, stops = self.ranks.total([value, float(self.stopping)])
        value, self.stopping = total / self.ranks.world, stops > 0
        if not math.isfinite(value) and not self.scaled.scales:
            raise self._diverged(f"the loss is {value}")
        stepped = self.scaled.step(value)
        if self.scaled.scales and self.scaled.in_a_row == MOST_IN_A_ROW:
            raise self._diverged(f"float16 overflows in {MOST_IN_A_ROW} batches in a row (try precision=float32), last")
        averages = self.config.averaging != "none"
        if stepped and averages and self.step >= self.config.average_start * self.task.batches_per_epoch:
            self.average.update_parameters(self.task.network)
        self.step += 1
        return value

    def _diverged(self, problem: str) -> TrainingError:
        return TrainingError(
            f"{problem} in epoch {self.finished_epochs + 1} at batch {self.step} of {self.folder}: lower "
            f"learning_rate (now {self.config.learning_rate:g}) and start another run with name=OTHER. "
            f"The batch: {listed(self.task.contents(self.step), LISTED)}"
        )

    def learning_rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        return learning_rate(self.config, step, self.task.batches_per_epoch)

    def measured_weights(self) -> nn.Module:
        """Return the weights to measure and save, in evaluation mode: the averaged ones once there are any.

        With batch normalisation the statistics of all processes are averaged, so all of them must call this.
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
        """Write state.pt, from which the run can be resumed."""
        if not self.ranks.leads:
            return
        state = {
            "step": self.step,
            "data": self.data,
            "best": self.best.value,
            "best_epoch": self.best.epoch,
            "worse": self.best.worse,
            "losses": self.losses,
            "scaled": self.scaled.state_dict(),
            "network": self.task.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        with write_whole(self.folder / "state.pt") as path:
            torch.save(state, path)

    def load_state(self) -> None:
        """Continue from the folder's state.pt.

        Raises:
            TrainingError: it belongs to other data, is damaged, or was written by an earlier version.
        """
        path = self.folder / "state.pt"
        try:
            state = torch.load(path, map_location=self.ranks.device, weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
            raise TrainingError(f"{path} is damaged; delete {self.folder} to start anew") from error
        if state.get("data", self.data) != self.data:
            raise TrainingError(
                f"{self.folder} was trained on other images, boxes or classes than those that train and val name now, "
                "or with other scores of a teacher; name=OTHER starts another run"
            )
        if "best_epoch" not in state:
            raise TrainingError(f"{path} was written by an earlier version; name=OTHER starts another run")
        self.step, self.losses = state["step"], state["losses"]
        self.best = replace(self.best, value=state["best"], epoch=state["best_epoch"], worse=state["worse"])
        self.scaled.load_state_dict(state["scaled"])
        self.task.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])

    @contextmanager
    def _stop_after_batch(self) -> Iterator[None]:
        """On Ctrl-C or SIGTERM finish the current batch and save; a second signal stops at once."""

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


def _waiting(batches: Iterator[Batch], spent: dict[str, float]) -> Iterator[Batch]:
    """Yield the batches, and add the time that each is waited for to spent["data_seconds"]."""
    while True:
        with timed(spent, "data_seconds"):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _mean(losses: Sequence[float]) -> float:
    """Mean of those that are finite."""
    return float(np.mean([loss for loss in losses if math.isfinite(loss)] or [math.nan]))


def carry_on(
    loop: Loop, config: object, *, resuming: bool, reports: Reports | None = None, training: Training | None = None
) -> Reports | None:
    """Run a loop from its beginning or its saved state, write its record, and say which epoch is kept and why.

    Args:
        loop: The loop, not run yet.
        config: The whole configuration, which is saved in the run's folder.
        resuming: Continue from the saved state.
        reports: Reports of a run that has begun and made its folder.
        training: What is trained, for the page; reports that are given know it.

    Returns:
        The reports, in the process that writes them.
    """
    folder, ranks = loop.folder, loop.ranks
    if resuming:
        loop.load_state()
        ranks.say(f"resumed {folder} at batch {loop.step} of {loop.steps}")
    elif ranks.leads and not reports:
        begin(folder, config, ranks.device)
    if ranks.leads and not reports:
        epoch = loop.finished_epochs if resuming else math.inf
        reports = Reports(folder, epoch, training, loop.config.tensorboard)
    ranks.wait()
    try:
        for row in loop.run():
            if reports:
                left = loop.seconds_left([*reports.rows, row])
                reports.add(row if left is None else row | {"eta_seconds": left}, loop.best)
    except KeyboardInterrupt:
        if reports:
            reports.write_page("stopped", "The same command with --resume auto goes on.", best=loop.best)
        raise
    finally:
        if reports:
            reports.close()
    if loop.finished_epochs < loop.config.epochs:
        ranks.say(f"stopped after epoch {loop.finished_epochs} of {loop.config.epochs}: {loop.best.reason}")
    ranks.say(f"{folder}/best.safetensors: {loop.best}")
    ranks.wait()  # the other processes read what the first has written
    return reports
