"""Batches of regions, read and prepared on demand by number.

In: the images of a data set, and a sampler of windows.
Out: warped regions and their labels (WindowBatches), or whole images with the boxes of their regions (ImageBatches).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from detector.classification.augment import distort
from detector.data.ground_truth import Dataset
from detector.data.image import Image
from detector.regions.maps import SharedConfig, choose_level, resize_to_area
from detector.regions.warp import RegionConfig, context_windows, warp
from detector.training.jitter import Jitter
from detector.training.windows import InOrder, Sampler, Windows
from proposals.boxes import Boxes
from proposals.boxes import mirrored as mirror


class Share(NamedTuple):
    """This process's windows of a batch.

    Attributes:
        windows: The windows.
        mirrored: Which of them are mirrored, [B] bool.
        chance: Random numbers of the jitter, [B, 5] in [-1, 1).
        groups: Number of groups that they make.
    """

    windows: Windows
    mirrored: NDArray[np.bool_]
    chance: NDArray[np.float64]
    groups: int


@dataclass(frozen=True, eq=False)
class RegionBatches(TorchDataset[tuple[Tensor, ...]]):
    """Batch number -> tensors, the labels last; before them the teacher's probabilities if the windows have them.

    Attributes:
        dataset: Data set whose images are read.
        sampler: Sampler that draws the windows of a batch.
        regions: How a box becomes a region.
        distortion: Brightness, contrast and colour of an image change by factors of 1 ± this, in [0, 1).
        jitter: How windows are varied; None leaves them as they are drawn.
        share: Groups of each batch that are read, those of one process; images of other groups are not.
    """

    dataset: Dataset
    sampler: Sampler
    regions: RegionConfig
    distortion: float = field(default=0.0, kw_only=True)
    jitter: Jitter | None = field(default=None, kw_only=True)
    share: slice = field(default_factory=lambda: slice(None), kw_only=True)

    def in_order(self, windows: Windows) -> Self:
        """Batch i is these windows of the i-th image, neither mirrored, distorted nor varied."""
        return replace(self, sampler=InOrder(windows), distortion=0.0, jitter=None)

    def part(self, share: slice) -> Self:
        """Only these groups of each batch."""
        return replace(self, share=share)

    def images(self, number: int) -> list[int]:
        """Positions in the data set of the images of a batch, all processes together."""
        windows, _ = self.sampler.draw(number)
        return sorted(set(windows.image.tolist()))

    def _draw(self, number: int) -> Share:
        """Draw this share of a batch; its random numbers are those that the whole batch has there."""
        windows, mirrored = self.sampler.draw(number)
        groups = self.sampler.groups
        if groups % (self.share.step or 1):
            groups = len(windows)
        chance = self.jitter.draw(number, len(windows)) if self.jitter else np.zeros((len(windows), 5))
        rows = np.arange(len(windows)).reshape(groups, -1)[self.share]
        some = rows.ravel()
        return Share(windows[some], mirrored[some], chance[some], len(rows))

    def _boxes(self, share: Share, rows: NDArray[np.int64], image: Image) -> Boxes:
        """Boxes of the windows `rows`, all of one image that is not mirrored; varied if they are to be."""
        windows, size = share.windows[rows], (image.shape[0], image.shape[1])
        if self.jitter is None:
            return windows.boxes
        record = self.dataset.records[windows.image[0]]
        return self.jitter.apply(windows.boxes, windows.labels, record, size, self.regions, share.chance[rows])

    def _read(self, index: int, number: int) -> Image:
        """An image, distorted as image and batch decide."""
        image = self.dataset.records[index].read()
        if not self.distortion:
            return image
        generator = np.random.default_rng([number, index, 1])
        factors = generator.uniform(1 - self.distortion, 1 + self.distortion, 3).tolist()
        return distort(image, generator.permutation(3).tolist(), factors)


@dataclass(frozen=True, eq=False)
class WindowBatches(RegionBatches):
    """Batch number -> (regions [B, S, S, 3] uint8, labels [B] int64); in between the teacher's probabilities, if any.

    Attributes:
        fill: Colour outside the image, RGB in 0..255.
    """

    fill: tuple[float, float, float]

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        share = self._draw(number)
        windows = share.windows
        squares = np.empty((len(windows), self.regions.size, self.regions.size, 3), np.uint8)
        for index in np.unique(windows.image).tolist():  # each image is decoded once
            rows = np.flatnonzero(windows.image == index)
            image = self._read(index, number)
            squares[rows] = warp(image, self._boxes(share, rows, image), self.regions, self.fill)
        squares[share.mirrored] = squares[share.mirrored, :, ::-1]
        teacher = [] if windows.teacher is None else [windows.teacher]
        return tuple(map(torch.from_numpy, (squares, *teacher, windows.labels.astype(np.int64))))


@dataclass(frozen=True, eq=False)
class ImageBatches(RegionBatches):
    """Batch number -> I images with R windows each, for regions that are cut from the trunk's maps.

    The tensors: for each level of the pyramid the images scaled to it [I, h, w, 3] uint8, smaller ones in the upper
    left corner; height and width of each of these [I, L, 2], 0 where no region is cut from it; heights and widths of
    the images themselves [I, 2]; the region size that chooses levels [I]; boxes [I, R, 4] float32 px; if the windows
    have them the teacher's probabilities [I, R, K + 1]; labels [I, R] int64, IGNORED among them.

    Attributes:
        shared: Pyramid of the images, and how a region chooses its level.
        scale_jitter: The region size changes from image to image by up to this factor, at least 1.
    """

    shared: SharedConfig
    scale_jitter: float = field(default=1.0, kw_only=True)

    def in_order(self, windows: Windows) -> Self:
        """Batch i is these windows of the i-th image, neither mirrored, distorted nor rescaled."""
        return replace(super().in_order(windows), scale_jitter=1.0)

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        levels = range(len(self.shared.pyramid))
        scaled: list[list[Image]] = [[] for _ in levels]
        share = self._draw(number)
        windows, groups = share.windows, share.groups
        boxes = np.empty((groups, len(windows) // groups, 4), np.float32)
        sizes, regions = [], []
        for group, rows in enumerate(np.arange(len(windows)).reshape(groups, -1)):
            index = int(windows.image[rows[0]])
            image = self._read(index, number)
            boxes[group] = self._boxes(share, rows, image)
            if share.mirrored[rows[0]]:
                image, boxes[group] = image[:, ::-1], mirror(boxes[group], image.shape[1])
            size = image.shape[:2]
            draw = np.random.default_rng([number, index, 2]).uniform(-1, 1)
            region = max(1, round(self.shared.region * self.scale_jitter**draw))
            used = choose_level(context_windows(boxes[group], self.regions), size, replace(self.shared, region=region))
            none = np.zeros((0, 0, 3), np.uint8)
            for level in levels:
                scaled[level].append(resize_to_area(image, self.shared.pyramid[level])[0] if level in used else none)
            sizes.append(size)
            regions.append(region)
        extents = np.array([[one.shape[:2] for one in images] for images in scaled]).transpose(1, 0, 2)
        labels = windows.labels.reshape(groups, -1).astype(np.int64)
        teacher = [] if windows.teacher is None else [windows.teacher.reshape(*labels.shape, -1)]
        columns = (*map(_padded, scaled), extents, np.array(sizes), np.array(regions), boxes, *teacher, labels)
        return tuple(torch.from_numpy(column) for column in columns)


def _padded(images: Sequence[Image]) -> NDArray[np.uint8]:
    """Images of any sizes -> [I, h, w, 3] uint8, each in the upper left corner."""
    height, width = np.max([image.shape[:2] for image in images], axis=0)
    together = np.zeros((len(images), height, width, 3), np.uint8)
    for square, image in zip(together, images, strict=True):
        square[: image.shape[0], : image.shape[1]] = image
    return together
