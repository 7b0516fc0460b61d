"""Measure the contribution of each part of the detector: the paper's rows on any data set, in one table.

In: named proposal settings, and rows that combine them with classifiers.  Out: for each row mean AP with its confidence
interval, its paired difference from another row, boxes and seconds per image.
A box is scored once by each classifier that it reaches (score_store.py); a row that changes no region is computed from
stored scores.
"""

from __future__ import annotations

import json
import logging
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from detector.config import config_to_dict
from detector.data.dataset import Sources, open_dataset, resolved_sources
from detector.data.ground_truth import Dataset
from detector.detections import Detections
from detector.evaluation.bootstrap import Interval, bootstrap, compare
from detector.evaluation.matching import Matches, match
from detector.evaluation.names import labels_of_groups
from detector.evaluation.protocols import RULES, Protocol, ScoringConfig
from detector.evaluation.results import DetectionTable, ResultsError
from detector.evaluation.truth import Truth
from detector.evaluation.truth_files import read_truth
from detector.experiments.score_store import ScoreStore
from detector.experiments.stored_models import StoredModel
from detector.extraction import dataset_proposals, with_proposals
from detector.members import Member
from detector.progress import progress
from detector.scoring import Ensemble
from detector.settings import CascadeConfig, DetectorConfig, SuppressionConfig
from detector.suppression import suppress
from detector.views import View
from proposals.files import write_whole
from proposals.settings import ProposalConfig
from proposals.store import ProposalStore

_LOG = logging.getLogger(__name__)

ALL = "all classes"


@dataclass(frozen=True)
class RowConfig:
    """One detector of the table.

    Attributes:
        proposals: Name of one of the table's proposal settings.
        models: Region classifiers whose softmax is averaged: files, or names of shipped weights.
        suppression: Settings of the suppression.
        regression: Move each class's box by the classifiers' box-regression layers.
        mirror: Score the mirror image of each region too and take the mean.
        cascade: Condition on which the members after the first score a region too, and what else is done with these.
        against: Name of a row above that this one is compared with; empty for the first row.
    """

    proposals: str
    models: list[str] = field(default_factory=lambda: ["googlenet_voc"])
    suppression: SuppressionConfig = field(default_factory=SuppressionConfig)
    regression: bool = False
    mirror: bool = False
    cascade: CascadeConfig = field(default_factory=CascadeConfig)
    against: str = ""

    def __post_init__(self) -> None:
        _ = self.detector  # refuses what does not fit together

    @property
    def detector(self) -> DetectorConfig:
        """The settings of the row that are a detector's, with the proposals left out."""
        return DetectorConfig(
            self.models,
            suppression=self.suppression,
            regression=self.regression,
            mirror=self.mirror,
            cascade=self.cascade,
        )

    @property
    def whole(self) -> list[str]:
        """The models that score every region."""
        return self.models[:1] if self.cascade.applies else self.models

    def ensemble(self, members: list[Member], classes: int) -> Ensemble:
        """Combine the members' scores as the detector does."""
        count = len(self.whole)
        return Ensemble(members[:count], members[count:], self.detector, classes)


@dataclass(frozen=True)
class AblationConfig:
    """A table of detectors that are compared on one data set.

    Attributes:
        data: Images and ground truth: a data set, or a list of them.
        rows: Detectors by the name to print. Rows are compared with the first unless they name another.
        proposals: Proposal settings by name.
        name: Name of the folder in runs/ that the table is written to.
        protocol: Rules of scoring: voc, voc07 or ilsvrc.
        min_iou: Overlap from which a detection is correct.
        groups: Classes whose mean AP is reported separately, by the name of the group.
        resamples: Number of bootstrap resamples of the images for the confidence intervals.
        batch: Number of warped regions scored at a time; by default what suits the device.
        precision: Number format of the convolutions: float32, bfloat16 or auto.
        cache: Folder of the proposals and scores.
    """

    data: Sources
    rows: dict[str, RowConfig]
    proposals: dict[str, ProposalConfig]
    name: str = "ablation"
    protocol: Protocol = Protocol.voc
    min_iou: float = 0.5
    groups: dict[str, list[str]] = field(default_factory=dict)
    resamples: int = 1000
    batch: int | None = None
    precision: str = "auto"
    cache: str = ".cache"

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("rows must name at least one detector")
        if self.protocol is Protocol.coco:
            raise ValueError("protocol must be voc, voc07 or ilsvrc here")
        if ALL in self.groups:
            raise ValueError(f"groups: {ALL!r} is the name of the mean over all of them")
        DetectorConfig(batch=self.batch, precision=self.precision)  # checks both
        ScoringConfig(protocol=self.protocol, min_iou=self.min_iou)
        if self.resamples < 1:
            raise ValueError(f"resamples must be at least 1, not {self.resamples}")
        for name, row in self.rows.items():
            if row.proposals not in self.proposals:
                raise ValueError(
                    f"rows.{name}.proposals is {row.proposals!r}; there is {', '.join(self.proposals) or 'none'}"
                )
            above = list(self.rows)[: list(self.rows).index(name)]
            if row.against and row.against not in above:
                raise ValueError(f"rows.{name}.against must be a row above ({', '.join(above)}), not {row.against!r}")

    @property
    def folder(self) -> Path:
        """Folder that the table is written to."""
        return Path("runs") / self.name


@dataclass(frozen=True)
class Row:
    """The result of one detector.

    Attributes:
        boxes: Mean number of proposals per image.
        seconds: Median seconds per image, from those measured when proposals and scores were stored: proposing, and
            scoring by each classifier the regions that reach it. A second pass counts a trunk's run of its own, which
            the detector itself spares.
        mean_ap: Mean AP with its 95 % confidence interval for each group of classes, "all classes" among them; None
            without objects.
        differences: This row's mean AP less that of the row it is compared with, on the same resamples, for each group;
            empty for the first row.
        against: Name of the row that it is compared with, if that is not the first.
    """

    boxes: float
    seconds: float
    mean_ap: dict[str, Interval | None]
    differences: dict[str, Interval | None] = field(default_factory=dict)
    against: str = ""


@dataclass(frozen=True)
class Table:
    """The rows of the table, and the number of images they were measured on."""

    rows: dict[str, Row]
    images: int


def ablate(config: AblationConfig, device: str = "auto", unread: list[str] | None = None) -> Table:
    """Score the boxes that have no scores yet, and compute the table.

    Args:
        config: The table.
        device: Name of the device, see `detector.device.choose_device`.
        unread: Receives a line for each image that cannot be read, in which nothing is detected.

    Raises:
        UserError: a checkpoint, a setting, the data or a class of a group is wrong; raised before anything is scored,
            except for unreadable images.
    """
    config = replace(config, data=resolved_sources(config.data))
    dataset = open_dataset(config.data)
    for warning in dataset.warnings:
        _LOG.warning("%s", warning)
    truth = read_truth(config.data)
    groups = {ALL: list(range(len(truth.classes))), **labels_of_groups(config.groups, truth)}
    members = {
        model: StoredModel(
            model, dataset, device, precision=config.precision, batch=config.batch, folder=Path(config.cache)
        )
        for model in dict.fromkeys(model for row in config.rows.values() for model in row.models)
    }
    for name, row in config.rows.items():
        for model in row.models:
            if row.regression and not members[model].regresses:
                raise ResultsError(f"rows.{name} has regression: true, and {model} has no regression layer")
    stores = {
        name: dataset_proposals(dataset, config.proposals[name], Path(config.cache) / "proposals", 0)
        for name in dict.fromkeys(row.proposals for row in config.rows.values())
    }
    images = len(dataset)
    dataset, lines = with_proposals(dataset, stores.values())
    if unread is not None:
        unread += lines
    for model, member in members.items():
        for mirror in (False, True):
            rows = [row for row in config.rows.values() if model in row.whole and (row.mirror or not mirror)]
            if rows:
                member.score_all(
                    dataset, [stores[name] for name in dict.fromkeys(row.proposals for row in rows)], mirror
                )
    table: dict[str, Row] = {}
    results: dict[str, tuple[Matches, DetectionTable]] = {}
    rule, points = RULES[config.protocol]
    recombined = {
        name: _recombine(dataset, truth, row, stores[row.proposals], [members[model] for model in row.models], name)
        for name, row in config.rows.items()
    }
    for name, (found, boxes, work) in recombined.items():
        row = config.rows[name]
        seconds = _seconds(dataset, stores[row.proposals], work)  # after all rows, each of which may score boxes
        matches = match(truth, found, rule, config.min_iou)
        other = results[row.against or next(iter(results))] if results else None
        results[name] = matches, found
        means: dict[str, Interval | None] = {}
        differences: dict[str, Interval | None] = {}
        for group, labels in groups.items():
            there = bool(np.isin(truth.labels[matches.counted], labels).any())
            settings: dict[str, Any] = {"points": points, "resamples": config.resamples, "classes": labels}
            means[group] = bootstrap(truth, matches, found, **settings) if there else None
            if other is not None:
                pair = [other, results[name]]
                differences[group] = compare(truth, pair, **settings).difference if there else None
        table[name] = Row(boxes, seconds, means, differences, row.against)
    return Table(table, images)


def format_markdown(config: AblationConfig, table: Table) -> str:
    """Format the table in Markdown."""
    groups = [*config.groups, ALL]
    heading = ["detector", "boxes / image", "s / image", *(f"mean AP, {group}" for group in groups)]
    lines = [heading, ["---", *["---:"] * (len(heading) - 1)]]
    for name, row in table.rows.items():
        cells = []
        for group in groups:
            mean, change = row.mean_ap[group], row.differences.get(group)
            cell = f"{mean.value:.3f} ({mean.low:.3f}-{mean.high:.3f})" if mean else "-"
            if change:
                cell += f", {change.value:+.3f} ({change.low:+.3f} to {change.high:+.3f})"
            cells.append(cell)
        title = f"{name} (against {row.against})" if row.against else name
        lines.append([title, f"{row.boxes:,.0f}", f"{row.seconds:.2f}", *cells])
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    first = next(iter(table.rows))
    return (
        f"{table.images} images, {config.protocol.value}, IoU {config.min_iou:g}; in brackets the 95 % confidence "
        f"interval from {config.resamples} resamples of the images; behind the comma the difference from {first!r}, "
        "or the row that is named, on the same resamples.\n\n"
        f"{body}\n"
    )


def write_table(config: AblationConfig, table: Table) -> list[Path]:
    """Write table.md and table.json to the config's folder; returns their paths."""
    config.folder.mkdir(parents=True, exist_ok=True)
    content = {"config": config_to_dict(config), **asdict(table)}
    texts = {"table.md": format_markdown(config, table), "table.json": json.dumps(content, indent=2) + "\n"}
    for name, text in texts.items():
        with write_whole(config.folder / name) as part:
            part.write_text(text, encoding="utf-8")
    return [config.folder / name for name in texts]


Work = list[Counter[ScoreStore]]
"""For each image the number of boxes that a row takes the scores of from each store."""


def _recombine(
    dataset: Dataset, truth: Truth, row: RowConfig, proposals: ProposalStore, models: Sequence[StoredModel], name: str
) -> tuple[DetectionTable, float, Work]:
    """Compute the detections of a row from stored scores, its mean boxes, and the scores that it takes."""
    found: dict[str, Detections] = {}
    counts: list[int] = []
    work: Work = []
    for record in progress(dataset.records, f"row {name}"):
        content = record.path.read_bytes()
        view = View(record.read(), proposals.get(record.image_id, content).boxes)
        counts.append(len(view))
        work.append(Counter())
        proposed, moved = (
            row.ensemble(
                [one.on(record, content, work[-1], regression=row.regression, moved=moved) for one in models],
                len(dataset.classes),
            )
            for moved in (False, True)
        )
        scores = proposed([view])[0]
        if row.cascade.second_pass:
            ((view, scores),) = moved.second_pass([view], [scores])
        class_boxes = scores.boxes(view.boxes, record.width, record.height)
        found[record.image_id] = suppress(class_boxes, scores.probabilities, row.suppression)
    return DetectionTable.from_images(truth, found), statistics.fmean(counts), work


def _seconds(dataset: Dataset, proposals: ProposalStore, work: Work) -> float:
    """Compute the median seconds per image of proposing and of the scores that a row takes."""
    seconds = []
    for record, taken in zip(dataset.records, work, strict=True):
        content = record.path.read_bytes()
        scoring = sum(count * store.seconds_per_box(content) for store, count in taken.items())
        seconds.append(proposals.seconds(content) + scoring)
    return statistics.median(seconds)
