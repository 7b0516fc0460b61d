"""A data set that a config names, XML with a list of images, or COCO's JSON -> Truth. Other paths: truth_paths.py.

Boxes keep the coordinates that the files state, in the format's own pixels. Images need not exist, except YOLO's, whose
sizes scale its boxes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from detector.data.coco import read_coco
from detector.data.dataset import (
    DataConfig,
    DatasetKind,
    folder_of,
    refuse_foreign,
    resolved,
    sources_of,
)
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
from detector.data.image_list import chosen
from detector.data.labelme import read_labelme
from detector.data.trees import files_below
from detector.data.voc import XML, Entry, VocTree, annotation_files, list_entries, read_list
from detector.data.voc_classes import VOC_CLASSES, check_names, class_names_of, class_table
from detector.data.voc_xml import Annotation, read_annotation
from detector.data.yolo import read_yolo
from detector.evaluation.checking import unknown_image
from detector.evaluation.joining import joined_truth
from detector.evaluation.names import Names
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
    config = resolved(config)
    refuse_foreign(config)
    if blacklist and config.kind is not DatasetKind.ilsvrc:
        raise DataError(f"blacklist is for data.kind=ilsvrc; leave it out with {config.kind.value}")
    if config.boxes_per_class:
        raise DataError("data.boxes_per_class is a setting of training; leave it out to score, where all objects count")
    if not config.exhaustive:
        raise DataError("data.exhaustive is a setting of training; leave it out to score, where unboxed objects count")
    root, split, classes = folder_of(config), config.split, config.classes
    name = f"{root.resolve().name} {split}".strip()
    match config.kind:
        case DatasetKind.voc:
            repairs = Repairs()
            entries = list_entries(root, split, repairs)
            names, remarks = class_names_of(classes, annotation_files(root))
            truth = _voc_truth(entries, names, repairs, one_based=config.one_based, name=name)
            truth = replace(truth, warnings=(*remarks, *truth.warnings))
        case DatasetKind.ilsvrc:
            folder, entries_of_split = annotation_folder(root, split), split_entries(root, split)
            truth = _ilsvrc_truth(folder, entries_of_split, blacklist, name=name, images=image_folder(root, split))
        case DatasetKind.coco:
            annotations = root / (config.annotations or f"annotations/instances_{split}.json")
            truth = Truth.of(read_coco(annotations, root / (config.images or split), as_written=True))
        case DatasetKind.yolo:
            truth = Truth.of(read_yolo(root, split, class_names=classes, as_written=True))
        case DatasetKind.labelme:
            truth = replace(Truth.of(read_labelme(root, split, class_names=classes, as_written=True)), numbered=False)
        case DatasetKind.auto:
            raise AssertionError("kind=auto was replaced above")
    truth = replace(truth, name=name)
    if config.image_list:
        named = list(enumerate(zip(truth.image_ids, truth.paths, strict=True)))
        kept = np.zeros(len(truth), np.bool_)
        kept[[index for index, _ in chosen(named, lambda one: one[1], config.image_list)]] = True
        truth = replace(truth.part(kept), whole=truth)
    return _checked(truth, config.size_mismatch)


def _checked(truth: Truth, mode: SizeMismatch) -> Truth:
    """Bring boxes into the frames of existing images, and distrust sizes that do not hold their own objects."""
    return truth.in_frames(mode).with_trusted_sizes()


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
    return _checked(truth, size_mismatch)


def read_voc_truth(
    annotations: Path,
    image_list: Path | Sequence[str],
    class_names: Sequence[str] = (),
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
        class_names: The K classes; only VOC's own 20 have numbers. Empty for these where the folder has no other names,
            else for all names in it, sorted.
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
    name = _name_of(image_list) if isinstance(image_list, Path) else name
    listed = f"the list of {name} has"
    names = tree.names(lines, source, repairs)
    entries = [Entry(one, tree.annotation(one, listed), tree.image(one)) for one in names]
    classes, remarks = class_names_of(class_names, files_below(annotations, XML))
    truth = _voc_truth(entries, classes, repairs, one_based=one_based, name=name)
    return _checked(replace(truth, warnings=(*remarks, *truth.warnings)), size_mismatch)


def _voc_truth(
    entries: Sequence[Entry], class_names: Sequence[str], repairs: Repairs, *, one_based: bool, name: str
) -> Truth:
    classes = class_table(class_names)
    parsed = [read_annotation(entry.annotation) for entry in entries]
    check_names(parsed, classes)
    return _from_annotations(
        parsed,
        VOC if one_based else ILSVRC,
        repairs,
        name=name,
        classes=classes,
        image_ids=tuple(entry.image_id for entry in entries),
        paths=tuple(entry.image for entry in entries),
        numbers=None,
        numbered=tuple(class_names) == VOC_CLASSES,
    )


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
    truth = _ilsvrc_truth(annotations, entries, blacklist, name=name or _name_of(image_list), images=images)
    return _checked(truth, size_mismatch)


def _ilsvrc_truth(
    annotations: Path, entries: Sequence[tuple[str, int]], blacklist: Path | str, *, name: str, images: Path | None
) -> Truth:
    """Read ILSVRC's ground truth; see read_ilsvrc_truth."""
    entries = list(entries)
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
    return _from_annotations(
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
