"""Open the data set that a config names, or several as one (sources.py).

In: the section `data` of a config, or a list of such sections.  Out: a Dataset.

data.kind=auto    data.root=mine     data.split=val     what the folder holds is recognised by its files (layouts.py)
data.kind=voc     data.root=VOC2012  data.split=val
data.kind=voc     data.root=cells    data.split=val      data.classes=[WBC,RBC,Platelets]
data.kind=ilsvrc  data.root=ILSVRC   data.split=val2
data.kind=ilsvrc  data.root=ILSVRC   data.split=val1+train  data.boxes_per_class=1000
data.kind=coco    data.root=coco     data.split=val2017
data.kind=coco    data.root=mine     data.annotations=boxes.json  data.images=photos
data.kind=yolo    data.root=boats    data.split=train
data.kind=labelme data.root=photos   data.image_list=chosen.txt
data.kind=voc     data.root=phone    data.split=train    data.size_mismatch=turn
'data=[{kind: voc, root: VOC2007, split: trainval}, {kind: voc, root: VOC2012, split: trainval}]'
"""

from __future__ import annotations

import logging
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
from detector.data.image_list import chosen
from detector.data.labelme import read_labelme
from detector.data.layouts import Part, find_layout
from detector.data.sources import OtherClasses, joined
from detector.data.trees import no_part, part_named
from detector.data.voc import read_voc
from detector.data.yolo import read_yolo
from detector.progress import progress

_LOG = logging.getLogger(__name__)


class DatasetKind(Enum):
    """Layouts of a data set's files."""

    voc = "voc"
    ilsvrc = "ilsvrc"
    coco = "coco"
    yolo = "yolo"
    labelme = "labelme"
    auto = "auto"


@dataclass(frozen=True)
class DataConfig:
    """The images and boxes to work on.

    Attributes:
        kind: Layout of the files: voc, ilsvrc, coco, yolo or labelme; auto recognises it by the files.
        root: Folder of the data set.
        split: Name of the part to read, as the data set's lists or folders name it; empty for all of it. ilsvrc:
            several may be joined by "+". coco: may be empty where annotations and images are given.
        classes: voc, yolo and labelme only: class names in label order. voc: empty for PASCAL VOC's own 20 where the
            XML files have no other names, else for all names in them, sorted. yolo: empty for the names in data.yaml or
            classes.txt. labelme: empty for all names in the files, sorted.
        annotations: coco only: the JSON file, relative to root; empty for annotations/instances_SPLIT.json.
        images: coco only: folder of the images, relative to root; empty for the split's name.
        one_based: voc only: whether corner pixels count from 1, as VOC's do; false where a tool wrote them from 0.
        boxes_per_class: ilsvrc only, for training: boxes of each class drawn from the images of train, R-CNN's N
            (1,000); 0 takes all.
        size_mismatch: Treatment of images whose file has another size than the annotation states. error rejects the
            split; skip leaves them out and counts them; turn turns their boxes where EXIF explains the size.
        exhaustive: Whether every object of the classes is boxed. false, for training: its images give objects and no
            background.
        image_list: A text file, relative to the working directory, that names the images to read, one a line, by stem
            or file name; empty for all.
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
    image_list: str = ""

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
    "one_based": (DatasetKind.voc,),
    "classes": (DatasetKind.voc, DatasetKind.yolo, DatasetKind.labelme),
    "annotations": (DatasetKind.coco,),
    "images": (DatasetKind.coco,),
    "boxes_per_class": (DatasetKind.ilsvrc,),
}
"""Settings that only some kinds have."""


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


def resolved(config: DataConfig) -> DataConfig:
    """Replace kind=auto by the kind that the folder's files show, and its part's files; logs what was seen.

    Raises:
        DataError: no data set or several are recognised; it has no boxes; it has no such split; the split is empty,
            and there are several.
    """
    if config.kind is not DatasetKind.auto:
        return config
    root = folder_of(config)
    if config.annotations:
        return replace(config, kind=DatasetKind.coco)
    finding = find_layout(root)
    if finding.kind == "folder":
        raise DataError(
            f"{root}: {finding.evidence}; no boxes, which detection needs. A classifier of whole images takes it "
            "(task=images, kind=folder)"
        )
    parts = finding.parts
    if config.split:
        name = part_named(config.split, parts)
        if name is None and finding.kind == "coco":
            raise no_part(config.split, root, list(filter(None, parts)))
        part = parts[name] if name is not None else Part(config.split)  # perhaps another folder: its reader knows
    elif len(parts) == 1:
        (part,) = parts.values()
    elif config.image_list and finding.kind in ("voc", "yolo", "labelme"):
        part = Part()
    else:
        raise DataError(f"data.split is empty, and {root} has the splits {', '.join(parts)}; set data.split=NAME")
    place = config.root if finding.root == root else str(finding.root)
    _LOG.info(
        "%s: %s%s", place, finding.evidence, f"; reading {part.split}" if part in parts.values() and part.split else ""
    )
    images = config.images or part.images
    return replace(
        config,
        kind=DatasetKind[finding.kind],
        root=place,
        split=part.split,
        annotations=part.annotations,
        images=images,
    )


def resolved_sources(data: Sources) -> Sources:
    """Replace kind=auto in a data set, or in each of several; see resolved."""
    return resolved(data) if isinstance(data, DataConfig) else tuple(map(resolved, data))


def folder_of(config: DataConfig) -> Path:
    """Return the folder of a data set; raises DataError where there is none."""
    root = Path(config.root).expanduser()
    if not config.root or not root.is_dir():
        raise DataError(f"no data set folder {config.root!r}; set data.root=DIR, in a training train.root and val.root")
    return root


def _open_one(config: DataConfig, need_images: bool) -> Dataset:
    config = resolved(config)
    root = folder_of(config)
    refuse_foreign(config)
    names, split, images = config.classes, config.split, config.image_list
    match config.kind:
        case DatasetKind.voc:
            dataset = read_voc(root, split, class_names=names, one_based=config.one_based, image_list=images)
        case DatasetKind.ilsvrc:
            dataset = listed_images(read_ilsvrc_det(root, split, boxes_per_class=config.boxes_per_class), images)
        case DatasetKind.coco:
            dataset = listed_images(_open_coco(root, config), images)
        case DatasetKind.yolo:
            dataset = read_yolo(root, split, class_names=names, image_list=images)
        case DatasetKind.labelme:
            dataset = read_labelme(root, split, class_names=names, image_list=images)
    if not config.exhaustive:
        dataset = replace(dataset, records=tuple(replace(record, exhaustive=False) for record in dataset.records))
    if need_images:
        return match_frames(_with_absent(dataset, config), config.size_mismatch)
    return dataset


def listed_images(dataset: Dataset, image_list: str) -> Dataset:
    """Keep the images of a data set that a text file names; all where it is empty. Errors are those of `chosen`."""
    if not image_list:
        return dataset
    records = chosen(dataset.records, lambda record: (record.image_id, record.path), image_list)
    return replace(dataset, records=tuple(records))


def _open_coco(root: Path, config: DataConfig) -> Dataset:
    annotations = root / (config.annotations or f"annotations/instances_{config.split}.json")
    if not annotations.is_file():
        found = sorted(
            path.relative_to(root).as_posix() for path in (*root.glob("*.json"), *root.glob("annotations/*.json"))
        )
        raise DataError(
            f"{annotations}: no such annotation file; there are: {', '.join(found) or 'none'}\n"
            "  name one:  data.annotations=FILE data.images=DIR  (or data.split=val2017 in COCO's own layout;\n"
            "  data.kind=auto looks for the files)"
        )
    dataset = read_coco(annotations, root / (config.images or config.split))
    return replace(dataset, name=f"{root.resolve().name} {config.split or annotations.stem}")


def refuse_foreign(config: DataConfig) -> None:
    """Raise DataError, naming the setting and its kind, if a setting of another kind is stated."""
    for setting in fields(config):
        owners = OWNERS.get(setting.name, (config.kind,))
        default = setting.default_factory() if setting.default_factory is not MISSING else setting.default
        if config.kind not in owners and getattr(config, setting.name) != default:
            raise DataError(
                f"data.{setting.name} is a setting of data.kind={', '.join(kind.value for kind in owners)}; "
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
