"""The classes of XML files in VOC's form: those that a setting names, VOC's own 20, or the names found.

In: a folder of XML files.  Out: names in label order, and their table. They come from the whole folder and not from a
split, so that all splits of a data set agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from detector.data.ground_truth import ClassTable, DataError, composed, listed
from detector.data.voc_xml import Annotation, names_in
from detector.progress import progress
from detector.words import list_override

VOC_WNIDS = {
    "aeroplane": "n02691156",
    "bicycle": "n02834778",
    "bird": "n01503061",
    "boat": "n04530566",
    "bottle": "n02876657",
    "bus": "n02924116",
    "car": "n02958343",
    "cat": "n02121808",
    "chair": "n03001627",
    "cow": "n02402425",
    "diningtable": "n04379243",
    "dog": "n02084071",
    "horse": "n02374451",
    "motorbike": "n03790512",
    "person": "n00007846",
    "pottedplant": "n03991062",
    "sheep": "n02411705",
    "sofa": "n04256520",
    "train": "n04468005",
    "tvmonitor": "n03211117",
}
"""VOC's 20 classes and the WordNet ids closest to them."""

VOC_CLASSES = tuple(VOC_WNIDS)
"""The 20 class names, in VOC's own (alphabetical) order."""


def class_names_of(stated: Sequence[str], files: Sequence[Path]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Choose the classes of a data set.

    Args:
        stated: The setting data.classes; empty to choose by the names in the files.
        files: All XML files of the data set, whatever the split.

    Returns:
        The names in label order: the stated ones; or VOC's 20 where the files have no other names; or all names in
        them, sorted. Then a line that says so where it is the last.
    """
    if stated:
        return tuple(stated), ()
    found: set[str] = set()
    usual = frozenset(VOC_CLASSES)
    for path in progress(files, "classes", delay=3):
        found |= names_in(path, usual)
    foreign = sorted(found - usual)
    if not foreign:
        return VOC_CLASSES, ()
    names = tuple(sorted(found))
    line = f"data.classes is empty: taken are the names in all {len(files):,} XML files, sorted: {listed(names, 30)}"
    if len(foreign) < len(names):  # perhaps a slip of the pen
        line += f"; {listed([repr(name) for name in foreign])} {'is' if len(foreign) == 1 else 'are'} none of VOC's 20"
    return names, (line,)


def class_table(names: Sequence[str]) -> ClassTable:
    """Make a table of classes, label = position; VOC's own 20 carry WordNet ids.

    Raises:
        DataError: a name occurs twice.
    """
    names = [composed(name) for name in names]
    for name, count in Counter(names).items():
        if count > 1:
            raise DataError(f"class {name!r} is named twice; fix data.classes")
    wnids = tuple(VOC_WNIDS.values()) if tuple(names) == VOC_CLASSES else (None,) * len(names)
    return ClassTable(names=tuple(names), wnids=wnids, ids=tuple(range(1, len(names) + 1)))


def check_names(annotations: Sequence[Annotation], classes: ClassTable) -> None:
    """Raise DataError, naming the file, if an object's class is not in the table."""
    known = set(classes.names)
    for annotation in annotations:
        for name in annotation.names:
            if name not in known:
                present = sorted({name for annotation in annotations for name in annotation.names})
                raise DataError(
                    f"{annotation.path}: unknown class {name!r}; known: {', '.join(classes.names)}\n"
                    f"  to take all classes of this split:  {list_override('data.classes', present)}"
                )
