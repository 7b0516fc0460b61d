"""Images of one class each -> LabelledImages, on which classification is trained and tested.

kind=folder  root=photos                    photos/cat/1.jpg: the folder's name is the class, a WordNet id or any name
kind=clsloc  root=imagenet  split=train     ILSVRC's classification tree, as downloaded (or as Kaggle lays it)
kind=voc     root=VOC2012   split=train     the objects of a detection data set, each cut out; all its kinds
kind=auto    root=photos    split=train     one of these, recognised by the files

Classes are numbered in the order of their names as texts, as ImageNet's 1,000 are in all published weights; classes of
objects in the order of their data set's table.
"""

from __future__ import annotations

import csv
import logging
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.data.dataset import DataConfig, DatasetKind, open_dataset, resolved
from detector.data.frames import SizeMismatch
from detector.data.ground_truth import DataError, composed, listed
from detector.data.image import Image, read_image
from detector.data.image_list import chosen
from detector.data.layouts import find_layout
from detector.data.listing import IMAGE_SUFFIXES, walk
from detector.data.trees import no_part, part_named

_LOG = logging.getLogger(__name__)

SOLUTION = "LOC_val_solution.csv"  # Kaggle's


class ImagesKind(Enum):
    """Layouts of the files."""

    folder = "folder"
    clsloc = "clsloc"
    voc = "voc"
    ilsvrc = "ilsvrc"
    coco = "coco"
    yolo = "yolo"
    labelme = "labelme"
    auto = "auto"


@dataclass(frozen=True)
class ImagesConfig:
    """The labelled images to work on.

    Attributes:
        kind: Layout of the files: folder, clsloc, or a detection data set (voc, ilsvrc, coco, yolo, labelme), whose
            objects are cut out; auto recognises which it is.
        root: Folder of the data set.
        split: Name of the part to read; empty for all of a folder.
        classes: voc, yolo and labelme only: the data set's class names, as in DataConfig.
        annotations: coco only: the JSON file, as in DataConfig.
        images: coco only: folder of the images, as in DataConfig.
        only: Detection data sets only: classes whose objects are taken, in label order; empty for all.
        context: Detection data sets only: enlargement of a box on each side, as a share of its side, in [0, 4].
        min_side: Detection data sets only: objects with a smaller side are left out, px. Difficult objects and crowds
            are always left out.
        size_mismatch: Detection data sets only: as in DataConfig.
        image_list: A text file, relative to the working directory, that names the images to read, one a line, by stem
            or file name; empty for all.
    """

    root: str
    kind: ImagesKind = ImagesKind.folder
    split: str = ""
    classes: list[str] = field(default_factory=list)
    annotations: str = ""
    images: str = ""
    only: list[str] = field(default_factory=list)
    context: float = 0.1
    min_side: float = 32.0
    size_mismatch: SizeMismatch = SizeMismatch.error
    image_list: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.context <= 4:
            raise ValueError(f"context must be in [0, 4] of a box's side, not {self.context}")
        objects = self.kind not in (ImagesKind.folder, ImagesKind.clsloc)
        for key in ("classes", "annotations", "images", "only", "size_mismatch"):
            stated = getattr(self, key)
            if stated and stated is not SizeMismatch.error and not objects:
                raise ValueError(f"{key} is a setting of detection data sets; leave it out with kind={self.kind.name}")


@dataclass(frozen=True)
class LabelledImages:
    """N images of K classes.

    Attributes:
        classes: K names.
        paths: N files; one file may contain several of the images.
        labels: [N] int64, positions in classes.
        boxes: [N, 4] px, the part of the file that is the image; None for whole files.
        warnings: Lines on everything that the reader of a detection data set fixed or left out, as in Dataset.
    """

    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float64] | None = None
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> Image:
        """Read an image, [H, W, 3] uint8 RGB; raises ImageError naming the file."""
        image = read_image(self.paths[index])
        if self.boxes is None:
            return image
        height, width, _ = image.shape
        x1, y1, x2, y2 = self.boxes[index]
        left, top = min(max(round(x1), 0), width - 1), min(max(round(y1), 0), height - 1)
        return np.ascontiguousarray(image[top : max(top + 1, round(y2)), left : max(left + 1, round(x2))])

    def describe(self, index: int) -> str:
        """Return the file's name, and the part of it."""
        if self.boxes is None:
            return str(self.paths[index])
        return f"{self.paths[index]} [{', '.join(f'{side:.0f}' for side in self.boxes[index])}]"

    def with_classes(self, classes: Sequence[str], owner: str) -> LabelledImages:
        """Renumber the images by another list of classes, matched by name, so that an absent class shifts no label.

        Args:
            classes: The new list of classes.
            owner: Owner of the list, for the message.

        Raises:
            DataError: the list lacks a class of these images.
        """
        position = {composed(name): label for label, name in enumerate(classes)}
        unknown = [name for name in self.classes if composed(name) not in position]
        if unknown:
            raise DataError(
                f"{owner} has no class {listed([repr(name) for name in unknown])} ({len(unknown)} of "
                f"{len(self.classes)} are unknown); it has {listed(list(classes), 5)}"
            )
        renumbered = np.array([position[composed(name)] for name in self.classes], np.int64)[self.labels]
        return replace(self, classes=tuple(classes), labels=renumbered)


def open_images(config: ImagesConfig) -> LabelledImages:
    """Read the list of images that the config names.

    Raises:
        DataError: there is no such folder, or the kind's reader rejects the files.
    """
    config = resolved_images(config)
    root = Path(config.root).expanduser()
    if config.kind is ImagesKind.folder:
        return _listed(read_image_folder(root / config.split), config.image_list)
    if config.kind is ImagesKind.clsloc:
        return _listed(read_clsloc(root, config.split), config.image_list)
    return _objects(config)


def resolved_images(config: ImagesConfig) -> ImagesConfig:
    """Replace kind=auto by the kind that the folder's files show, and its part's files; logs what was seen.

    Raises:
        DataError: no data set or several are recognised, or it has no such split.
    """
    if config.kind is not ImagesKind.auto:
        return config
    root = Path(config.root).expanduser()
    if any((base / "Data" / "CLS-LOC").is_dir() for base in (root, root / "ILSVRC")):
        return replace(config, kind=ImagesKind.clsloc)
    finding = find_layout(root)
    if finding.kind != "folder":
        shared = ("root", "split", "annotations", "images", "image_list")
        found = resolved(DataConfig(DatasetKind.auto, **{key: getattr(config, key) for key in shared}))
        return replace(config, kind=ImagesKind[found.kind.name], **{key: getattr(found, key) for key in shared})
    folders = [path.name for path in _folders(root)]
    split = part_named(config.split, folders) if config.split else ""
    if split is None:
        raise no_part(config.split, root, folders)
    _LOG.info("%s: %s%s", root, finding.evidence, f"; reading {split}" if split else "")
    return replace(config, kind=ImagesKind.folder, split=split)


def _listed(images: LabelledImages, image_list: str) -> LabelledImages:
    """Keep the images that a text file names; all where it is empty."""
    if not image_list:
        return images
    named = list(enumerate(images.paths))
    kept = [index for index, _ in chosen(named, lambda one: (one[1].stem, one[1]), image_list)]
    return replace(images, paths=tuple(images.paths[index] for index in kept), labels=images.labels[kept])


def read_image_folder(root: Path) -> LabelledImages:
    """List images that lie in one folder per class; hidden files and other suffixes are passed over.

    Raises:
        DataError: there is no such folder, no folder of a class in it, or a class without images.
    """
    if not root.is_dir():
        raise DataError(f"no folder {root}, where each class has a folder of images")
    folders = _folders(root)
    if not folders:
        raise DataError(f"{root}: no folders in it; each class has a folder of images, named after it")
    paths: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        found = _images_below(folder)
        if not found:
            raise DataError(f"{folder}: a class without images; fill the folder or remove it")
        paths += found
        labels += [label] * len(found)
    return LabelledImages(tuple(folder.name for folder in folders), tuple(paths), np.array(labels, np.int64))


def read_clsloc(root: Path, split: str) -> LabelledImages:
    """List ILSVRC's classification tree: Data/CLS-LOC/train/WNID/*.JPEG, Data/CLS-LOC/val/*.JPEG.

    Labels of val come from Kaggle's LOC_val_solution.csv in the tree or beside it, else from
    Annotations/CLS-LOC/val/*.xml.

    Args:
        root: Folder that holds Data/ or ILSVRC/Data/.
        split: "train" or "val".

    Raises:
        DataError: another split, no such tree, or a val image without label.
    """
    if split not in ("train", "val"):
        raise DataError(f"kind=clsloc has the splits train and val, not {split!r}")
    base = root if (root / "Data").is_dir() else root / "ILSVRC"
    folder = base / "Data" / "CLS-LOC" / split
    if not folder.is_dir():
        raise DataError(f"no folder {root / 'Data' / 'CLS-LOC' / split}; set root to the folder that holds Data")
    if split == "train" or _folders(folder):  # val is often sorted into folders
        return read_image_folder(folder)
    paths = _images_below(folder)
    if not paths:
        raise DataError(f"{folder}: no images in it")
    wnids = _val_wnids(base, paths)
    # Train's folders, so that a class which val lacks shifts no label.
    classes = tuple(sorted({path.name for path in _folders(folder.parent / "train")} | set(wnids)))
    position = {wnid: label for label, wnid in enumerate(classes)}
    return LabelledImages(classes, tuple(paths), np.array([position[wnid] for wnid in wnids], np.int64))


def _val_wnids(base: Path, paths: Sequence[Path]) -> list[str]:
    solution = next((folder / SOLUTION for folder in (base, base.parent) if (folder / SOLUTION).is_file()), None)
    if solution:
        try:
            with solution.open(newline="", encoding="utf-8") as file:
                known = {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(file)}
        except (KeyError, IndexError, AttributeError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(
                f"{solution}: not Kaggle's columns ImageId and PredictionString (WNID x1 y1 x2 y2): {error!r}"
            ) from error
        missing = [path for path in paths if path.stem not in known]
        if missing:
            raise DataError(f"{solution}: no label for {missing[0].name} ({len(missing)} of {len(paths)} have none)")
        return [known[path.stem] for path in paths]
    wnids = []
    for path in paths:
        note = base / "Annotations" / "CLS-LOC" / "val" / f"{path.stem}.xml"
        try:
            wnid = ET.parse(note).findtext("object/name")
        except (OSError, ET.ParseError) as error:
            raise DataError(f"{path}: no label: neither {SOLUTION} nor {note} ({error})") from error
        if not wnid:
            raise DataError(f"{note}: no object with a name, hence no label for {path.name}")
        wnids.append(wnid)
    return wnids


def _objects(config: ImagesConfig) -> LabelledImages:
    shared = ("root", "split", "classes", "annotations", "images", "size_mismatch", "image_list")
    dataset = open_dataset(DataConfig(DatasetKind[config.kind.name], **{key: getattr(config, key) for key in shared}))
    table = dataset.classes
    names = tuple(  # two ImageNet classes may share a name, never an id
        name if name in table.label_of else str(wnid) for name, wnid in zip(table.names, table.wnids, strict=True)
    )
    unknown = [name for name in config.only if name not in table.label_of]
    if unknown:
        raise DataError(f"{dataset.name} has no class {unknown[0]!r}; it has {', '.join(table.names)}")
    taken = list(dict.fromkeys(table.label_of[name] for name in config.only)) or list(range(len(names)))
    paths: list[Path] = []
    labels: list[int] = []
    boxes: list[NDArray[np.float64]] = []
    for record in dataset.records:
        sides = record.boxes[:, 2:] - record.boxes[:, :2]
        good = (
            (sides.min(axis=1) >= config.min_side) & ~record.difficult & ~record.crowd & np.isin(record.labels, taken)
        )
        margins = sides[good] * config.context
        paths += [record.path] * len(margins)
        labels += map(taken.index, record.labels[good].tolist())
        boxes.append(record.boxes[good] + np.concatenate([-margins, margins], axis=1))
    if not paths:
        raise DataError(f"{dataset.name}: no object of a side of {config.min_side:g} px or more")
    chosen = tuple(names[label] for label in taken)
    return LabelledImages(chosen, tuple(paths), np.array(labels, np.int64), np.concatenate(boxes), dataset.warnings)


def _folders(root: Path) -> list[Path]:
    """Return the sorted folders in a folder without hidden ones; none where there is no such folder."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images_below(folder: Path) -> list[Path]:
    """Return the sorted images in a folder and its sub-folders.

    Raises:
        DataError: a folder cannot be listed: its images would be missing unnoticed.
    """
    problems: list[str] = []
    images = [path for path in walk(folder, True, problems) if path.suffix.lower() in IMAGE_SUFFIXES]
    if problems:
        raise DataError(problems[0])
    return sorted(images)
