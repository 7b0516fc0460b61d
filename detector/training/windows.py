"""Which regions a classifier is trained on, with which labels (R-CNN §2.3 and appendix B).

In: a data set and the proposals of its images.  Out: a table of labelled windows, and batches drawn from it.
A window is a proposal or a ground-truth box. It takes the class of the object it overlaps most if their IoU is at least
0.5, else it is background, IoU 0 included: the 0.1 lower bound is Fast R-CNN's, the 0.3 belongs to R-CNN's SVMs.
Such loose positives and easy background cost the softmax 3 points of mAP against R-CNN's SVMs (appendix B); a stricter
threshold for foreground, and more background that overlaps an object, are offered for that. Both are ours.
An image with objects that nobody boxed (most of ILSVRC's train) gives its ground-truth boxes alone (R-CNN §4.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.data.ground_truth import Dataset, Record
from detector.training.record import TrainingError
from proposals.boxes import Boxes, iou

BACKGROUND = 0
NOTHING = -1  # what is an example of nothing
HARD_IOU = 0.1  # Fast R-CNN's lower bound of background


@dataclass(frozen=True)
class Windows:
    """W labelled windows.

    Attributes:
        image: [W] int32, position of the image in the data set.
        boxes: [W, 4] float32 px.
        labels: [W] int16, 0 background, 1 + class label otherwise; in a batch also NOTHING.
        overlaps: [W] float32, IoU with the object it overlaps most.
    """

    image: NDArray[np.int32]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int16]
    overlaps: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: NDArray[np.int64] | slice) -> Windows:
        return Windows(self.image[index], self.boxes[index], self.labels[index], self.overlaps[index])


def label_windows(
    boxes: Boxes, record: Record, foreground_iou: float = 0.5, background_iou: float = 0.5
) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """Label each box by the object it overlaps most.

    Args:
        boxes: [N, 4] px.
        record: the image's objects.
        foreground_iou: this much overlap, or more, makes a box an example of the class.
        background_iou: less than this makes it background; at most foreground_iou.

    Returns:
        labels [N] int16: 0 background, 1 + class label, or NOTHING: between the two thresholds, or the object is
        difficult or a crowd; and overlaps [N] float32, the IoU with that object, 0 without objects.
    """
    if len(record.boxes) == 0:
        return np.full(len(boxes), BACKGROUND, np.int16), np.zeros(len(boxes), np.float32)
    overlaps = iou(boxes.astype(np.float64), record.boxes)
    best, overlap = overlaps.argmax(axis=1), overlaps.max(axis=1)
    label = np.where(record.difficult | record.crowd, NOTHING, record.labels + 1)[best]
    label = np.where(overlap >= foreground_iou, label, NOTHING)
    return np.where(overlap < background_iou, BACKGROUND, label).astype(np.int16), overlap.astype(np.float32)


def collect_windows(
    dataset: Dataset, proposals: Sequence[Boxes], foreground_iou: float = 0.5, background_iou: float = 0.5
) -> Windows:
    """All windows of a data set: per image its ground-truth boxes, then its proposals, without those labelled NOTHING.

    Args:
        dataset: the images.
        proposals: of each image [N, 4] px; those of an image that is not exhaustive are passed over.
        foreground_iou: as in label_windows.
        background_iou: as in label_windows.
    """
    images, boxes, labels, overlaps = [], [], [], []
    for index, (record, proposed) in enumerate(zip(dataset.records, proposals, strict=True)):
        if not record.exhaustive:
            proposed = proposed[:0]  # any of them may show an object that nobody boxed
        candidates = np.concatenate([record.boxes, proposed]).astype(np.float32)
        label, overlap = label_windows(candidates, record, foreground_iou, background_iou)
        used = label != NOTHING
        images.append(np.full(used.sum(), index, np.int32))
        boxes.append(candidates[used])
        labels.append(label[used])
        overlaps.append(overlap[used])
    return Windows(np.concatenate(images), np.concatenate(boxes), np.concatenate(labels), np.concatenate(overlaps))


class BatchSampler:
    """Draws batches with a fixed share of foreground, uniform over windows (R-CNN: 32 of 128).

    Batch number i depends on the seed and i alone, so a resumed run draws what an unbroken one would.

    Args:
        windows: what to draw from.
        batch: windows a batch.
        foreground: how many of them are examples of a class.
        seed: of the draw.
        hard: how many of the background windows overlap an object by 0.1 or more; 0 leaves that to chance, as R-CNN.
        balance: a class is drawn in proportion to its number of windows to the power of 1 - balance; 0, as R-CNN: all
            windows alike; 1: all classes alike.

    Raises:
        TrainingError: there is no foreground or no background window, or no hard one where some are asked for.
    """

    def __init__(
        self, windows: Windows, *, batch: int, foreground: int, seed: int, hard: int = 0, balance: float = 0.0
    ) -> None:
        self.windows, self.batch, self.foreground, self.seed, self.hard = windows, batch, foreground, seed, hard
        self._positive = np.flatnonzero(windows.labels > BACKGROUND)
        self._negative = np.flatnonzero(windows.labels == BACKGROUND)
        self._hard = np.flatnonzero((windows.labels == BACKGROUND) & (windows.overlaps >= HARD_IOU))
        kinds = {"foreground": self._positive, "background": self._negative}
        for kind, positions in (kinds | ({"hard background": self._hard} if hard else {})).items():
            if len(positions) == 0:
                raise TrainingError(f"the images have no {kind} window to draw from")
        self._bounds = None
        if balance:
            labels = windows.labels[self._positive]
            weights = np.bincount(labels)[labels] ** -balance
            self._bounds = np.cumsum(weights / weights.sum())

    def draw(self, number: int) -> tuple[Windows, NDArray[np.bool_]]:
        """Batch `number`, foreground first, and which of its windows to mirror (half of them, by chance)."""
        generator = np.random.default_rng([self.seed, number])
        if self._bounds is None:
            positive = generator.choice(self._positive, self.foreground)
        else:
            found = np.searchsorted(self._bounds, generator.random(self.foreground), side="right")
            positive = self._positive[np.minimum(found, len(self._positive) - 1)]
        negative = generator.choice(self._negative, self.batch - self.foreground - self.hard)
        hard = generator.choice(self._hard, self.hard) if self.hard else self._hard[:0]
        return self.windows[np.concatenate([positive, negative, hard])], generator.random(self.batch) < 0.5


class InOrder:
    """Batch number i is the windows of the i-th image that has any, as they stand."""

    def __init__(self, windows: Windows) -> None:
        self.windows = windows[np.argsort(windows.image, kind="stable")]
        self._starts = np.flatnonzero(np.diff(self.windows.image, prepend=-1))

    def __len__(self) -> int:
        return len(self._starts)

    def draw(self, number: int) -> tuple[Windows, NDArray[np.bool_]]:
        """The windows, and that none is to be mirrored."""
        stop = self._starts[number + 1] if number + 1 < len(self) else len(self.windows)
        some = self.windows[np.arange(self._starts[number], stop)]
        return some, np.zeros(len(some), np.bool_)


class ImageSampler:
    """Draws batches of windows from a few images each, those that hold an object, all once before one comes again.

    Batch number i depends on the seed and i alone. An image without background gives its share of the foreground, and
    the rest of its windows are labelled NOTHING: were they drawn from its objects, most of a batch would be foreground
    where most images are not boxed throughout.

    Args:
        windows: what to draw from.
        batch: windows a batch.
        images: they come from so many images, as many of each.
        foreground: how many of a batch are examples of a class, as far as its images have so many.
        seed: of the draw.
        hard: how many of the background windows overlap an object by 0.1 or more, as far as there are such.
        balance: an image comes (t / n)^balance times a round, at least once, where n is the number of images with its
            rarest class and t the median of that over the classes (LVIS's repeat factor, arXiv 1908.03195).

    Raises:
        TrainingError: fewer images with an object than a batch takes.
    """

    def __init__(
        self,
        windows: Windows,
        *,
        batch: int,
        images: int,
        foreground: int,
        seed: int,
        hard: int = 0,
        balance: float = 0.0,
    ) -> None:
        self.windows, self.images, self.seed = windows, images, seed
        self.each, self.foreground, self.hard = batch // images, round(foreground / images), round(hard / images)
        self._with_objects = np.unique(windows.image[windows.labels > BACKGROUND])
        if len(self._with_objects) < images:
            raise TrainingError(f"{len(self._with_objects)} images have a foreground window, a batch takes {images}")
        order = np.argsort(windows.image, kind="stable")
        edges = np.searchsorted(windows.image[order], [self._with_objects, self._with_objects + 1])
        self._rows = [order[start:stop] for start, stop in edges.T]
        self._repeats = self._repeat_factors(balance)
        self._length = round(self._repeats.sum())  # of a round
        self._orders: dict[int, NDArray[np.int64]] = {}

    def _repeat_factors(self, balance: float) -> NDArray[np.float64]:
        """How often each image comes in a round, at least once."""
        present = [
            np.unique(labels[labels > BACKGROUND]) for labels in (self.windows.labels[rows] for rows in self._rows)
        ]
        counts = np.bincount(np.concatenate(present))
        factors = np.maximum(1, (np.median(counts[counts > 0]) / np.maximum(counts, 1)) ** balance)
        more = np.array([factors[labels].max() - 1 for labels in present])
        whole = round(more.sum())
        result: NDArray[np.float64] = 1 + more * (whole / max(more.sum(), 1e-9))
        return result

    def _order(self, round_: int) -> NDArray[np.int64]:
        """The images of a round, by their places among those with objects."""
        if round_ not in self._orders:
            generator = np.random.default_rng([self.seed, round_, 1])
            spent = np.cumsum(self._repeats)
            spent[-1] = self._length
            repeats = np.diff(np.floor(spent + generator.random()), prepend=0)
            order = generator.permutation(np.repeat(np.arange(len(self._rows)), repeats.astype(np.int64)))
            self._orders = {round_: order}
        return self._orders[round_]

    def draw(self, number: int) -> list[tuple[int, Windows, bool]]:
        """Batch `number`: image, its windows, whether to mirror it, of each of its images."""
        generator = np.random.default_rng([self.seed, number])
        chosen = []
        for position in range(number * self.images, (number + 1) * self.images):
            round_, place = divmod(position, self._length)
            which = self._order(round_)[place]
            rows = self._rows[which]
            labels, overlaps = self.windows.labels[rows], self.windows.overlaps[rows]
            objects, background = rows[labels > BACKGROUND], rows[labels == BACKGROUND]
            near = rows[(labels == BACKGROUND) & (overlaps >= HARD_IOU)]
            positive = generator.permutation(objects)[: self.foreground]
            hard = generator.permutation(near)[: min(self.hard, self.each - len(positive))]
            rest = self.each - len(positive) - len(hard)
            others = generator.choice(background if len(background) else objects, rest)
            some = self.windows[np.concatenate([positive, hard, others])]
            if not len(background):
                some.labels[len(positive) :] = NOTHING
            chosen.append((int(self._with_objects[which]), some, bool(generator.random() < 0.5)))
        return chosen


class FewImages:
    """Batches of windows of a few images, in the form that BatchSampler draws: each image is read for several windows.

    Args:
        sampler: draws the images.
    """

    def __init__(self, sampler: ImageSampler) -> None:
        self.sampler, self.windows = sampler, sampler.windows

    def draw(self, number: int) -> tuple[Windows, NDArray[np.bool_]]:
        """Batch `number`, and which of its windows to mirror: all of an image or none."""
        parts = [(some, np.full(len(some), mirrored)) for _, some, mirrored in self.sampler.draw(number)]
        columns = [[getattr(some, name) for some, _ in parts] for name in ("image", "boxes", "labels", "overlaps")]
        return Windows(*map(np.concatenate, columns)), np.concatenate([mirrored for _, mirrored in parts])


class ImagesInOrder:
    """As InOrder, in the form that ImageSampler draws."""

    def __init__(self, windows: Windows) -> None:
        self._order = InOrder(windows)
        self.windows = self._order.windows

    def __len__(self) -> int:
        return len(self._order)

    def draw(self, number: int) -> list[tuple[int, Windows, bool]]:
        """The image, its windows, and that it is not to be mirrored."""
        some, _ = self._order.draw(number)
        return [(int(some.image[0]), some, False)]
