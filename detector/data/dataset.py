"""The data a command works on, as its config names it -> Dataset.

data.kind=voc     data.root=VOC2012  data.split=val
data.kind=voc     data.root=cells    data.split=val      data.classes=[WBC,RBC,Platelets]
data.kind=ilsvrc  data.root=ILSVRC   data.split=val2
data.kind=ilsvrc  data.root=ILSVRC   data.split=val1+train  data.boxes_per_class=1000
data.kind=coco    data.root=coco     data.split=val2017
data.kind=coco    data.root=mine     data.annotations=boxes.json  data.images=photos
data.kind=voc     data.root=phone    data.split=train    data.size_mismatch=turn
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from detector.data.coco import read_coco
from detector.data.frames import SizeMismatch, match_frames
from detector.data.ground_truth import DataError, Dataset
from detector.data.ilsvrc import read_ilsvrc_det
from detector.data.voc import VOC_CLASSES, read_voc


class DatasetKind(Enum):
    """How the files are laid out."""

    voc = "voc"
    ilsvrc = "ilsvrc"
    coco = "coco"


@dataclass(frozen=True)
class DataConfig:
    """Which images and boxes to work on: the section `data` of a config.

    Attributes:
        kind: the layout of the files.
        root: the data set's folder.
        split: the part to read, as its lists name it, of ilsvrc also several joined by "+"; may be empty for coco with
            annotations and images given.
        classes: voc only: the class names, label order; empty for PASCAL VOC's own 20.
        annotations: coco only: the JSON file, from root; empty for annotations/instances_SPLIT.json.
        images: coco only: the folder of photographs, from root; empty for the split's name.
        one_based: voc only: corner pixels count from 1, as VOC's own; false where a tool wrote them from 0.
        boxes_per_class: ilsvrc only, for training: so many boxes of a class are taken from the images of train, R-CNN's
            N (1,000); 0 takes all.
        size_mismatch: Treatment of images whose photograph has another size than the annotation states: error rejects
            the split, skip leaves them out and counts them, turn turns their boxes where EXIF explains the size.
    """

    kind: DatasetKind
    root: str
    split: str = ""
    classes: list[str] = field(default_factory=list)
    annotations: str = ""
    images: str = ""
    one_based: bool = True
    boxes_per_class: int = 0
    size_mismatch: SizeMismatch = SizeMismatch.error

    def __post_init__(self) -> None:
        if self.boxes_per_class < 0:
            raise ValueError(f"boxes_per_class must not be negative, but is {self.boxes_per_class}; 0 takes all")


def open_dataset(config: DataConfig, *, need_images: bool = True) -> Dataset:
    """Read the split that the config names.

    Args:
        config: Folder, layout and split of the data set.
        need_images: refuse a split most of whose photographs are not there, and compare the sizes of the others with
            the stated ones, a fraction of a millisecond an image: only here can all that use the split leave out the
            same images. A few that are not there are a warning, and fail as they are read. Scoring needs none.

    Raises:
        DataError: no such folder, a setting that the kind does not have, whatever the kind's reader refuses, most
            photographs are not there, or, unless size_mismatch says otherwise, one has another size than stated.
    """
    root = Path(config.root).expanduser()
    if not config.root or not root.is_dir():
        raise DataError(f"no data set folder {config.root!r}; set data.root=DIR")
    refuse_foreign(config)
    match config.kind:
        case DatasetKind.voc:
            names = tuple(config.classes) or VOC_CLASSES
            dataset = read_voc(root, config.split, class_names=names, one_based=config.one_based)
        case DatasetKind.ilsvrc:
            dataset = read_ilsvrc_det(root, config.split, boxes_per_class=config.boxes_per_class)
        case DatasetKind.coco:
            dataset = _open_coco(root, config)
        case _:
            raise DataError(f"data.kind must be one of {', '.join(DatasetKind.__members__)}, not {config.kind!r}")
    if need_images:
        return match_frames(_with_absent(dataset, config), config.size_mismatch)
    return dataset


def _open_coco(root: Path, config: DataConfig) -> Dataset:
    annotations = root / (config.annotations or f"annotations/instances_{config.split}.json")
    if not annotations.is_file():
        there = sorted(
            path.relative_to(root).as_posix() for path in (*root.glob("*.json"), *root.glob("annotations/*.json"))
        )
        raise DataError(
            f"{annotations}: no such annotation file; there are: {', '.join(there) or 'none'}\n"
            "  name one:  data.annotations=FILE data.images=DIR  (or data.split=val2017 in COCO's own layout)"
        )
    dataset = read_coco(annotations, root / (config.images or config.split))
    return replace(dataset, name=f"{root.resolve().name} {config.split or annotations.stem}")


def refuse_foreign(config: DataConfig) -> None:
    """Refuse a setting of another kind, which would be passed over in silence.

    Raises:
        DataError: there is one; the message names it and its kind.
    """
    default = DataConfig(config.kind, config.root)
    owners = {
        "one_based": DatasetKind.voc,
        "classes": DatasetKind.voc,
        "annotations": DatasetKind.coco,
        "images": DatasetKind.coco,
        "boxes_per_class": DatasetKind.ilsvrc,
    }
    for key, kind in owners.items():
        if getattr(config, key) != getattr(default, key) and config.kind is not kind:
            raise DataError(
                f"data.{key} is a setting of data.kind={kind.value}; leave it out with data.kind={config.kind.value}"
            )


def _with_absent(dataset: Dataset, config: DataConfig) -> Dataset:
    """The data set, with a warning of photographs that are not there; DataError where that are most."""
    absent = [record.path for record in dataset.records if not os.path.isfile(record.path)]  # which raises for no name
    if absent:
        count = f"all {len(dataset):,}" if len(absent) == len(dataset) else f"{len(absent):,} of {len(dataset):,}"
        key = "data.images" if config.kind is DatasetKind.coco else "data.root"
        line = f"{dataset.name}: {count} images are not there (first: {absent[0]}); check {key}"
        if 2 * len(absent) > len(dataset):
            raise DataError(line)
        return replace(dataset, warnings=(*dataset.warnings, line))
    return dataset
