"""Train MultiBox: its head alone on cached features, then trunk and head on images (arXiv 1312.2249; paper §8).

In: views of images or their features.  Out: a MultiBox model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from detector.data.ground_truth import DataError, Dataset, Record
from detector.multibox import MultiBoxModel, save_multibox
from detector.network.input import network_input
from detector.training.multibox import MultiBoxTrainingConfig, Views, shares
from detector.training.multibox_features import PART, Features, whole_inputs
from detector.training.ranks import Ranks
from detector.training.task import Batch
from detector.training.workers import load
from proposals.multibox.head import MultiBox, MultiBoxHead, decode
from proposals.multibox.loss import multibox_loss
from proposals.multibox.priors import cluster_priors
from proposals.recall import best_overlaps_of_first

COUNTS = (10, 50, 100, 200)


class MultiBoxTraining:
    """The `Task` of training the trunk, from the layer `train_from` on, and the head on views of images.

    Args:
        config: Settings.
        model: Model whose network is trained in place.
        train: Views to train on.
        val: Images to measure on.
        ranks: The processes.
    """

    criterion = "val_missed"
    unit = "images"

    def __init__(
        self,
        config: MultiBoxTrainingConfig,
        model: MultiBoxModel,
        train: Views | Features,
        val: Dataset,
        ranks: Ranks | None = None,
    ) -> None:
        self.config, self.model, self.train, self.val, self.ranks = config, model, train, val, ranks or Ranks()
        self.network: nn.Module = model.network.to(self.ranks.device)
        self.batches_per_epoch = max(1, round(len(train.dataset) / config.batch))
        trunk = dict(model.network.trunk.named_children())
        if config.train_from in trunk:
            for layer in list(trunk.values())[: list(trunk).index(config.train_from)]:
                layer.requires_grad_(False)

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Yield this process's shares of batches: squares [B, S, S, 3] uint8, boxes [B, M', 4], numbers of boxes."""
        return load(self.train, self.ranks.shares(start, stop, self.config.batch), self.config.workers)

    def inputs(self, batch: Batch) -> Tensor:
        """Normalise a batch's squares; [B, 3, S, S] float32."""
        return network_input(batch[0].numpy(), self.model.convention, self.ranks.device)

    def loss(self, batch: Batch) -> Tensor:
        """Confidence and location loss, mean over the images."""
        offsets, logits = self.network(self.inputs(batch))
        objects = [
            boxes[:count].to(self.ranks.device) for boxes, count in zip(batch[1], batch[2].tolist(), strict=True)
        ]
        priors = self.model.network.head.priors
        return multibox_loss(offsets.float(), logits.float(), priors, objects, alpha=self.config.alpha)

    def measure(self, network: nn.Module) -> dict[str, float]:
        """Measure recall of the best 10, 50, 100 and 200 boxes of whole val images at IoU 0.5 and 0.7, without NMS."""
        priors = self.model.network.head.priors
        found = np.zeros((2, len(COUNTS)))
        total = 0.0
        mine = self.val.records[self.ranks.share]
        with torch.inference_mode():
            outputs = (pair for x in self._val_inputs(mine) for pair in zip(*network(x), strict=True))
            for record, (offsets, logits) in zip(mine, outputs, strict=True):
                boxes = decode(offsets, priors).clamp(0, 1).cpu().double().numpy()  # Apple's GPUs have no float64
                objects = shares(record)
                order = np.argsort(-logits.float().cpu().numpy(), kind="stable")
                overlaps = best_overlaps_of_first(objects, boxes[order], COUNTS)  # in shares as in pixels
                found += [(overlaps >= threshold).sum(axis=1) for threshold in (0.5, 0.7)]
                total += len(objects)
        *sums, total = self.ranks.total([*found.ravel().tolist(), total])
        names = [f"val_recall{suffix}_{count}" for suffix in ("", "70") for count in COUNTS]
        row = {name: value / max(total, 1) for name, value in zip(names, sums, strict=True)}
        return {"val_missed": 1 - row["val_recall_200"]} | row

    def save(self, network: nn.Module, path: Path) -> None:
        """Write a MultiBox model with a trunk of its own."""
        save_multibox(path, replace(self.model, network=cast(MultiBox, network), trunk_file="", trunk_sha256=""))

    def contents(self, step: int) -> list[str]:
        """List the images of a batch."""
        (positions,) = Ranks().shares(step, step + 1, self.config.batch)
        return [str(self.train.dataset.records[self.train.index(position)].path) for position in positions]

    def _val_inputs(self, records: Sequence[Record]) -> Iterator[Tensor]:
        """Yield the network's inputs for val images, in parts."""
        for start in range(0, len(records), PART):
            yield whole_inputs(records[start : start + PART], self.model, self.ranks.device)


class HeadTraining(MultiBoxTraining):
    """The `Task` of training the head on features of a trunk that does not change.

    Args:
        config: Settings, with the optimisation of the head.
        model: Model whose head is trained in place.
        train: Features to train on.
        val: Images to measure on.
        measured: Features of this process's val images, from `val_features`.
        ranks: The processes.
    """

    train: Features

    def __init__(
        self,
        config: MultiBoxTrainingConfig,
        model: MultiBoxModel,
        train: Features,
        val: Dataset,
        measured: Tensor,
        ranks: Ranks | None = None,
    ) -> None:
        super().__init__(config, model, train, val, ranks)
        self.network, self.measured = model.network.head, measured

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Yield this process's shares of batches: features [B, 9 C], boxes [B, M', 4], numbers of boxes [B]."""
        return map(self.train.rows, self.ranks.shares(start, stop, self.config.batch))

    def inputs(self, batch: Batch) -> Tensor:
        """Move a batch's features to the device; [B, 9 C] float32."""
        return batch[0].float().to(self.ranks.device)

    def save(self, network: nn.Module, path: Path) -> None:
        """Write a MultiBox model with the unchanged trunk."""
        whole = MultiBox(self.model.network.trunk, cast(MultiBoxHead, network))
        save_multibox(path, replace(self.model, network=whole))

    def _val_inputs(self, records: Sequence[Record]) -> Iterator[Tensor]:
        for part in torch.split(self.measured, PART) if records else ():
            yield part.float().to(self.ranks.device)


def start_multibox(config: MultiBoxTrainingConfig, trunk: nn.Sequential, channels: int, train: Dataset) -> MultiBox:
    """Put a fresh head on a trunk, with priors from the training boxes.

    Args:
        config: Settings.
        trunk: Trunk of a classifier.
        channels: Channels of its last maps.
        train: Images to train on.

    Raises:
        DataError: train has no boxes.
        UserError: head.priors is more than the number of different boxes.
    """
    boxes = np.concatenate([np.zeros((0, 4)), *map(shares, train.records)])
    if not len(boxes):
        raise DataError(f"{train.name}: no boxes to learn from (those marked difficult or crowd do not count)")
    priors = cluster_priors(boxes, config.head.priors)
    torch.manual_seed(config.seed)
    head = MultiBoxHead(channels, torch.from_numpy(priors).float(), config.head)
    head.set_confidence_prior(len(boxes) / len(train))
    return MultiBox(trunk, head)
