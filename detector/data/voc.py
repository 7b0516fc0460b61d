"""The layout of PASCAL VOC -> Dataset.

    ROOT/ImageSets/Main/SPLIT.txt    one image name per line, which may hold blanks; a flag behind it is ignored
    ROOT/Annotations/NAME.xml        size and objects; corner pixels count from 1 and both belong to the box
    ROOT/JPEGImages/NAME.jpg         or another suffix of detector.data.listing

Names find their files in any Unicode form (files.py). The XML files are read in voc_xml.py.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from detector.data.files import Files
from detector.data.ground_truth import ClassTable, DataError, Dataset, Repairs, composed, read_lines
from detector.data.listing import IMAGE_SUFFIXES
from detector.data.voc_xml import Annotation, annotated_record, read_annotation
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


def read_voc(root: Path, split: str, *, class_names: Sequence[str] = VOC_CLASSES, one_based: bool = True) -> Dataset:
    """Read a split. Whether its image files exist is not checked here but by open_dataset.

    Args:
        root: Folder that holds ImageSets, Annotations and JPEGImages.
        split: Name of a list in ImageSets/Main, without .txt.
        class_names: The K class names; label = position, id = position + 1. VOC's own 20 carry WordNet ids.
        one_based: Whether corner pixels count from 1, as VOC's do, or from 0. The far corner belongs to the box.

    Raises:
        DataError: there is no such tree, split or annotation; the split is empty; the XML is malformed; an object lacks
            a name or box (the message names file and object); a class is not in class_names or occurs there twice.
    """
    classes = class_table(class_names)
    repairs = Repairs()
    tree = VocTree(root / "Annotations", root / "JPEGImages")
    names = tree.names(read_split_list(root / "ImageSets" / "Main", split), f"{split}.txt", repairs)
    annotations = [read_annotation(tree.annotation(name, f"ImageSets/Main/{split}.txt lists")) for name in names]
    check_names(annotations, classes)
    records = []
    for name, annotation in zip(names, annotations, strict=True):
        records.append(
            annotated_record(name, tree.image(name), annotation, classes, first_pixel=int(one_based), repairs=repairs)
        )
        if one_based:
            first = int((annotation.boxes[:, :2] == 0).any(axis=1).sum())
            repairs.note(
                "boxes begin at pixel 0; data.one_based=false if all count from 0", annotation.path.name, first
            )
    return Dataset(f"{root.resolve().name} {split}", classes, tuple(records), repairs.lines())


class VocTree:
    """Finds the annotation and the image of a name.

    Args:
        annotations: Folder of XML files.
        images: Folder of image files, which need not exist.
    """

    def __init__(self, annotations: Path, images: Path) -> None:
        self.annotations, self.images = annotations, images
        self._annotations, self._images = Files(annotations, (".xml",)), Files(images)

    def names(self, lines: Sequence[str], source: str, repairs: Repairs) -> list[str]:
        """Return the names in the lines of a list, each once; repeated ones are counted in `repairs`.

        A line is a name if there is such an annotation or image, else a name with a flag behind it. An image's file
        name counts as the name without suffix.
        """
        found: dict[str, str] = {}
        for line in lines:
            candidates = [line]
            while len(parts := candidates[-1].rsplit(None, 1)) == 2:
                candidates.append(parts[0])
            flagged = len(candidates) > 1 and candidates[0].rsplit(None, 1)[1] in ("-1", "0", "1")
            name = next(filter(self._exists, candidates), candidates[1] if flagged else line)
            if self._annotation(name) is None and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                name = name[: -len(Path(name).suffix)]
            found.setdefault(composed(name), name)
        repairs.note("images were listed again in the split and read once", source, len(lines) - len(found))
        return list(found.values())

    def annotation(self, name: str, lister: str) -> Path:
        """Return the XML file of a name.

        Raises:
            DataError: there is none; the message says that `lister` the name.
        """
        path = self._annotation(name)
        if path is None:
            wanted = self.annotations / f"{name}.xml"
            raise DataError(f"{wanted}: no such annotation, but {lister} {name}")
        return path

    def image(self, name: str) -> Path:
        """Return the image file of a name; NAME.jpg where there is none."""
        return self._images.find(name) or self.images / f"{name}.jpg"

    def _annotation(self, name: str) -> Path | None:
        path = self.annotations / f"{name}.xml"
        return path if os.path.isfile(path) else self._annotations.find(name)

    def _exists(self, name: str) -> bool:
        return self._annotation(name) is not None or self._images.find(name) is not None


def read_split_list(folder: Path, split: str) -> list[str]:
    """Return the lines of FOLDER/SPLIT.txt that name an image.

    Raises:
        DataError: there is no such folder or list (the message shows the existing lists), or as read_list.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {folder}; check data.root and data.kind")
    path = folder / f"{split}.txt"
    if not path.is_file():
        stems = sorted(file.stem for file in folder.glob("*.txt"))
        there = [name for name in stems if "_" not in name] or stems  # not the hundreds of lists of one class
        raise DataError(f"no split {split!r} in {folder}; there are: {', '.join(there) or 'none'}; set data.split=NAME")
    return read_list(path)


def read_list(path: Path) -> list[str]:
    """Return the lines of a file that name an image.

    Raises:
        DataError: the file cannot be read, is not a text, or names no image.
    """
    lines = [line for line in read_lines(path) if line]
    if not lines:
        raise DataError(f"{path}: no images in this split")
    return lines


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
