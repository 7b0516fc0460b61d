"""Several data sets as one: classes that meet by name, image ids that stay unique, and the way back to each source.

In: the Datasets of the sources, in the order of a config's list.  Out: one Dataset with one table of classes.
An image is named by the position of its source in the list and its own id, "1/000012": these names stay when a folder
is moved or renamed. A data set of one source keeps its ids.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from detector.data.ground_truth import ClassTable, DataError, Dataset, Record, Repair, composed, listed

NO_CLASS = -1
"""Label of an ignored object of another class, as ClassTable.labels_in gives it."""


class OtherClasses(Enum):
    """Ways to treat objects of other classes than those of a run."""

    ignore = "ignore"
    background = "background"


def joined(parts: Sequence[Dataset], classes: Sequence[str] | ClassTable, others: OtherClasses) -> Dataset:
    """Join the sources of a list to one data set.

    Args:
        parts: The sources, at least one; a single one keeps its ids.
        classes: Names or WordNet ids of the classes, in label order, or their table; empty for the first source's.
        others: Treatment of objects of other classes: ignored as examples and as background, or background.

    Raises:
        DataError: no source has one of the classes; a source does not label one of them, and its images would teach
            those objects as background.
    """
    table = classes if isinstance(classes, ClassTable) else chosen_table(parts, classes)
    parts = [in_classes(part, table, others) for part in parts]
    if len(parts) == 1:
        return parts[0]
    records, warnings = [], list(_shared_files(parts))
    for position, part in enumerate(parts):
        prefix = prefix_of(position)
        records += [replace(record, image_id=prefix + record.image_id) for record in part.records]
        warnings += [_of(part.name, line) for line in part.warnings]
    names = tuple(part.name for part in parts)
    return Dataset(" + ".join(names), table, tuple(records), tuple(warnings), sources=names)


def _of(name: str, line: str) -> str:
    """Name the data set of a warning, whose counts stay."""
    if isinstance(line, Repair):
        return Repair(f"{name}: {line.kind}", line.cases, line.first)
    return line if line.startswith(name) else f"{name}: {line}"


def prefix_of(position: int) -> str:
    """Return the beginning of the ids of images from the source at a position in the list."""
    return f"{position}/"


def by_source(dataset: Dataset) -> dict[str, Dataset]:
    """Split a data set into its sources, with the ids that their images have alone.

    Returns:
        The images of each source that has any, keyed by the prefix of their ids in the whole, "" for a single source.
    """
    if not dataset.sources:
        return {"": dataset}
    records: dict[str, list[Record]] = {prefix_of(position): [] for position in range(len(dataset.sources))}
    for record in dataset.records:
        number, _, own = record.image_id.partition("/")
        records[f"{number}/"].append(replace(record, image_id=own))
    return {
        prefix: Dataset(name, dataset.classes, tuple(own))
        for (prefix, own), name in zip(records.items(), dataset.sources, strict=True)
        if own
    }


def chosen_table(parts: Sequence[Dataset], classes: Sequence[str]) -> ClassTable:
    """Make the table of the classes that a run names, each as the first source that has it does.

    Args:
        parts: The sources.
        classes: Names or WordNet ids; empty for the table of the first source.

    Raises:
        DataError: no source has such a class, or one is named twice.
    """
    if not classes:
        return parts[0].classes
    rows: list[tuple[str, str | None, int]] = []
    for name in classes:
        alone = ClassTable((composed(name),), (None,), (0,))
        labels = [(part, int(alone.labels_in(part.classes)[0])) for part in parts]
        found = [(part, label) for part, label in labels if label >= 0]
        if not found:
            known = listed(list(dict.fromkeys(name for part in parts for name in part.classes.names)), 30)
            raise DataError(f"classes: no data set has {name!r}; there are {known}")
        part, label = found[0]
        rows.append((part.classes.names[label], part.classes.wnids[label], part.classes.ids[label]))
    if len(set(rows)) < len(rows):
        twice = next(row[0] for row in rows if rows.count(row) > 1)
        raise DataError(f"classes: {twice!r} is named twice")
    names, wnids, ids = zip(*rows, strict=True)
    if len(set(ids)) < len(ids):  # of different data sets
        ids = tuple(range(1, len(ids) + 1))
    return ClassTable(names, wnids, ids)


def in_classes(dataset: Dataset, classes: ClassTable, others: OtherClasses) -> Dataset:
    """Renumber the objects of a data set by a table of classes; objects of other classes are ignored or left out.

    Unlike `with_classes`, which refuses other classes, it refuses a data set that lacks one of the table. An ignored
    object is kept as difficult, with the label NO_CLASS.

    Raises:
        DataError: the data set does not label one of the classes.
    """
    if dataset.classes == classes:
        return dataset
    labels = dataset.classes.labels_in(classes)
    if any(record.exhaustive for record in dataset.records):
        check_labelled(dataset.name, labels, classes)
    counts = np.zeros(len(labels), np.int64)
    records = []
    for record in dataset.records:
        own = labels[record.labels]
        foreign = own == NO_CLASS
        counts += np.bincount(record.labels[foreign], minlength=len(labels))
        record = replace(record, labels=own, difficult=record.difficult | foreign)
        records.append(record if others is OtherClasses.ignore else _part(record, ~foreign))
    warnings = dataset.warnings
    if counts.any():
        order = [label for label in np.argsort(-counts, kind="stable").tolist() if counts[label]]
        names = listed([f"{dataset.classes.names[label]} {counts[label]:,}" for label in order], 5)
        fate = "are ignored" if others is OtherClasses.ignore else "count as background"
        warnings += (f"{dataset.name}: {counts.sum():,} objects of other classes {fate}: {names}",)
    return replace(dataset, classes=classes, records=tuple(records), warnings=warnings)


def check_labelled(name: str, labels: NDArray[np.int64], classes: ClassTable) -> None:
    """Check that a source labels every class of a table.

    Args:
        name: Name of the source.
        labels: [K'] labels in the table of the source's own classes.
        classes: The table.

    Raises:
        DataError: it lacks a class, and its objects of that class would count as background.
    """
    absent = [one for label, one in enumerate(classes.names) if label not in labels]
    if absent:
        raise DataError(
            f"{name} does not label {listed(absent)}: such objects in its images would count as background\n"
            "  in a training name the classes that all data sets label:  classes=[...]\n"
            "  or take its objects and no background from it:  exhaustive: false in its section\n"
            "  in an evaluation leave it out, or put the data set with the fewest classes first"
        )


def _part(record: Record, kept: NDArray[np.bool_]) -> Record:
    """Return a record with some of its objects, chosen by a mask."""
    columns = ("boxes", "labels", "difficult", "crowd", "areas")
    return replace(record, **{column: getattr(record, column)[kept] for column in columns})


def _shared_files(parts: Sequence[Dataset]) -> tuple[str, ...]:
    """Warn of image files that two sources contain."""
    seen: dict[str, str] = {}
    twice: list[str] = []
    for part in parts:
        own = [os.path.abspath(record.path) for record in part.records]
        twice += [path for path in own if path in seen]
        seen |= dict.fromkeys(own, part.name)
    if not twice:
        return ()
    return (f"image files are in two sources and count twice: {len(twice):,} (first: {twice[0]})",)
