"""What a data set contains, wherever it lies: digests of its image files and of the objects marked in them.

In: a data set.  Out: SHA-256 digests, in hexadecimal.
Caches, journals and resumed runs compare them: a data set that moved keeps its digest, a corrected box changes it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from detector.cores import usable_cores
from detector.data.ground_truth import Dataset
from detector.data.labelled_images import LabelledImages
from proposals.store import digest


def digests_of(paths: Sequence[Path]) -> list[str]:
    """Return the digest of each file; an empty text for files that cannot be read, which their reader reports."""
    with ThreadPoolExecutor(usable_cores()) as executor:
        return list(executor.map(_digest_of_file, paths))


def images_digest(names: Sequence[str], digests: Sequence[str]) -> str:
    """Return the digest of images in any order, by their names and the digests of their files."""
    pairs = sorted(zip(names, digests, strict=True))
    return hashlib.sha256(repr(pairs).encode(errors="surrogateescape")).hexdigest()


def boxes_digest(dataset: Dataset) -> str:
    """Return the digest of a data set's classes and of the objects in each image."""
    total = hashlib.sha256(repr((dataset.classes.names, dataset.classes.wnids)).encode(errors="surrogateescape"))
    for one in dataset.records:
        head = (one.image_id, one.width, one.height, len(one.boxes), bool(one.exhaustive))
        total.update(repr(head).encode(errors="surrogateescape"))
        for array, kind in ((one.boxes, "<f8"), (one.labels, "<i8"), (one.difficult, "u1"), (one.crowd, "u1")):
            total.update(array.astype(kind).tobytes())
    return total.hexdigest()


def dataset_digest(dataset: Dataset) -> str:
    """Return the digest of a data set's image files, which are read for it, and of its objects."""
    names = [record.image_id for record in dataset.records]
    images = images_digest(names, digests_of([record.path for record in dataset.records]))
    return hashlib.sha256(f"{images} {boxes_digest(dataset)}".encode()).hexdigest()


def labelled_digest(images: LabelledImages, root: Path) -> str:
    """Return the digest of labelled images by file names below `root` and labels; reading ImageNet takes too long."""
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
