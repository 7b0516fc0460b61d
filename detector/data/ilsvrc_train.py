"""The train images of ILSVRC DET: which are fully annotated, and how many boxes of a class are used.

    ROOT/ImageSets/DET/train_1.txt ... train_200.txt    "name label" lines, by the number of the class

Label 1: all objects of the class are boxed; 0: some may not be; -1: the image has none. Only the folders added in 2014,
whose names begin with ILSVRC2014_, have the objects of all 200 classes boxed. Elsewhere an object of another class than
the one an image was collected for may lack a box. R-CNN therefore took only boxes from train, at most 1,000 per class,
and background from val1 (§4.3). Ours: images of the 2014 folders give background too.
One softmax shares one background among all classes, so that an image labelled 0 for any class gives none at all.
R-CNN's SVMs, one per class, could have used it for the other 199.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from detector.data.ground_truth import DataError, Record, Repairs, read_lines
from detector.progress import progress

BOXED_THROUGHOUT = "ILSVRC2014_"
CLASSES = 200
SEED = 0  # of the choice of boxes: the same on every machine and in every run
LEFT_OUT = "images of train without a box that boxes_per_class takes were left out"


@dataclass(frozen=True)
class ClassLists:
    """The lists of the classes.

    Attributes:
        present: Images with an object of some class (labels 1 and 0), in the order of the lists.
        partly: File names of the images that may hold an object without a box (label 0). They lack the folder, which
            not all lists state; no two images of the contest share a file name.
    """

    present: tuple[str, ...]
    partly: frozenset[str]

    def fully_annotated(self, name: str) -> bool:
        """Whether every object in an image of train, FOLDER/FILE, is boxed."""
        return name.startswith(BOXED_THROUGHOUT) and name.rpartition("/")[2] not in self.partly


def class_list_paths(folder: Path) -> list[Path]:
    """Return where the lists of the 200 classes are; none of them may exist."""
    return [folder / f"train_{number}.txt" for number in range(1, CLASSES + 1)]


def read_class_lists(folder: Path, repairs: Repairs) -> ClassLists:
    """Read the lists of all classes, 13 million lines in the contest's tree.

    Args:
        folder: ImageSets/DET.
        repairs: Receives the count of absent lists.

    Raises:
        DataError: a list cannot be read, or a line has another form; the message names the line.
    """
    present: dict[str, None] = {}
    partly: set[str] = set()
    for path in progress(class_list_paths(folder), "lists of the classes", "list", delay=3):
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
                partly.add(columns[0].rpartition("/")[2])
    return ClassLists(tuple(present), frozenset(partly))


def limit_boxes(records: Sequence[Record], count: int, repairs: Repairs) -> list[Record]:
    """Draw at most `count` boxes of each class at random from all images together, and drop images without any.

    The other objects of the images that stay become difficult: ignored as examples and as background. Difficult objects
    are never drawn. The choice does not depend on the order of the images.

    Args:
        records: Images of train.
        count: Most boxes per class.
        repairs: Receives the counts of what is left out.
    """
    boxes: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for record in records:
        for index in np.flatnonzero(~record.difficult).tolist():
            boxes[int(record.labels[index])].append((record.image_id, index))
    chosen: dict[str, list[int]] = defaultdict(list)
    for label, of_class in boxes.items():
        of_class.sort()
        for position in np.random.default_rng([SEED, label]).permutation(len(of_class))[:count].tolist():
            image_id, index = of_class[position]
            chosen[image_id].append(index)
    kept = []
    for record in records:
        if record.image_id not in chosen:
            repairs.note(LEFT_OUT, record.image_id)
            continue
        others = np.ones(len(record.labels), np.bool_)
        others[chosen[record.image_id]] = False
        count_left = int((others & ~record.difficult).sum())
        repairs.note("objects of train beyond boxes_per_class are ignored", record.image_id, count_left)
        kept.append(replace(record, difficult=record.difficult | others))
    return kept
