"""An evaluation from its config to its numbers: detect on every image (or read saved detections), score, record.

runs/<name>/ holds detections.jsonl (a line per finished image: an interrupted run goes on there), detections.json (COCO
results), report.json and config.yaml. Scoring saved detections needs neither torch nor the photographs.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import numpy as np
from tqdm import tqdm

from detector.config import config_to_dict, save_config
from detector.data.dataset import DataConfig
from detector.data.ground_truth import Dataset
from detector.evaluation.coco import evaluate_coco
from detector.evaluation.journal import Journal
from detector.evaluation.results import DetectionTable, Evaluation, read_results, write_results
from detector.evaluation.voc import evaluate_voc
from detector.settings import DetectorConfig


class Protocol(Enum):
    """By whose rules detections are matched and precision is averaged; the values differ, never mix them."""

    voc = "voc"
    coco = "coco"


@dataclass(frozen=True)
class EvaluationConfig:
    """An experiment.

    Attributes:
        data: images and ground truth.
        name: its folder is runs/<name>.
        protocol: voc: area under the curve, difficult objects ignored (VOC 2010 on); coco: 101 points, by pycocotools.
        min_iou: overlap that makes a detection right (voc; coco reports its own set).
        groups: classes whose mean AP is reported apart, by the name of the group.
        detector: what to evaluate.
        cache: folder of the proposals.
    """

    data: DataConfig
    name: str = "evaluation"
    protocol: Protocol = Protocol.voc
    min_iou: float = 0.5  # the contest's 50 % Jaccard
    groups: dict[str, list[str]] = field(default_factory=dict)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    cache: str = ".cache/proposals"

    def __post_init__(self) -> None:
        if not 0 < self.min_iou <= 1:
            raise ValueError(f"min_iou must be in (0, 1], not {self.min_iou}")

    @property
    def folder(self) -> Path:
        """Where the run is recorded."""
        return Path("runs") / self.name


def detect_dataset(config: EvaluationConfig, dataset: Dataset, device: str) -> Path:
    """Run the detector on every image that the run's journal does not have yet; returns the journal's path.

    Raises:
        CheckpointError, ConfigError, ImageError, ResultsError, ValueError: one line each, for the user.
    """
    from detector.checkpoint import find_checkpoint
    from detector.device import keep_freed_memory
    from detector.extraction import dataset_proposals
    from detector.pipeline import Detector

    keep_freed_memory()
    detector = Detector.load(config.detector, device=device)
    if detector.classes.names != dataset.classes.names:
        raise ValueError(
            f"the detector tells {len(detector.classes)} classes apart ({_some(detector.classes.names)}), "
            f"{dataset.name} has {len(dataset.classes)} ({_some(dataset.classes.names)}): "
            "evaluate on the classes it was trained for"
        )
    settings = {
        "data": config_to_dict(config.data),
        "detector": config_to_dict(config.detector),
        "weights": [hashlib.sha256(find_checkpoint(name).read_bytes()).hexdigest() for name in config.detector.models],
    }
    proposals = dataset_proposals(dataset, config.detector.proposals, Path(config.cache), 0)
    path = config.folder / "detections.jsonl"
    regions = 0
    seconds: dict[str, float] = {}
    with Journal(path, dataset.classes, settings) as journal:
        save_config(config, config.folder / "config.yaml")  # not before the journal had a chance to refuse the settings
        todo = [record for record in dataset.records if record.image_id not in journal.done]
        if len(todo) < len(dataset):
            print(f"resuming {path}: {len(dataset) - len(todo)} of {len(dataset)} images are done", file=sys.stderr)
        for record in tqdm(todo, desc=dataset.name, unit="image", dynamic_ncols=True):
            boxes = proposals.get(record.image_id, record.path.read_bytes()).boxes
            run = detector.run(record.read(), boxes)
            journal.append(record.image_id, run.detections)
            regions += len(run.boxes)
            for stage, spent in run.seconds.items():
                seconds[stage] = seconds.get(stage, 0.0) + spent
    if todo:
        stages = ", ".join(f"{stage} {spent / len(todo):.2f}" for stage, spent in seconds.items())
        print(f"{regions / len(todo):.0f} regions per image; seconds per image: {stages}", file=sys.stderr)
    return path


def score(config: EvaluationConfig, dataset: Dataset, detections: Path) -> Evaluation:
    """Evaluate saved detections by the config's protocol and add the mean of each group of classes to the summary.

    Raises:
        ResultsError: the file cannot be used.
        ValueError: a group names a class that the data set does not have.
    """
    table = read_results(detections, dataset)
    evaluate = {Protocol.voc: _voc, Protocol.coco: _coco}[config.protocol]
    evaluation = evaluate(config, dataset, table)
    for group, names in config.groups.items():
        unknown = sorted(set(names) - set(evaluation.ap))
        if unknown:
            raise ValueError(f"groups.{group}: {dataset.name} has no class {', '.join(unknown)}")
        values = [value for name in names if (value := evaluation.ap[name]) is not None]
        evaluation.summary[f"mean of {group}"] = float(np.mean(values)) if values else None
    return evaluation


def missing_images(dataset: Dataset, detections: Path) -> int:
    """How many images of the data set a file that `score` read has no line for; 0 for COCO results: they need none."""
    text = detections.read_text(encoding="utf-8").strip()
    if text.startswith("["):
        return 0
    return len(dataset) - sum(1 for line in text.split("\n") if line.strip() and not line.startswith('{"journal"'))


def save_table(config: EvaluationConfig, dataset: Dataset, detections: Path) -> None:
    """Write the run's detections as COCO results, for other tools."""
    write_results(config.folder / "detections.json", dataset, read_results(detections, dataset))


def _voc(config: EvaluationConfig, dataset: Dataset, table: DetectionTable) -> Evaluation:
    return evaluate_voc(dataset, table, min_iou=config.min_iou)


def _coco(_: EvaluationConfig, dataset: Dataset, table: DetectionTable) -> Evaluation:
    return evaluate_coco(dataset, table)


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
