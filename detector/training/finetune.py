"""Fine-tune a pretrained GoogLeNet to the regions of a data set (R-CNN §2.3; paper §8).

In: the images and boxes of two splits, pretrained weights.
Out: runs/<name>/ with the classifier and a row of metrics per epoch.

First the last layer is fitted on frozen features (linear.py), then the layers from `train_from` on learn by SGD while
those below stay as ImageNet left them. The paper gives no fine-tuning settings; what is not R-CNN's is marked ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from omegaconf import MISSING
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from tqdm import tqdm

from detector.checkpoint import CheckpointError, RegionClassifier, load_any_classifier, save_checkpoint
from detector.data.dataset import DataConfig
from detector.data.ground_truth import ClassTable, Dataset
from detector.googlenet import GoogLeNet
from detector.regions import RegionConfig, network_input, warp
from detector.training.linear import fit_linear
from detector.training.loop import Batch
from detector.training.optimisation import OptimisationConfig
from detector.training.ranks import Ranks
from detector.training.windows import BatchSampler
from detector.training.workers import prepared_batches, start_worker
from proposals.settings import ProposalConfig

PART = 8  # images at a time where nothing is learned: on a CPU their maps stay in the cache


@dataclass(frozen=True, kw_only=True)
class FineTuneConfig(OptimisationConfig):
    """An experiment of region classification.

    Attributes:
        task: "regions".
        train: images to learn from.
        val: images to choose the best epoch on.
        init: pretrained weights: a safetensors file with Caffe's or torchvision's layer names, or a classifier of ours.
        proposals: where windows come from; the same as at test.
        regions: how windows are warped; stored with the weights.
        linear_batches: batches of windows that the last layer is first fitted on.
        linear_weight_decay: of that fit.
        train_from: first trunk layer that learns; "conv1" trains all, "none" stops after the linear fit.
        batches_per_epoch: between two rows of metrics.
        foreground: how many windows of a batch are examples of a class.
        hard_background: how many of the others overlap an object by IoU 0.1 or more, at least.
        foreground_iou: overlap from which a window is an example of the class.
        background_iou: overlap below which it is background; between the two it is no example.
        val_batches: windows of the val images to compute loss and accuracy on, in batches.
        cache: folder of the proposals.
    """

    name: str = "regions"
    task: str = "regions"
    train: DataConfig
    val: DataConfig
    init: str = MISSING
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    regions: RegionConfig = field(default_factory=RegionConfig)
    linear_batches: int = 200
    linear_weight_decay: float = 1e-3
    train_from: str = "conv1"  # R-CNN trains all layers
    batches_per_epoch: int = 100
    foreground: int = 32  # R-CNN
    hard_background: int = 0  # R-CNN
    foreground_iou: float = 0.5  # R-CNN
    background_iou: float = 0.5  # R-CNN
    learning_rate: float = 0.001  # R-CNN
    schedule: str = "cosine"  # ours: R-CNN's two steps need 50,000 batches to pay
    warmup: int = 20  # ours
    weight_decay: float = 0.0005  # R-CNN
    averaging: str = "ema"  # ours; the paper averages (§6) and does not say how
    average_decay: float = 0.99  # ours
    val_batches: int = 10
    cache: str = ".cache/proposals"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task != "regions":
            raise ValueError(f"task must be regions here, not {self.task!r}")
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
        for name in ("batches_per_epoch", "linear_batches", "val_batches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")


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
        worker_init_fn=start_worker,
    )
    yield from prepared_batches(loader)


class FineTuning:
    """The `Task` of classifying regions: `fit_last_layer` comes first, then the loop."""

    criterion = "val_loss"
    unit = "windows"

    def __init__(
        self,
        config: FineTuneConfig,
        classifier: RegionClassifier,
        train: WindowBatches,
        val: WindowBatches,
        ranks: Ranks | None = None,
    ) -> None:
        """Freeze the layers below `train_from`.

        Raises:
            ValueError: the trunk has no layer of that name.
        """
        self.config, self.classifier, self.train, self.val = config, classifier, train, val
        self.ranks = ranks or Ranks()
        self.network: GoogLeNet = classifier.network.to(self.ranks.device)
        self.batches_per_epoch = config.batches_per_epoch
        if config.train_from not in ("conv1", "none"):
            for parameter in self.network.trunk_slice(None, config.train_from).parameters():
                parameter.requires_grad_(False)

    def fit_last_layer(self) -> None:
        """Fit the classifier on frozen features."""
        features, labels = [], []
        count = self.config.linear_batches
        # Batch numbers beyond those of SGD, so that the two draw differently.
        first = self.config.epochs * self.config.batches_per_epoch
        batches = load_batches(self.train, first, first + count, self.config.workers)
        self.network.eval()
        with torch.inference_mode():
            for squares, label in tqdm(
                batches, total=count, desc="linear", unit="batch", dynamic_ncols=True, disable=not self.ranks.leads
            ):
                for part in squares.split(PART):
                    x = network_input(part.numpy(), self.classifier.convention, self.ranks.device)
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

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """(regions [B, S, S, 3] uint8, labels [B]) of this process."""
        for squares, labels in load_batches(self.train, start, stop, self.config.workers):
            yield self.ranks.share(squares), self.ranks.share(labels)

    def inputs(self, batch: Batch) -> Tensor:
        """[B, 3, S, S] float32, channels last in memory."""
        return network_input(batch[0].numpy(), self.classifier.convention, self.ranks.device)

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy over the K + 1 classes."""
        first = None if self.config.train_from == "conv1" else self.config.train_from
        x = self.inputs(batch)
        with torch.no_grad():
            frozen = self.network.trunk_slice(None, first).eval() if first else nn.Identity()
            # In parts: the large maps of the first layers stay in the processor's cache.
            x = torch.cat([frozen(part) for part in torch.split(x, PART)])
        logits = self.network.classify(self.network.trunk_slice(first, None)(x))
        return F.cross_entropy(logits.float(), batch[1].to(self.ranks.device))

    def measure(self, network: nn.Module) -> dict[str, float]:
        """Loss and accuracy on the val windows: the same windows at each call."""
        sums = np.zeros(5)
        with torch.inference_mode():
            for squares, labels in load_batches(self.val, 0, self.config.val_batches, self.config.workers):
                squares, labels = self.ranks.share(squares), self.ranks.share(labels)
                x = network_input(squares.numpy(), self.classifier.convention, self.ranks.device)
                logits = torch.cat([network(part).float().cpu() for part in torch.split(x, PART)])
                loss = F.cross_entropy(logits, labels, reduction="sum")
                object_, hit = labels > 0, logits.argmax(1) == labels
                sums += [float(loss), int(object_.sum()), int((~object_).sum()), *_hits(object_, hit)]
        loss_sum, objects, backgrounds, object_hits, background_hits = self.ranks.total(sums.tolist())
        return {
            "val_loss": loss_sum / (objects + backgrounds),
            "val_foreground_accuracy": object_hits / objects,
            "val_background_accuracy": background_hits / backgrounds,
        }

    def save(self, network: nn.Module, path: Path) -> None:
        """Write a region classifier."""
        save_checkpoint(path, replace(self.classifier, network=cast(GoogLeNet, network)))

    def contents(self, step: int) -> list[str]:
        """The photographs of a batch."""
        windows, _ = self.train.sampler.draw(step)
        return [str(self.train.dataset.records[index].path) for index in np.unique(windows.image)]


def _hits(object_: Tensor, hit: Tensor) -> tuple[int, int]:
    return int((hit & object_).sum()), int((hit & ~object_).sum())


def start_classifier(config: FineTuneConfig, classes: ClassTable) -> RegionClassifier:
    """The pretrained network with a fresh last layer for the classes and background.

    Raises:
        CheckpointError: no such weights.
    """
    path = Path(config.init).expanduser()
    if not path.is_file():
        raise CheckpointError(f"no pretrained weights {path}; set init=FILE (safetensors; see README, Your own data)")
    previous = load_any_classifier(path)
    previous.network.replace_classifier(len(classes) + 1)
    return RegionClassifier(previous.network, previous.convention, config.regions, classes)
