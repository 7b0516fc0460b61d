"""Fine-tune a pretrained GoogLeNet to the regions of a data set (R-CNN §2.3; paper §8).

In: batches of warped regions with labels, pretrained weights.  Out: a region classifier.

First the last layer is fitted on frozen features (linear.py); then the layers from `train_from` on are trained by SGD,
while those below keep ImageNet's weights. The paper gives no fine-tuning settings; those that are not R-CNN's are
marked ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from detector.checkpoint import (
    RegionClassifier,
    find_checkpoint,
    find_pretrained,
    load_any_classifier,
    load_checkpoint,
    save_checkpoint,
)
from detector.class_order import in_order_of
from detector.config import MISSING, check_choice, check_range
from detector.data.dataset import Sources
from detector.data.ground_truth import ClassTable
from detector.data.sources import OtherClasses
from detector.device import autocast, training_precision
from detector.model_files import CheckpointError
from detector.network.googlenet import GoogLeNet
from detector.network.input import network_input
from detector.progress import progress
from detector.regions.maps import SharedConfig
from detector.regions.warp import RegionConfig
from detector.settings import DetectorConfig
from detector.training.distillation import DistillationConfig, distillation_loss
from detector.training.linear import fit_linear
from detector.training.mining import MiningConfig
from detector.training.optimisation import TrainingConfig
from detector.training.ranks import Ranks
from detector.training.record import TrainingError
from detector.training.region_batches import RegionBatches
from detector.training.task import Batch
from detector.training.windows import IGNORED, BatchSampler, ImageSampler, Sampler, Windows
from detector.training.workers import load
from proposals.settings import ProposalConfig

PART = 8  # images per pass without gradients: on a CPU their maps fit the cache


@dataclass(frozen=True, kw_only=True)
class FineTuneConfig(TrainingConfig):
    """Fine-tuning of a region classifier.

    Attributes:
        task: Kind of training, here "regions".
        train: Images to train on: a data set, or a list of them.
        val: Images on which the best epoch is chosen, likewise.
        init: Pretrained weights: a safetensors file with Caffe's or torchvision's layer names, or a classifier of ours,
            by its file, the folder of its run, or the name of shipped weights.
        proposals: Settings of the region proposals; use the same for detection.
        regions: How a box is warped to a region; saved with the weights.
        linear_batches: Batches used to fit the last layer before fine-tuning. 0 keeps the last layer of `init`, which
            must be a region classifier with the same classes.
        linear_weight_decay: Weight decay of the linear fit.
        train_from: First trunk layer that is trained: "conv1" trains all layers, "none" stops after the linear fit.
        regression_windows: Number of windows per class used to fit the box-regression layer after training (37 kB of
            memory each). 0 disables box regression.
        regression_ridge: Ridge penalty of the box regression.
        batches_per_epoch: Batches between two measurements.
        foreground: Number of positives in a batch.
        hard_background: Least number of hard negatives in a batch: background windows that overlap an object by IoU 0.1
            or more.
        foreground_iou: IoU from which a window is a positive of the object's class, in (0, 1].
        background_iou: IoU below which a window is background; between the two thresholds it is ignored.
        val_batches: Number of batches of val windows on which loss and accuracy are measured.
        cache: Folder of the proposals.
        mode: "warp" passes each region through all layers, as R-CNN does; "shared" runs the trunk once per image and
            cuts the regions from its maps (detector.regions.maps).
        shared: Image pyramid and region size of mode "shared".
        images: Number of images that the windows of a batch come from; 0 draws uniformly over windows (mode "warp"
            only).
        class_balance: Oversampling of rare classes, in [0, 1]: 0 draws all foreground windows (or images) alike, 1 all
            classes alike, 0.5 a class in proportion to the root of its frequency (LVIS, arXiv 1908.03195).
        distortion: Brightness, contrast and colour of an image change by factors of 1 ± this, in [0, 1).
        scale_jitter: Random factor, up to this or its inverse, on the region size by which regions choose their
            pyramid level (mode "shared" only); 1 disables it.
        classes: Names of the classes to learn, in label order; empty for those of the (first) data set of `train`.
        other_classes: Treatment of objects of other classes: ignore, neither examples nor background; or background.
        ap_every: Epochs between two measurements of AP on val, by the network as a detector of its own; 0 measures
            none.
        ap_images: Number of val images on which AP is measured, drawn once; 0 takes all.
        choose_by: Column by which the best epoch is chosen: "val_loss", the loss on windows of val, or "val_ap", which
            only epochs with a measurement have.
        box_jitter: Each side of a window moves at random by up to this fraction of its width or height, in [0, 0.5),
            as far as the window keeps its label.
        context_jitter: The context of a region changes at random by up to this, px; at most regions.context.
        teacher: Detector that scores every window once before the training: for hard negatives, unlabelled objects and
            distillation. null for none.
        mining: Hard negatives and unlabelled objects by the teacher.
        distillation: How much is learned from the teacher's probabilities.
        refit_batches: Batches from which the last layer is fitted anew after training, into refit.safetensors; 0
            disables it.
        refit_balance: `class_balance` of those batches.
        operating_points: Whether the run ends by measuring the finished detector on the images of val that `ap_images`
            draws: AP, and the score from which each class is shown.
    """

    name: str = "regions"
    task: str = "regions"
    train: Sources
    val: Sources
    init: str = MISSING
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    regions: RegionConfig = field(default_factory=RegionConfig)
    linear_batches: int = 200
    linear_weight_decay: float = 1e-3
    train_from: str = "conv1"  # R-CNN trains all layers
    regression_windows: int = 0  # §8: the entry has no box regression
    regression_ridge: float = 1000.0  # R-CNN, appendix C
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
    mode: str = "warp"
    shared: SharedConfig = field(default_factory=SharedConfig)
    images: int = 0  # R-CNN; Fast R-CNN takes 2
    class_balance: float = 0.0  # R-CNN draws windows alike
    distortion: float = 0.0  # R-CNN only mirrors
    scale_jitter: float = 1.0
    classes: list[str] = field(default_factory=list)
    other_classes: OtherClasses = OtherClasses.ignore
    ap_every: int = 0
    ap_images: int = 0
    choose_by: str = "val_loss"
    box_jitter: float = 0.0
    context_jitter: float = 0.0
    teacher: DetectorConfig | None = None
    mining: MiningConfig = field(default_factory=MiningConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    refit_batches: int = 0
    refit_balance: float = 1.0
    operating_points: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "task", ["regions"])
        if self.mode not in ("warp", "shared"):
            raise ValueError(f"mode must be warp or shared, not {self.mode!r}")
        if self.mode == "shared" and not self.images:
            raise ValueError("mode=shared needs images, the number of images that a batch's windows come from; try 4")
        if self.images < 0 or (self.images and (self.batch % self.images or self.images % self.accumulate)):
            raise ValueError(
                f"images must divide batch, and accumulate divide images; they are {self.images}, {self.batch} and "
                f"{self.accumulate}"
            )
        if self.mode == "shared" and self.batch_norm_batches:
            raise ValueError("batch_norm_batches is for mode warp")
        if not 0 < self.foreground < self.batch:
            raise ValueError(f"foreground must be in 1..{self.batch - 1} (batch - 1), not {self.foreground}")
        check_range(self, f"[0, {self.batch - self.foreground}]", "hard_background")
        if not 0 < self.background_iou <= self.foreground_iou <= 1:
            raise ValueError(
                "0 < background_iou <= foreground_iou <= 1 must hold, "
                f"not {self.background_iou} and {self.foreground_iou}"
            )
        check_range(self, "[0, 1]", "class_balance")
        check_range(self, "[0, 1)", "distortion")
        check_range(self, "[1, inf)", "scale_jitter", "batches_per_epoch", "val_batches")
        check_range(self, "[0, inf)", "linear_batches", "regression_windows", "regression_ridge", "refit_batches")
        check_range(self, "[0, inf)", "ap_every", "ap_images")
        check_choice(self, "choose_by", ["val_loss", "val_ap"])
        if self.choose_by == "val_ap" and not self.ap_every:
            raise ValueError("choose_by=val_ap needs ap_every, the epochs between two measurements of AP; try 1")
        check_range(self, "[0, 0.5)", "box_jitter")
        check_range(self, "[0, 1]", "refit_balance")
        self._check_jitter()
        self._check_teacher()

    def _check_jitter(self) -> None:
        check_range(self, f"[0, {self.regions.context}]", "context_jitter")
        if 2 * (self.regions.context + self.context_jitter) >= self.regions.size:
            raise ValueError(
                f"regions.context + context_jitter must be below half of regions.size, {self.regions.size / 2:g} px"
            )

    def _check_teacher(self) -> None:
        used = {"mining.background": self.mining.background, "distillation.weight": self.distillation.weight}
        wanted = [name for name, value in used.items() if value]
        if wanted and self.teacher is None:
            raise ValueError(
                f"{wanted[0]} needs a teacher, the detector that scores the windows; try teacher.extends=default"
            )
        if self.teacher is not None and not wanted and self.mining.unlabelled == 1:
            raise ValueError(f"nothing is learned from the teacher; set {' or '.join(used)}, or teacher=null")
        left = self.batch - self.foreground - self.hard_background
        if self.mining.background > left:
            raise ValueError(
                f"mining.background must be at most {left} (batch - foreground - hard_background), "
                f"not {self.mining.background}"
            )


@dataclass(eq=False)
class FineTuning:
    """The `Task` of region classification.

    Attributes:
        config: Settings.
        classifier: Classifier whose network is trained in place; its layers below `train_from` are frozen.
        train: Batches to train on.
        val: Batches to measure on.
        ranks: The processes.

    Raises:
        TrainingError: the processes cannot share the images of a batch equally.
        ValueError: the trunk has no layer named as `train_from`.
    """

    config: FineTuneConfig
    classifier: RegionClassifier
    train: RegionBatches
    val: RegionBatches
    ranks: Ranks = field(default_factory=Ranks)

    unit = "windows"

    def __post_init__(self) -> None:
        world, images = self.ranks.world, self.config.images
        if self.classifier.shared and images % world:
            raise TrainingError(f"{world} processes cannot share the {images} images of a batch equally")
        self.network: GoogLeNet = self.classifier.network.to(self.ranks.device)
        self.batches_per_epoch = self.config.batches_per_epoch
        if self.config.train_from not in ("conv1", "none"):
            self.network.trunk_slice(None, self.config.train_from).requires_grad_(False)

    @property
    def criterion(self) -> str:
        """Column by which the best epoch is chosen."""
        return self.config.choose_by

    def fit_last_layer(self) -> None:
        """Fit the last layer on frozen features of `linear_batches` batches."""
        # Batch numbers beyond those of SGD, so that the two draw differently.
        first = self.config.epochs * self.config.batches_per_epoch
        self.fit_layer(self.network, self.train, range(first, first + self.config.linear_batches), "linear")

    def fit_layer(self, network: GoogLeNet, examples: RegionBatches, numbers: range, label: str) -> None:
        """Fit the last layer of a network on the features that its frozen trunk has of batches.

        Args:
            network: The network, on this task's device; its last layer is replaced.
            examples: The batches.
            numbers: Their numbers.
            label: Text in front of the progress bar.
        """
        features, labels = [], []
        batches = load(examples, numbers, self.config.workers)
        network.eval()
        precision = training_precision(self.config.precision, self.ranks.device)
        with torch.inference_mode(), autocast(self.ranks.device, precision):
            for batch in progress(batches, label, "batch", total=len(numbers)):
                features.append(self.features(network, batch).float().mean(dim=(2, 3)).cpu())
                labels.append(batch[-1].flatten())
        used = torch.cat(labels) != IGNORED
        weight, bias = fit_linear(
            torch.cat(features)[used],
            torch.cat(labels)[used],
            network.config.classes,
            weight_decay=self.config.linear_weight_decay,
        )
        with torch.no_grad():
            network.fc.weight.copy_(weight)
            network.fc.bias.copy_(bias)

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Yield this process's shares of the batches start..stop - 1: regions [B, S, S, 3] uint8, labels [B]."""
        return load(self.train.part(self.ranks.share), range(start, stop), self.config.workers)

    def inputs(self, batch: Batch) -> Tensor:
        """Normalise a batch's regions; [B, 3, S, S] float32, channels last in memory."""
        return network_input(batch[0].numpy(), self.classifier.convention, self.ranks.device)

    def features(self, network: GoogLeNet, batch: Batch, *, learn: bool = False) -> Tensor:
        """Compute the trunk's last maps, [B, 1024, 7, 7].

        Args:
            network: Network of the classifier's architecture.
            batch: The batch.
            learn: Keep gradients, those of the layers from `train_from` on.
        """
        x = self.inputs(batch)
        if not learn:
            return torch.cat([network.trunk(part) for part in torch.split(x, PART)])
        first = None if self.config.train_from == "conv1" else self.config.train_from
        with torch.no_grad():
            frozen = network.trunk_slice(None, first).eval() if first else nn.Identity()
            x = torch.cat([frozen(part) for part in torch.split(x, PART)])
        result: Tensor = network.trunk_slice(first, None)(x)
        return result

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy over the K + 1 classes: the sum over the windows divided by the size of the batch.

        Ignored windows add 0 and count in the size, so a window weighs the same in every batch. With distillation the
        weighted loss of each window that is not ignored is added.
        """
        logits = self.network.classify(self.features(self.network, batch, learn=True))
        labels = batch[-1].flatten().to(self.ranks.device)
        loss = F.cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction="sum")
        if weight := self.config.distillation.weight:
            teacher = batch[-2].flatten(0, -2).to(self.ranks.device)
            each = distillation_loss(logits, teacher, self.config.distillation)
            loss = loss + weight * each[labels != IGNORED].sum()
        return loss / len(labels)

    def measure(self, network: nn.Module) -> dict[str, float]:
        """Measure loss and accuracy on the val windows, which are the same at each call."""
        sums = np.zeros(5)
        val = self.val.part(self.ranks.share)
        with torch.inference_mode():
            for batch in load(val, range(self.config.val_batches), self.config.workers):
                logits = cast(GoogLeNet, network).classify(self.features(cast(GoogLeNet, network), batch))
                logits, labels = logits.float().cpu(), batch[-1].flatten()
                logits, labels = logits[labels != IGNORED], labels[labels != IGNORED]
                loss = F.cross_entropy(logits, labels, reduction="sum")
                foreground, hit = labels > 0, logits.argmax(1) == labels
                masks = (foreground, ~foreground, hit & foreground, hit & ~foreground)
                sums += [float(loss), *(int(mask.sum()) for mask in masks)]
        loss_sum, foregrounds, backgrounds, foreground_hits, background_hits = self.ranks.total(sums.tolist())
        return {
            "val_loss": loss_sum / (foregrounds + backgrounds),
            "val_foreground_accuracy": foreground_hits / max(foregrounds, 1),
            "val_background_accuracy": background_hits / max(backgrounds, 1),
        }

    def save(self, network: nn.Module, path: Path) -> None:
        """Write a region classifier."""
        save_checkpoint(path, replace(self.classifier, network=cast(GoogLeNet, network)))

    def contents(self, step: int) -> list[str]:
        """List the images of a batch."""
        return [str(self.train.dataset.records[index].path) for index in self.train.images(step)]


def sampler_of(config: FineTuneConfig, windows: Windows, wrong: NDArray[np.bool_] | None = None) -> Sampler:
    """Make the sampler of a training's batches.

    Args:
        config: Settings of the training.
        windows: The N windows that it draws from.
        wrong: [N], the hard negatives that a teacher found; None without a teacher.

    Raises:
        TrainingError: there are no windows of a kind that a batch has.
    """
    settings: dict[str, Any] = {
        "batch": config.batch,
        "foreground": config.foreground,
        "seed": config.seed,
        "hard": config.hard_background,
        "balance": config.class_balance,
        "mined": config.mining.background,
        "wrong": wrong,
    }
    if config.images:
        return ImageSampler(windows, images=config.images, **settings)
    return BatchSampler(windows, **settings)


def start_classifier(config: FineTuneConfig, classes: ClassTable) -> RegionClassifier:
    """Load the pretrained network, with a fresh last layer for the classes and background if one is fitted.

    Raises:
        CheckpointError: no such weights; or linear_batches is 0, and they are of other classes, regions or mode.
    """
    shared = config.shared if config.mode == "shared" else None
    if config.linear_batches == 0:
        known = load_checkpoint(find_checkpoint(config.init))
        if known.shared != shared or known.regions != config.regions:
            raise CheckpointError(
                f"{config.init} has other regions or another mode than this run; to keep its last layer "
                "(linear_batches=0) they must be the same"
            )
        known = replace(in_order_of(known, classes, (config.init, "train")), classes=classes)
        known.network.set_regression(None)
        return replace(known, provenance={})
    previous = load_any_classifier(find_pretrained(config.init))
    previous.network.replace_classifier(len(classes) + 1)
    return RegionClassifier(previous.network, previous.convention, config.regions, classes, shared=shared)
