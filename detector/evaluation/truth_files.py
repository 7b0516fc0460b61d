"""Files of ground truth -> Truth: PASCAL VOC's and ILSVRC's XML, COCO's JSON.

Boxes keep the coordinates that the files state, in the format's own pixels. Images need not be there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from detector.data.coco import read_coco
from detector.data.dataset import DataConfig, DatasetKind, refuse_foreign
from detector.data.files import Files
from detector.data.frames import SizeMismatch
from detector.data.ground_truth import INVERTED, ClassTable, DataError, Repairs, read_lines
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
    VocTree,
    check_names,
    class_table,
    read_annotation,
    read_split_list,
)
from detector.data.voc import read_list as read_voc_list
from detector.evaluation.checking import unknown_image
from detector.evaluation.names import Names
from detector.evaluation.protocols import Protocol, ScoringConfig
from detector.evaluation.truth import ILSVRC, VOC, Convention, Truth


def read_ilsvrc_truth(
    annotations: Path,
    image_list: Path | Sequence[tuple[str, int]],
    blacklist: Path | str | None = None,
    *,
    name: str = "",
    images: Path | None = None,
    size_mismatch: SizeMismatch = SizeMismatch.error,
) -> Truth:
    """ILSVRC DET: a folder of XML files and a list of "name number" lines.

    Args:
        annotations: the folder.
        image_list: the file, or its (name, number) pairs.
        blacklist: as detector.data.ilsvrc.read_blacklist takes it; None for none.
        name: of the split; the list's where empty.
        images: folder of the photographs.
        size_mismatch: as in DataConfig, of photographs that are there.

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
        if os.path.isfile(path):
            parsed.append(read_annotation(path))
        else:
            repairs.note("images have no annotation file and count as without objects", image_id)
            parsed.append(None)
    if not any(parsed):
        raise DataError(f"{annotations}: has no annotation of any of the {len(entries):,} images of {name}")
    files = Files(images) if images else None
    folder = images or Path()
    return _from_annotations(
        name,
        classes,
        [image_id for image_id, _ in entries],
        [(files and files.find(image_id)) or folder / f"{image_id}.JPEG" for image_id, _ in entries],
        parsed,
        ILSVRC,
        repairs,
        numbers=[number for _, number in entries],
        blacklist=pairs,
        size_mismatch=size_mismatch,
    )


def read_voc_truth(
    annotations: Path,
    image_list: Path | Sequence[str],
    class_names: Sequence[str] = VOC_CLASSES,
    *,
    one_based: bool = True,
    name: str = "",
    images: Path | None = None,
    size_mismatch: SizeMismatch = SizeMismatch.error,
) -> Truth:
    """PASCAL VOC: a folder of XML files and a list of image names.

    Args:
        annotations: the folder.
        image_list: the file, or its lines.
        class_names: the K classes; only VOC's own 20 have numbers.
        one_based: whether pixels count from 1, as VOC's.
        name: of the split; the list's where empty.
        images: folder of the photographs; JPEGImages beside the annotations where absent.
        size_mismatch: as in DataConfig, of photographs that are there.

    Raises:
        DataError: a file that is absent or malformed; a class that is not among class_names.
    """
    repairs = Repairs()
    tree = VocTree(annotations, images or annotations.parent / "JPEGImages")
    lines = image_list if not isinstance(image_list, Path) else read_voc_list(image_list)
    source = image_list.name if isinstance(image_list, Path) else name
    name = name or (image_list.stem if isinstance(image_list, Path) else "images")
    names = tree.names(lines, source, repairs)
    classes = class_table(class_names)
    parsed = [read_annotation(tree.annotation(image_id, f"the list of {name} has")) for image_id in names]
    check_names(parsed, classes)
    return _from_annotations(
        name,
        classes,
        names,
        [tree.image(image_id) for image_id in names],
        parsed,
        VOC if one_based else ILSVRC,
        repairs,
        numbered=tuple(class_names) == VOC_CLASSES,
        size_mismatch=size_mismatch,
    )


def read_coco_truth(
    annotations: Path, images: Path | None = None, *, size_mismatch: SizeMismatch = SizeMismatch.error
) -> Truth:
    """COCO: an instances file."""
    truth = Truth.of(read_coco(annotations, images or annotations.parent, as_written=True))
    return truth.in_frames(size_mismatch).with_trusted_sizes()


def read_truth(config: DataConfig, blacklist: str = "") -> Truth:
    """The split of a config, for scoring; see detector.data.dataset.DataConfig. The blacklist is ILSVRC's.

    Photographs need not be there. Where they are, size_mismatch=skip and =turn do to images what open_dataset does.

    Raises:
        DataError: as the readers; or objects are left out, as only training may.
    """
    refuse_foreign(config)
    if blacklist and config.kind is not DatasetKind.ilsvrc:
        raise DataError(f"blacklist is for data.kind=ilsvrc; leave it out with {config.kind.value}")
    if config.boxes_per_class:
        raise DataError("data.boxes_per_class is a setting of training; leave it out to score, where all objects count")
    root = Path(config.root).expanduser()
    if not config.root or not root.is_dir():
        raise DataError(f"no data set folder {config.root!r}; set data.root=DIR")
    name = f"{root.resolve().name} {config.split}"
    match config.kind:
        case DatasetKind.voc:
            return read_voc_truth(
                root / "Annotations",
                read_split_list(root / "ImageSets" / "Main", config.split),
                tuple(config.classes) or VOC_CLASSES,
                one_based=config.one_based,
                name=name,
                images=root / "JPEGImages",
                size_mismatch=config.size_mismatch,
            )
        case DatasetKind.ilsvrc:
            return read_ilsvrc_truth(
                annotation_folder(root, config.split),
                split_entries(root, config.split),
                blacklist or None,
                name=name,
                images=image_folder(root, config.split),
                size_mismatch=config.size_mismatch,
            )
        case DatasetKind.coco:
            annotations = root / (config.annotations or f"annotations/instances_{config.split}.json")
            images = root / (config.images or config.split)
            truth = read_coco_truth(annotations, images, size_mismatch=config.size_mismatch)
            return replace(truth, name=name.strip())


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
    size_mismatch: SizeMismatch,
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
        repairs.note(INVERTED, annotation.path.name, int((~upright).sum()))
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
    truth = Truth(
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
    return truth.in_frames(size_mismatch).with_trusted_sizes()


def open_truth(
    annotations: Path, image_list: Path | None, config: ScoringConfig, class_names: Sequence[str] = ()
) -> Truth:
    """Read ground truth that a command names by its files: an XML folder with a list of images, or a COCO file.

    Args:
        annotations: Folder of XML, read as ILSVRC's or VOC's by the config's protocol, or a COCO file.
        image_list: List of the images to score. Required for XML; without it all images of a COCO file count.
        config: The protocol, and ILSVRC's blacklist.
        class_names: The K classes, for XML in VOC's form with other classes than VOC's 20.

    Raises:
        DataError: a file cannot be read; an option that the files or the protocol do not have; a list that names an
            image which the COCO file does not have, or one twice.
    """
    if not annotations.exists():
        raise DataError(f"{annotations}: no such folder of XML, nor COCO file")
    is_xml = annotations.is_dir()
    if class_names and (not is_xml or config.protocol is Protocol.ilsvrc):
        owner = "ILSVRC DET has its own 200" if is_xml else f"{annotations} names its own"
        raise DataError(f"--classes are for XML of VOC's form, and {owner}; leave them out")
    if config.blacklist and not is_xml:
        raise DataError(f"--blacklist is for ILSVRC's XML, and {annotations} is a COCO file; leave it out")
    if not is_xml:
        truth = read_coco_truth(annotations)
        return truth if image_list is None else listed_part(truth, image_list)
    if image_list is None:
        raise DataError(f"{annotations} is a folder of XML: give --image-list, the images that count")
    if config.protocol is Protocol.ilsvrc:
        return read_ilsvrc_truth(annotations, image_list, config.blacklist or None)
    return read_voc_truth(annotations, image_list, tuple(class_names) or VOC_CLASSES)


def listed_part(truth: Truth, image_list: Path) -> Truth:
    """The images of a list, in the truth's order.

    Args:
        truth: a whole file.
        image_list: a text with an id or a file name a line; a number behind it, as other lists have, is left out.

    Raises:
        DataError: the list cannot be read or is empty, or names an image that is not there, or one twice.
    """
    names = Names(truth)
    line_of: dict[int, int] = {}
    for number, line in enumerate(read_lines(image_list), 1):
        if not line.strip():
            continue
        texts = (line.strip(), line.rsplit(maxsplit=1)[0].strip())
        index = next((place for text in texts if (place := names.image(text)) >= 0), None)
        if index is None:
            raise DataError(f"{image_list}, line {number}: {unknown_image(line.strip(), truth)}")
        if index in line_of:
            raise DataError(f"{image_list}, line {number}: {line.strip()} is on line {line_of[index]} too")
        line_of[index] = number
    if not line_of:
        raise DataError(f"{image_list}: no images in this list")
    kept = np.zeros(len(truth), np.bool_)
    kept[list(line_of)] = True
    return replace(truth.part(kept), name=f"{truth.name} {image_list.stem}", whole=truth)
