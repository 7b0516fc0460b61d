"""How many objects the proposals reach at all: what no classifier finds later caps AP before any training.

In: a sample of images and their labels, the settings of the proposals.  Out: the share of objects that a box covers,
by class, the seconds it took, and findings.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.data.ground_truth import Dataset, Record
from detector.data.image import Image
from detector.doctor.findings import Finding, Level, finding
from detector.progress import progress
from proposals.boxes import Boxes
from proposals.recall import best_overlaps
from proposals.settings import ProposalConfig

SAMPLE = 50  # images
LOW, LOW_OF_CLASS = 0.9, 0.8
"""Shares of objects, of all and of a class, below which the reach is a warning."""


@dataclass(frozen=True, eq=False)
class Reach:
    """What proposals cover.

    Attributes:
        images: Number of images looked at.
        names: K names of the classes.
        labels: [M] class of each object.
        overlaps: [M] highest IoU of any proposal with it.
        proposals: Mean number of proposals of an image.
        seconds: Time per image, on one core where the machine has several.
    """

    images: int
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    overlaps: NDArray[np.float64]
    proposals: float
    seconds: float

    def share(self, min_iou: float, label: int | None = None) -> float:
        """Return the share of objects, of one class or all, that a proposal covers; NaN without objects."""
        some = self.overlaps if label is None else self.overlaps[self.labels == label]
        return float((some >= min_iou).mean()) if len(some) else float("nan")


def draw_records(records: Sequence[Record], count: int, seed: int, *, with_objects: bool = True) -> list[Record]:
    """Draw images, those with objects or any, in their order; all of them if there are no more than `count`."""
    usable = [index for index, one in enumerate(records) if not with_objects or (~(one.difficult | one.crowd)).any()]
    drawn = np.random.default_rng(seed).permutation(usable)[:count]
    return [records[index] for index in sorted(drawn.tolist())]


def measure_reach(dataset: Dataset, records: Sequence[Record], config: ProposalConfig) -> tuple[Reach, list[Boxes]]:
    """Propose boxes for some images of a data set and compare them with the labels.

    Args:
        dataset: The data set.
        records: The images, all readable.
        config: Settings of the proposals.

    Returns:
        what is covered, and the proposals of each image.
    """
    import torch

    from detector.ahead import one_torch_thread
    from detector.multibox import load_source
    from proposals.merging import propose

    network = load_source(config.multibox) if config.multibox.weights else None
    boxes: list[Boxes] = []
    labels, overlaps, seconds = [np.zeros(0, np.int64)], [np.zeros(0)], []
    with one_torch_thread(torch.get_num_threads()):  # as in the processes that propose for a training
        for record in progress(records, "proposals", delay=1):
            image: Image = record.read()
            started = time.perf_counter()
            found = propose(image, config, multibox=network)
            seconds.append(time.perf_counter() - started)
            boxes.append(found.boxes)
            counted = ~(record.difficult | record.crowd) & (record.labels >= 0)
            labels.append(record.labels[counted])
            overlaps.append(best_overlaps(record.boxes[counted], found.boxes))
    reach = Reach(
        images=len(boxes),
        names=dataset.classes.names,
        labels=np.concatenate(labels),
        overlaps=np.concatenate(overlaps),
        proposals=float(np.mean([len(some) for some in boxes])) if boxes else 0.0,
        seconds=float(np.median(seconds)) if seconds else 0.0,  # the first one compiles
    )
    return reach, boxes


def check_reach(reach: Reach) -> list[Finding]:
    """Report the objects that no proposal covers at IoU 0.5, and the classes of which many are not."""
    missed = int((reach.overlaps < 0.5).sum())
    rows = [(reach.share(0.5, label), name) for label, name in enumerate(reach.names) if (reach.labels == label).any()]
    low = [f"{name} {share:.0%}" for share, name in sorted(rows) if share < LOW_OF_CLASS]
    text = (
        f"objects that no proposal reaches, of {len(reach.overlaps):,} in {reach.images} images "
        f"({reach.share(0.5):.1%} are reached at IoU 0.5, {reach.share(0.7):.1%} at 0.7)"
    )
    level = Level.warning if missed and (low or reach.share(0.5) < LOW) else None
    return finding(
        "proposals.reach",
        text,
        low or [f"{name} {share:.0%}" for share, name in sorted(rows)],
        count=missed,
        level=level,
    )
