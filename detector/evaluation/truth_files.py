"""Files of ground truth -> Truth: PASCAL VOC's and ILSVRC's XML, COCO's JSON.

Boxes keep the coordinates that the files state, in the format's own pixels. Images need not exist.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from detector.data.coco import read_coco
from detector.data.dataset import DataConfig, DatasetKind, refuse_foreign, sources_of
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
from detector.data.voc import VOC_CLASSES, VocTree, check_names, class_table, read_list, read_split_list
from detector.data.voc_xml import Annotation, read_annotation
from detector.evaluation.checking import unknown_image
from detector.evaluation.joining import joined_truth
from detector.evaluation.names import Names
from detector.evaluation.protocols import Protocol, ScoringConfig
from detector.evaluation.truth import ILSVRC, VOC, Convention, Truth

UNANNOTATED = Annotation(Path(), (0, 0), (), np.zeros((0, 4)), np.zeros(0, np.bool_))


def read_truth(config: DataConfig | Sequence[DataConfig], blacklist: str = "") -> Truth:
    """Read the ground truth of a data set for scoring, or that of several, as one (joining.py).

    Images need not exist. Where they do, size_mismatch=skip and =turn change the same images as in open_dataset.

    Args:
        config: The data set and its split, or several.
        blacklist: ILSVRC's file of (image, class) pairs that do not count, or "ilsvrc2014"; empty for none.

    Raises:
        DataError: a file cannot be read; a setting of another kind of data; or a setting that leaves out objects, which
            only training may do; or a data set does not label a class of the first.
    """
    parts = sources_of(config)
    if blacklist and len(parts) > 1:
        raise DataError("blacklist is for one data set; leave it out, or evaluate that one by itself")
    return joined_truth([_read_one(part, blacklist) for part in parts])


def _read_one(config: DataConfig, blacklist: str) -> Truth:
    refuse_foreign(config)
    if blacklist and config.kind is not DatasetKind.ilsvrc:
        raise DataError(f"blacklist is for data.kind=ilsvrc; leave it out with {config.kind.value}")
    if config.boxes_per_class:
        raise DataError("data.boxes_per_class is a setting of training; leave it out to score, where all objects count")
    if not config.exhaustive:
        raise DataError("data.exhaustive is a setting of training; leave it out to score, where unboxed objects count")
    root = Path(config.root).expanduser()
    if not config.root or not root.is_dir():
        raise DataError(f"no data set folder {config.root!r}; set data.root=DIR")
    split, mode = config.split, config.size_mismatch
    name = f"{root.resolve().name} {split}".strip()
    match config.kind:
        case DatasetKind.voc:
            names = tuple(config.classes) or VOC_CLASSES
            lines, images = read_split_list(root / "ImageSets" / "Main", split), root / "JPEGImages"
            folder, one_based = root / "Annotations", config.one_based
            return read_voc_truth(
                folder, lines, names, one_based=one_based, name=name, images=images, size_mismatch=mode
            )
        case DatasetKind.ilsvrc:
            folder, images = annotation_folder(root, split), image_folder(root, split)
            entries = split_entries(root, split)
            return read_ilsvrc_truth(folder, entries, blacklist, name=name, images=images, size_mismatch=mode)
        case DatasetKind.coco:
            annotations = root / (config.annotations or f"annotations/instances_{split}.json")
            truth = read_coco_truth(annotations, root / (config.images or split), size_mismatch=mode)
            return replace(truth, name=name)


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
        raise DataError(f"{annotations}: no such folder of XML or COCO file")
    is_xml = annotations.is_dir()
    if class_names and (not is_xml or config.protocol is Protocol.ilsvrc):
        owner = "ILSVRC DET has its own 200" if is_xml else f"{annotations} names its own"
        raise DataError(f"class names are for XML of VOC's form, and {owner}; leave them out")
    if config.blacklist and not is_xml:
        raise DataError(f"a blacklist is for ILSVRC's XML, and {annotations} is a COCO file; leave it out")
    if not is_xml:
        truth = read_coco_truth(annotations)
        return truth if image_list is None else listed_part(truth, image_list)
    if image_list is None:
        raise DataError(f"{annotations} is a folder of XML, which needs a list of the images to score")
    if config.protocol is Protocol.ilsvrc:
        return read_ilsvrc_truth(annotations, image_list, config.blacklist)
    return read_voc_truth(annotations, image_list, tuple(class_names) or VOC_CLASSES)


def listed_part(truth: Truth, image_list: Path) -> Truth:
    """Return the ground truth of the images on a list, in the order of the whole.

    Args:
        truth: Ground truth of a whole file.
        image_list: Text file with an image id or file name per line; a number after it is ignored.

    Raises:
        DataError: the list cannot be read or is empty, or names an unknown image, or one twice.
    """
    names = Names(truth)
    line_of: dict[int, int] = {}
    for number, line in enumerate(read_lines(image_list), 1):
        if not line:
            continue
        texts = (line, line.rsplit(maxsplit=1)[0])
        index = next((found for text in texts if (found := names.image(text)) >= 0), None)
        if index is None:
            raise DataError(f"{image_list}, line {number}: {unknown_image(line, truth)}")
        if index in line_of:
            raise DataError(f"{image_list}, line {number}: {line} is on line {line_of[index]} too")
        line_of[index] = number
    if not line_of:
        raise DataError(f"{image_list}: no images in this list")
    kept = np.zeros(len(truth), np.bool_)
    kept[list(line_of)] = True
    return replace(truth.part(kept), name=f"{truth.name} {image_list.stem}", whole=truth)


def read_coco_truth(
    annotations: Path, images: Path | None = None, *, size_mismatch: SizeMismatch = SizeMismatch.error
) -> Truth:
    """Read COCO's instances JSON.

    Args:
        annotations: The file.
        images: Folder of the images; the file's own folder where absent.
        size_mismatch: Treatment of existing images of another size than the file states, as in DataConfig.

    Raises:
        DataError: the file is absent, malformed, or not ground truth.
    """
    truth = Truth.of(read_coco(annotations, images or annotations.parent, as_written=True))
    return truth.in_frames(size_mismatch).with_trusted_sizes()


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
    """Read PASCAL VOC's ground truth: a folder of XML files and a list of image names.

    Args:
        annotations: The folder of XML files.
        image_list: The list's file, or its lines.
        class_names: The K classes; only VOC's own 20 have numbers.
        one_based: Whether the first pixel has coordinate 1, as in VOC; else 0.
        name: Name of the split; the list's file name where empty.
        images: Folder of the images; JPEGImages beside the annotations where absent.
        size_mismatch: Treatment of existing images of another size than their annotation states, as in DataConfig.

    Raises:
        DataError: a file is absent or malformed; a class is not among class_names.
    """
    repairs = Repairs()
    tree = VocTree(annotations, images or annotations.parent / "JPEGImages")
    lines = read_list(image_list) if isinstance(image_list, Path) else image_list
    source = image_list.name if isinstance(image_list, Path) else name
    name = name or _name_of(image_list)
    names = tree.names(lines, source, repairs)
    classes = class_table(class_names)
    parsed = [read_annotation(tree.annotation(image_id, f"the list of {name} has")) for image_id in names]
    check_names(parsed, classes)
    truth = _from_annotations(
        parsed,
        VOC if one_based else ILSVRC,
        repairs,
        name=name,
        classes=classes,
        image_ids=tuple(names),
        paths=tuple(tree.image(image_id) for image_id in names),
        numbers=None,
        numbered=tuple(class_names) == VOC_CLASSES,
    )
    return truth.in_frames(size_mismatch).with_trusted_sizes()


def read_ilsvrc_truth(
    annotations: Path,
    image_list: Path | Sequence[tuple[str, int]],
    blacklist: Path | str = "",
    *,
    name: str = "",
    images: Path | None = None,
    size_mismatch: SizeMismatch = SizeMismatch.error,
) -> Truth:
    """Read ILSVRC DET's ground truth: a folder of XML files and a list of "name number" lines.

    Args:
        annotations: The folder of XML files.
        image_list: The list's file, or its (name, number) pairs.
        blacklist: File of (image, class) pairs that do not count, or "ilsvrc2014"; empty for none.
        name: Name of the split; the list's file name where empty.
        images: Folder of the images.
        size_mismatch: Treatment of existing images of another size than their annotation states, as in DataConfig.

    Raises:
        DataError: a file is absent or malformed, with the line; a class is none of the 200; a name or number is listed
            twice; a blacklist by number with R-CNN's lists, which have their own numbers.
    """
    entries = read_image_list(image_list) if isinstance(image_list, Path) else list(image_list)
    name = name or _name_of(image_list)
    classes = det_classes()
    known = set(classes.wnids)
    repairs = Repairs()
    public = annotations.name != "test"  # the contest keeps the annotations of its test images
    if public and not annotations.is_dir():
        raise DataError(f"no folder of annotations {annotations}")
    pairs = read_blacklist(blacklist) if blacklist else []
    if any(image.isdecimal() for image, _ in pairs) and entries in (rcnn_split("val1"), rcnn_split("val2")):
        raise DataError(
            f"{blacklist}: uses the numbers of the devkit's val.txt, and {name} is R-CNN's list with its own numbers; "
            "it contains no blacklisted image, so leave the blacklist out"
        )
    parsed = []
    for image_id, _ in entries:
        path = annotations / f"{image_id}.xml"
        parsed.append(read_annotation(path) if os.path.isfile(path) else UNANNOTATED)
        if parsed[-1] is UNANNOTATED:
            repairs.note("images have no annotation file and count as without objects", image_id)
        foreign = next((wnid for wnid in parsed[-1].names if wnid not in known), None)
        if foreign is not None:
            raise DataError(f"{path}: unknown class {foreign!r}; <name> must be one of the 200 WordNet ids of DET")
    if public and all(item is UNANNOTATED for item in parsed):
        raise DataError(f"{annotations}: has no annotation of any of the {len(entries):,} images of {name}")
    index_of = {str(number): index for index, (_, number) in enumerate(entries)}
    index_of |= {image_id: index for index, (image_id, _) in enumerate(entries)}
    excluded = frozenset((index_of[image], classes.label_of[wnid]) for image, wnid in pairs if image in index_of)
    if pairs and not excluded:
        repairs.note("lines of the blacklist, all of them, name images that are not listed", name, len(pairs))
    files = Files(images) if images else None
    folder = images or Path()
    truth = _from_annotations(
        parsed,
        ILSVRC,
        repairs,
        name=name,
        classes=classes,
        image_ids=tuple(image_id for image_id, _ in entries),
        paths=tuple((files and files.find(image_id)) or folder / f"{image_id}.JPEG" for image_id, _ in entries),
        numbers=np.array([number for _, number in entries], np.int64),
        blacklist=excluded,
    )
    return truth.in_frames(size_mismatch).with_trusted_sizes()


def _name_of(image_list: object) -> str:
    return image_list.stem if isinstance(image_list, Path) else "images"


def _from_annotations(
    annotations: Sequence[Annotation], convention: Convention, repairs: Repairs, *, classes: ClassTable, **columns: Any
) -> Truth:
    """Make a table of the objects of XML files, one file per image; inverted boxes are left out and counted."""
    boxes = np.concatenate([np.zeros((0, 4)), *(item.boxes for item in annotations)])
    image_index = np.repeat(np.arange(len(annotations)), [len(item.boxes) for item in annotations]).astype(np.int64)
    labels = np.array([classes.label_of[name] for item in annotations for name in item.names], np.int64)
    difficult = np.concatenate([np.zeros(0, np.bool_), *(item.difficult for item in annotations)])
    extent = boxes[:, 2:] - boxes[:, :2] + convention.inclusive
    upright = np.asarray((extent > 0).all(axis=1))
    for index in image_index[~upright].tolist():
        repairs.note(INVERTED, annotations[index].path.name)
    return Truth(
        classes=classes,
        sizes=np.array([item.size for item in annotations], np.int64).reshape(-1, 2),
        image_index=image_index[upright],
        labels=labels[upright],
        boxes=boxes[upright],
        difficult=difficult[upright],
        crowd=np.zeros(int(upright.sum()), np.bool_),
        areas=extent[upright].prod(axis=1),
        convention=convention,
        warnings=repairs.lines(),
        **columns,
    )
