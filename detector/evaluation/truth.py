"""What detections are held against: the boxes of a split exactly as its files state them, in the protocol's own pixels.

Training reads a Dataset, whose boxes are cut at the image border and in the project's one convention. A score must not
depend on that: here coordinates stay as written, in float64, and say which convention they are in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detector.data.coco import read_coco
from detector.data.dataset import DataConfig, DatasetKind
from detector.data.ground_truth import ClassTable, DataError, Dataset, Repairs
from detector.data.ilsvrc import (
    annotation_folder,
    det_classes,
    image_folder,
    rcnn_split,
    read_blacklist,
    read_image_list,
    split_entries,
)
from detector.data.voc import (
    VOC_CLASSES,
    Annotation,
    check_names,
    class_table,
    image_files,
    read_annotation,
    read_split_list,
)
from detector.data.voc import read_list as read_voc_list
from proposals.boxes import Boxes


class Convention(NamedTuple):
    """How a file counts pixels.

    Attributes:
        first: number of the first pixel, 0 or 1.
        inclusive: 1 where the far corner is a pixel of the box, so that its width is x2 - x1 + 1; else 0.
    """

    first: int
    inclusive: int


HALF_OPEN = Convention(0, 0)
"""The project's own, and COCO's."""
VOC = Convention(1, 1)
ILSVRC = Convention(0, 1)


def convert(boxes: Boxes, given: Convention, wanted: Convention) -> Boxes:
    """Boxes [N, 4] of one convention in another; the same array where they agree."""
    if given == wanted:
        return boxes
    near = wanted.first - given.first
    far = near + given.inclusive - wanted.inclusive
    result: Boxes = boxes + np.array([near, near, far, far], dtype=boxes.dtype)
    return result


@dataclass(frozen=True)
class Truth:
    """The M objects marked in I images.

    Attributes:
        name: what to call the split in a report.
        classes: its K classes.
        image_ids: I names of images.
        paths: I photographs, which need not be there.
        sizes: [I, 2] int64 width and height, 0 where unknown.
        numbers: [I] int64 by which ILSVRC's texts name the images; None elsewhere.
        image_index: [M] int64, rising.
        labels: [M] int64, 0..K-1.
        boxes: [M, 4] float64 as written.
        difficult: [M] bool.
        crowd: [M] bool.
        areas: [M] float64, px², under which COCO files an object.
        convention: of boxes.
        numbered: whether files of results may name a class by its number; a table that we made up has none.
        blacklist: pairs of image and label that do not count (ILSVRC).
        whole: the file of which an image list takes a part; detections on its other images are left out too.
        warnings: what is odd about the files, one line a kind.
    """

    name: str
    classes: ClassTable
    image_ids: tuple[str, ...]
    paths: tuple[Path, ...]
    sizes: NDArray[np.int64]
    numbers: NDArray[np.int64] | None
    image_index: NDArray[np.int64]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float64]
    difficult: NDArray[np.bool_]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    convention: Convention = HALF_OPEN
    numbered: bool = True
    blacklist: frozenset[tuple[int, int]] = field(default_factory=frozenset)
    whole: Truth | None = None
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, dataset: Dataset) -> Truth:
        """The records of a Dataset, as they are there."""
        records = dataset.records
        return cls(
            name=dataset.name,
            classes=dataset.classes,
            image_ids=tuple(record.image_id for record in records),
            paths=tuple(record.path for record in records),
            sizes=np.array([(record.width, record.height) for record in records], np.int64).reshape(-1, 2),
            numbers=None,
            image_index=np.repeat(np.arange(len(records)), [len(record.labels) for record in records]).astype(np.int64),
            labels=np.concatenate([np.zeros(0, np.int64), *(record.labels for record in records)]),
            boxes=np.concatenate([np.zeros((0, 4)), *(record.boxes for record in records)]),
            difficult=np.concatenate([np.zeros(0, np.bool_), *(record.difficult for record in records)]),
            crowd=np.concatenate([np.zeros(0, np.bool_), *(record.crowd for record in records)]),
            areas=np.concatenate([np.zeros(0), *(record.areas for record in records)]),
            warnings=dataset.warnings,
        )

    def __len__(self) -> int:
        return len(self.image_ids)

    @cached_property
    def index_of(self) -> dict[str, int]:
        """Position of an image by its id."""
        return {image_id: index for index, image_id in enumerate(self.image_ids)}

    @cached_property
    def index_of_number(self) -> dict[int, int]:
        """Position of an image by its number; empty where they have none."""
        return {} if self.numbers is None else {number: index for index, number in enumerate(self.numbers.tolist())}

    @cached_property
    def index_of_any_name(self) -> dict[str, int]:
        """Position by every text that names one image: its id, its file name, the stem, the stem as a number."""
        names: dict[str, set[int]] = {}
        for index, path in enumerate(self.paths):
            stem = path.stem
            number = [str(int(stem))] if stem.isascii() and stem.isdecimal() else []
            for name in (path.name, stem, *number):
                names.setdefault(name, set()).add(index)
        unique = {name: indices.pop() for name, indices in names.items() if len(indices) == 1}
        numbers = {str(number): index for number, index in self.index_of_number.items()}
        return numbers | unique | self.index_of

    @cached_property
    def ignored(self) -> NDArray[np.bool_]:
        """[M] objects that are neither to be found nor punished: difficult or crowd."""
        return self.difficult | self.crowd

    def is_blacklisted(self, image_index: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[N] whether a pair of image and label is on the blacklist."""
        pairs = np.array([image * len(self.classes) + label for image, label in self.blacklist], np.int64)
        return np.isin(image_index * len(self.classes) + labels, pairs)

    def objects_of(self, index: int) -> slice:
        """Where the objects of image `index` are."""
        start, end = np.searchsorted(self.image_index, (index, index + 1)).tolist()
        return slice(start, end)


def read_ilsvrc_truth(
    annotations: Path,
    image_list: Path | Sequence[tuple[str, int]],
    blacklist: Path | str | None = None,
    *,
    name: str = "",
    images: Path | None = None,
) -> Truth:
    """ILSVRC DET: a folder of XML files and a list of "name number" lines.

    Args:
        annotations: the folder.
        image_list: the file, or its (name, number) pairs.
        blacklist: as detector.data.ilsvrc.read_blacklist takes it; None for none.
        name: of the split; the list's where empty.
        images: folder of the photographs.

    Raises:
        DataError: a file that is absent or malformed, with the line; a class that is none of the 200; a name or number
            that is listed twice; a blacklist by number with R-CNN's lists, which have numbers of their own.
    """
    entries = read_image_list(image_list) if isinstance(image_list, Path) else list(image_list)
    name = name or (image_list.stem if isinstance(image_list, Path) else "images")
    classes = det_classes()
    repairs = Repairs()
    if not annotations.is_dir():
        raise DataError(f"no folder of annotations {annotations}")
    pairs = read_blacklist(blacklist) if blacklist else []
    if any(image.isdecimal() for image, _ in pairs) and entries in (rcnn_split("val1"), rcnn_split("val2")):
        raise DataError(
            f"{blacklist}: means the numbers of the devkit's val.txt, and {name} is R-CNN's list with its own numbers; "
            "it holds no blacklisted image, so leave the blacklist out"
        )
    parsed: list[Annotation | None] = []
    for image_id, _ in entries:
        path = annotations / f"{image_id}.xml"
        if path.is_file():
            parsed.append(read_annotation(path))
        else:
            repairs.note("images have no annotation file and count as without objects", image_id)
            parsed.append(None)
    if not any(parsed):
        raise DataError(f"{annotations}: has no annotation of any of the {len(entries):,} images of {name}")
    folder = images or Path()
    return _from_annotations(
        name,
        classes,
        [image_id for image_id, _ in entries],
        [folder / f"{image_id}.JPEG" for image_id, _ in entries],
        parsed,
        ILSVRC,
        repairs,
        numbers=[number for _, number in entries],
        blacklist=pairs,
    )


def read_voc_truth(
    annotations: Path,
    image_list: Path | Sequence[str],
    class_names: Sequence[str] = VOC_CLASSES,
    *,
    one_based: bool = True,
    name: str = "",
    images: Path | None = None,
) -> Truth:
    """PASCAL VOC: a folder of XML files and a list of image names.

    Args:
        annotations: the folder.
        image_list: the file, or its names.
        class_names: the K classes; only VOC's own 20 have numbers.
        one_based: whether pixels count from 1, as VOC's.
        name: of the split; the list's where empty.
        images: folder of the photographs; JPEGImages beside the annotations where absent.

    Raises:
        DataError: a file that is absent or malformed; a class that is not among class_names.
    """
    repairs = Repairs()
    if isinstance(image_list, Path):
        names = [columns[0] for columns in read_voc_list(image_list, repairs)]
        name = name or image_list.stem
    else:
        names = list(image_list)
    classes = class_table(class_names)
    parsed = []
    for image_id in names:
        path = annotations / f"{image_id}.xml"
        if not path.is_file():
            raise DataError(f"{path}: no such annotation, but the list of {name or 'images'} has {image_id}")
        parsed.append(read_annotation(path))
    check_names(parsed, classes)
    folder = images or annotations.parent / "JPEGImages"
    files = image_files(folder)
    return _from_annotations(
        name or "images",
        classes,
        names,
        [files.get(image_id, folder / f"{image_id}.jpg") for image_id in names],
        parsed,
        VOC if one_based else ILSVRC,
        repairs,
        numbered=tuple(class_names) == VOC_CLASSES,
    )


def read_coco_truth(annotations: Path, images: Path | None = None) -> Truth:
    """COCO: an instances file."""
    return Truth.of(read_coco(annotations, images or annotations.parent, as_written=True))


def read_truth(config: DataConfig, blacklist: str = "") -> Truth:
    """The split of a config, for scoring; see detector.data.dataset.DataConfig. The blacklist is ILSVRC's.

    Raises:
        DataError: as the readers; or objects are left out, as only training may.
    """
    if config.boxes_per_class:
        raise DataError("data.boxes_per_class is a setting of training; leave it out to score, where all objects count")
    root = Path(config.root).expanduser()
    if not config.root or not root.is_dir():
        raise DataError(f"no data set folder {config.root!r}; set data.root=DIR")
    name = f"{root.resolve().name} {config.split}"
    match config.kind:
        case DatasetKind.voc:
            lines = read_split_list(root / "ImageSets" / "Main", config.split, Repairs())
            return read_voc_truth(
                root / "Annotations",
                [columns[0] for columns in lines],
                tuple(config.classes) or VOC_CLASSES,
                one_based=config.one_based,
                name=name,
                images=root / "JPEGImages",
            )
        case DatasetKind.ilsvrc:
            return read_ilsvrc_truth(
                annotation_folder(root, config.split),
                split_entries(root, config.split),
                blacklist or None,
                name=name,
                images=image_folder(root, config.split),
            )
        case DatasetKind.coco:
            annotations = root / (config.annotations or f"annotations/instances_{config.split}.json")
            return replace(read_coco_truth(annotations, root / (config.images or config.split)), name=name.strip())


def _from_annotations(
    name: str,
    classes: ClassTable,
    image_ids: Sequence[str],
    paths: Sequence[Path],
    annotations: Sequence[Annotation | None],
    convention: Convention,
    repairs: Repairs,
    *,
    numbers: Sequence[int] | None = None,
    numbered: bool = True,
    blacklist: Sequence[tuple[str, str]] = (),
) -> Truth:
    boxes, labels, difficult, counts = [], [], [], []
    known = set(classes.wnids)
    for annotation in annotations:
        if annotation is None:
            counts.append(0)
            continue
        if convention == ILSVRC and numbers is not None:
            foreign = next((wnid for wnid in annotation.names if wnid not in known), None)
            if foreign is not None:
                raise DataError(
                    f"{annotation.path}: unknown class {foreign!r}; <name> must be one of the 200 WordNet ids of DET"
                )
        extent = annotation.boxes[:, 2:] - annotation.boxes[:, :2] + convention.inclusive
        upright = np.asarray((extent > 0).all(axis=1))
        repairs.note("boxes end before they begin and were left out", annotation.path.name, int((~upright).sum()))
        boxes.append(annotation.boxes[upright])
        labels += [classes.label_of[item] for item, keep in zip(annotation.names, upright, strict=True) if keep]
        difficult.append(annotation.difficult[upright])
        counts.append(int(upright.sum()))
    all_boxes = np.concatenate([np.zeros((0, 4)), *boxes])
    index_of = {str(number): index for index, number in enumerate(numbers or [])}
    index_of |= {image_id: index for index, image_id in enumerate(image_ids)}
    pairs = [(index_of[image], classes.label_of[wnid]) for image, wnid in blacklist if image in index_of]
    if blacklist and not pairs:
        repairs.note("lines of the blacklist, all of them, name images that are not listed", name, len(blacklist))
    return Truth(
        name=name,
        classes=classes,
        image_ids=tuple(image_ids),
        paths=tuple(paths),
        sizes=np.array([item.size if item else (0, 0) for item in annotations], np.int64).reshape(-1, 2),
        numbers=None if numbers is None else np.array(numbers, np.int64),
        image_index=np.repeat(np.arange(len(image_ids)), counts).astype(np.int64),
        labels=np.array(labels, np.int64),
        boxes=all_boxes,
        difficult=np.concatenate([np.zeros(0, np.bool_), *difficult]),
        crowd=np.zeros(len(all_boxes), np.bool_),
        areas=np.prod(all_boxes[:, 2:] - all_boxes[:, :2] + convention.inclusive, axis=1),
        convention=convention,
        numbered=numbered,
        blacklist=frozenset(pairs),
        warnings=repairs.lines(),
    )
