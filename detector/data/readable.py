"""Images that cannot be read: each is reported by name, and the work on the others goes on.

Where all images are read before the work begins (proposals, MultiBox), `readable_part` leaves them out. Where images
are first read during the work (training on whole images, of which there may be a million), `Reader` takes the next one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.sharedctypes import RawArray

from tqdm import tqdm

from detector.data.ground_truth import Dataset, Record
from detector.data.image import Image, ImageError


def readable_part(dataset: Dataset, workers: int = 1) -> tuple[Dataset, list[str]]:
    """The images of a data set that can be read, each decoded to see it, and a line for each other.

    Args:
        dataset: the images.
        workers: threads.

    Raises:
        ImageError: none can be read.
    """
    with ThreadPoolExecutor(max(1, workers)) as executor:
        found = executor.map(_fault, dataset.records)
        label = f"images of {dataset.name}"
        few = len(dataset) < 1000  # which takes seconds
        faults = list(tqdm(found, label, len(dataset), unit="image", dynamic_ncols=True, leave=False, disable=few))
    lines = [line for line in faults if line]
    if lines and len(lines) == len(dataset):
        raise ImageError(f"{dataset.name}: no image can be read; the first: {lines[0]}")
    kept = tuple(record for record, line in zip(dataset.records, faults, strict=True) if not line)
    return (replace(dataset, records=kept) if lines else dataset), lines


def _fault(record: Record) -> str:
    """Why an image cannot be read; nothing where it can."""
    try:
        record.read()
    except ImageError as error:
        return str(error)
    return ""


class Reader:
    """Reads images by number, and the next readable one in place of an image that cannot be read.

    Args:
        read: Number -> image; raises ImageError with the file's name.
        count: Number of images.

    Attributes:
        failed: 1 for each image that could not be read, else 0; shared with the worker processes of a loader.
    """

    def __init__(self, read: Callable[[int], Image], count: int) -> None:
        self.read, self.failed = read, RawArray("B", count)

    def __call__(self, index: int) -> tuple[int, Image]:
        """Read an image; returns the number of the one that was read, and the image.

        Raises:
            ImageError: none can be read.
        """
        last = "each has been named"
        for number in (*range(index, len(self.failed)), *range(index)):
            if self.failed[number]:
                continue
            try:
                return number, self.read(number)
            except ImageError as error:
                self.failed[number] = 1
                last = f"the last: {error}"
                print(f"warning: {error}; the next image takes its place", file=sys.stderr)
        raise ImageError(f"none of {len(self.failed)} images can be read; {last}")
