"""Compare proposal methods: the share of objects that they cover, the number of boxes, and the time.

In: a data set, settings of proposals, and stores of proposals from any program.  Out: one Coverage per method, as a
table, JSON or curves. Objects marked difficult or crowd do not count. Paper §8; definitions: proposals.recall.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.config import config_to_dict
from detector.data.dataset import Sources
from detector.data.ground_truth import DataError, Dataset, Record
from detector.extraction import dataset_proposals, with_proposals
from detector.measuring import quartiles
from detector.table import columns
from proposals.boxes import Boxes
from proposals.files import write_whole
from proposals.recall import (
    average_best_overlap,
    average_recall,
    best_overlaps,
    best_overlaps_of_first,
    recall,
    unique_recall,
)
from proposals.settings import ProposalConfig
from proposals.store import ProposalStore

IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(11))
COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000)


@dataclass(frozen=True)
class CoverageConfig:
    """A comparison of proposal methods.

    Attributes:
        data: Images, and the objects to cover: a data set, or a list of them.
        settings: Settings of proposals, keyed by the name to print. The first one is the reference of the ratios.
        stores: Folders with finished proposals, as extract_proposals writes them, keyed by the name to print.
        workers: Number of processes that compute proposals. 0 uses one per core; more than cores increases the seconds.
        cache: Folder in which proposals are kept between runs.
    """

    data: Sources
    settings: dict[str, ProposalConfig] = field(default_factory=dict)
    stores: dict[str, str] = field(default_factory=dict)
    workers: int = 1
    cache: str = ".cache/proposals"

    def __post_init__(self) -> None:
        if not self.settings and not self.stores:
            raise ValueError("settings must name at least one way to propose boxes, or stores one store")
        twins = sorted(self.settings.keys() & self.stores.keys())
        if twins:
            raise ValueError(f"settings and stores share the name {twins[0]!r}")
        if self.workers < 0:
            raise ValueError(f"workers must not be negative, but is {self.workers}")


@dataclass(frozen=True)
class Coverage:
    """The objects that one method covers, as shares of all objects, in [0, 1].

    Attributes:
        boxes: Mean number of boxes per image.
        ratio: Number of boxes as a multiple of the first method's; None where that has none.
        coverage: Recall at IoU 0.5.
        unique: Share of objects that only this method of the comparison covers; None where it is the only method.
        average_recall: Mean recall over IoU 0.5 to 1.
        mabo: Mean of abo over the classes.
        abo: Average best overlap of each class's objects, keyed by class name; None without objects.
        recall_by_iou: Recall, keyed by IoU threshold.
        recall_by_boxes: Recall at IoU 0.5, keyed by the number of best boxes per image.
        average_recall_by_boxes: Average recall, keyed by the number of best boxes per image.
        seconds: Lower quartile, median and upper quartile of the seconds per image; None where a store has no times.
        gains: Share of objects that only one source of the proposals covers, keyed by source; empty for one source.
    """

    boxes: float
    ratio: float | None
    coverage: float
    unique: float | None
    average_recall: float
    mabo: float
    abo: dict[str, float | None]
    recall_by_iou: dict[float, float]
    recall_by_boxes: dict[int, float]
    average_recall_by_boxes: dict[int, float]
    seconds: tuple[float, float, float] | None
    gains: dict[str, float] = field(default_factory=dict)


def measure_coverage(dataset: Dataset, config: CoverageConfig, unread: list[str] | None = None) -> dict[str, Coverage]:
    """Measure the coverage of each proposal method of a comparison, and propose the boxes that no store has yet.

    Objects of an image that cannot be read count as not covered.

    Args:
        dataset: Images and objects.
        config: The comparison.
        unread: List that receives a line for each image that cannot be read.

    Raises:
        DataError: the data set has no object that counts.
        ImageError: no image can be read.
        StoreError: a store is absent, unfinished, or lacks an image.
    """
    labels = np.concatenate([record.labels[_counts(record)] for record in dataset.records])
    if not len(labels):
        raise DataError(f"{dataset.name}: no objects to cover (those marked difficult or crowd do not count)")
    existing = {name: ProposalStore(Path(folder)) for name, folder in config.stores.items()}  # fails early
    stores = {
        name: dataset_proposals(dataset, setting, Path(config.cache), config.workers)
        for name, setting in config.settings.items()
    } | existing
    own = [stores[name] for name in config.settings]
    readable, lines = with_proposals(dataset, own)
    if unread is not None:
        unread += lines
    there = {record.image_id for record in readable.records}
    measured = [_measure(dataset, labels, there, store) for store in stores.values()]
    unique = unique_recall([best for _, best in measured]) if len(measured) > 1 else [None]
    first = measured[0][0].boxes
    return {
        name: replace(row, ratio=row.boxes / first if first else None, unique=share)
        for name, (row, _), share in zip(stores, measured, unique, strict=True)
    }


def _measure(
    dataset: Dataset, labels: NDArray[np.int64], readable: Set[str], store: ProposalStore
) -> tuple[Coverage, NDArray[np.float64]]:
    """Measure one method, without ratio and unique, which need the others; also the best IoU [M] of each object."""
    overlaps, numbers, seconds = [], [], []
    by_source: dict[str, list[NDArray[np.float64]]] = {source: [] for source in store.sources}
    for record in dataset.records:
        objects = record.boxes[_counts(record)]
        boxes: Boxes = np.zeros((0, 4))
        sources = np.zeros(0, np.uint8)
        if record.image_id in readable:
            content = record.path.read_bytes()
            found = store.get(record.image_id, content)
            boxes, sources = found.boxes, found.sources
            numbers.append(len(boxes))
            seconds.append(store.seconds(content))
        overlaps.append(best_overlaps_of_first(objects, boxes, (*COUNTS, len(boxes))))
        for number, parts in enumerate(by_source.values()):
            parts.append(best_overlaps(objects, boxes[sources == number]))
    *of_first, best = np.concatenate(overlaps, axis=1)  # [len(COUNTS)] and all boxes: [M] best IoU of each object
    of_source = {source: np.concatenate(parts) for source, parts in by_source.items()}
    present = {source: values for source, values in of_source.items() if values.any()}
    abo = average_best_overlap(best, labels, len(dataset.classes))
    known = [row for row in range(len(COUNTS)) if row == 0 or COUNTS[row - 1] < max(numbers)]
    coverage = Coverage(
        boxes=float(np.mean(numbers)),
        ratio=None,
        coverage=recall(best),
        unique=None,
        average_recall=average_recall(best),
        mabo=float(np.nanmean(abo)),
        abo={_class_name(dataset, k): None if math.isnan(value) else value for k, value in enumerate(abo.tolist())},
        recall_by_iou={threshold: recall(best, threshold) for threshold in IOUS},
        recall_by_boxes={COUNTS[row]: recall(of_first[row]) for row in known},
        average_recall_by_boxes={COUNTS[row]: average_recall(of_first[row]) for row in known},
        seconds=quartiles(seconds) if all(seconds) else None,
        gains=dict(zip(present, unique_recall(list(present.values())), strict=True)) if len(present) > 1 else {},
    )
    return coverage, best


def format_coverage(dataset: Dataset, rows: Mapping[str, Coverage], width: int | None = None) -> str:
    """Format a table with one line per method, and a table of the ABO of each class; "-" where nothing was measured.

    Args:
        dataset: The data set.
        rows: Coverage by the name of the method.
        width: Most characters in a line, see `detector.table.columns`; None for no limit.
    """
    heading = ("proposals", "boxes", "ratio", "coverage", "IoU 0.7", "AR", "MABO", "unique", "s/image", "quartiles")
    lines: list[Sequence[str]] = [heading]
    for name, row in rows.items():
        shares = row.ratio, row.coverage, row.recall_by_iou[0.7], row.average_recall, row.mabo, row.unique
        low, middle, high = row.seconds or (None, None, None)
        spread = f"{low:.3f}-{high:.3f}" if row.seconds else "-"
        lines.append((name, f"{row.boxes:.0f}", *map(_number, (*shares, middle)), spread))
    classes = [("ABO of class", *rows)]
    for name in next(iter(rows.values())).abo:
        classes.append((name, *(_number(row.abo[name]) for row in rows.values())))
    gains = [
        f"{name}: {share:.3f} of the objects are covered by {source} alone"
        for name, row in rows.items()
        for source, share in row.gains.items()
    ]
    title = f"{dataset.name}: {len(dataset)} images, {_objects(dataset)} objects"
    return "\n".join([title, *columns(lines, width=width), *gains, "", *columns(classes, width=width)])


def write_coverage(path: Path, dataset: Dataset, config: CoverageConfig, rows: Mapping[str, Coverage]) -> None:
    """Write JSON: data (name), images and objects (counts), settings (Coverage of each method), config (resolved)."""
    content = {
        "data": dataset.name,
        "images": len(dataset),
        "objects": _objects(dataset),
        "settings": {name: config_to_dict(row) for name, row in rows.items()},
        "config": config_to_dict(config),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def plot_coverage(path: Path, dataset: Dataset, rows: Mapping[str, Coverage]) -> None:
    """Plot recall over IoU, and recall and average recall over the number of boxes.

    Raises:
        ValueError: matplotlib cannot write a file of this suffix.
    """
    from matplotlib.figure import Figure  # slow to import; pyplot would look for a display

    figure = Figure(figsize=(13, 4), layout="constrained")
    axes = figure.subplots(1, 3)
    plots = (
        ("recall_by_iou", "IoU", "linear", "recall"),
        ("recall_by_boxes", "boxes per image", "log", "recall at IoU 0.5"),
        ("average_recall_by_boxes", "boxes per image", "log", "average recall, IoU 0.5 to 1"),
    )
    for axis, (curves, x, scale, y) in zip(axes, plots, strict=True):
        for name, row in rows.items():
            curve = getattr(row, curves)
            axis.plot(list(curve), list(curve.values()), marker=".", label=f"{name} ({row.boxes:.0f} boxes)")
        axis.set(xlabel=x, ylabel=y, ylim=(0, 1), xscale=scale)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize="small")
    figure.suptitle(f"{dataset.name}: {len(dataset)} images")
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _counts(record: Record) -> NDArray[np.bool_]:
    return ~(record.difficult | record.crowd)


def _objects(dataset: Dataset) -> int:
    return sum(int(_counts(record).sum()) for record in dataset.records)


def _class_name(dataset: Dataset, label: int) -> str:
    """Return the class's name, with its wnid where another class has the same name."""
    name = dataset.classes.names[label]
    return name if dataset.classes.names.count(name) == 1 else f"{name} ({dataset.classes.wnids[label]})"


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"
