"""Classes that cannot be learned or measured: with few objects, in few images, in one part only, or written twice.

In: the number of objects of each class in each part.  Out: findings.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.data.counts import objects_per_class
from detector.data.ground_truth import Dataset
from detector.data.labelled_images import LabelledImages
from detector.doctor.findings import Finding, finding

SCARCE, FEW, FEW_IMAGES = 10, 50, 5


@dataclass(frozen=True, eq=False)
class ClassCounts:
    """How often each class occurs in a part.

    Attributes:
        part: Name of the part.
        names: K names.
        objects: [K] objects without difficult ones and crowds; of whole images the images.
        images: [K] images with one.
        total: Number of images.
    """

    part: str
    names: tuple[str, ...]
    objects: NDArray[np.int64]
    images: NDArray[np.int64]
    total: int

    @classmethod
    def of_boxes(cls, part: str, dataset: Dataset) -> ClassCounts:
        """Count the objects of a detection data set."""
        images = np.zeros(len(dataset.classes), np.int64)
        for record in dataset.records:
            counted = ~(record.difficult | record.crowd) & (record.labels >= 0)
            images[np.unique(record.labels[counted])] += 1
        return cls(part, dataset.classes.names, objects_per_class(dataset), images, len(dataset))

    @classmethod
    def of_images(cls, part: str, images: LabelledImages) -> ClassCounts:
        """Count images of one class each."""
        counts = np.bincount(images.labels, minlength=len(images.classes)).astype(np.int64)
        return cls(part, images.classes, counts, counts, len(images))


def check_classes(counts: Sequence[ClassCounts]) -> list[Finding]:
    """Find classes that are hard to learn from the first part or to measure on the others.

    Args:
        counts: Of each part; the first is trained on. Classes meet by name.
    """
    train, *others = counts
    names = list(dict.fromkeys(name for one in counts for name in one.names))
    where = train.part or "the data"
    learned, seen = _by_name(train, train.objects), _by_name(train, train.images)
    measured = [_by_name(one, one.objects) for one in others]
    absent = [name for name in names if not learned.get(name)]
    rarest = sorted((name for name in names if learned.get(name)), key=lambda name: learned[name])
    scarce = [f"{name} ({learned[name]:,})" for name in rarest if learned[name] < SCARCE]
    few = [f"{name} ({learned[name]:,})" for name in rarest if SCARCE <= learned[name] < FEW]
    narrow = [
        f"{name} ({learned[name]:,} objects, images: {seen[name]})"
        for name in names
        if learned.get(name, 0) >= SCARCE and seen[name] < FEW_IMAGES
    ]
    alone = [
        f"{name} (not in {one.part})"
        for one, found in zip(others, measured, strict=True)
        for name in names
        if learned.get(name) and not found.get(name)
    ]
    return [
        *finding("classes.absent", f"classes have no object in {where}", absent),
        *finding("classes.scarce", f"classes have fewer than {SCARCE} objects in {where}", scarce),
        *finding("classes.few", f"classes have fewer than {FEW} objects in {where}", few),
        *finding("classes.few_images", f"classes are in fewer than {FEW_IMAGES} images of {where}", narrow),
        *finding("classes.one_part", "classes are missing in a part", alone),
        *finding("classes.alike", "class names differ in case, blanks or signs alone", alike(names)),
    ]


def alike(names: Sequence[str]) -> list[str]:
    """Return, as texts, the groups of names that are equal but for case, blanks, _ and -, and Unicode's forms.

    >>> alike(["Cat", "dog", "cat", "traffic light", "traffic_light"])
    ["'Cat' and 'cat'", "'traffic light' and 'traffic_light'"]
    """
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        plain = re.sub(r"[\s_\-\u200b-\u200f\ufeff]+", "", unicodedata.normalize("NFKC", name)).casefold()
        groups.setdefault(plain, []).append(name)
    return [" and ".join(map(repr, group)) for group in groups.values() if len(group) > 1]


def _by_name(counts: ClassCounts, values: NDArray[np.int64]) -> dict[str, int]:
    return dict(zip(counts.names, values.tolist(), strict=True))
