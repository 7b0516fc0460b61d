"""How many objects of each class there are to learn from and to measure on: told before hours are spent.

A class whose name is misspelt, or that a split lost, is trained without a word otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detector.data.ground_truth import DataError, Dataset, listed
from detector.table import columns

FEW = 10
SHOWN = 30
"""Classes in the table; of more, the rarest."""

Counts = NDArray[np.int64]


def objects_per_class(dataset: Dataset) -> Counts:
    """[K] objects that count: neither difficult nor crowds."""
    labels = [record.labels[~(record.difficult | record.crowd)] for record in dataset.records]
    together = np.concatenate([np.zeros(0, np.int64), *labels])
    return np.bincount(together, minlength=len(dataset.classes)).astype(np.int64)


def images_with_objects(dataset: Dataset) -> int:
    """How many images have an object that counts."""
    return sum(bool((~(record.difficult | record.crowd)).any()) for record in dataset.records)


def describe_counts(names: Sequence[str], train: Counts, val: Counts, what: str = "objects") -> list[str]:
    """The table, a line a class; of many classes the rarest in train, and what the others have.

    Args:
        names: [K] of the classes.
        train: [K].
        val: [K].
        what: is counted.
    """
    order = np.arange(len(names)) if len(names) <= SHOWN else np.argsort(train, kind="stable")[:SHOWN]
    rows = [(names[label], f"{train[label]:,}", f"{val[label]:,}") for label in order.tolist()]
    others = np.delete(train, order)
    total = ("all classes", f"{train.sum():,}", f"{val.sum():,}")
    lines = columns([(f"{what} of class", "train", "val"), *rows, *[total] * (len(names) > 1)])
    if len(others):
        lines.append(f"{len(others):,} other classes have {others.min():,} to {others.max():,} {what} in train each")
    return lines


def warn_of_counts(names: Sequence[str], train: Counts, val: Counts, what: str = "object") -> list[str]:
    """A line for classes without any example in train or in val, and for those with few."""
    lines: list[str] = []
    for split, none in (("train", train == 0), ("val", (val == 0) & (train > 0))):
        absent = [names[label] for label in np.flatnonzero(none).tolist()]
        if absent:
            lines.append(f"{listed(absent)}: no {what} in {split}")
    few = np.flatnonzero((train > 0) & (train < FEW)).tolist()
    if few:
        lines.append(f"few {what}s in train: {listed([f'{names[label]} {train[label]}' for label in few])}")
    return lines


def check_objects(train: Dataset, val: Dataset, images: int = 1) -> list[str]:
    """What to say of two splits before boxes are learned from them: the table, and warnings.

    Args:
        train: to learn from.
        val: to measure on.
        images: with an object that a batch needs.

    Raises:
        DataError: one of them has no object, or fewer images with one than a batch takes.
    """
    for dataset in (train, val):
        found = images_with_objects(dataset)
        if not found:
            raise DataError(
                f"{dataset.name}: no object in {len(dataset):,} images, nothing to learn from or to measure on "
                "(those marked difficult or crowd do not count)"
            )
        if found < images:
            problem = f"{found:,} images have an object, a batch takes {images}"
            raise DataError(f"{dataset.name}: {problem}; set images to {found} at most")
    names = train.classes.names
    labels = val.classes.labels_in(train.classes)
    of_val = np.bincount(labels[labels >= 0], objects_per_class(val)[labels >= 0], len(names)).astype(np.int64)
    counts = objects_per_class(train), of_val
    return [*describe_counts(names, *counts), *(f"warning: {line}" for line in warn_of_counts(names, *counts))]


def smaller_than_batch(name: str, count: int, batch: int, what: str) -> list[str]:
    """A warning where a batch holds some examples more than once."""
    if count >= batch:
        return []
    return [f"warning: {name} has {count:,} {what}, a batch takes {batch:,}: each comes several times in a batch"]
