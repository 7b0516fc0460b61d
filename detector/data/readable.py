"""The images of a data set that can be read: one that cannot costs itself, not the work on the others."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from tqdm import tqdm

from detector.data.ground_truth import Dataset, Record
from detector.data.image import ImageError


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
