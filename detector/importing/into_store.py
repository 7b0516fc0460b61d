"""Proposals of a file -> a store of a data set's images, in the project's own boxes.

In: a file of proposals and a data set.  Out: a finished store, and lines that say what was assumed.
Images are matched by name as those of detections are (evaluation.names). Images of the data set that the file lacks are
stored without boxes, and images of the file that the data set lacks are left out; both are counted in a line.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.data.content import digests_of
from detector.data.dataset import DataConfig
from detector.data.ground_truth import Dataset, Record
from detector.data.image import ImageError, read_size
from detector.evaluation.checking import unknown_image
from detector.evaluation.names import Names, as_text
from detector.evaluation.truth import Truth
from detector.extraction import check_folder
from detector.importing.files import read_proposals
from detector.importing.given import Given, ProposalFileError
from detector.importing.layout import Layout, Wanted, find_layout
from detector.importing.ranking import check_best_first
from proposals.boxes import clip
from proposals.result import Proposals
from proposals.store import digest
from proposals.store_writer import StoreWriter

ROUNDING = 0.01
"""Least part of a box outside its image that is counted, px; single precision and x + width add less."""


@dataclass(frozen=True)
class ImportConfig:
    """The images that imported proposals belong to.

    Attributes:
        data: The data set.
    """

    data: DataConfig


class Best(Enum):
    """Which box of an image is the best one."""

    high = "high"
    low = "low"
    first = "first"


def import_proposals(
    path: Path, dataset: Dataset, folder: Path, wanted: Wanted | None = None, best: Best | None = None
) -> list[str]:
    """Fill the store in a folder with the proposals of a file.

    Args:
        path: The file, or a folder of MATLAB files.
        dataset: The images, and objects by which the order of a box's numbers is checked.
        folder: Folder of the store, new or of the same import.
        wanted: What the user states about the boxes; the rest is found.
        best: Which box is the best; None for the highest score, or the first where there are no scores.

    Returns:
        lines for the user: what was read and assumed, and what is odd.

    Raises:
        ProposalFileError: the file cannot be read, has none of the images, or its boxes or scores are not what they
            should be.
        ImageError: an image of the data set cannot be read.
        StoreError: the folder has another store.
    """
    given = read_proposals(path)
    if given.scores is None and best not in (None, Best.first):
        raise ProposalFileError(f"{path}: has no scores, and --best {best.value if best else ''} needs them")
    stated = best is not None
    best = best or (Best.first if given.scores is None else Best.high)
    position, lines = _matched(given, dataset)
    chosen = [int(place) for place in position if place >= 0]
    records = [dataset.records[index] for index in np.flatnonzero(position >= 0)]
    given = _part(given, chosen)
    if not len(given.boxes):
        raise ProposalFileError(f"{path}: has no boxes on the images of {dataset.name}")
    sizes = np.array([_size(record) for record in records], np.float64).reshape(-1, 2)
    objects = [record.boxes[~(record.difficult | record.crowd)] for record in records]
    layout, how = find_layout(given, np.where(sizes > 0, sizes, np.nan), objects, wanted or Wanted())
    boxes = layout.half_open(given.boxes)
    if given.scores is not None and not stated:
        check_best_first(replace(given, boxes=boxes), objects)
    order = {Best.high: "highest score first", Best.low: "lowest score first", Best.first: "in the file's order"}[best]
    lines.insert(0, f"{path}: {len(boxes):,} boxes of {len(records):,} images, read as {layout} ({how}), {order}")

    found: dict[str, Proposals] = {}
    cut = flat = 0
    for place, (record, size) in enumerate(zip(records, sizes, strict=True)):
        rows = slice(*given.starts[place : place + 2])
        inside = clip(boxes[rows], *size) if size.all() else boxes[rows]
        whole = np.asarray((inside[:, 2:] > inside[:, :2]).all(axis=1))
        cut += int((np.abs(inside - boxes[rows]) > ROUNDING)[whole].any(axis=1).sum())
        flat += int((~whole).sum())
        ranked, scores = _ranked(None if given.scores is None else given.scores[rows], len(inside), best)
        kept = ranked[whole[ranked]]
        found[record.image_id] = Proposals(
            inside[kept].astype(np.float32), scores[kept].astype(np.float32), np.zeros(len(kept), np.uint8)
        )
    if cut:
        lines.append(f"{path}: {cut:,} boxes reach outside their image and are cut at its border")
    if flat:
        lines.append(f"{path}: {flat:,} boxes have no area inside their image and are left out")
    _write(path, dataset, folder, found, layout, best)
    return lines


def _matched(given: Given, dataset: Dataset) -> tuple[NDArray[np.int64], list[str]]:
    """Return the position in the file of each of the data set's images, -1 where it has none, and lines."""
    truth = Truth.of(dataset)
    index = Names(truth).images(given.names)
    if not (index >= 0).any():
        name = as_text(given.names[0])
        raise ProposalFileError(
            f"{given.path}: none of its {len(index):,} images is known: {unknown_image(name, truth)}"
        )
    position = np.full(len(dataset), -1, np.int64)
    for place, image in enumerate(index.tolist()):
        if image < 0:
            continue
        if position[image] >= 0:
            twins = (as_text(given.names[one]) for one in (int(position[image]), place))
            raise ProposalFileError(
                f"{given.path}: {' and '.join(map(repr, twins))} both name image {dataset.records[image].image_id!r}"
            )
        position[image] = place
    lines = []
    if (index < 0).any():
        first = as_text(given.names[int(np.flatnonzero(index < 0)[0])])
        lines.append(
            f"{given.path}: {int((index < 0).sum()):,} of {len(index):,} images are not in {dataset.name} "
            f"(first: {first}) and are left out"
        )
    if (position < 0).any():
        missing = dataset.records[int(np.flatnonzero(position < 0)[0])].image_id
        lines.append(
            f"{given.path}: {int((position < 0).sum()):,} of {len(dataset):,} images have no proposals "
            f"(first: {missing}); nothing covers their objects"
        )
    return position, lines


def _part(given: Given, places: list[int]) -> Given:
    """Return the boxes of some of the file's images, in this order."""
    rows = [np.arange(*given.starts[place : place + 2]) for place in places]
    every = np.concatenate(rows)
    return Given(
        given.path,
        tuple(given.names[place] for place in places),
        np.concatenate([[0], np.cumsum([len(part) for part in rows])]).astype(np.int64),
        given.boxes[every],
        None if given.scores is None else given.scores[every],
        given.columns,
        given.convention,
    )


def _size(record: Record) -> tuple[int, int]:
    """Return width and height of an image, px; zeros where its file cannot be read."""
    if record.width:
        return record.width, record.height
    try:
        return read_size(record.path)
    except ImageError:
        return 0, 0


def _ranked(
    scores: NDArray[np.float64] | None, count: int, best: Best
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the order of an image's boxes, best first, and their scores, higher for better ones."""
    if scores is None or best is Best.first:
        return np.arange(count), 1.0 / (1 + np.arange(count))
    scores = -scores if best is Best.low else scores
    return np.argsort(-scores, kind="stable"), scores


def _write(path: Path, dataset: Dataset, folder: Path, found: dict[str, Proposals], layout: Layout, best: Best) -> None:
    """Write the store."""
    digests = digests_of([record.path for record in dataset.records])
    unread = [record.path for record, sha256 in zip(dataset.records, digests, strict=True) if not sha256]
    if unread:
        more = f", nor can {len(unread) - 1:,} more" if unread[1:] else ""
        raise ImageError(f"{unread[0]}: cannot be read{more}; a store knows its images by the content of their files")
    settings = {
        "imported": path.name,
        "sha256": _content(path),
        "columns": layout.columns,
        "first_pixel": layout.convention.first,
        "inclusive": layout.convention.inclusive,
        "best": best.value,
    }
    nothing = Proposals(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.uint8))
    names = [record.image_id for record in dataset.records]
    check_folder(folder, (1, 1))
    with StoreWriter(folder, settings, names, sources=(path.stem,)) as writer:
        todo = set(writer.todo)
        for record, sha256 in zip(dataset.records, digests, strict=True):
            if record.image_id in todo:
                writer.append(record.image_id, sha256, _size(record), found.get(record.image_id, nothing))
        writer.finish()


def _content(path: Path) -> str:
    """Return the digest of a file, or of all files in a folder."""
    if path.is_file():
        return digest(path.read_bytes())
    total = hashlib.sha256()
    for file in sorted(path.rglob("*.mat")):
        total.update(file.relative_to(path).as_posix().encode() + b"\0" + digest(file.read_bytes()).encode())
    return total.hexdigest()
