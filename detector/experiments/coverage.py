"""Compare proposal methods: the share of objects that they cover, the number of boxes, and the time.

In: a data set, settings of proposals, and stores of proposals from any program.  Out: a Bench with one Coverage per
method. Objects marked difficult or crowd do not count. Paper §8; definitions: proposals.recall.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from detector.data.dataset import Sources
from detector.data.ground_truth import Dataset
from detector.experiments.coverage_cases import CaseMaker
from detector.experiments.coverage_parts import COCO_SIZES, Intervals, Objects
from detector.extraction import dataset_proposals, with_proposals
from detector.measuring import quartiles
from detector.report.coverage import Bench, Coverage, Span
from detector.report.coverage_files import check_protocols, read_mean_ap, read_references
from proposals.boxes import Boxes
from proposals.recall import (
    average_best_overlap,
    best_overlaps,
    best_overlaps_of_first,
    covered,
    recall_share,
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
        references: Earlier comparisons on the same images to show beside these: names of shipped ones such as
            voc07_test500, or JSON files of this command.
        reports: Evaluations of a detector on the boxes of a method: report.json of eval_map, keyed by the name of the
            method. Average precision is shown beside average recall.
        unseen: Names of classes that a learned source has not been trained on. Their recall is shown beside that of the
            other classes.
        sizes: Square roots of the areas at which objects are divided by size, px; COCO's by default.
        aspects: Values of width / height at which objects are divided by shape.
        resamples: Number of bootstrap resamples of the images for the 95 % intervals.
        workers: Number of processes that compute proposals. 0 uses one per core; more than cores increases the seconds.
        cache: Folder in which proposals are kept between runs.
    """

    data: Sources
    settings: dict[str, ProposalConfig] = field(default_factory=dict)
    stores: dict[str, str] = field(default_factory=dict)
    references: list[str] = field(default_factory=list)
    reports: dict[str, str] = field(default_factory=dict)
    unseen: list[str] = field(default_factory=list)
    sizes: list[float] = field(default_factory=lambda: list(COCO_SIZES))
    aspects: list[float] = field(default_factory=lambda: [0.5, 0.8, 1.25, 2.0])
    resamples: int = 1000
    workers: int = 1
    cache: str = ".cache/proposals"

    def __post_init__(self) -> None:
        if not self.settings and not self.stores:
            raise ValueError("settings must name at least one way to propose boxes, or stores one store")
        twins = sorted(self.settings.keys() & self.stores.keys())
        if twins:
            raise ValueError(f"settings and stores share the name {twins[0]!r}")
        names = [*self.settings, *self.stores]
        for name in self.reports:
            if name not in names:
                raise ValueError(f"reports names {name!r}, which is no method here; they are {', '.join(names)}")
        for key in ("sizes", "aspects"):
            edges = getattr(self, key)
            if not edges or not all(0 < edge < math.inf for edge in edges) or any(a >= b for a, b in pairwise(edges)):
                raise ValueError(f"{key} must be one or more rising numbers above 0, not {edges}")
        if self.resamples < 1:
            raise ValueError(f"resamples must be at least 1, but is {self.resamples}")
        if self.workers < 0:
            raise ValueError(f"workers must not be negative, but is {self.workers}")


def measure_coverage(dataset: Dataset, config: CoverageConfig, unread: list[str] | None = None) -> Bench:
    """Measure the coverage of each proposal method of a comparison, and propose the boxes that no store has yet.

    Objects of an image that cannot be read count as not covered.

    Args:
        dataset: Images and objects.
        config: The comparison.
        unread: List that receives a line for each image that cannot be read.

    Raises:
        DataError: the data set has no object that counts, or no class of a name in `unseen`.
        CoverageFileError: a reference or a report is absent, no such file, or made on other images.
        ImageError: no image can be read.
        StoreError: a store is absent, unfinished, or lacks an image.
    """
    objects = Objects.of(dataset)
    objects.by_seen(config.unseen)  # fails early
    references = read_references(config.references, len(dataset), len(objects))
    mean_ap = {name: read_mean_ap(Path(path), len(dataset)) for name, path in config.reports.items()}
    check_protocols(mean_ap | {name: row.ap for name, row in references.items()})
    existing = {name: ProposalStore(Path(folder)) for name, folder in config.stores.items()}  # fails early
    stores = {
        name: dataset_proposals(dataset, setting, Path(config.cache), config.workers)
        for name, setting in config.settings.items()
    } | existing
    readable, lines = with_proposals(dataset, [stores[name] for name in config.settings])
    if unread is not None:
        unread += lines
    there = {record.image_id for record in readable.records}
    readable_images = [record.image_id in there for record in dataset.records]
    intervals = Intervals(objects, config.resamples)
    measured = [_measure(dataset, objects, readable_images, store, config, intervals) for store in stores.values()]
    best = [overlaps for _, overlaps in measured]
    unique = unique_recall(best) if len(measured) > 1 else [None]
    first = measured[0][0].boxes
    rows = {
        name: replace(row, ratio=row.boxes / first if first else None, unique=share, ap=mean_ap.get(name))
        for name, (row, _), share in zip(stores, measured, unique, strict=True)
    }
    cases = CaseMaker(dataset, objects, readable_images, stores, dict(zip(stores, best, strict=True)))
    return Bench(
        dataset.name,
        len(dataset),
        len(objects),
        rows,
        references,
        cases.missed_count,
        cases.missed(),
        cases.alone(),
    )


def _measure(
    dataset: Dataset,
    objects: Objects,
    readable: Sequence[bool],
    store: ProposalStore,
    config: CoverageConfig,
    intervals: Intervals,
) -> tuple[Coverage, NDArray[np.float64]]:
    """Measure one method, without ratio and unique, which need the others; also the best IoU [M] of each object."""
    overlaps, numbers, seconds = [], [], []
    by_source: dict[str, list[NDArray[np.float64]]] = {source: [] for source in store.sources}
    for record, rows, is_readable in zip(dataset.records, objects.of_image, readable, strict=True):
        boxes: Boxes = np.zeros((0, 4))
        sources = np.zeros(0, np.uint8)
        if is_readable:
            content = record.path.read_bytes()
            found = store.get(record.image_id, content)
            boxes, sources = found.boxes, found.sources
            numbers.append(len(boxes))
            seconds.append(store.seconds(content))
        overlaps.append(best_overlaps_of_first(objects.boxes[rows], boxes, (*COUNTS, len(boxes))))
        for number, part in enumerate(by_source.values()):
            part.append(best_overlaps(objects.boxes[rows], boxes[sources == number]))
    *of_first, best = np.concatenate(overlaps, axis=1)  # [len(COUNTS)] and all boxes: [M] best IoU of each object
    of_source = {source: np.concatenate(part) for source, part in by_source.items()}
    present = {source: values for source, values in of_source.items() if values.any()}
    abo = average_best_overlap(best, objects.labels, len(objects.names))
    known = [row for row in range(len(COUNTS)) if row == 0 or COUNTS[row - 1] < max(numbers)]
    counts = [COUNTS[row] for row in known]
    by_iou = intervals.means(np.stack([covered(best, threshold) for threshold in IOUS]))
    by_boxes = intervals.means(np.stack([covered(of_first[row]) for row in known]))
    average_by_boxes = intervals.means(np.stack([recall_share(of_first[row]) for row in known]))
    (share, span), (average, average_span) = intervals.means(np.stack([covered(best), recall_share(best)]))
    coverage = Coverage(
        boxes=float(np.mean(numbers)),
        ratio=None,
        coverage=share,
        coverage_interval=span,
        unique=None,
        average_recall=average,
        average_recall_interval=average_span,
        mabo=float(np.nanmean(abo)),
        abo={
            name: None if math.isnan(value) else value for name, value in zip(objects.names, abo.tolist(), strict=True)
        },
        recall_by_iou=_values(IOUS, by_iou),
        recall_by_boxes=_values(counts, by_boxes),
        average_recall_by_boxes=_values(counts, average_by_boxes),
        recall_by_iou_interval=_spans(IOUS, by_iou),
        recall_by_boxes_interval=_spans(counts, by_boxes),
        average_recall_by_boxes_interval=_spans(counts, average_by_boxes),
        seconds=quartiles(seconds) if all(seconds) else None,
        gains=dict(zip(present, unique_recall(list(present.values())), strict=True)) if len(present) > 1 else {},
        by_class=intervals.parts(best, objects.by_class()),
        by_size=intervals.parts(best, objects.by_size(config.sizes)),
        by_aspect=intervals.parts(best, objects.by_aspect(config.aspects)),
        by_seen=intervals.parts(best, objects.by_seen(config.unseen)),
    )
    return coverage, best


X = TypeVar("X", int, float)


def _values(x: Sequence[X], means: Sequence[tuple[float, Span | None]]) -> dict[X, float]:
    return {key: value for key, (value, _) in zip(x, means, strict=True)}


def _spans(x: Sequence[X], means: Sequence[tuple[float, Span | None]]) -> dict[X, Span | None]:
    return {key: span for key, (_, span) in zip(x, means, strict=True)}
