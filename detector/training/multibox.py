"""What MultiBox learns from: boxes of any class in views of images (arXiv 1312.2249; paper §8).

In: images and boxes of a data set.  Out: squares with the boxes that are seen in them.

Views are whole images and crops, mirrored and distorted. The paper says nothing about augmentation; the crops are
gvanhorn38/multibox's (half to all of the area; a box stays if 70 % of it is visible), the rest is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import albumentations as A
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from detector.classification.augment import Distortion
from detector.config import MISSING, check_choice, check_range
from detector.data.dataset import Sources, sources_of
from detector.data.ground_truth import Dataset, Record
from detector.data.sources import OtherClasses
from detector.multibox import warp_view
from detector.training.optimisation import OptimisationConfig, TrainingConfig
from detector.training.workers import index_at
from proposals.multibox.head import MultiBoxConfig


@dataclass(frozen=True, kw_only=True)
class HeadOptimisationConfig(OptimisationConfig):
    """Optimisation of the head alone; the settings are those of OptimisationConfig with other defaults."""

    epochs: int = 30
    schedule: str = "cosine"
    averaging: str = "ema"
    average_decay: float = 0.998


@dataclass(frozen=True, kw_only=True)
class MultiBoxTrainingConfig(TrainingConfig):
    """Training of MultiBox: first the head alone, on features that are computed once, then the trunk with it.

    The optimisation settings at the top level are those of the second part.

    Attributes:
        task: Kind of training, here "multibox".
        train: Images to train on: a data set, or a list of them; only fully annotated images are used.
        val: Images on which recall is measured and the best epoch is chosen, likewise.
        init: Weights whose trunk is used: a file, the folder of a run, or the name of shipped weights.
        head: Number of priors, and width of the head.
        heads: Optimisation of the head alone, the first part.
        passes: Views per training image in the first part; their features are kept in `cache`.
        train_from: First trunk layer that is trained in the second part; "conv1" trains all layers, "none" skips it.
        alpha: Weight of the location loss.
        size: Side of the squares that views are warped to, px.
        whole: Fraction of views that show the whole image, in [0, 1]; the others are crops.
        crop_area: Smallest and largest area of a crop, as fractions of the image's area, in (0, 1].
        crop_ratio: Smallest and largest width / height of a crop, relative to the image's.
        visible: Visible fraction of a box from which it counts in a crop, in [0, 1].
        distortion: Brightness, contrast and colour change by factors of 1 ± this, in [0, 1).
        cache: Folder of the features.
        classes: Names of the classes whose boxes are learned; empty for those of the (first) data set.
        other_classes: Treatment of objects of other classes: ignore, they are no examples and do not count on val; or
            background. A prior on either is taught that there is no object.
    """

    RETIRED: ClassVar[dict[str, object]] = {"priors": "", "match": "prior"}  # files of version 0.1 may state them

    name: str = "multibox"
    task: str = "multibox"
    train: Sources
    val: Sources
    init: str = MISSING
    head: MultiBoxConfig = field(default_factory=MultiBoxConfig)
    heads: HeadOptimisationConfig = field(default_factory=HeadOptimisationConfig)
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
    classes: list[str] = field(default_factory=list)
    other_classes: OtherClasses = OtherClasses.ignore

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "task", ["multibox"])
        if self.members != 1 or self.variants:
            raise ValueError("members and variants are settings of classifiers; MultiBox is one network")
        if any(data.boxes_per_class for data in sources_of(self.train)):
            raise ValueError("train.boxes_per_class must be 0 here: MultiBox learns that what has no box is no object")
        check_range(self, "[0, 1]", "whole", "visible")
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise ValueError(f"crop_area must be two shares, 0 < low <= high <= 1, not {list(self.crop_area)}")
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError(f"crop_ratio must be two numbers, 0 < low <= high, not {list(self.crop_ratio)}")
        check_range(self, "[0, 1)", "distortion")
        check_range(self, "[1, inf)", "passes")
        check_range(self, "[32, inf)", "size")
        check_range(self, "(0, inf)", "alpha")


def shares(record: Record) -> NDArray[np.float64]:
    """The boxes to learn, [M, 4] in fractions of the image's sides; crowds and difficult objects are left out."""
    counted = record.boxes[~(record.difficult | record.crowd)]
    return counted / np.array([record.width, record.height] * 2, np.float64)


class Views(TorchDataset[tuple[Tensor, Tensor, int]]):
    """Position in the stream of passes -> (square [S, S, 3] uint8, boxes [M', 4] shares padded with 0, M).

    Args:
        dataset: The images and their boxes.
        config: Settings of the views.
    """

    def __init__(self, dataset: Dataset, config: MultiBoxTrainingConfig) -> None:
        self.dataset, self.config = dataset, config
        self.most = max((len(shares(record)) for record in dataset.records), default=0)
        crop = A.RandomResizedCrop(
            (config.size, config.size), scale=tuple(config.crop_area), ratio=tuple(config.crop_ratio)
        )
        self._transforms = [crop, A.HorizontalFlip(p=0.5), Distortion(config.distortion)]
        # Rounding puts boxes of some files over the image's edge: clip, or albumentations refuses them.
        boxes = A.BboxParams("albumentations", min_visibility=config.visible, clip=True, filter_invalid_bboxes=True)
        self._crop_view = A.Compose(self._transforms, bbox_params=boxes)
        self._whole_view = A.Compose(self._transforms[1:], bbox_params=boxes)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor, int]:
        record, config = self.dataset.records[self.index(position)], self.config
        seed = (config.seed, *divmod(position, len(self.dataset)))
        *draws, last = np.random.SeedSequence(seed).generate_state(4).tolist()
        for transform, own in zip(self._transforms, draws, strict=True):
            transform.set_random_seed(own)
        image, transforms = record.read(), self._crop_view
        if np.random.default_rng(last).random() < config.whole:
            image, transforms = warp_view(image, (0, 0, image.shape[1], image.shape[0]), config.size), self._whole_view
        view = transforms(image=image, bboxes=shares(record))
        count = len(view["bboxes"])
        boxes = np.zeros((self.most, 4), np.float32)
        boxes[:count] = np.asarray(view["bboxes"], np.float32).reshape(-1, 4)
        return torch.from_numpy(np.ascontiguousarray(view["image"])), torch.from_numpy(boxes), count

    def index(self, position: int) -> int:
        """Index of the image at a position."""
        return index_at(self.config.seed, position, len(self.dataset))
