"""Train MultiBox on the boxes of a data set, whatever their classes (arXiv 1312.2249; paper §8).

In: images and boxes of two splits, a classifier's weights.  Out: runs/<name>/ with the model and its metrics.

First the head alone, on features that the trunk computed once; then, from the layer `train_from` on, the trunk too.
Whole images and crops that keep objects are shown, mirrored and distorted. The paper says nothing of this; crops are
gvanhorn38/multibox's (half to all of the area, a box stays where 70 % of it is seen), the rest is ours.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import albumentations as A
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from tqdm import tqdm

from detector.classification.augment import Distortion
from detector.config import MISSING, config_to_dict
from detector.data.content import digests_of
from detector.data.dataset import DataConfig
from detector.data.ground_truth import DataError, Dataset, Record
from detector.data.image import Image
from detector.device import autocast, choose_precision
from detector.multibox import MultiBoxModel, save_multibox, warp_view
from detector.network.input import network_input
from detector.training.images import order_of
from detector.training.loop import Batch
from detector.training.optimisation import OptimisationConfig
from detector.training.ranks import Ranks
from detector.training.record import TrainingError
from detector.training.workers import prepared_batches, start_worker
from proposals.files import write_whole
from proposals.locking import Lock
from proposals.multibox.head import MultiBox, MultiBoxConfig, MultiBoxHead, decode, pool
from proposals.multibox.loss import multibox_loss
from proposals.multibox.priors import cluster_priors
from proposals.recall import best_overlaps_of_first

COUNTS = (10, 50, 100, 200)
PART = 8  # images at a time where nothing is learned
FEATURES = 2  # of the cached features' form
KEEP = 30  # s between two points from which interrupted features go on


def _heads() -> OptimisationConfig:
    return OptimisationConfig(
        epochs=30, batch=128, learning_rate=0.01, schedule="cosine", averaging="ema", average_decay=0.998
    )


@dataclass(frozen=True, kw_only=True)
class MultiBoxTrainingConfig(OptimisationConfig):
    """An experiment; the settings of optimisation at the top are those of trunk and head together.

    Attributes:
        task: "multibox".
        train: images to learn from; of ILSVRC's train those of which every object is boxed.
        val: images to measure recall on, and to choose the best epoch.
        init: weights whose trunk is taken: a file, or the name of shipped ones.
        head: number of priors, width.
        heads: optimisation of the head alone.
        passes: views of each train image that the head alone learns from; their features are kept in `cache`.
        train_from: first trunk layer that learns with the head afterwards; "conv1" for all, "none" for none.
        alpha: weight of the location.
        size: side of the squares that images are warped to, px.
        whole: share of views that are whole images, in [0, 1]; the others are crops.
        crop_area: least and largest share of the image that a crop takes.
        crop_ratio: least and largest width / height of a crop, of the image warped to a square.
        visible: a box stays in a crop that shows so much of it.
        distortion: brightness, contrast and colour change by factors of 1 ± this, in [0, 1).
        cache: folder of the features.
    """

    RETIRED: ClassVar[dict[str, object]] = {"priors": "", "match": "prior"}  # files of version 0.1 may state them

    name: str = "multibox"
    task: str = "multibox"
    train: DataConfig
    val: DataConfig
    init: str = MISSING
    head: MultiBoxConfig = field(default_factory=MultiBoxConfig)
    heads: OptimisationConfig = field(default_factory=_heads)
    passes: int = 8
    train_from: str = "none"
    alpha: float = 0.3  # 1312.2249
    size: int = 224
    whole: float = 0.5
    crop_area: tuple[float, float] = (0.5, 1.0)  # gvanhorn38/multibox
    crop_ratio: tuple[float, float] = (0.7, 1.4)  # gvanhorn38/multibox
    visible: float = 0.7  # gvanhorn38/multibox
    distortion: float = 0.2
    cache: str = ".cache/multibox"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task != "multibox":
            raise ValueError(f"task must be multibox here, not {self.task!r}")
        if self.members != 1 or self.heads.members != 1 or self.variants:
            raise ValueError("members is a setting of classifiers; MultiBox is one network")
        if self.train.boxes_per_class:
            raise ValueError("train.boxes_per_class must be 0 here: an object without a box is taught to be none")
        for name in ("whole", "visible"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], not {getattr(self, name)}")
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise ValueError(f"crop_area must be two shares, 0 < low <= high <= 1, not {list(self.crop_area)}")
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError(f"crop_ratio must be two numbers, 0 < low <= high, not {list(self.crop_ratio)}")
        if not 0 <= self.distortion < 1:
            raise ValueError(f"distortion must be in [0, 1), not {self.distortion}")
        if self.passes < 1 or self.size < 32 or not self.alpha > 0:
            raise ValueError("passes must be at least 1, size at least 32 px, alpha above 0")


def shares(record: Record) -> NDArray[np.float64]:
    """The boxes to learn, [M, 4] shares of the image: neither crowds nor difficult ones."""
    counted = record.boxes[~(record.difficult | record.crowd)]
    return counted / np.array([record.width, record.height] * 2, np.float64)


class Views(TorchDataset[tuple[Tensor, Tensor, int]]):
    """Position in the stream of passes -> (square [S, S, 3] uint8, boxes [M', 4] shares padded with 0, M)."""

    def __init__(self, dataset: Dataset, config: MultiBoxTrainingConfig) -> None:
        self.dataset, self.config = dataset, config
        self.most = max((len(shares(record)) for record in dataset.records), default=0)
        self._crop = A.RandomResizedCrop(
            (config.size, config.size), scale=tuple(config.crop_area), ratio=tuple(config.crop_ratio)
        )
        self._mirror = A.HorizontalFlip(p=0.5)
        self._distortion = Distortion(config.distortion)
        # Boxes of the files reach over the image's edge by rounding: clip, or albumentations refuses them.
        boxes = A.BboxParams("albumentations", min_visibility=config.visible, clip=True, filter_invalid_bboxes=True)
        self._whole_view = A.Compose([self._mirror, self._distortion], bbox_params=boxes)
        self._crop_view = A.Compose([self._crop, self._mirror, self._distortion], bbox_params=boxes)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor, int]:
        index = self.index(position)
        record = self.dataset.records[index]
        seed = (self.config.seed, *divmod(position, len(self.dataset)))
        image, boxes = self.example(record.read(), shares(record), seed)
        padded = np.zeros((self.most, 4), np.float32)
        padded[: len(boxes)] = boxes
        return torch.from_numpy(np.ascontiguousarray(image)), torch.from_numpy(padded), len(boxes)

    def index(self, position: int) -> int:
        """Which image stands there."""
        round_, place = divmod(position, len(self.dataset))
        return int(order_of(self.config.seed, round_, len(self.dataset))[place])

    def example(
        self, image: Image, boxes: NDArray[np.float64], seed: tuple[int, ...]
    ) -> tuple[Image, NDArray[np.float32]]:
        """A view of an image, [S, S, 3], and of its boxes [M, 4] shares -> [M', 4] shares of the view."""
        size = self.config.size
        draws = np.random.SeedSequence(seed).generate_state(4)
        for transform, own in zip((self._crop, self._mirror, self._distortion), draws.tolist(), strict=False):
            transform.set_random_seed(own)
        whole = np.random.default_rng(draws[3]).random() < self.config.whole
        square = image if not whole else warp_view(image, (0, 0, image.shape[1], image.shape[0]), size)
        result = (self._whole_view if whole else self._crop_view)(image=square, bboxes=boxes.reshape(-1, 4))
        return result["image"], np.asarray(result["bboxes"], np.float32).reshape(-1, 4)


class MultiBoxTraining:
    """The `Task` of proposing boxes, on images or, for the head alone, on features.

    Args:
        config: the experiment.
        model: learns in place.
        train: views to learn from, or their features.
        val: images to measure on.
        features: val_features of this process's val images, where the trunk stays as it is; None where it learns.
        ranks: the processes.
    """

    criterion = "val_missed"
    unit = "images"

    def __init__(
        self,
        config: MultiBoxTrainingConfig,
        model: MultiBoxModel,
        train: Views | Features,
        val: Dataset,
        *,
        features: Tensor | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.config, self.model, self.train, self.val, self.features = config, model, train, val, features
        self.ranks = ranks or Ranks()
        model.network.to(self.ranks.device)
        self._batch = config.heads.batch if isinstance(train, Features) else config.batch
        self.network: MultiBox | MultiBoxHead = model.network.head if isinstance(train, Features) else model.network
        self.batches_per_epoch = max(1, round(len(train.dataset) / self._batch))
        if isinstance(train, Views) and config.train_from not in ("conv1", "none"):
            names = [name for name, _ in model.network.trunk.named_children()]
            if config.train_from not in names:
                raise TrainingError(f"the trunk has no layer {config.train_from!r}; it has {', '.join(names)}")
            for name, layer in model.network.trunk.named_children():
                if name == config.train_from:
                    break
                layer.requires_grad_(False)

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """(squares [B, S, S, 3] uint8 or features [B, 9 C], boxes [B, M', 4], numbers of boxes [B]) of this process."""
        edges = range(start * self._batch, stop * self._batch, self._batch)
        rows = [range(edge + self.ranks.rank, edge + self._batch, self.ranks.world) for edge in edges]
        if isinstance(self.train, Features):
            yield from (self.train.rows(row) for row in rows)
        else:
            yield from _load(self.train, rows, self.config.workers)

    def inputs(self, batch: Batch) -> Tensor:
        """What the network reads."""
        if isinstance(self.train, Features):
            return batch[0].float().to(self.ranks.device)
        return network_input(batch[0].numpy(), self.model.convention, self.ranks.device)

    def loss(self, batch: Batch) -> Tensor:
        """Confidence and location of the boxes, mean over the images."""
        offsets, logits = self.network(self.inputs(batch))
        objects = [
            boxes[:count].to(self.ranks.device) for boxes, count in zip(batch[1], batch[2].tolist(), strict=True)
        ]
        return multibox_loss(
            offsets.float(),
            logits.float(),
            self.model.network.head.priors,
            objects,
            alpha=self.config.alpha,
        )

    def measure(self, network: nn.Module) -> dict[str, float]:
        """Recall of the best 10, 50, 100 and 200 boxes of whole val images at IoU 0.5 and 0.7, no suppression."""
        head = network if isinstance(network, MultiBoxHead) else network.head
        assert isinstance(head, MultiBoxHead)
        found = np.zeros((2, len(COUNTS)))
        total = 0.0
        mine = range(self.ranks.rank, len(self.val), self.ranks.world)
        for index, (offsets, logits) in zip(mine, self._outputs(network, mine), strict=True):
            boxes = decode(offsets, head.priors).clamp(0, 1).cpu().double().numpy()  # Apple's GPUs have no float64
            objects = shares(self.val.records[index])
            order = np.argsort(-logits.float().cpu().numpy(), kind="stable")
            overlaps = best_overlaps_of_first(objects, boxes[order], COUNTS)  # in shares as in pixels
            found += [(overlaps >= threshold).sum(axis=1) for threshold in (0.5, 0.7)]
            total += len(objects)
        *sums, total = self.ranks.total([*found.ravel().tolist(), total])
        recalls = (np.array(sums) / max(total, 1)).reshape(2, len(COUNTS))
        row = {f"val_recall_{count}": recalls[0, column] for column, count in enumerate(COUNTS)}
        row |= {f"val_recall70_{count}": recalls[1, column] for column, count in enumerate(COUNTS)}
        row = {"val_missed": 1 - row["val_recall_200"]} | row
        return {name: float(value) for name, value in row.items()}

    def save(self, network: nn.Module, path: Path) -> None:
        """Write a MultiBox model."""
        if isinstance(network, MultiBoxHead):
            whole = MultiBox(self.model.network.trunk, network)
            save_multibox(path, replace(self.model, network=whole))
        else:
            assert isinstance(network, MultiBox)
            save_multibox(path, replace(self.model, network=network, trunk_file="", trunk_sha256=""))

    def contents(self, step: int) -> list[str]:
        """The photographs of a batch."""
        positions = range(step * self._batch, (step + 1) * self._batch)
        return [str(self.train.dataset.records[self.train.index(position)].path) for position in positions]

    def _outputs(self, network: nn.Module, mine: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Offsets [P, 4] and logits [P] of the val images."""
        with torch.inference_mode():
            for start in range(0, len(mine), PART):
                part = mine[start : start + PART]
                if self.features is not None:
                    x = self.features[start : start + PART].float().to(self.ranks.device)
                else:
                    x = _inputs([self.val.records[index] for index in part], self.model, self.ranks.device)
                yield from zip(*network(x), strict=True)


class Features:
    """Trunk features of the first passes over the train images, which the head alone learns from.

    Args:
        views: what they were made of.
        features: [R, 9 C] float16, of positions 0..R - 1 of the stream of views.
        boxes: [R, M', 4].
        counts: [R].
    """

    def __init__(self, views: Views, features: Tensor, boxes: Tensor, counts: Tensor) -> None:
        self.views, self.dataset = views, views.dataset
        self.features, self.boxes, self.counts = features, boxes, counts

    def rows(self, positions: range) -> Batch:
        """Those of positions in a stream of their own, all of them in a new order each time round."""
        chosen = [self._row(position) for position in positions]
        return self.features[chosen], self.boxes[chosen], self.counts[chosen]

    def index(self, position: int) -> int:
        """Which image stands there."""
        return self.views.index(self._row(position))

    def _row(self, position: int) -> int:
        round_, place = divmod(position, len(self.counts))
        return int(order_of(self.views.config.seed, round_, len(self.counts))[place])


def cached_features(views: Views, model: MultiBoxModel, weights: str, ranks: Ranks) -> Features:
    """Run the trunk once over `passes` views of each train image, or take what an earlier run left in the cache.

    The cache goes by what decides the features: the content of the images, their boxes, the trunk, the views' settings.
    Other weights of a head, and images that moved, find them again; a corrected box gets features of its own.

    Args:
        views: of the train images.
        model: whose trunk runs.
        weights: SHA-256 of the trunk's file.
        ranks: the first process computes, the others wait.

    Raises:
        InUseError: another run is computing the same.
    """
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        "features": ((len(views.dataset) * views.config.passes, model.network.head.fc1.in_features), "<f2"),
        "boxes": ((len(views.dataset) * views.config.passes, views.most, 4), "<f4"),
        "counts": ((len(views.dataset) * views.config.passes,), "<i8"),  # and one more: 0 is not done
    }
    folder = None
    if ranks.leads:
        precision = choose_precision(views.config.precision, ranks.device)
        folder = Path(views.config.cache) / _features_key(views, weights, str(precision))
        folder.mkdir(parents=True, exist_ok=True)
        lock = Lock(folder / ".lock")
        try:
            _compute_features(views, model, _open_arrays(folder, shapes), ranks.device, precision)
        finally:
            lock.release()
    folder = ranks.from_first(folder)
    # In files, not in memory: ImageNet's would not fit.
    arrays = [torch.from_numpy(np.lib.format.open_memmap(folder / f"{name}.npy", mode="c")) for name in shapes]
    return Features(views, arrays[0], arrays[1], arrays[2] - 1)


def _features_key(views: Views, weights: str, precision: str) -> str:
    names = ("size", "whole", "crop_area", "crop_ratio", "visible", "distortion", "seed", "passes")
    settings = {name: value for name, value in config_to_dict(views.config).items() if name in names}
    records = views.dataset.records
    images = digests_of([record.path for record in records])
    boxes = hashlib.sha256()
    for record in records:
        boxes.update(f"{len(shares(record))}:".encode() + shares(record).astype("<f8").tobytes())
    key = [FEATURES, weights, precision, settings, images, boxes.hexdigest()]
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def _open_arrays(folder: Path, shapes: Mapping[str, tuple[tuple[int, ...], str]]) -> dict[str, NDArray[Any]]:
    """The memory-mapped files of the cache, to write; all are made anew unless each is what it should be."""
    paths = {name: folder / f"{name}.npy" for name in shapes}
    try:
        # To read: opened to write, a file that is cut short is filled up with zeros.
        arrays: dict[str, Any] = {name: np.lib.format.open_memmap(path, mode="r") for name, path in paths.items()}
        whole = all((array.shape, array.dtype.str) == shapes[name] for name, array in arrays.items())
    except (OSError, ValueError, EOFError):
        whole = False
    for name, (shape, dtype) in shapes.items() if not whole else ():
        paths[name].unlink(missing_ok=True)
        with write_whole(paths[name]) as path:
            np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
            _reserve(path)
    return {name: np.lib.format.open_memmap(path, mode="r+") for name, path in paths.items()}


def _reserve(path: Path) -> None:
    """Take a file's space on the disk: a disk that fills under a memory map kills the process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise


def _compute_features(
    views: Views, model: MultiBoxModel, arrays: Mapping[str, Any], device: torch.device, precision: torch.dtype
) -> None:
    """Fill in what is missing, from the first on."""
    features, boxes, counts = (arrays[name] for name in ("features", "boxes", "counts"))
    done, count = int((counts > 0).sum()), len(counts)
    rows = [range(start, min(start + PART, count)) for start in range(done, count, PART)]
    pending = counts.copy()
    kept = time.monotonic()

    def keep() -> None:  # what counts as done has to be on the disk before
        features.flush()
        boxes.flush()
        counts[:] = pending
        counts.flush()

    try:
        with torch.inference_mode(), autocast(device, precision):
            bar = tqdm(_load(views, rows, views.config.workers), total=len(rows), desc="features", unit="batch")
            for row, (squares, some_boxes, some_counts) in zip(rows, bar, strict=True):
                x = network_input(squares.numpy(), model.convention, device)
                part = slice(row.start, row.stop)
                features[part], boxes[part] = pool(model.network.trunk(x)).half().cpu().numpy(), some_boxes.numpy()
                pending[part] = some_counts.numpy() + 1
                if time.monotonic() - kept > KEEP:
                    keep()
                    kept = time.monotonic()
    finally:
        keep()


def val_features(
    dataset: Dataset, model: MultiBoxModel, ranks: Ranks, precision: torch.dtype = torch.float32
) -> Tensor:
    """Of the whole images that are this process's share; [N, 9 C] float16."""
    records = dataset.records[ranks.share]
    features = torch.empty(len(records), model.network.head.fc1.in_features, dtype=torch.float16)
    starts = range(0, len(records), PART)
    with torch.inference_mode(), autocast(ranks.device, precision):
        for start in tqdm(starts, desc="val features", unit="batch", dynamic_ncols=True, disable=not ranks.leads):
            x = _inputs(records[start : start + PART], model, ranks.device)
            features[start : start + PART] = pool(model.network.trunk(x)).half().cpu()
    return features


def start_multibox(
    config: MultiBoxTrainingConfig,
    trunk: nn.Sequential,
    channels: int,
    train: Dataset,
    template: MultiBoxModel | None = None,
) -> MultiBox:
    """A fresh head on a trunk, its priors from the boxes of train.

    Raises:
        DataError: train has no boxes.
        UserError: head.priors is more than the different boxes.
    """
    boxes = np.concatenate([shares(record) for record in train.records]) if len(train) else np.zeros((0, 4))
    if not len(boxes):
        raise DataError(f"{train.name}: no boxes to learn from (those marked difficult or crowd do not count)")
    priors = cluster_priors(boxes, config.head.priors)
    torch.manual_seed(config.seed)
    head = MultiBoxHead(channels, torch.from_numpy(priors).float(), config.head)
    head.set_confidence_prior(len(boxes) / len(train))
    return MultiBox(trunk, head)


def _inputs(records: Sequence[Record], model: MultiBoxModel, device: torch.device) -> Tensor:
    images = [record.read() for record in records]
    squares = [warp_view(image, (0, 0, image.shape[1], image.shape[0]), model.size) for image in images]
    return network_input(np.stack(squares), model.convention, device)


def _load(views: TorchDataset[Any], rows: Sequence[range], workers: int) -> Iterator[Batch]:
    loader: DataLoader[Any] = DataLoader(
        views,
        batch_sampler=[list(row) for row in rows],
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=start_worker,
    )
    yield from map(tuple, prepared_batches(loader))
