"""Train GoogLeNet to classify whole images, from scratch or from weights (paper §6).

In: labelled images of two splits.  Out: runs/<name>/ with the classifier and a row of metrics per epoch.

Patches are drawn as detector/classification/augment.py says. Image n of the stream of passes is in batch n // B, each
pass in an order of its own, so nothing is left out and every process knows its share by numbers alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from detector.checkpoint import CheckpointError, ImageClassifier, find_checkpoint, load_any_classifier, save_checkpoint
from detector.classification.augment import SamplingConfig, example, sampler
from detector.classification.crops import cut, plan
from detector.data.ground_truth import DataError
from detector.data.labelled_images import ImagesConfig, LabelledImages
from detector.network.googlenet import GoogLeNet, GoogLeNetConfig, training_loss
from detector.network.input import InputConvention, network_input
from detector.training.loop import Batch
from detector.training.optimisation import OptimisationConfig
from detector.training.ranks import Ranks
from detector.training.readable import Reader
from detector.training.workers import prepared_batches, start_worker

# The paper: "zero mean", no scale. ImageNet's mean and deviation, as everybody's since.
INPUT = InputConvention(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
EVAL_PART = 32  # val images at a time


@dataclass(frozen=True, kw_only=True)
class ImageTrainingConfig(OptimisationConfig):
    """An experiment of classification.

    Attributes:
        task: "images".
        train: images to learn from.
        val: images to measure on, and to choose the best epoch.
        network: which GoogLeNet; the number of classes is the data's.
        size: side of the network's input, px.
        sampling: which patches it sees.
        init_from: a run's folder, whose averaged weights go on learning under these settings, or a weights file; empty:
            from scratch. What --resume does is another thing: it takes up the same run.
        initial_seed: of the fresh weights; the same for every member (§7: "the same initial weights").
    """

    task: str = "images"
    train: ImagesConfig
    val: ImagesConfig
    network: GoogLeNetConfig = field(default_factory=lambda: GoogLeNetConfig(auxiliary_heads=2))
    size: int = 224  # §5
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    init_from: str = ""
    initial_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task != "images":
            raise ValueError(f"task must be images here, not {self.task!r}")
        if self.size < 32:
            raise ValueError(f"size must be at least 32 px, not {self.size}")


class Examples(TorchDataset[tuple[Tensor, int]]):
    """Position in the stream of passes -> ([S, S, 3] uint8, label)."""

    def __init__(self, images: LabelledImages, config: ImageTrainingConfig) -> None:
        self.images, self.config = images, config
        self.reader = Reader(images.read, len(images))
        self._transforms = sampler(config.sampling, config.size)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        index, image = self.reader(self.index(position))
        seed = (self.config.seed, *divmod(position, len(self.images)))
        square = example(image, self._transforms, seed)
        return torch.from_numpy(np.ascontiguousarray(square)), int(self.images.labels[index])

    def index(self, position: int) -> int:
        """Which image stands there."""
        round_, place = divmod(position, len(self.images))
        return int(order_of(self.config.seed, round_, len(self.images))[place])


@lru_cache(maxsize=2)
def order_of(seed: int, round_: int, count: int) -> Any:
    """The order of 0..count - 1 in a pass; [count] int64."""
    return np.random.default_rng((seed, round_)).permutation(count)


class Centres(TorchDataset[tuple[Tensor, int]]):
    """Number of an image -> (its one test crop [S, S, 3] uint8, label)."""

    def __init__(self, images: LabelledImages, size: int) -> None:
        self.images, self.size = images, size
        self.reader = Reader(images.read, len(images))

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        index, image = self.reader(index)
        (square,) = cut(image, plan(1, image.shape[1], image.shape[0], self.size), self.size)
        return torch.from_numpy(square), int(self.images.labels[index])


class ImageTraining:
    """The `Task` of classifying images."""

    criterion = "val_top1_error"
    unit = "images"

    def __init__(
        self,
        config: ImageTrainingConfig,
        classifier: ImageClassifier,
        train: LabelledImages,
        val: LabelledImages,
        ranks: Ranks | None = None,
    ) -> None:
        self.config, self.classifier, self.ranks = config, classifier, ranks or Ranks()
        self.network: GoogLeNet = classifier.network.to(self.ranks.device)
        self.batches_per_epoch = max(1, round(len(train) / config.batch))
        self._train = Examples(train, config)
        self._val = Centres(val, config.size)

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """(squares [B, S, S, 3] uint8, labels [B]) of this process."""
        size, ranks = self.config.batch, self.ranks
        edges = range(start * size, stop * size, size)
        yield from self._load(self._train, [range(edge + ranks.rank, edge + size, ranks.world) for edge in edges])

    def inputs(self, batch: Batch) -> Tensor:
        """[B, 3, S, S] float32, channels last in memory."""
        return network_input(batch[0].numpy(), self.classifier.convention, self.ranks.device)

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy, that of the auxiliary heads added with weight 0.3."""
        x, labels = self.inputs(batch), batch[1].to(self.ranks.device)
        heads = self.network.config.auxiliary_heads
        outputs = self.network.forward_with_auxiliary(x) if heads else [self.network(x)]
        return training_loss([logits.float() for logits in outputs], labels)

    def measure(self, network: nn.Module) -> dict[str, float]:
        """Loss and errors of one crop of each val image; every image counts once, however many processes share them."""
        mine = range(self.ranks.rank, len(self._val.images), self.ranks.world)
        parts = [mine[start : start + EVAL_PART] for start in range(0, len(mine), EVAL_PART)]
        sums = np.zeros(4)
        with torch.inference_mode():
            for squares, labels in self._load(self._val, parts):
                x = network_input(squares.numpy(), self.classifier.convention, self.ranks.device)
                logits = network(x).float().cpu()
                best = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
                loss = F.cross_entropy(logits, labels, reduction="sum")
                sums += [float(loss), int(best[:, 0].sum()), int(best.sum()), len(labels)]
        loss_sum, top1, top5, count = self.ranks.total(sums.tolist())
        return {"val_loss": loss_sum / count, "val_top1_error": 1 - top1 / count, "val_top5_error": 1 - top5 / count}

    def save(self, network: nn.Module, path: Path) -> None:
        """Write an image classifier."""
        save_checkpoint(path, replace(self.classifier, network=cast(GoogLeNet, network)))

    @property
    def unread(self) -> int:
        """Images of both sets that could not be read so far, for which others came."""
        return int(self._train.reader.failed.sum() + self._val.reader.failed.sum())

    def contents(self, step: int) -> list[str]:
        """The files of a batch."""
        positions = range(step * self.config.batch, (step + 1) * self.config.batch)
        return [self._train.images.describe(self._train.index(position)) for position in positions]

    def _load(self, images: TorchDataset[tuple[Tensor, int]], batches: Iterable[Sequence[int]]) -> Iterator[Batch]:
        loader: DataLoader[Any] = DataLoader(
            images,
            batch_sampler=[list(batch) for batch in batches],
            num_workers=self.config.workers,
            prefetch_factor=4 if self.config.workers else None,
            worker_init_fn=start_worker,
        )
        yield from map(tuple, prepared_batches(loader))


def start_image_classifier(config: ImageTrainingConfig, classes: tuple[str, ...]) -> ImageClassifier:
    """Fresh weights, or those that `init_from` names with a fresh last layer if their classes are others.

    Raises:
        CheckpointError: no such run or file, or weights of another network than `network` describes.
    """
    wanted = replace(config.network, classes=len(classes))
    torch.manual_seed(config.initial_seed)
    if not config.init_from:
        return ImageClassifier(GoogLeNet(wanted), INPUT, config.size, classes)
    previous = _previous(Path(config.init_from).expanduser(), wanted)
    if _shape(previous.network.config) != _shape(wanted):
        raise CheckpointError(
            f"{config.init_from} holds another network: {_difference(previous.network.config, wanted)}"
        )
    network = GoogLeNet(wanted)
    state = previous.network.state_dict()
    nameless = not previous.classes and previous.network.config.classes == len(classes)
    if not nameless and previous.classes != classes:
        if len(set(classes)) == len(classes) and sorted(classes) == sorted(previous.classes):  # in another order
            order = [previous.classes.index(name) for name in classes]
            state = {name: tensor[order] if _is_last(name) else tensor for name, tensor in state.items()}
        else:
            state = {name: tensor for name, tensor in state.items() if not _is_last(name)}
    missing = set(network.load_state_dict(state, strict=False).missing_keys)
    if not missing <= {name for name in network.state_dict() if name.startswith(("auxiliary", "fc."))}:
        raise CheckpointError(f"{config.init_from}: no weights for {min(missing)}")
    return ImageClassifier(network, previous.convention, config.size, classes)


def _is_last(name: str) -> bool:
    """Whether a tensor belongs to a layer of one output a class."""
    return name.split(".")[-2] in ("fc", "fc2")


def _previous(path: Path, wanted: GoogLeNetConfig) -> ImageClassifier:
    """A weights file, or the averaged weights of a run, auxiliary heads included."""
    if not path.is_dir():
        return load_any_classifier(find_checkpoint(str(path)))
    classifier = load_any_classifier(path / "last.safetensors")
    if not (path / "state.pt").is_file():
        return classifier
    state = torch.load(path / "state.pt", map_location="cpu", weights_only=True)["average"]
    weights = {name.removeprefix("module."): tensor for name, tensor in state.items() if name != "n_averaged"}
    heads = sum(f"auxiliary{number}.fc1.weight" in weights for number in (1, 2))
    network = GoogLeNet(replace(classifier.network.config, auxiliary_heads=min(heads, wanted.auxiliary_heads)))
    network.load_state_dict({name: tensor for name, tensor in weights.items() if name in network.state_dict()})
    return replace(classifier, network=network)


def _shape(config: GoogLeNetConfig) -> GoogLeNetConfig:
    """What decides the shapes of the trunk's tensors, and what they mean."""
    plain = GoogLeNetConfig()
    return replace(
        config,
        classes=1,
        auxiliary_heads=0,
        initialisation=plain.initialisation,
        dropout=plain.dropout,
        auxiliary_dropout=plain.auxiliary_dropout,
    )


def _difference(found: GoogLeNetConfig, wanted: GoogLeNetConfig) -> str:
    first, second = vars(_shape(found)), vars(_shape(wanted))
    return ", ".join(f"{name} is {first[name]}, not {second[name]}" for name in first if first[name] != second[name])


def check_images(train: LabelledImages, val: LabelledImages) -> LabelledImages:
    """The val images under the train images' numbering.

    Raises:
        DataError: a val class that train does not have.
    """
    if len(train.classes) < 2:
        raise DataError(f"one class only ({train.classes[0]}): nothing to tell apart")
    return val.with_classes(train.classes, "train")
