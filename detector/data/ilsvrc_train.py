"""What of ILSVRC DET's train images can be learned from: which are boxed throughout, and so many boxes of a class.

    ROOT/ImageSets/DET/train_1.txt ... train_200.txt    "name label" lines, by the number of the class

Label 1: all its objects are boxed; 0: some may not be; -1: the image has none. Only the folders added in 2014, whose
names begin with ILSVRC2014_, have the objects of all 200 classes boxed; elsewhere an object of another class than the
one an image was collected for may have no box, so that R-CNN took boxes alone from train, at most 1,000 of a class, and
background from val1 (§4.3). Ours: images of the 2014 folders give background too.
One softmax tells all classes and background apart, hence one background for all classes: an image that is labelled 0
for any class gives none at all. R-CNN's SVMs, one a class, could have taken it for the other 199.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from detector.data.ground_truth import DataError, Record, Repairs, read_lines
from detector.data.progress import progress

BOXED_THROUGHOUT = "ILSVRC2014_"
CLASSES = 200
SEED = 0  # of the choice of boxes: the same on every machine and in every run
LEFT_OUT = "images of train without a box that boxes_per_class takes were left out"


@dataclass(frozen=True)
class ClassLists:
    """What the lists of the classes say.

    Attributes:
        present: images with an object of some class (labels 1 and 0), in the order of the lists.
        partly: file names of those that may hold an object without a box (label 0).
    """

    present: tuple[str, ...]
    partly: frozenset[str]


def in_2014_folder(name: str) -> bool:
    """Whether an image of train, FOLDER/FILE, is among those of which all objects were to be boxed."""
    return name.startswith(BOXED_THROUGHOUT)


def image_file(name: str) -> str:
    """The last part of an image's name; no two images of the contest share it, and not all lists state the folder."""
    return name.rpartition("/")[2]


def has_class_lists(folder: Path) -> bool:
    """Whether there is any of them in a folder of lists."""
    return any(path.is_file() for path in _paths(folder))


def read_class_lists(folder: Path, repairs: Repairs) -> ClassLists:
    """Read the lists of all classes, 13 million lines in the contest's tree.

    Args:
        folder: ImageSets/DET.
        repairs: takes the count of lists that are absent.

    Raises:
        DataError: a list that cannot be read, or a line of another form; with the line.
    """
    present: dict[str, None] = {}
    partly: set[str] = set()
    for path in progress(_paths(folder), "lists of the classes", "list"):
        if not path.is_file():
            kind = f"lists of a class are absent; it counts as boxed throughout in {BOXED_THROUGHOUT}* folders"
            repairs.note(kind, path.name)
            continue
        for number, line in enumerate(read_lines(path), 1):
            columns = line.split()
            if not columns or (len(columns) == 2 and columns[1] == "-1"):
                continue
            if len(columns) != 2 or columns[1] not in ("1", "0"):
                raise DataError(
                    f'{path}, line {number}: {line.strip()[:80]!r} is no line of "name label" with label 1, 0 or -1'
                )
            present[columns[0]] = None
            if columns[1] == "0":
                partly.add(image_file(columns[0]))
    return ClassLists(tuple(present), frozenset(partly))


def choose_boxes(records: Iterable[Record], count: int) -> dict[str, set[int]]:
    """At most count boxes of each class, drawn by chance from all images together; the same whatever their order.

    Returns:
        of each image that has any: their places among its objects. Difficult ones are never drawn.
    """
    boxes: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for record in records:
        for place, (label, difficult) in enumerate(zip(record.labels.tolist(), record.difficult.tolist(), strict=True)):
            if not difficult:
                boxes[label].append((record.image_id, place))
    chosen: dict[str, set[int]] = defaultdict(set)
    for label, of_class in boxes.items():
        of_class.sort()
        for index in np.random.default_rng([SEED, label]).permutation(len(of_class))[:count].tolist():
            image_id, place = of_class[index]
            chosen[image_id].add(place)
    return dict(chosen)


def keep_chosen(records: Iterable[Record], chosen: Mapping[str, set[int]], repairs: Repairs) -> list[Record]:
    """The images with a chosen box. Their other objects become difficult: neither examples nor background.

    Args:
        records: of train.
        chosen: as choose_boxes returns them.
        repairs: takes the counts of what is left out.
    """
    kept = []
    for record in records:
        places = chosen.get(record.image_id)
        if places is None:
            repairs.note(LEFT_OUT, record.image_id)
            continue
        others = ~np.isin(np.arange(len(record.labels)), sorted(places))
        count = int((others & ~record.difficult).sum())
        repairs.note("objects of train beyond boxes_per_class are examples of nothing", record.image_id, count)
        kept.append(replace(record, difficult=record.difficult | others))
    return kept


def _paths(folder: Path) -> list[Path]:
    return [folder / f"train_{number}.txt" for number in range(1, CLASSES + 1)]
