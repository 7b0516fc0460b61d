"""Fine-tune a pretrained GoogLeNet to the regions of a data set (R-CNN §2.3; paper §8).

In: the images and boxes of two splits, pretrained weights.
Out: runs/<name>/ with the classifier and a row of metrics per epoch.

First the last layer is fitted on frozen features (linear.py), then the layers from `train_from` on learn by SGD while
those below stay as ImageNet left them. The paper gives no fine-tuning settings; what is not R-CNN's is marked ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from tqdm import tqdm

from detector.checkpoint import (
    CheckpointError,
    RegionClassifier,
    find_checkpoint,
    find_pretrained,
    load_any_classifier,
    load_checkpoint,
    save_checkpoint,
)
from detector.class_order import in_order_of
from detector.classification.augment import distort
from detector.config import MISSING
from detector.data.dataset import DataConfig
from detector.data.ground_truth import ClassTable, Dataset
from detector.data.image import Image
from detector.device import autocast, choose_precision
from detector.network.googlenet import GoogLeNet
from detector.network.input import network_input
from detector.regions.maps import ABOVE, SharedConfig, choose_level, cut, map_side, show
from detector.regions.warp import RegionConfig, context_windows, warp
from detector.training.linear import fit_linear
from detector.training.loop import Batch
from detector.training.optimisation import OptimisationConfig
from detector.training.ranks import Ranks
from detector.training.record import TrainingError
from detector.training.windows import NOTHING, BatchSampler, FewImages, ImageSampler, ImagesInOrder, InOrder, Windows
from detector.training.workers import prepared_batches, start_worker
from proposals.boxes import mirrored as mirror
from proposals.settings import ProposalConfig

CANVAS = 32  # px: the side of a canvas is a multiple of this
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
        linear_batches: batches of windows that the last layer is first fitted on; 0: init is a region classifier of the
            same classes, whose last layer is where learning starts.
        linear_weight_decay: of that fit.
        train_from: first trunk layer that learns; "conv1" trains all, "none" stops after the linear fit.
        regression_windows: of each class, so many windows at most that a layer to move boxes is fitted on in the end,
            37 kB of memory each; 0: none is.
        regression_ridge: of that fit.
        batches_per_epoch: between two rows of metrics.
        foreground: how many windows of a batch are examples of a class.
        hard_background: how many of the others overlap an object by IoU 0.1 or more, at least.
        foreground_iou: overlap from which a window is an example of the class.
        background_iou: overlap below which it is background; between the two it is no example.
        val_batches: windows of the val images to compute loss and accuracy on, in batches.
        cache: folder of the proposals.
        mode: warp: each window passes all layers, as in R-CNN; shared: the trunk runs once an image (detector.shared).
        shared: of mode shared: how images are shown.
        images: photographs that a batch's windows come from; 0, of mode warp alone: any number, uniform over windows.
        class_balance: how far rare classes are shown more often, in [0, 1]: 0 draws all foreground windows (or images)
            alike, 1 would draw all classes alike, 0.5 draws a class by the root of its share (LVIS, arXiv 1908.03195).
        distortion: brightness, contrast and colour of an image change by factors of 1 ± this, in [0, 1).
        scale_jitter: of mode shared: the size by which regions choose their level of the pyramid changes from image to
            image by up to this factor, at least 1; 1 leaves it.
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
    distortion: float = 0.0  # R-CNN mirrors only
    scale_jitter: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in ("warp", "shared"):
            raise ValueError(f"mode must be warp or shared, not {self.mode!r}")
        if self.mode == "shared" and not self.images:
            raise ValueError(
                "mode=shared needs images, the number of photographs a batch's windows come from; 4 serves"
            )
        if self.images < 0 or (self.images and (self.batch % self.images or self.images % self.accumulate)):
            raise ValueError(
                f"images must divide batch, and accumulate divide images; they are {self.images}, {self.batch} and "
                f"{self.accumulate}"
            )
        if self.mode == "shared" and self.batch_norm_batches:
            raise ValueError("batch_norm_batches is for mode warp")
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
        if not 0 <= self.class_balance <= 1:
            raise ValueError(f"class_balance must be in [0, 1], not {self.class_balance}")
        if not 0 <= self.distortion < 1:
            raise ValueError(f"distortion must be in [0, 1), not {self.distortion}")
        for name, least in (
            ("scale_jitter", 1),
            ("batches_per_epoch", 1),
            ("val_batches", 1),
            ("linear_batches", 0),
            ("regression_windows", 0),
            ("regression_ridge", 0),
        ):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")


class WindowBatches(TorchDataset[tuple[Tensor, Tensor]]):
    """Batch number -> (regions [B, S, S, 3] uint8, labels [B] int64), read and warped on demand."""

    def __init__(
        self,
        dataset: Dataset,
        sampler: BatchSampler | FewImages | InOrder,
        regions: RegionConfig,
        fill: tuple[float, float, float],
        distortion: float = 0.0,
    ) -> None:
        self.dataset, self.sampler, self.regions, self.fill = dataset, sampler, regions, fill
        self.distortion = distortion
        self.share = slice(None)

    def in_order(self, windows: Windows) -> WindowBatches:
        """The windows of one image after another, unmirrored, instead of what is drawn."""
        return WindowBatches(self.dataset, InOrder(windows), self.regions, self.fill)

    def part(self, share: slice) -> Self:
        """These windows of each batch alone; of no others are images read."""
        result = copy(self)
        result.share = share
        return result

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        drawn, mirrored = self.sampler.draw(number)
        rows = self._rows(len(drawn))
        windows, mirrored = drawn[rows], mirrored[rows]
        squares = np.empty((len(windows), self.regions.size, self.regions.size, 3), np.uint8)
        for index in np.unique(windows.image):  # each photograph is decoded once
            rows = np.flatnonzero(windows.image == index)
            image = _distorted(self.dataset.records[index].read(), self.distortion, number, int(index))
            squares[rows] = warp(image, windows.boxes[rows], self.regions, self.fill)
        squares[mirrored] = squares[mirrored, :, ::-1]
        return torch.from_numpy(squares), torch.from_numpy(windows.labels.astype(np.int64))

    def _rows(self, count: int) -> NDArray[np.int64]:
        """Which of a batch's windows are the share: those of some of its photographs, where it is drawn from few."""
        rows = np.arange(count)
        if isinstance(self.sampler, FewImages):
            images = self.sampler.sampler.images
            if images % (self.share.step or 1) == 0:
                return rows.reshape(images, -1)[self.share].ravel()
        return rows[self.share]

    def images(self, number: int) -> list[int]:
        """The photographs of a batch, by their places in the data set."""
        windows, _ = self.sampler.draw(number)
        return sorted(set(windows.image.tolist()))


class ImageBatches(TorchDataset[tuple[Tensor, ...]]):
    """Batch number -> what regions of a few images, cut out of their maps, are learned from.

    (for each level of the pyramid the images scaled to it [I, h, w, 3] uint8, smaller ones in a corner; the height and
    width of each [I, L, 2], 0 where no region is cut from it; heights and widths of the images themselves [I, 2]; the
    size by which regions choose their level [I]; boxes [I, R, 4] float32 px; labels [I, R] int64, NOTHING among them)
    """

    def __init__(
        self,
        dataset: Dataset,
        sampler: ImageSampler | ImagesInOrder,
        regions: RegionConfig,
        shared: SharedConfig,
        distortion: float = 0.0,
        scale_jitter: float = 1.0,
    ) -> None:
        self.dataset, self.sampler, self.regions, self.shared = dataset, sampler, regions, shared
        self.distortion, self.scale_jitter = distortion, scale_jitter
        self.share = slice(None)

    def in_order(self, windows: Windows) -> ImageBatches:
        """The windows of one image after another, unmirrored, instead of what is drawn."""
        return ImageBatches(self.dataset, ImagesInOrder(windows), self.regions, self.shared)

    def part(self, share: slice) -> Self:
        """These photographs of each batch alone; no others are read."""
        result = copy(self)
        result.share = share
        return result

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        levels = range(len(self.shared.pyramid))
        scaled: list[list[Image]] = [[] for _ in levels]
        sizes, regions, boxes, labels = [], [], [], []
        for index, some, mirrored in self.sampler.draw(number)[self.share]:
            image, places = self.dataset.records[index].read(), some.boxes
            image = _distorted(image, self.distortion, number, index)
            if mirrored:
                image, places = image[:, ::-1], mirror(places, image.shape[1])
            size = image.shape[:2]
            draw = np.random.default_rng([number, index, 2]).uniform(-1, 1)
            region = max(1, round(self.shared.region * self.scale_jitter**draw))
            used = choose_level(context_windows(places, self.regions), size, replace(self.shared, region=region))
            none = np.zeros((0, 0, 3), np.uint8)
            for level in levels:
                scaled[level].append(show(image, self.shared.pyramid[level])[0] if level in used else none)
            sizes.append(size)
            regions.append(region)
            boxes.append(places)
            labels.append(some.labels.astype(np.int64))
        extents = np.array([[one.shape[:2] for one in images] for images in scaled]).transpose(1, 0, 2)
        columns = (
            *map(_padded, scaled),
            extents,
            np.array(sizes),
            np.array(regions),
            np.stack(boxes),
            np.stack(labels),
        )
        return tuple(torch.from_numpy(column) for column in columns)

    def images(self, number: int) -> list[int]:
        """The photographs of a batch, by their places in the data set."""
        return [index for index, *_ in self.sampler.draw(number)]


def _padded(images: Sequence[Image]) -> NDArray[np.uint8]:
    """Images of any sizes -> [I, h, w, 3] uint8, each in the upper left corner."""
    height, width = np.max([image.shape[:2] for image in images], axis=0)
    together = np.zeros((len(images), height, width, 3), np.uint8)
    for place, image in zip(together, images, strict=True):
        place[: image.shape[0], : image.shape[1]] = image
    return together


def _distorted(image: Image, strength: float, number: int, index: int) -> Image:
    """The image in other light and colours, which batch and image decide."""
    if not strength:
        return image
    generator = np.random.default_rng([number, index, 1])
    factors = generator.uniform(1 - strength, 1 + strength, 3).tolist()
    return distort(image, generator.permutation(3).tolist(), factors)


Examples = WindowBatches | ImageBatches


def load_batches(batches: Examples, start: int, stop: int, workers: int) -> Iterator[Batch]:
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
        train: Examples,
        val: Examples,
        ranks: Ranks | None = None,
    ) -> None:
        """Freeze the layers below `train_from`.

        Raises:
            ValueError: the trunk has no layer of that name.
        """
        self.config, self.classifier, self.train, self.val = config, classifier, train, val
        self.ranks = ranks or Ranks()
        if classifier.shared and config.images % self.ranks.world:
            raise TrainingError(
                f"{self.ranks.world} processes cannot share the {config.images} images of a batch equally"
            )
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
        precision = choose_precision(self.config.precision, self.ranks.device)
        with torch.inference_mode(), autocast(self.ranks.device, precision):
            for batch in tqdm(
                batches, total=count, desc="linear", unit="batch", dynamic_ncols=True, disable=not self.ranks.leads
            ):
                features.append(self.features(self.network, batch).float().mean(dim=(2, 3)).cpu())
                labels.append(batch[-1].flatten())
        known = torch.cat(labels) != NOTHING
        weight, bias = fit_linear(
            torch.cat(features)[known],
            torch.cat(labels)[known],
            self.network.config.classes,
            weight_decay=self.config.linear_weight_decay,
        )
        with torch.no_grad():
            self.network.fc.weight.copy_(weight)
            self.network.fc.bias.copy_(bias)

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """(regions [B, S, S, 3] uint8, labels [B]) of this process."""
        yield from load_batches(self.train.part(self.ranks.share), start, stop, self.config.workers)

    def inputs(self, batch: Batch) -> Tensor:
        """[B, 3, S, S] float32, channels last in memory."""
        return network_input(batch[0].numpy(), self.classifier.convention, self.ranks.device)

    def features(self, network: GoogLeNet, batch: Batch, *, learn: bool = False) -> Tensor:
        """The trunk's last maps, [B, 1024, 7, 7]; to learn, without gradients of the layers below `train_from`."""
        x = self.inputs(batch)
        if not learn:
            return torch.cat([network.trunk(part) for part in torch.split(x, PART)])
        first = None if self.config.train_from == "conv1" else self.config.train_from
        with torch.no_grad():
            frozen = network.trunk_slice(None, first).eval() if first else nn.Identity()
            # In parts: the large maps of the first layers stay in the processor's cache.
            x = torch.cat([frozen(part) for part in torch.split(x, PART)])
        result: Tensor = network.trunk_slice(first, None)(x)
        return result

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy over the K + 1 classes, mean over the batch's places.

        A place that holds an example of nothing adds 0: a window weighs the same whatever the others are.
        """
        logits = self.network.classify(self.features(self.network, batch, learn=True))
        labels = batch[-1].flatten().to(self.ranks.device)
        return F.cross_entropy(logits.float(), labels, ignore_index=NOTHING, reduction="sum") / len(labels)

    def measure(self, network: nn.Module) -> dict[str, float]:
        """Loss and accuracy on the val windows: the same windows at each call."""
        assert isinstance(network, GoogLeNet)
        sums = np.zeros(5)
        with torch.inference_mode():
            val = self.val.part(self.ranks.share)
            for batch in load_batches(val, 0, self.config.val_batches, self.config.workers):
                logits, labels = network.classify(self.features(network, batch)).float().cpu(), batch[-1].flatten()
                logits, labels = logits[labels != NOTHING], labels[labels != NOTHING]
                loss = F.cross_entropy(logits, labels, reduction="sum")
                object_, hit = labels > 0, logits.argmax(1) == labels
                sums += [float(loss), int(object_.sum()), int((~object_).sum()), *_hits(object_, hit)]
        loss_sum, objects, backgrounds, object_hits, background_hits = self.ranks.total(sums.tolist())
        return {
            "val_loss": loss_sum / (objects + backgrounds),
            "val_foreground_accuracy": object_hits / max(objects, 1),
            "val_background_accuracy": background_hits / max(backgrounds, 1),
        }

    def save(self, network: nn.Module, path: Path) -> None:
        """Write a region classifier."""
        save_checkpoint(path, replace(self.classifier, network=cast(GoogLeNet, network)))

    def contents(self, step: int) -> list[str]:
        """The photographs of a batch."""
        return [str(self.train.dataset.records[index].path) for index in self.train.images(step)]


class SharedTuning(FineTuning):
    """The same where the trunk runs once an image, and regions are cut out of its maps."""

    def features(self, network: GoogLeNet, batch: Batch, *, learn: bool = False) -> Tensor:
        """The trunk's last maps of all windows, [I · R, 1024, g, g]."""
        layers = [name for name, _ in network.trunk.named_children()]
        first = self.config.train_from if learn and self.config.train_from != "conv1" else None
        frozen = below = network.trunk_slice(None, ABOVE)
        if first is not None:
            if layers.index(first) < layers.index(ABOVE):
                frozen, below = network.trunk_slice(None, first).eval(), network.trunk_slice(first, ABOVE)
            else:
                frozen, below = below.eval(), nn.Sequential()
        regions, config = self.classifier.regions, self.classifier.shared
        assert config is not None

        together = self.ranks.device.type == "cuda"

        def trunk(squares: Tensor, extents: Tensor, side: int) -> list[Tensor]:
            x = network_input(squares.numpy(), self.classifier.convention, self.ranks.device)
            if together:
                x = _on_canvas(x, extents, side)
            if first is not None:
                with torch.no_grad():
                    x = frozen(x)
            return list(torch.split(below(x), 1))

        *levels, extents, sizes, chosen, boxes, _ = batch
        maps: dict[tuple[int, int], Tensor] = {}  # of an image, on a level
        for level, scaled in enumerate(levels):
            there = extents[:, level]
            for members in _passes(there, together=together):
                height, width = there[members].amax(dim=0).tolist()
                found = trunk(scaled[members, :height, :width], there[members], config.pyramid[level])
                for image, features in zip(members, found, strict=True):
                    rows, columns = (map_side(side) for side in there[image].tolist())
                    maps[image, level] = features[:, :, :rows, :columns]

        def own(image: int, level: int) -> tuple[Tensor, tuple[float, float]]:
            (height, width), (rows, columns) = sizes[image].tolist(), extents[image, level].tolist()
            return maps[image, level], (columns / width, rows / height)

        parts = []
        for image in range(len(boxes)):
            choice = replace(config, region=int(chosen[image]))
            height, width = sizes[image].tolist()
            parts.append(cut(partial(own, image), boxes[image].numpy(), (height, width), regions, choice))
        x = torch.cat(parts).contiguous(memory_format=torch.channels_last)
        result: Tensor = network.trunk_slice(ABOVE)(x)
        return result


def _passes(extents: Tensor, *, together: bool) -> list[list[int]]:
    """Which images of a level pass the trunk at a time; none of height 0."""
    sizes = [tuple(row) for row in extents.tolist()]
    if together:
        return [list(range(len(sizes)))] if any(height for height, _ in sizes) else []
    return [[i for i, other in enumerate(sizes) if other == size] for size in sorted(set(sizes) - {(0, 0)})]


def _on_canvas(x: Tensor, extents: Tensor, side: int) -> Tensor:
    """Images [I, 3, h, w] of the area of a square of `side` px -> in the corner of a larger one, 0 around them.

    cuDNN plans each new shape anew, which takes a GPU longer than the pass: so all batches of a level share one. What
    lies around an image is 0 here in the first layer alone, and in all layers at test.
    """
    length = int(-(-max(*x.shape[2:], 1.25 * side) // CANVAS) * CANVAS)  # 1.25: sides of 3 to 2
    canvas = x.new_zeros(len(x), 3, length, length).contiguous(memory_format=torch.channels_last)
    for square, image, (rows, columns) in zip(canvas, x, extents.tolist(), strict=True):
        square[:, :rows, :columns] = image[:, :rows, :columns]
    return canvas


def _hits(object_: Tensor, hit: Tensor) -> tuple[int, int]:
    return int((hit & object_).sum()), int((hit & ~object_).sum())


def start_classifier(config: FineTuneConfig, classes: ClassTable) -> RegionClassifier:
    """The pretrained network with a fresh last layer for the classes and background.

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
