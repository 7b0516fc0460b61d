"""What a data set is, wherever it lies: digests of its photographs and of what is marked in them.

Caches, journals and resumed runs compare these: a data set that moved is the same one, a corrected box makes another.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from detector.data.ground_truth import Dataset
from detector.data.labelled_images import LabelledImages
from proposals.store import digest


def digests_of(paths: Sequence[Path]) -> list[str]:
    """The SHA-256 of each file; empty of those that cannot be read, which whoever reads them will say."""
    parts = [paths[start : start + 256] for start in range(0, len(paths), 256)]
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        return [one for part in executor.map(lambda part: list(map(_digest_of_file, part)), parts) for one in part]


def images_digest(names: Sequence[str], digests: Sequence[str]) -> str:
    """Of photographs, in whatever order: their names and what digests_of says of them."""
    pairs = sorted(zip(names, digests, strict=True))
    return hashlib.sha256(repr(pairs).encode(errors="surrogateescape")).hexdigest()


def boxes_digest(dataset: Dataset) -> str:
    """Of the classes and of the objects in each image."""
    total = hashlib.sha256(repr((dataset.classes.names, dataset.classes.wnids)).encode(errors="surrogateescape"))
    for record in dataset.records:
        head = (record.image_id, record.width, record.height, len(record.boxes), bool(record.exhaustive))
        total.update(repr(head).encode(errors="surrogateescape"))
        for array, kind in (
            (record.boxes, "<f8"),
            (record.labels, "<i8"),
            (record.difficult, "u1"),
            (record.crowd, "u1"),
        ):
            total.update(array.astype(kind).tobytes())
    return total.hexdigest()


def dataset_digest(dataset: Dataset) -> str:
    """Of a data set, photographs and objects, which are read for it."""
    names = [record.image_id for record in dataset.records]
    images = images_digest(names, digests_of([record.path for record in dataset.records]))
    return hashlib.sha256(f"{images} {boxes_digest(dataset)}".encode()).hexdigest()


def labelled_digest(images: LabelledImages, root: Path) -> str:
    """Of labelled images by their names below the data set's folder and their labels: reading ImageNet takes long."""
    total = hashlib.sha256(repr(images.classes).encode(errors="surrogateescape"))
    for path in images.paths:
        total.update(os.fsencode(os.path.relpath(path, root)) + b"\0")
    total.update(images.labels.astype("<i8").tobytes())
    if images.boxes is not None:
        total.update(images.boxes.astype("<f8").tobytes())
    return total.hexdigest()


def _digest_of_file(path: Path) -> str:
    try:
        return digest(path.read_bytes())
    except OSError:
        return ""
