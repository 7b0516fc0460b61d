"""Which regions a classifier is trained on, and with which labels (R-CNN §2.3 and appendix B).

In: a data set and the proposals of its images.  Out: a table of labelled windows, and batches drawn from it.

A window is a proposal or a ground-truth box. It takes the class of the object that it overlaps most if their IoU is at
least 0.5; otherwise it is background. IoU 0 counts as background too: the lower bound of 0.1 is Fast R-CNN's, and the
threshold of 0.3 belongs to R-CNN's SVMs. R-CNN found that these loose positives and easy negatives cost a softmax 3
points of mAP against its SVMs (appendix B). For that, `foreground_iou`, `background_iou` and hard negatives are
offered; all three are ours.
Images that are not fully annotated (most of ILSVRC's train) contribute only their ground-truth boxes (R-CNN §4.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from detector.data.ground_truth import Dataset, Record
from detector.training.record import TrainingError
from proposals.boxes import Boxes, iou

BACKGROUND = 0
IGNORED = -1  # neither a positive nor a negative
HARD_IOU = 0.1  # Fast R-CNN's lower bound of background

Draw = tuple["Windows", NDArray[np.bool_]]
"""A batch: its windows, and which of them are mirrored [B]."""


@dataclass(frozen=True)
class Windows:
    """W labelled windows.

    Attributes:
        image: [W] int32, position of the image in the data set.
        boxes: [W, 4] float32 px.
        labels: [W] int16, 0 background, 1 + class label otherwise; in a batch also IGNORED.
        overlaps: [W] float32, highest IoU with any object of the image.
        teacher: [W, K + 1] float16, probabilities that a teacher gives, background first; None without one.
    """

    image: NDArray[np.int32]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int16]
    overlaps: NDArray[np.float32]
    teacher: NDArray[np.float16] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: NDArray[np.int64] | NDArray[np.bool_] | slice) -> Windows:
        teacher = None if self.teacher is None else self.teacher[index]
        return Windows(self.image[index], self.boxes[index], self.labels[index], self.overlaps[index], teacher)

    @classmethod
    def concatenate(cls, parts: Sequence[Windows]) -> Windows:
        """Join several tables, of which there is at least one."""
        names = ("image", "boxes", "labels", "overlaps")
        image, boxes, labels, overlaps = (np.concatenate([getattr(part, name) for part in parts]) for name in names)
        teacher = [part.teacher for part in parts if part.teacher is not None]
        return cls(image, boxes, labels, overlaps, np.concatenate(teacher) if teacher else None)


class Sampler(Protocol):
    """Batches of windows; batch i depends on the seed and on i alone, so a resumed run draws what an unbroken one does.

    Attributes:
        windows: The table that batches are drawn from.
        groups: Number of equal groups, one after another, that a batch consists of. The windows of a group come from
            one image; a process of a distributed training takes whole groups.
    """

    windows: Windows
    groups: int

    def draw(self, number: int) -> Draw:
        """Draw batch `number`."""


def label_windows(
    boxes: Boxes, record: Record, foreground_iou: float = 0.5, background_iou: float = 0.5
) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """Label each box by the object that it overlaps most.

    Args:
        boxes: [N, 4] px.
        record: The image's objects.
        foreground_iou: IoU from which a box is a positive of the object's class.
        background_iou: IoU below which a box is background; at most foreground_iou.

    Returns:
        labels [N] int16: 0 background, 1 + class label, or IGNORED where the IoU lies between the two thresholds or the
        object is difficult or a crowd; and overlaps [N] float32, the IoU with that object, 0 without objects.
    """
    if len(record.boxes) == 0:
        return np.full(len(boxes), BACKGROUND, np.int16), np.zeros(len(boxes), np.float32)
    overlaps = iou(boxes.astype(np.float64), record.boxes)
    best, overlap = overlaps.argmax(axis=1), overlaps.max(axis=1)
    label = np.where(record.difficult | record.crowd, IGNORED, record.labels + 1)[best]
    label = np.where(overlap >= foreground_iou, label, IGNORED)
    return np.where(overlap < background_iou, BACKGROUND, label).astype(np.int16), overlap.astype(np.float32)


def collect_windows(
    dataset: Dataset, proposals: Sequence[Boxes], foreground_iou: float = 0.5, background_iou: float = 0.5
) -> Windows:
    """Label all windows of a data set: per image its ground-truth boxes, then its proposals; ignored ones are left out.

    Args:
        dataset: The images.
        proposals: Boxes [N, 4] of each image, px; unused where an image is not fully annotated.
        foreground_iou: IoU from which a box is a positive, as in label_windows.
        background_iou: IoU below which a box is background, as in label_windows.
    """
    parts = []
    for index, (record, proposed) in enumerate(zip(dataset.records, proposals, strict=True)):
        if not record.exhaustive:
            proposed = proposed[:0]  # any of them may show an object without a box
        boxes = np.concatenate([record.boxes, proposed]).astype(np.float32)
        labels, overlaps = label_windows(boxes, record, foreground_iou, background_iou)
        parts.append(Windows(np.full(len(boxes), index, np.int32), boxes, labels, overlaps)[labels != IGNORED])
    return Windows.concatenate(parts)


@dataclass(eq=False, kw_only=True)
class _RandomSampler:
    """What both random samplers are given.

    Attributes:
        windows: Windows to draw from.
        batch: Windows per batch.
        foreground: Number of positives in a batch.
        seed: Seed of the draw.
        hard: Number of hard negatives in a batch: background that overlaps an object by IoU 0.1 or more. 0 draws all
            background alike, as R-CNN does.
        balance: Oversampling of rare classes, in [0, 1]; 0 draws alike, as R-CNN does.
        mined: Number of windows in a batch that are drawn from `wrong`.
        wrong: [W] bool, hard negatives by a teacher (mining.py); None for none.
    """

    windows: Windows = field(kw_only=False)
    batch: int
    foreground: int
    seed: int
    hard: int = 0
    balance: float = 0.0
    mined: int = 0
    wrong: NDArray[np.bool_] | None = None


@dataclass(eq=False, kw_only=True)
class BatchSampler(_RandomSampler):
    """Draws batches with a fixed share of foreground, uniformly over windows (R-CNN: 32 of 128).

    With `balance` a class is drawn in proportion to its number of windows to the power of 1 - balance.

    Raises:
        TrainingError: there is no foreground or no background window, or no hard negative where some are asked for.
    """

    def __post_init__(self) -> None:
        windows, self.groups = self.windows, self.batch
        self._positive = np.flatnonzero(windows.labels > BACKGROUND)
        self._negative = np.flatnonzero(windows.labels == BACKGROUND)
        self._hard = np.flatnonzero((windows.labels == BACKGROUND) & (windows.overlaps >= HARD_IOU))
        self._wrong = np.flatnonzero(self.wrong) if self.wrong is not None else np.zeros(0, np.int64)
        kinds = [
            ("foreground", self._positive, True),
            ("background", self._negative, True),
            ("hard background", self._hard, self.hard),
            ("mined background", self._wrong, self.mined),
        ]
        for kind, positions, wanted in kinds:
            if wanted and len(positions) == 0:
                raise TrainingError(f"the images have no {kind} window to draw from")
        self._bounds = None
        if self.balance:
            labels = windows.labels[self._positive]
            weights = np.bincount(labels)[labels] ** -self.balance
            self._bounds = np.cumsum(weights / weights.sum())

    def draw(self, number: int) -> Draw:
        """Draw batch `number`, foreground first; each window is mirrored with probability 0.5."""
        generator = np.random.default_rng([self.seed, number])
        if self._bounds is None:
            positive = generator.choice(self._positive, self.foreground)
        else:
            found = np.searchsorted(self._bounds, generator.random(self.foreground), side="right")
            positive = self._positive[np.minimum(found, len(self._positive) - 1)]
        negative = generator.choice(self._negative, self.batch - self.foreground - self.hard - self.mined)
        hard = generator.choice(self._hard, self.hard) if self.hard else self._hard[:0]
        wrong = generator.choice(self._wrong, self.mined) if self.mined else self._wrong[:0]
        return self.windows[np.concatenate([positive, negative, hard, wrong])], generator.random(self.batch) < 0.5


class InOrder:
    """Batch i is all windows of the i-th image that has any, none mirrored."""

    groups = 1

    def __init__(self, windows: Windows) -> None:
        self.windows = windows[np.argsort(windows.image, kind="stable")]
        self._edges = np.flatnonzero(np.diff(self.windows.image, prepend=-1, append=-1))

    def __len__(self) -> int:
        return len(self._edges) - 1

    def draw(self, number: int) -> Draw:
        """Take the windows of image `number`."""
        some = self.windows[self._edges[number] : self._edges[number + 1]]
        return some, np.zeros(len(some), np.bool_)


@dataclass(eq=False, kw_only=True)
class ImageSampler(_RandomSampler):
    """Draws batches of windows from a few images each; every image with an object comes once before one comes again.

    An image has fewer positives, hard and mined negatives where it does not have as many. One without background
    contributes only its positives, and its remaining places are labelled IGNORED: filled with its objects, most of a
    batch would be foreground where most images are not fully annotated.

    With `balance` an image comes (t / n)^balance times a round, at least once, where n is the number of images with its
    rarest class and t the median of that over the classes (LVIS's repeat factor, arXiv 1908.03195).

    Attributes:
        images: Number of images in a batch, each with an equal number of windows.

    Raises:
        TrainingError: fewer images with an object than a batch takes.
    """

    images: int

    def __post_init__(self) -> None:
        windows, images = self.windows, self.images
        self.groups, self.each = images, self.batch // images
        with_objects = np.unique(windows.image[windows.labels > BACKGROUND])
        if len(with_objects) < images:
            raise TrainingError(f"{len(with_objects)} images have a foreground window, a batch takes {images}")
        order = np.argsort(windows.image, kind="stable")
        edges = np.searchsorted(windows.image[order], [with_objects, with_objects + 1])
        self._rows = [order[start:stop] for start, stop in edges.T]
        self._repeats = self._repeat_factors()
        self._length = round(self._repeats.sum())  # of a round
        self._orders: dict[int, NDArray[np.int64]] = {}

    def _repeat_factors(self) -> NDArray[np.float64]:
        """How often each image comes in a round, at least once."""
        present = [
            np.unique(labels[labels > BACKGROUND]) for labels in (self.windows.labels[rows] for rows in self._rows)
        ]
        counts = np.bincount(np.concatenate(present))
        factors = np.maximum(1, (np.median(counts[counts > 0]) / np.maximum(counts, 1)) ** self.balance)
        more = np.array([factors[labels].max() - 1 for labels in present])
        whole = round(more.sum())
        result: NDArray[np.float64] = 1 + more * (whole / max(more.sum(), 1e-9))
        return result

    def _order(self, round_: int) -> NDArray[np.int64]:
        """The images of a round, as positions among those with objects."""
        if round_ not in self._orders:
            generator = np.random.default_rng([self.seed, round_, 1])
            spent = np.cumsum(self._repeats)
            spent[-1] = self._length
            repeats = np.diff(np.floor(spent + generator.random()), prepend=0)
            order = generator.permutation(np.repeat(np.arange(len(self._rows)), repeats.astype(np.int64)))
            self._orders = {round_: order}
        return self._orders[round_]

    def draw(self, number: int) -> Draw:
        """Draw batch `number`, image after image; all windows of an image are mirrored or none."""
        generator = np.random.default_rng([self.seed, number])
        shares = [round(count / self.images) for count in (self.foreground, self.hard, self.mined)]
        foreground, hard_negatives, mined = shares
        parts, mirrored = [], []
        for position in range(number * self.groups, (number + 1) * self.groups):
            round_, place = divmod(position, self._length)
            rows = self._rows[self._order(round_)[place]]
            labels, overlaps = self.windows.labels[rows], self.windows.overlaps[rows]
            objects, background = rows[labels > BACKGROUND], rows[labels == BACKGROUND]
            near = rows[(labels == BACKGROUND) & (overlaps >= HARD_IOU)]
            positive = generator.permutation(objects)[:foreground]
            hard = generator.permutation(near)[: min(hard_negatives, self.each - len(positive))]
            wrong = rows[:0]
            if self.wrong is not None and mined:
                candidates = generator.permutation(rows[self.wrong[rows]])
                wrong = candidates[: min(mined, self.each - len(positive) - len(hard))]
            rest = self.each - len(positive) - len(hard) - len(wrong)
            others = generator.choice(background if len(background) else objects, rest)
            some = self.windows[np.concatenate([positive, hard, wrong, others])]
            if not len(background):
                some.labels[len(positive) :] = IGNORED
            parts.append(some)
            mirrored.append(generator.random() < 0.5)
        return Windows.concatenate(parts), np.repeat(mirrored, self.each)
