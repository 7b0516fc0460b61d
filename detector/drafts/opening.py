"""Read what a folder or a config names, with its image files, ready for the doctor and for a split.

In: a folder or a config's data sections.  Out: the parts that are trained and measured on, and what reading found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from detector.data.dataset import DataConfig
from detector.data.frames import SIDEWAYS, SizeMismatch, match_frames
from detector.data.ground_truth import DataError, Dataset
from detector.data.labelled_images import ImagesConfig, LabelledImages, read_image_folder
from detector.data.recognition import Layout
from detector.data.trees import is_part
from detector.data.voc_classes import VOC_CLASSES
from detector.doctor.checkup import Part, open_part
from detector.doctor.copies import copy_groups
from detector.doctor.findings import Finding, finding
from detector.doctor.images import ImageFacts, read_facts
from detector.drafts.choice import choose_parts
from detector.drafts.split import Mask, divided, split_images

TRAIN, VAL, TEST = "train", "val", "test"
WITH_NAMES = ("voc", "yolo", "labelme")
"""Layouts whose section of a config lists the classes."""


@dataclass(frozen=True, eq=False)
class Opened:
    """Parts of a detection data set that were read.

    Attributes:
        parts: The parts, the one to train on first.
        configs: Their sections of a config, by the parts' names.
        findings: What reading found.
        listed: Names of the images of parts that a list has to name, by the parts' names.
    """

    parts: list[Part]
    configs: dict[str, DataConfig]
    findings: list[Finding]
    listed: dict[str, list[str]] = field(default_factory=dict)


def open_layout(layout: Layout, *, roles: bool = True) -> Opened:
    """Read the parts of a detection data set that its folder has: train, val and test, or all of it as one.

    Args:
        layout: What the folder is.
        roles: Whether a part must be called train; else, where none is, all parts are read by their names.

    Raises:
        DataError: there are several parts, and none is called train.
    """
    try:
        choice = choose_parts(layout.parts)
        names = {TRAIN if choice.val or choice.test else "": choice.train, VAL: choice.val, TEST: choice.test}
    except DataError:
        if roles:
            raise
        names = {name: name for name in layout.parts}
    opened = Opened([], {}, [])
    for name, own in names.items():
        if own is None:
            continue
        part, found = open_part(name, layout.parts[own])
        opened.findings.extend(found)
        opened.configs[name] = layout.parts[own]
        if part is None:
            continue
        opened.configs[name] = _completed(layout, opened.configs[name], part)
        try:
            opened.parts.append(_in_frames(part, opened.configs[name].size_mismatch))
        except DataError as error:
            opened.findings.extend(finding("data.unreadable", str(error), [], count=1))
    return opened


def split_part(opened: Opened, share: float, seed: int) -> Opened:
    """Split the first part in train and val; see split_images.

    Raises:
        DataError: it has fewer than two images, or none with an object.
    """
    first, *others = opened.parts
    records = first.dataset.records
    present = np.zeros((len(records), len(first.dataset.classes)), bool)
    for row, record in zip(present, records, strict=True):
        row[record.labels[(record.labels >= 0) & ~(record.difficult | record.crowd)]] = True
    for_val = _for_val(first.facts, present, share, seed)
    names = _list_names(first.dataset)
    parts, listed = [], {}
    config = opened.configs[first.name]
    for name, mask in ((TRAIN, ~for_val), (VAL, for_val)):
        places = np.flatnonzero(mask).tolist()
        some = replace(first.dataset, records=tuple(records[place] for place in places), warnings=())
        parts.append(Part(name, some, tuple(first.facts[place] for place in places)))
        listed[name] = [names[place] for place in places]
    configs = {name: one for name, one in opened.configs.items() if name != first.name}
    return Opened([*parts, *others], {TRAIN: config, VAL: config} | configs, opened.findings, listed)


@dataclass(frozen=True, eq=False)
class OpenedImages:
    """Parts of a data set of whole images: as Opened, with images in place of labels."""

    parts: list[tuple[str, LabelledImages, tuple[ImageFacts, ...]]]
    configs: dict[str, ImagesConfig]
    listed: dict[str, list[str]] = field(default_factory=dict)


def open_folders(root: Path) -> OpenedImages:
    """Read a folder with one folder of images a class, or its parts that have these.

    Raises:
        DataError: a class has no images; there are several parts, and none is called train.
    """
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    choice = choose_parts(folders if folders and all(map(is_part, folders)) else [""])
    names = {TRAIN if choice.val or choice.test else "": choice.train, VAL: choice.val, TEST: choice.test}
    opened = OpenedImages([], {})
    for name, own in names.items():
        if own is not None:
            images = read_image_folder(root / own)
            opened.parts.append((name, images, read_facts(images.paths, f"images of {name or root.name}")))
            opened.configs[name] = ImagesConfig(str(root), split=own)
    return opened


def split_folders(opened: OpenedImages, share: float, seed: int) -> OpenedImages:
    """Split the first part in train and val, as split_part does."""
    (name, images, facts), *others = opened.parts
    present = np.eye(len(images.classes), dtype=bool)[images.labels]
    for_val = _for_val(facts, present, share, seed)
    config = opened.configs[name]
    root = Path(config.root) / config.split
    parts, listed = [], {}
    for role, mask in ((TRAIN, ~for_val), (VAL, for_val)):
        places = np.flatnonzero(mask).tolist()
        some = replace(images, paths=tuple(images.paths[place] for place in places), labels=images.labels[mask])
        parts.append((role, some, tuple(facts[place] for place in places)))
        listed[role] = [path.relative_to(root).as_posix() for path in some.paths]
    configs = {role: one for role, one in opened.configs.items() if role != name}
    return OpenedImages([*parts, *others], {TRAIN: config, VAL: config} | configs, listed)


def _for_val(facts: Sequence[ImageFacts], present: Mask, share: float, seed: int) -> Mask:
    groups = divided(copy_groups(facts), [str(fact.path) for fact in facts])
    if len(np.unique(groups)) < 2:
        raise DataError(f"{len(facts)} images that differ are too few to split; add images")
    return split_images(present, groups, share, seed)


def _completed(layout: Layout, config: DataConfig, part: Part) -> DataConfig:
    """State the classes of a part, and what is done about images of another size than their labels state."""
    names = part.dataset.classes.names
    if layout.kind in WITH_NAMES and names != VOC_CLASSES:
        config = replace(config, classes=list(names))
    pairs = [
        ((record.width, record.height), fact)
        for record, fact in zip(part.dataset.records, part.facts, strict=True)
        if fact.readable and record.width and (record.width, record.height) != fact.size
    ]
    if not pairs:
        return config
    turned = all(fact.orientation in SIDEWAYS and size == fact.size[::-1] for size, fact in pairs)
    return replace(config, size_mismatch=SizeMismatch.turn if turned else SizeMismatch.skip)


def _in_frames(part: Part, mode: SizeMismatch) -> Part:
    """Bring the labels into the frames of the images, as a training with that setting does.

    Raises:
        DataError: no image is left.
    """
    if mode is SizeMismatch.error:
        return part
    fact_of = dict(zip((record.image_id for record in part.dataset.records), part.facts, strict=True))
    dataset = match_frames(part.dataset, mode)
    return Part(part.name, dataset, tuple(fact_of[record.image_id] for record in dataset.records))


def _list_names(dataset: Dataset) -> list[str]:
    """Name each image by its file, or by its id where files of other folders are called alike."""
    counts = Counter(record.path.name for record in dataset.records)
    known = dataset.index_of
    return [
        record.path.name if counts[record.path.name] == 1 and record.path.name not in known else record.image_id
        for record in dataset.records
    ]
