"""Fine-tune a pretrained GoogLeNet to the regions of a data set (R-CNN §2.3; paper §8).

In: the images and boxes of two splits, pretrained weights.
Out: runs/<name>/ with the classifier and a row of metrics per epoch.

First the last layer is fitted on frozen features (linear.py), then the layers from `train_from` on learn by SGD while
those below stay as ImageNet left them. The paper gives no fine-tuning settings; what is not R-CNN's is marked ours.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from omegaconf import MISSING
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from tqdm import tqdm

from detector.checkpoint import RegionClassifier, save_checkpoint
from detector.data.dataset import DataConfig
from detector.data.ground_truth import Dataset
from detector.googlenet import GoogLeNet
from detector.opencv import one_opencv_thread
from detector.regions import RegionConfig, network_input, warp
from detector.training.linear import fit_linear
from detector.training.windows import BatchSampler
from proposals.settings import ProposalConfig

PART = 8  # images at a time where nothing is learned: on a CPU their maps stay in the cache


class TrainingError(RuntimeError):
    """Training cannot go on; one line with the reason and the next step."""


@dataclass(frozen=True)
class FineTuneConfig:
    """An experiment.

    Attributes:
        name: its folder is runs/<name>.
        train: images to learn from.
        val: images to choose the best epoch on.
        init: pretrained weights: safetensors with Caffe's layer names, or a region classifier of ours.
        proposals: where windows come from; the same as at test.
        regions: how windows are warped; stored with the weights.
        linear_batches: batches of windows that the last layer is first fitted on.
        linear_weight_decay: of that fit.
        train_from: first trunk layer that learns; "conv1" trains all, "none" stops after the linear fit.
        epochs: of batches_per_epoch each.
        batches_per_epoch: between two rows of metrics.
        batch: windows a batch.
        foreground: how many of them are examples of a class.
        hard_background: how many of the others overlap an object by IoU 0.1 or more, at least.
        foreground_iou: overlap from which a window is an example of the class.
        background_iou: overlap below which it is background; between the two it is no example.
        learning_rate: at the start.
        momentum: of SGD.
        weight_decay: on weights; biases have none.
        warmup: batches over which the learning rate rises.
        averaging: decay of the exponential average of the weights that is evaluated and kept.
        val_batches: windows of the val images to compute loss and accuracy on, in batches.
        seed: of windows, mirroring and dropout.
        workers: processes that read and warp.
        cache: folder of the proposals.
    """

    train: DataConfig
    val: DataConfig
    init: str = MISSING
    name: str = "regions"
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    regions: RegionConfig = field(default_factory=RegionConfig)
    linear_batches: int = 200
    linear_weight_decay: float = 1e-3
    train_from: str = "conv1"  # R-CNN trains all layers
    epochs: int = 10
    batches_per_epoch: int = 100
    batch: int = 128  # R-CNN
    foreground: int = 32  # R-CNN
    hard_background: int = 0  # R-CNN
    foreground_iou: float = 0.5  # R-CNN
    background_iou: float = 0.5  # R-CNN
    learning_rate: float = 0.001  # R-CNN
    momentum: float = 0.9  # R-CNN
    weight_decay: float = 0.0005  # R-CNN
    warmup: int = 20  # ours
    averaging: float = 0.99  # ours; the paper averages (§6) and does not say how
    val_batches: int = 10
    seed: int = 0
    workers: int = 1
    cache: str = ".cache/proposals"

    def __post_init__(self) -> None:
        if not 0 < self.foreground < self.batch:
            raise ValueError(f"foreground must be in 1..{self.batch - 1} (batch - 1), not {self.foreground}")
        if not 0 <= self.hard_background <= self.batch - self.foreground:
            raise ValueError(
                f"hard_background must be in 0..{self.batch - self.foreground}, not {self.hard_background}"
            )
        if not 0 < self.background_iou <= self.foreground_iou <= 1:
            raise ValueError(
                "0 < background_iou <= foreground_iou <= 1 must hold, "
                f"not {self.background_iou} and {self.foreground_iou}"
            )
        for name in ("epochs", "batches_per_epoch", "linear_batches", "val_batches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 <= self.averaging < 1:
            raise ValueError(f"averaging must be in [0, 1), not {self.averaging}")


class WindowBatches(TorchDataset[tuple[Tensor, Tensor]]):
    """Batch number -> (regions [B, S, S, 3] uint8, labels [B] int64), read and warped on demand."""

    def __init__(
        self, dataset: Dataset, sampler: BatchSampler, regions: RegionConfig, fill: tuple[float, float, float]
    ) -> None:
        self.dataset, self.sampler, self.regions, self.fill = dataset, sampler, regions, fill

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        windows, mirrored = self.sampler.draw(number)
        squares = np.empty((len(windows), self.regions.size, self.regions.size, 3), np.uint8)
        for index in np.unique(windows.image):  # each photograph is decoded once
            rows = np.flatnonzero(windows.image == index)
            squares[rows] = warp(self.dataset.records[index].read(), windows.boxes[rows], self.regions, self.fill)
        squares[mirrored] = squares[mirrored, :, ::-1]
        return torch.from_numpy(squares), torch.from_numpy(windows.labels.astype(np.int64))


def load_batches(batches: WindowBatches, start: int, stop: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches start..stop - 1 in order, prepared by worker processes."""
    loader: DataLoader[Any] = DataLoader(
        batches,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_start_worker,
    )
    with one_opencv_thread():
        prepared = iter(loader)
    yield from prepared


def _start_worker(_: int) -> None:
    cv2.setNumThreads(1)
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; it is the parent that ends the run
        signal.signal(number, signal.SIG_IGN)


@dataclass
class FineTuning:
    """A run: the network, its average and how far it has come.

    `fit_last_layer` begins one, or `load_state` takes one up again; `run` carries it on.
    """

    config: FineTuneConfig
    template: RegionClassifier
    train: WindowBatches
    val: WindowBatches
    folder: Path
    device: torch.device

    def __post_init__(self) -> None:
        self.network = self.template.network.to(self.device)
        self.step = 0
        self.best = math.inf
        self.losses: list[float] = []  # of the epoch under way
        self.stopping = False  # set by a signal: save and stop after the batch under way
        if self.config.train_from not in ("conv1", "none"):
            for parameter in self.network.trunk_slice(None, self.config.train_from).parameters():
                parameter.requires_grad_(False)
        learning = [(name, p) for name, p in self.network.named_parameters() if p.requires_grad]
        self.optimiser = torch.optim.SGD(
            [
                {"params": [p for _, p in learning if p.dim() > 1], "weight_decay": self.config.weight_decay},
                {"params": [p for _, p in learning if p.dim() == 1], "weight_decay": 0.0},
            ],
            lr=self.config.learning_rate,
            momentum=self.config.momentum,
        )
        self.average = AveragedModel(
            self.network,
            multi_avg_fn=get_ema_multi_avg_fn(self.config.averaging),  # type: ignore[no-untyped-call]
            use_buffers=True,
        )

    @property
    def steps(self) -> int:
        """Batches of the whole run."""
        return self.config.epochs * self.config.batches_per_epoch

    @property
    def averaged(self) -> GoogLeNet:
        """The network with averaged weights: what is measured and kept."""
        return cast(GoogLeNet, self.average.module)

    def fit_last_layer(self) -> dict[str, float]:
        """Fit the classifier on frozen features and save it, the best so far; returns its row of metrics."""
        started = time.perf_counter()
        features, labels = [], []
        count = self.config.linear_batches
        # Batch numbers beyond those of SGD, so that the two draw differently.
        batches = load_batches(self.train, self.steps, self.steps + count, self.config.workers)
        self.network.eval()
        with torch.inference_mode():
            for squares, label in tqdm(batches, total=count, desc="linear", unit="batch", dynamic_ncols=True):
                for part in squares.split(PART):
                    x = network_input(part.numpy(), self.template.convention, self.device)
                    features.append(self.network.trunk(x).mean(dim=(2, 3)).float().cpu())
                labels.append(label)
        weight, bias = fit_linear(
            torch.cat(features).clone(),
            torch.cat(labels),
            self.network.config.classes,
            weight_decay=self.config.linear_weight_decay,
        )
        with torch.no_grad():
            self.network.fc.weight.copy_(weight)
            self.network.fc.bias.copy_(bias)
        self.averaged.load_state_dict(self.network.state_dict())
        self.save_weights("linear.safetensors")
        row = {"epoch": 0} | self.measure() | {"seconds": time.perf_counter() - started}
        self._keep_best(row["val_loss"])
        return row

    def run(self) -> Iterator[dict[str, float]]:
        """Train to the end; yields the row of metrics of each epoch, after its checkpoint is on disk.

        Raises:
            KeyboardInterrupt: `stopping` was set; the state after the last batch is on disk.
            TrainingError: the loss is not finite.
        """
        while self.step < self.steps:
            started = time.perf_counter()
            epoch = self.step // self.config.batches_per_epoch + 1
            stop = epoch * self.config.batches_per_epoch
            begin = self.step
            batches = load_batches(self.train, begin, stop, self.config.workers)
            bar = tqdm(
                batches,
                total=stop - begin,
                desc=f"epoch {epoch}/{self.config.epochs}",
                unit="batch",
                dynamic_ncols=True,
            )
            for squares, labels in bar:
                self.losses.append(self.learn(squares, labels))
                bar.set_postfix(loss=f"{np.mean(self.losses[-20:]):.4f}")
                if self.stopping:
                    self.save_state()
                    raise KeyboardInterrupt
            trained = time.perf_counter() - started
            row = {
                "epoch": epoch,
                "train_loss": float(np.mean(self.losses)),
                "learning_rate": self.learning_rate(self.step - 1),
            }
            row |= self.measure()
            row |= {
                "windows_per_second": (self.step - begin) * self.config.batch / trained,
                "seconds": time.perf_counter() - started,
            }
            self.losses = []
            self._keep_best(row["val_loss"])
            self.save_weights("last.safetensors")
            self.save_state()
            yield row

    def _keep_best(self, val_loss: float) -> None:
        if val_loss < self.best:
            self.best = val_loss
            self.save_weights("best.safetensors")

    def learn(self, squares: Tensor, labels: Tensor) -> float:
        """One step of SGD on a batch; returns its loss."""
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)  # dropout depends on the step alone: exact resume
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate(self.step)
        first = None if self.config.train_from == "conv1" else self.config.train_from
        self.network.train()
        x = network_input(squares.numpy(), self.template.convention, self.device)
        labels = labels.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            with torch.no_grad():
                frozen = self.network.trunk_slice(None, first).eval() if first else nn.Identity()
                # In parts: the large maps of the first layers stay in the processor's cache.
                x = torch.cat([frozen(part) for part in torch.split(x, PART)])
            logits = self.network.classify(self.network.trunk_slice(first, None)(x))
            loss = F.cross_entropy(logits.float(), labels)
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value} at batch {self.step} of {self.folder}: lower learning_rate "
                f"(now {self.config.learning_rate:g}) and start another run with name=OTHER"
            )
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.average.update_parameters(self.network)
        self.step += 1
        return value

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to zero (ours: R-CNN's two steps need 50,000 batches to pay)."""
        rise = min(1.0, (step + 1) / max(1, self.config.warmup))
        return self.config.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * step / self.steps))

    def measure(self) -> dict[str, float]:
        """Loss and accuracy of the averaged weights on the val windows: the same windows at each call."""
        network = self.averaged.eval()
        loss, hits = [], []
        with torch.inference_mode():
            for squares, labels in load_batches(self.val, 0, self.config.val_batches, self.config.workers):
                x = network_input(squares.numpy(), self.template.convention, self.device)
                logits = torch.cat([network(part).float().cpu() for part in torch.split(x, PART)])
                loss.append(F.cross_entropy(logits, labels, reduction="none"))
                hits.append(torch.stack([labels > 0, logits.argmax(1) == labels]))
        foreground, hit = torch.cat(hits, dim=1)
        return {
            "val_loss": float(torch.cat(loss).mean()),
            "val_foreground_accuracy": float(hit[foreground].float().mean()),
            "val_background_accuracy": float(hit[~foreground].float().mean()),
        }

    def save_weights(self, name: str) -> None:
        """Write the averaged weights as a region classifier into the run's folder."""
        save_checkpoint(self.folder / name, replace(self.template, network=self.averaged))

    def save_state(self) -> None:
        """Write all that resuming needs; the file appears whole or not at all."""
        state = {
            "step": self.step,
            "best": self.best,
            "losses": self.losses,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        temporary = self.folder / ".state.pt"
        torch.save(state, temporary)
        temporary.replace(self.folder / "state.pt")

    def load_state(self) -> None:
        """Continue from the folder's state.pt."""
        state = torch.load(self.folder / "state.pt", map_location=self.device, weights_only=True)
        self.step, self.best, self.losses = state["step"], state["best"], state["losses"]
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])


def append_row(folder: Path, row: dict[str, float]) -> None:
    """Add a line to the run's metrics.jsonl."""
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
