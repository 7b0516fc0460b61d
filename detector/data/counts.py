"""Numbers of objects per class to train and to measure on, reported before a training begins.

Otherwise a class whose name is misspelt, or that a split lacks, would go unnoticed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detector.data.ground_truth import ClassTable, DataError, Dataset, listed
from detector.data.labelled_images import LabelledImages
from detector.data.sources import by_source
from detector.table import columns

FEW = 10
SHOWN = 30
"""Most classes in the table; of more classes it shows the rarest."""

Counts = NDArray[np.int64]


def objects_per_class(dataset: Dataset) -> Counts:
    """Count the objects of each class, [K], without difficult ones and crowds."""
    labels = [record.labels[~(record.difficult | record.crowd)] for record in dataset.records]
    together = np.concatenate([np.zeros(0, np.int64), *labels])
    return np.bincount(together, minlength=len(dataset.classes)).astype(np.int64)


def describe_counts(names: Sequence[str], counts: Sequence[tuple[str, Counts]]) -> list[str]:
    """Format a table of the objects of each class, one line per class.

    Args:
        names: K names of the classes.
        counts: Headings and [K] objects of the columns, train first.
    """
    train = counts[0][1]
    order = np.arange(len(names)) if len(names) <= SHOWN else np.argsort(train, kind="stable")[:SHOWN]
    rows = [(names[label], *(f"{column[label]:,}" for _, column in counts)) for label in order.tolist()]
    others = np.delete(train, order)
    total = ("all classes", *(f"{column.sum():,}" for _, column in counts))
    heading = ("objects of class", *(name for name, _ in counts))
    lines = columns([heading, *rows, *[total] * (len(names) > 1)])
    if len(others):
        lines.append(f"{len(others):,} other classes have {others.min():,} to {others.max():,} objects in train each")
    return lines


def warn_of_counts(names: Sequence[str], train: Counts, val: Counts, what: str = "object") -> list[str]:
    """Warn of classes without any example in train or in val, and of classes with few."""
    lines: list[str] = []
    for split, none in (("train", train == 0), ("val", (val == 0) & (train > 0))):
        absent = [names[label] for label in np.flatnonzero(none).tolist()]
        if absent:
            lines.append(f"warning: {listed(absent)}: no {what} in {split}")
    few = [f"{names[label]} {train[label]}" for label in np.flatnonzero((train > 0) & (train < FEW)).tolist()]
    return [*lines, f"warning: few {what}s in train: {listed(few)}"] if few else lines


def check_objects(train: Dataset, val: Dataset, images: int = 1) -> list[str]:
    """Check that two splits have objects; return the table of their numbers, also by source, and warnings.

    Args:
        train: Images to train on.
        val: Images to measure on.
        images: Number of images with an object that a batch takes.

    Raises:
        DataError: a split has no object, or fewer images with an object than a batch takes.
    """
    for dataset in (train, val):
        found = sum(bool((~(record.difficult | record.crowd)).any()) for record in dataset.records)
        if not found:
            raise DataError(
                f"{dataset.name}: no object in {len(dataset):,} images, nothing to learn from or to measure on "
                "(those marked difficult or crowd do not count)"
            )
        if found < images:
            problem = f"{found:,} images have an object, a batch takes {images}"
            raise DataError(f"{dataset.name}: {problem}; set images to {found} at most")
    names = train.classes.names
    of_train, of_val = (
        _by_source(split, dataset, train.classes) for split, dataset in (("train", train), ("val", val))
    )
    table = describe_counts(names, [*of_train, *of_val])
    return [*table, *warn_of_counts(names, of_train[0][1], of_val[0][1])]


def _by_source(split: str, dataset: Dataset, classes: ClassTable) -> list[tuple[str, Counts]]:
    """Count the objects of a split by the labels of a table, [K], and after it those of each of its sources."""
    labels = dataset.classes.labels_in(classes)
    parts = by_source(dataset).values() if dataset.sources else ()
    return [
        (name, np.bincount(labels[labels >= 0], objects_per_class(one)[labels >= 0], len(classes)).astype(np.int64))
        for name, one in ((split, dataset), *((part.name, part) for part in parts))
    ]


def check_images(train: LabelledImages, val: LabelledImages) -> tuple[LabelledImages, list[str]]:
    """Give val the class numbers of train; return it, and warnings about both splits.

    Raises:
        DataError: train has one class only, or val has a class that train does not have.
    """
    names = train.classes
    if len(names) < 2:
        raise DataError(f"one class only ({names[0]}): nothing to tell apart")
    val = val.with_classes(names, "train")
    counts = [np.bincount(images.labels, minlength=len(names)).astype(np.int64) for images in (train, val)]
    read = [f"warning: {line}" for images in (train, val) for line in images.warnings]
    return val, [*read, *warn_of_counts(names, counts[0], counts[1], "image")]


def warn_if_smaller(name: str, count: int, batch: int, what: str) -> list[str]:
    """Warn if a data set has fewer examples than a batch, which then repeats them."""
    if count >= batch:
        return []
    return [f"warning: {name} has {count:,} {what}, a batch takes {batch:,}: each comes several times in a batch"]
