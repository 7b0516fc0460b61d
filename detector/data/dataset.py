"""Open the data set that a config names, or several as one (sources.py).

In: the section `data` of a config, or a list of such sections.  Out: a Dataset.

data.kind=voc     data.root=VOC2012  data.split=val
data.kind=voc     data.root=cells    data.split=val      data.classes=[WBC,RBC,Platelets]
data.kind=ilsvrc  data.root=ILSVRC   data.split=val2
data.kind=ilsvrc  data.root=ILSVRC   data.split=val1+train  data.boxes_per_class=1000
data.kind=coco    data.root=coco     data.split=val2017
data.kind=coco    data.root=mine     data.annotations=boxes.json  data.images=photos
data.kind=voc     data.root=phone    data.split=train    data.size_mismatch=turn
'data=[{kind: voc, root: VOC2007, split: trainval}, {kind: voc, root: VOC2012, split: trainval}]'
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import MISSING, dataclass, field, fields, replace
from enum import Enum
from pathlib import Path

from detector.data.coco import read_coco
from detector.data.frames import SizeMismatch, match_frames
from detector.data.ground_truth import ClassTable, DataError, Dataset, Record
from detector.data.ilsvrc import read_ilsvrc_det
from detector.data.image import ImageError
from detector.data.sources import OtherClasses, joined
from detector.data.voc import VOC_CLASSES, read_voc
from detector.progress import progress


class DatasetKind(Enum):
    """Layouts of a data set's files."""

    voc = "voc"
    ilsvrc = "ilsvrc"
    coco = "coco"


@dataclass(frozen=True)
class DataConfig:
    """The images and boxes to work on.

    Attributes:
        kind: Layout of the files: voc, ilsvrc or coco.
        root: Folder of the data set.
        split: Name of the part to read, as the data set's lists name it. ilsvrc: several may be joined by "+". coco:
            may be empty where annotations and images are given.
        classes: voc only: class names in label order; empty for PASCAL VOC's own 20.
        annotations: coco only: the JSON file, relative to root; empty for annotations/instances_SPLIT.json.
        images: coco only: folder of the images, relative to root; empty for the split's name.
        one_based: voc only: whether corner pixels count from 1, as VOC's do; false where a tool wrote them from 0.
        boxes_per_class: ilsvrc only, for training: boxes of each class drawn from the images of train, R-CNN's N
            (1,000); 0 takes all.
        size_mismatch: Treatment of images whose file has another size than the annotation states. error rejects the
            split; skip leaves them out and counts them; turn turns their boxes where EXIF explains the size.
        exhaustive: Whether every object of the classes is boxed. false, for training: its images give objects and no
            background.
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
    exhaustive: bool = True

    def __post_init__(self) -> None:
        if self.boxes_per_class < 0:
            raise ValueError(f"boxes_per_class must not be negative, but is {self.boxes_per_class}; 0 takes all")


Sources = DataConfig | tuple[DataConfig, ...]
"""A data set, or several that are used as one."""


def sources_of(data: DataConfig | Sequence[DataConfig]) -> tuple[DataConfig, ...]:
    """Return the data sets of a setting that names one or several."""
    return (data,) if isinstance(data, DataConfig) else tuple(data)


def sources_by_key(key: str, data: Sources) -> dict[str, DataConfig]:
    """Return the data sets of a setting by the keys that override them: train, or train.0, train.1 of a list."""
    return {key: data} if isinstance(data, DataConfig) else {f"{key}.{place}": one for place, one in enumerate(data)}


OWNERS = {
    "one_based": DatasetKind.voc,
    "classes": DatasetKind.voc,
    "annotations": DatasetKind.coco,
    "images": DatasetKind.coco,
    "boxes_per_class": DatasetKind.ilsvrc,
}
"""Settings that only one kind has."""


def open_dataset(
    config: DataConfig | Sequence[DataConfig],
    *,
    need_images: bool = True,
    classes: Sequence[str] | ClassTable = (),
    other_classes: OtherClasses = OtherClasses.ignore,
) -> Dataset:
    """Read the split that the config names, or those of several data sets, as one.

    Args:
        config: Folder, layout and split of the data set, or those of several.
        need_images: Whether the image files are needed. Then a split most of whose files are absent is rejected, a few
            absent files are a warning, and the sizes of the others are compared with the stated ones, which takes a
            fraction of a millisecond per image. It is done here so that all users of the split leave out the same
            images. Scoring needs no images.
        classes: Classes in label order, or their table; empty for those of the first data set.
        other_classes: Treatment of objects of other classes, see `detector.data.sources`.

    Raises:
        DataError: there is no such folder; the kind lacks a setting; the kind's reader rejects the files; most image
            files are absent; or, unless size_mismatch allows it, a file has another size than stated; or a data set
            does not label one of the classes.
    """
    parts = [_open_one(one, need_images) for one in sources_of(config)]
    return joined(parts, classes, other_classes)


def _open_one(config: DataConfig, need_images: bool) -> Dataset:
    root = Path(config.root).expanduser()
    if not config.root or not root.is_dir():
        raise DataError(f"no data set folder {config.root!r}; set data.root=DIR, in a training train.root and val.root")
    refuse_foreign(config)
    match config.kind:
        case DatasetKind.voc:
            names = tuple(config.classes) or VOC_CLASSES
            dataset = read_voc(root, config.split, class_names=names, one_based=config.one_based)
        case DatasetKind.ilsvrc:
            dataset = read_ilsvrc_det(root, config.split, boxes_per_class=config.boxes_per_class)
        case DatasetKind.coco:
            dataset = _open_coco(root, config)
    if not config.exhaustive:
        dataset = replace(dataset, records=tuple(replace(record, exhaustive=False) for record in dataset.records))
    if need_images:
        return match_frames(_with_absent(dataset, config), config.size_mismatch)
    return dataset


def _open_coco(root: Path, config: DataConfig) -> Dataset:
    annotations = root / (config.annotations or f"annotations/instances_{config.split}.json")
    if not annotations.is_file():
        found = sorted(
            path.relative_to(root).as_posix() for path in (*root.glob("*.json"), *root.glob("annotations/*.json"))
        )
        raise DataError(
            f"{annotations}: no such annotation file; there are: {', '.join(found) or 'none'}\n"
            "  name one:  data.annotations=FILE data.images=DIR  (or data.split=val2017 in COCO's own layout)"
        )
    dataset = read_coco(annotations, root / (config.images or config.split))
    return replace(dataset, name=f"{root.resolve().name} {config.split or annotations.stem}")


def refuse_foreign(config: DataConfig) -> None:
    """Raise DataError, naming the setting and its kind, if a setting of another kind is stated."""
    for setting in fields(config):
        kind = OWNERS.get(setting.name, config.kind)
        default = setting.default_factory() if setting.default_factory is not MISSING else setting.default
        if kind is not config.kind and getattr(config, setting.name) != default:
            raise DataError(
                f"data.{setting.name} is a setting of data.kind={kind.value}; "
                f"leave it out with data.kind={config.kind.value}"
            )


def _with_absent(dataset: Dataset, config: DataConfig) -> Dataset:
    """Add a warning of image files that are absent; raise DataError where most are."""
    absent = [record.path for record in dataset.records if not os.path.isfile(record.path)]  # which raises for no name
    if not absent:
        return dataset
    count = f"all {len(dataset):,}" if len(absent) == len(dataset) else f"{len(absent):,} of {len(dataset):,}"
    key = "data.images" if config.kind is DatasetKind.coco else "data.root"
    line = f"{dataset.name}: {count} images are not there (first: {absent[0]}); check {key}"
    if 2 * len(absent) > len(dataset):
        raise DataError(line)
    return replace(dataset, warnings=(*dataset.warnings, line))


def readable_part(dataset: Dataset, workers: int = 1) -> tuple[Dataset, list[str]]:
    """Keep the images that can be read, by decoding each of them, and return a line for each other image.

    Args:
        dataset: The images.
        workers: Number of threads.

    Raises:
        ImageError: none can be read.
    """

    def fault(record: Record) -> str:
        try:
            record.read()
        except ImageError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(max(1, workers)) as executor:
        found = executor.map(fault, dataset.records)
        label = f"images of {dataset.name}"
        faults = list(progress(found, label, total=len(dataset), leave=False, delay=3))
    lines = [line for line in faults if line]
    if lines and len(lines) == len(dataset):
        raise ImageError(f"{dataset.name}: no image can be read; the first: {lines[0]}")
    kept = tuple(record for record, line in zip(dataset.records, faults, strict=True) if not line)
    return (replace(dataset, records=kept) if lines else dataset), lines
