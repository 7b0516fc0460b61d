"""Compare proposal methods: the share of objects that they cover, the number of boxes, and the time.

In: a data set, settings of proposals, and stores of proposals from any program.  Out: one Coverage per method, as a
table, JSON or curves. Objects marked difficult or crowd do not count. Paper §8; definitions: proposals.recall.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.config import config_to_dict
from detector.data.dataset import DataConfig
from detector.data.ground_truth import DataError, Dataset, Record
from detector.extraction import dataset_proposals, with_proposals
from detector.measuring import quartiles
from detector.table import columns
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
        data: Images, and the objects to cover.
        settings: Settings of proposals, keyed by the name to print. The first one is the reference of the ratios.
        stores: Folders with finished proposals, as extract_proposals writes them, keyed by the name to print.
        workers: Number of processes that compute proposals. 0 uses one per core; more than cores increases the seconds.
        cache: Folder in which proposals are kept between runs.
    """

    data: DataConfig
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
    """Propose boxes with each of the config's settings, open its stores, and measure the coverage of each method.

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
    found = {name: _overlaps(dataset, there, store) for name, store in stores.items()}
    unique = unique_recall([overlaps[-1] for overlaps, *_ in found.values()])
    first = float(np.mean(next(iter(found.values()))[1]))
    result = {}
    for (name, measured), alone in zip(found.items(), unique, strict=True):
        result[name] = _coverage(dataset, labels, *measured, first, alone if len(found) > 1 else None)
    return result


def _coverage(
    dataset: Dataset,
    labels: NDArray[np.int64],
    overlaps: NDArray[np.float64],
    numbers: NDArray[np.int64],
    seconds: NDArray[np.float64],
    gains: dict[str, float],
    first: float,
    unique: float | None,
) -> Coverage:
    """Compute the measures of one method; `first` is the mean number of boxes of the first method."""
    best, boxes = overlaps[-1], float(numbers.mean())
    abo = average_best_overlap(best, labels, len(dataset.classes))
    known = [row for row, count in enumerate(COUNTS) if row == 0 or COUNTS[row - 1] < numbers.max(initial=0)]
    return Coverage(
        boxes=boxes,
        ratio=boxes / first if first else None,
        coverage=recall(best),
        unique=unique,
        gains=gains,
        average_recall=average_recall(best),
        mabo=float(np.nanmean(abo)),
        abo={_class_name(dataset, k): None if math.isnan(value) else value for k, value in enumerate(abo.tolist())},
        recall_by_iou={threshold: recall(best, threshold) for threshold in IOUS},
        recall_by_boxes={COUNTS[row]: recall(overlaps[row]) for row in known},
        average_recall_by_boxes={COUNTS[row]: average_recall(overlaps[row]) for row in known},
        seconds=quartiles(seconds) if seconds.all() else None,
    )


def format_coverage(dataset: Dataset, rows: Mapping[str, Coverage]) -> str:
    """Format a table with one line per method, and a table of the ABO of each class; "-" where nothing was measured."""
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
    return "\n".join([title, *columns(lines), *gains, "", *columns(classes)])


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


def _overlaps(
    dataset: Dataset, readable: Set[str], store: ProposalStore
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64], dict[str, float]]:
    """Measure one method.

    Returns:
        [len(COUNTS) + 1, M] best overlap of each object with the first boxes of its image, in the last row with all;
        [images] number of boxes; [images] seconds, 0 where unknown; Coverage.gains.
    """
    overlaps, numbers, seconds = [], [], []
    by_source: dict[int, list[NDArray[np.float64]]] = {number: [] for number in range(len(store.sources))}
    for record in dataset.records:
        objects = record.boxes[_counts(record)]
        if record.image_id not in readable:
            overlaps.append(np.zeros((len(COUNTS) + 1, len(objects))))
            for parts in by_source.values():
                parts.append(np.zeros(len(objects)))
            continue
        content = record.path.read_bytes()
        found = store.get(record.image_id, content)
        overlaps.append(best_overlaps_of_first(objects, found.boxes, (*COUNTS, len(found.boxes))))
        for number, parts in by_source.items():
            parts.append(best_overlaps(objects, found.boxes[found.sources == number]))
        numbers.append(len(found.boxes))
        seconds.append(store.seconds(content))
    best = {store.sources[number]: np.concatenate(parts) for number, parts in by_source.items()}
    present = {name: values for name, values in best.items() if values.any()}
    shares = unique_recall(list(present.values())) if len(present) > 1 else []
    gains = dict(zip(present, shares, strict=False))
    return np.concatenate(overlaps, axis=1), np.array(numbers), np.array(seconds), gains


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
