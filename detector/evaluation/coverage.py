"""How many objects of a data set the proposals cover, and with how many boxes, setting by setting (paper §8).

In: a data set and named proposal settings.  Out: one Coverage per setting, as a table to read and as JSON to keep.
Objects marked difficult or crowd do not count.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from omegaconf import MISSING
from tqdm import tqdm

from detector.config import config_to_dict
from detector.data.dataset import DataConfig
from detector.data.ground_truth import DataError, Dataset, Record
from detector.data.image import Image, read_image
from detector.opencv import one_opencv_thread
from proposals.cache import ProposalCache
from proposals.recall import best_overlaps, recall
from proposals.sources import ProposalConfig


@dataclass(frozen=True)
class CoverageConfig:
    """A comparison of proposals.

    Attributes:
        data: images and the objects to cover.
        settings: how boxes are proposed, by the name to print; the first one is what the others are compared with.
        workers: processes that compute proposals; the seconds per image grow where they outnumber the cores.
        cache: folder of the proposals.
    """

    data: DataConfig
    settings: dict[str, ProposalConfig] = MISSING
    workers: int = 1
    cache: str = ".cache/proposals"

    def __post_init__(self) -> None:
        if not self.settings:
            raise ValueError("settings must name at least one way to propose boxes")
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, not {self.workers}")


@dataclass(frozen=True)
class Coverage:
    """What one setting's proposals cover.

    Attributes:
        boxes: mean number per image.
        coverage: share of objects that some box overlaps with IoU 0.5 or more.
        recall_70: the same at IoU 0.7.
        ratio: boxes as a share of the first setting's; None where that has none.
        seconds: median per image and process; None where all came from the cache.
        computed: images that did not come from the cache.
    """

    boxes: float
    coverage: float
    recall_70: float
    ratio: float | None
    seconds: float | None
    computed: int


def measure_coverage(dataset: Dataset, config: CoverageConfig) -> dict[str, Coverage]:
    """Propose boxes on every image in each of the config's settings and compare them with the objects.

    Raises:
        DataError: the data set has no object that counts.
        ImageError: a photograph cannot be read.
    """
    objects = [_objects(record) for record in dataset.records]
    if not sum(map(len, objects)):
        raise DataError(f"{dataset.name}: no objects to cover (those marked difficult or crowd do not count)")
    result: dict[str, Coverage] = {}
    for name, setting in config.settings.items():
        propose = partial(_propose, ProposalCache(Path(config.cache), setting))
        paths = [record.path for record in dataset.records]
        counts, overlaps, seconds = [], [], []
        with (
            one_opencv_thread(),
            ProcessPoolExecutor(config.workers, initializer=cv2.setNumThreads, initargs=(1,)) as executor,
        ):
            found = executor.map(propose, paths, chunksize=4)
            bar = tqdm(found, total=len(paths), desc=name, unit="image", dynamic_ncols=True)
            for wanted, (boxes, spent) in zip(objects, bar, strict=True):
                counts.append(len(boxes))
                overlaps.append(best_overlaps(wanted, boxes))
                seconds += [] if spent is None else [spent]
        best = np.concatenate(overlaps)
        mean = float(np.mean(counts))
        first = next(iter(result.values())).boxes if result else mean
        result[name] = Coverage(
            boxes=mean,
            coverage=recall(best, 0.5),
            recall_70=recall(best, 0.7),
            ratio=mean / first if first else None,
            seconds=float(np.median(seconds)) if seconds else None,
            computed=len(seconds),
        )
    return result


def format_coverage(dataset: Dataset, rows: Mapping[str, Coverage]) -> str:
    """A table of one line per setting; "-" where nothing was measured."""
    heading = ("proposals", "boxes", "ratio", "coverage", "IoU 0.7", "s/image")
    lines = [heading]
    for name, row in rows.items():
        ratio = "-" if row.ratio is None else f"{row.ratio:.3f}"
        seconds = "-" if row.seconds is None else f"{row.seconds:.2f}"
        lines.append((name, f"{row.boxes:.0f}", ratio, f"{row.coverage:.3f}", f"{row.recall_70:.3f}", seconds))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]
    objects = sum(len(_objects(record)) for record in dataset.records)
    return "\n".join([f"{dataset.name}: {len(dataset)} images, {objects} objects", *table])


def write_coverage(path: Path, dataset: Dataset, config: CoverageConfig, rows: Mapping[str, Coverage]) -> None:
    """Write data (its name), images and objects (counts), settings (Coverage by name) and config (resolved) as JSON."""
    content = {
        "data": dataset.name,
        "images": len(dataset),
        "objects": sum(len(_objects(record)) for record in dataset.records),
        "settings": {name: asdict(row) for name, row in rows.items()},
        "config": config_to_dict(config),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _objects(record: Record) -> NDArray[np.float64]:
    return record.boxes[~(record.difficult | record.crowd)]


def _propose(cache: ProposalCache, path: Path) -> tuple[NDArray[np.float32], float | None]:
    """The boxes of an image, and the seconds they took after decoding where they were not in the cache."""
    decoded: list[float] = []

    def decode(_: bytes) -> Image:
        image = read_image(path)
        decoded.append(time.perf_counter())
        return image

    boxes = cache.get(path.read_bytes(), decode).boxes
    return boxes, time.perf_counter() - decoded[0] if decoded else None
