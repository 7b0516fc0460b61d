"""The layout of PASCAL VOC, and XML files in its form in any folders -> Dataset.

    ROOT/ImageSets/Main/SPLIT.txt    one image name per line, which may hold blanks; a flag behind it is ignored
    ROOT/Annotations/NAME.xml        size and objects; corner pixels count from 1 and both belong to the box
    ROOT/JPEGImages/NAME.jpg         or another suffix of detector.data.listing

Without lists, as labelImg and Roboflow write it, a part is a folder (trees.py), and an image lies beside its XML file
or in the folder beside Annotations. Names find their files in any Unicode form (files.py). The XML files are read in
voc_xml.py, classes are found in voc_classes.py.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from detector.data.files import Files
from detector.data.ground_truth import DataError, Dataset, Repairs, composed, read_lines
from detector.data.image_list import chosen
from detector.data.listing import IMAGE_SUFFIXES
from detector.data.trees import IMAGE_FOLDERS, LABEL_FOLDERS, Counterparts, files_below, ids_of, in_part
from detector.data.voc_classes import check_names, class_names_of, class_table
from detector.data.voc_xml import annotated_record, read_annotation

XML = (".xml",)


class Entry(NamedTuple):
    """An image of a split: its id, its XML file, and its image file, which need not exist."""

    image_id: str
    annotation: Path
    image: Path


def read_voc(
    root: Path, split: str = "", *, class_names: Sequence[str] = (), one_based: bool = True, image_list: str = ""
) -> Dataset:
    """Read a split. Whether its image files exist is not checked here but by open_dataset.

    Args:
        root: Folder that holds ImageSets, Annotations and JPEGImages, or XML files in any of its folders.
        split: Name of a list in ImageSets/Main, without .txt; without ImageSets name of a folder. Empty for all XML
            files.
        class_names: The K class names; label = position, id = position + 1. VOC's own 20 carry WordNet ids. Empty for
            those 20 where the folder has no other names, else for the names in it, sorted.
        one_based: Whether corner pixels count from 1, as VOC's do, or from 0. The far corner belongs to the box.
        image_list: File that names the images to read (image_list.py); empty for all of the split.

    Raises:
        DataError: there is no such tree, split or annotation; the split is empty; the XML is malformed; an object lacks
            a name or box (the message names file and object); a class is not in class_names or occurs there twice; the
            image list names others.
    """
    repairs = Repairs()
    entries = list_entries(root, split, repairs, image_list)
    names, remarks = class_names_of(class_names, annotation_files(root))
    classes = class_table(names)
    annotations = [read_annotation(entry.annotation) for entry in entries]
    check_names(annotations, classes)
    records = []
    for entry, annotation in zip(entries, annotations, strict=True):
        first_pixel = int(one_based)
        records.append(
            annotated_record(entry.image_id, entry.image, annotation, classes, first_pixel=first_pixel, repairs=repairs)
        )
        if one_based:
            first = int((annotation.boxes[:, :2] == 0).any(axis=1).sum())
            repairs.note(
                "boxes begin at pixel 0; data.one_based=false if all count from 0", annotation.path.name, first
            )
    name = f"{root.resolve().name} {split}".strip()
    return Dataset(name, classes, tuple(records), (*remarks, *repairs.lines()))


def list_entries(root: Path, split: str, repairs: Repairs, image_list: str = "") -> list[Entry]:
    """List the images of a split with their files.

    Args:
        root: Folder of the data set.
        split: Name of the split; empty for all XML files.
        repairs: Receives the count of images that are listed again.
        image_list: File that names the images to take; empty for all of the split.

    Raises:
        DataError: there is no such split or annotation; the split is empty; the image list names others.
    """
    lists = root / "ImageSets" / "Main"
    if split and lists.is_dir():
        tree = VocTree(root / "Annotations", root / "JPEGImages")
        names = tree.names(read_split_list(lists, split), f"{split}.txt", repairs)
        listed = f"ImageSets/Main/{split}.txt lists"
        entries = [Entry(name, tree.annotation(name, listed), tree.image(name)) for name in names]
    else:
        entries = _unlisted(root, split)
    return chosen(entries, lambda entry: (entry.image_id, entry.image), image_list)


def _unlisted(root: Path, split: str) -> list[Entry]:
    """List the XML files of a folder, or of one of its parts."""
    files = annotation_files(root)
    if not files:
        raise DataError(
            f"no XML files in {root}, nor lists in {root / 'ImageSets' / 'Main'}; check data.root and data.kind"
        )
    try:
        files = in_part(files, root, split)
    except DataError as error:
        raise DataError(f"{error}\n  (lists of splits would lie in {root / 'ImageSets' / 'Main'})") from error
    images = Counterparts(root, IMAGE_SUFFIXES, LABEL_FOLDERS, IMAGE_FOLDERS)
    named = zip(ids_of(files), files, strict=True)
    return [
        Entry(image_id, path, images.find(path) or images.folders(path.parent)[0] / f"{path.stem}.jpg")
        for image_id, path in named
    ]


def annotation_files(root: Path) -> list[Path]:
    """Return all XML files in a folder, sorted: those in Annotations where it has some, else those in any folder."""
    return files_below(root / "Annotations", XML) or files_below(root, XML)


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
