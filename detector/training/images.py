"""Train GoogLeNet to classify whole images, from scratch or from weights (paper §6).

In: labelled images of two splits.  Out: an image classifier.

Training patches are those of detector/classification/augment.py. Each pass over the images has an order of its own;
batch n holds images n B to (n + 1) B - 1 of the stream of passes, so no image is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset as TorchDataset

from detector.checkpoint import ImageClassifier, find_checkpoint, load_any_classifier, save_checkpoint
from detector.classification.augment import SamplingConfig, draw_patch, patch_transforms
from detector.classification.crops import cut_crops, plan_crops
from detector.config import check_choice, check_range
from detector.data.labelled_images import ImagesConfig, LabelledImages
from detector.data.readable import Reader
from detector.model_files import CheckpointError
from detector.network.googlenet import GoogLeNet, GoogLeNetConfig, training_loss
from detector.network.input import InputConvention, network_input
from detector.training.optimisation import TrainingConfig
from detector.training.ranks import Ranks
from detector.training.task import Batch
from detector.training.workers import index_at, load

# The paper: "zero mean", without a scale. These are the usual mean and deviation of ImageNet.
INPUT = InputConvention(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
EVAL_PART = 32  # val images per pass
FREE = ("classes", "auxiliary_heads", "initialisation", "dropout", "auxiliary_dropout")
"""Settings of a network that its trunk's weights do not depend on."""


@dataclass(frozen=True, kw_only=True)
class ImageTrainingConfig(TrainingConfig):
    """Training of an image classifier.

    Attributes:
        task: Kind of training, here "images".
        train: Images to train on.
        val: Images on which errors are measured and the best epoch is chosen.
        network: Architecture; the number of classes is that of the data.
        size: Side of the network's input, px.
        sampling: How training patches are drawn from the images.
        init_from: Weights to start from: a weights file, the name of shipped weights, or the folder of a run, whose
            averaged weights are taken; empty to train from scratch. This starts a new run; --resume continues one.
        initial_seed: Seed of the fresh weights, the same for every member (§7: "the same initial weights").
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
        check_choice(self, "task", ["images"])
        check_range(self, "[32, inf)", "size")


class TrainingPatches(TorchDataset[tuple[Tensor, int]]):
    """Position in the stream of passes -> (random patch [S, S, 3] uint8, label)."""

    def __init__(self, images: LabelledImages, config: ImageTrainingConfig) -> None:
        self.images, self.config = images, config
        self.reader = Reader(images.read, len(images))
        self._transforms = patch_transforms(config.sampling, config.size)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        index, image = self.reader(self.index(position))
        seed = (self.config.seed, *divmod(position, len(self.images)))
        square = draw_patch(image, self._transforms, seed)
        return torch.from_numpy(np.ascontiguousarray(square)), int(self.images.labels[index])

    def index(self, position: int) -> int:
        """Index of the image at a position."""
        return index_at(self.config.seed, position, len(self.images))


class CentreCrops(TorchDataset[tuple[Tensor, int]]):
    """Index of an image -> (its centre crop [S, S, 3] uint8, label)."""

    def __init__(self, images: LabelledImages, size: int) -> None:
        self.images, self.size = images, size
        self.reader = Reader(images.read, len(images))

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        index, image = self.reader(index)
        (square,) = cut_crops(image, plan_crops(1, image.shape[1], image.shape[0], self.size), self.size)
        return torch.from_numpy(square), int(self.images.labels[index])


@dataclass(eq=False)
class ImageTraining:
    """The `Task` of image classification.

    Attributes:
        config: Settings.
        classifier: Classifier whose network is trained in place.
        train: Images to train on.
        val: Images to measure on.
        ranks: The processes.
    """

    config: ImageTrainingConfig
    classifier: ImageClassifier
    train: LabelledImages
    val: LabelledImages
    ranks: Ranks = field(default_factory=Ranks)

    criterion = "val_top1_error"
    unit = "images"

    def __post_init__(self) -> None:
        self.network: GoogLeNet = self.classifier.network.to(self.ranks.device)
        self.batches_per_epoch = max(1, round(len(self.train) / self.config.batch))
        self._patches = TrainingPatches(self.train, self.config)
        self._crops = CentreCrops(self.val, self.config.size)

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Yield this process's shares of the batches start..stop - 1: squares [B, S, S, 3] uint8, labels [B]."""
        return load(self._patches, self.ranks.shares(start, stop, self.config.batch), self.config.workers)

    def inputs(self, batch: Batch) -> Tensor:
        """Normalise a batch's squares; [B, 3, S, S] float32, channels last in memory."""
        return network_input(batch[0].numpy(), self.classifier.convention, self.ranks.device)

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy, plus 0.3 times that of each auxiliary head."""
        x, labels = self.inputs(batch), batch[1].to(self.ranks.device)
        heads = self.network.config.auxiliary_heads
        outputs = self.network.forward_with_auxiliary(x) if heads else [self.network(x)]
        return training_loss([logits.float() for logits in outputs], labels)

    def measure(self, network: nn.Module) -> dict[str, float]:
        """Measure loss and errors on the centre crop of each val image; every image counts once."""
        mine = range(len(self.val))[self.ranks.share]
        parts = [mine[start : start + EVAL_PART] for start in range(0, len(mine), EVAL_PART)]
        sums = np.zeros(4)
        with torch.inference_mode():
            for batch in load(self._crops, parts, self.config.workers):
                logits, labels = network(self.inputs(batch)).float().cpu(), batch[1]
                best = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
                loss = F.cross_entropy(logits, labels, reduction="sum")
                sums += [float(loss), int(best[:, 0].sum()), int(best.sum()), len(labels)]
        loss_sum, top1, top5, count = self.ranks.total(sums.tolist())
        return {"val_loss": loss_sum / count, "val_top1_error": 1 - top1 / count, "val_top5_error": 1 - top5 / count}

    def save(self, network: nn.Module, path: Path) -> None:
        """Write an image classifier."""
        save_checkpoint(path, replace(self.classifier, network=cast(GoogLeNet, network)))

    def contents(self, step: int) -> list[str]:
        """List the images of a batch."""
        (positions,) = Ranks().shares(step, step + 1, self.config.batch)
        return [self.train.describe(self._patches.index(position)) for position in positions]

    @property
    def unread(self) -> list[str]:
        """The images of both sets that could not be read so far; each was replaced by the next one."""
        return [
            part.images.describe(index)
            for part in (self._patches, self._crops)
            for index, failed in enumerate(part.reader.failed)
            if failed
        ]


def start_image_classifier(config: ImageTrainingConfig, classes: tuple[str, ...]) -> ImageClassifier:
    """Make a network with fresh weights, or those of `init_from`, with fresh last layers if its classes are others.

    Raises:
        CheckpointError: no such run or file, or weights of another network than `network` describes.
    """
    wanted = replace(config.network, classes=len(classes))
    torch.manual_seed(config.initial_seed)
    if not config.init_from:
        return ImageClassifier(GoogLeNet(wanted), INPUT, config.size, classes)
    previous = _previous(Path(config.init_from).expanduser(), wanted)
    found, asked = vars(previous.network.config), vars(wanted)
    different = [name for name in found if found[name] != asked[name] and name not in FREE]
    if different:
        differences = ", ".join(f"{name} is {found[name]}, not {asked[name]}" for name in different)
        raise CheckpointError(f"{config.init_from} holds another network: {differences}")
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
    """Whether a tensor belongs to a layer with one output per class."""
    return name.split(".")[-2] in ("fc", "fc2")


def _previous(path: Path, wanted: GoogLeNetConfig) -> ImageClassifier:
    """Load a weights file, or the averaged weights of a run with its auxiliary heads."""
    if not (path / "last.safetensors").is_file():
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
