"""An evaluation from its config to its numbers: detect on every image, score by a protocol's rules, record.

runs/<name>/ holds detections.jsonl (a line per finished image: an interrupted run goes on there), the same of each
perfect stage, fates.jsonl, detections.json (COCO results; for ILSVRC the submission, detections.txt), report.json and
config.yaml. Scoring saved detections needs neither torch nor the photographs.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from detector.config import config_to_dict, save_config
from detector.data.dataset import DataConfig, open_dataset
from detector.data.ground_truth import DataError, Dataset
from detector.detections import Detections
from detector.evaluation.bootstrap import bootstrap, compare
from detector.evaluation.diagnosis import diagnose
from detector.evaluation.matching import match
from detector.evaluation.protocols import RULES, Protocol, ScoringConfig, evaluate
from detector.evaluation.reading import read_results
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import Truth
from detector.evaluation.writing import write_coco, write_ilsvrc
from detector.experiments.journal import Journal, check_journals
from detector.report.text import Report
from detector.settings import DetectorConfig
from proposals.errors import UserError

if TYPE_CHECKING:
    import torch

    from detector.data.ground_truth import Record
    from detector.data.image import Image
    from detector.pipeline import Detector, ScoredImage
    from proposals.boxes import Boxes


LOW_SCORE = 0.05  # a threshold above this cuts the curve of precision and recall where it still rises


@dataclass(frozen=True)
class EvaluationConfig(ScoringConfig):
    """An evaluation of a detector on a data set, or of a file of detections.

    Attributes:
        data: Images and ground truth. None where the command names files of ground truth instead.
        name: Name of the run, which is recorded in runs/<name>.
        detector: The detector to evaluate.
        cache: Folder in which proposals are kept between runs.
    """

    data: DataConfig | None = None
    name: str = "evaluation"
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    cache: str = ".cache/proposals"

    @property
    def folder(self) -> Path:
        """Where the run is recorded."""
        return Path("runs") / self.name


def detector_warnings(config: EvaluationConfig) -> tuple[str, ...]:
    """What makes a detector's average precision lower than it is: presets for showing drop the low scores."""
    min_score = config.detector.suppression.min_score
    if min_score <= LOW_SCORE:
        return ()
    return (
        f"detector.suppression.min_score={min_score:g} drops detections that average precision counts; "
        "evaluate with detector.suppression.min_score=0.001",
    )


def run_detector(config: EvaluationConfig, device: str, unread: list[str] | None = None) -> Path:
    """Read the photographs of the config's data and run its detector on them; returns the journal.

    Args:
        config: with data.
        device: as detector.device names it.
        unread: receives a line for each image that cannot be read; they are not in the journal.
    """
    if config.data is None:
        raise UserError("no data to detect on; set data.kind=... data.root=...")
    return detect_dataset(config, open_dataset(config.data), device, unread)


def analyse(
    config: EvaluationConfig,
    truth: Truth,
    table: DetectionTable,
    *,
    diagnosis: bool = False,
    stages: bool = False,
    other: DetectionTable | None = None,
    other_name: str = "",
    warnings: tuple[str, ...] = (),
) -> Report:
    """All that the config asks to know of detections.

    Args:
        config: protocol, resamples, score.
        truth: the ground truth.
        table: the detections.
        diagnosis: sort the errors into kinds.
        stages: read what the config's run recorded of its stages.
        other: detections to compare with.
        other_name: what to call them.
        warnings: to keep with the numbers.
    """
    evaluation = evaluate(truth, table, config)
    rule, points = RULES[config.protocol]
    matches = match(truth, table, rule, config.min_iou)
    interval = comparison = found = None
    if config.resamples:
        interval = bootstrap(truth, matches, table, points=points, resamples=config.resamples)
        if other is not None:
            tables = [(matches, table), (match(truth, other, rule, config.min_iou), other)]
            comparison = compare(truth, tables, points=points, resamples=config.resamples)
    if diagnosis:
        found = diagnose(truth, table, matches, points=points, score=config.score)
    fates: dict[str, int] | None = None
    perfect: dict[str, float] = {}
    if stages:
        from detector.experiments.oracles import ORACLES
        from detector.experiments.stages import count_fates, read_fates

        recorded = read_fates(config.folder / "fates.jsonl", config.score, config.min_iou)
        if recorded.keys() == truth.index_of.keys():
            fates = count_fates(
                {
                    image_id: [fate for fate in found if (truth.index_of[image_id], fate.label) not in truth.blacklist]
                    for image_id, found in recorded.items()
                }
            )
            for stage in ORACLES:
                ideal = read_results(oracle_path(config, stage), truth).table
                perfect[stage] = evaluate(truth, ideal, config).mean_ap
        else:
            warnings += (
                f"stages are left out: {config.folder} does not hold them of every image at score {config.score:g} and "
                f"IoU {config.min_iou:g}; they are recorded while the detector runs",
            )
    return Report(
        evaluation,
        interval=interval,
        diagnosis=found,
        fates=fates,
        perfect=perfect or None,
        comparison=comparison,
        other=other_name if comparison else "",
        warnings=warnings,
    )


def oracle_path(config: EvaluationConfig, stage: str) -> Path:
    """Where a run keeps the detections with a perfect stage."""
    return config.folder / f"perfect_{stage}.jsonl"


def detect_dataset(config: EvaluationConfig, dataset: Dataset, device: str, unread: list[str] | None = None) -> Path:
    """Run the detector on every image that the run's journal does not have yet; returns the journal's path.

    An image that cannot be read gets no line in the journal, so that the same command tries it again.

    Args:
        config: the experiment.
        dataset: its images.
        device: as detector.device names it.
        unread: receives a line for each image that cannot be read.

    Raises:
        CheckpointError, ConfigError, ImageError, ResultsError, UserError: one line each, for the user; ImageError where
            no image can be read.
    """
    from detector.data.content import digests_of
    from detector.data.image import ImageError
    from detector.device import keep_freed_memory
    from detector.experiments.extraction import dataset_proposals
    from detector.experiments.oracles import ORACLES
    from detector.pipeline import Detector
    from proposals.store import StoreError

    keep_freed_memory()
    detector = Detector.load(config.detector, device=device)
    labels = _labels_of(detector, dataset)
    digests = digests_of([record.path for record in dataset.records])
    settings = _decisive(config.detector, detector.device, dataset, digests)
    path, fates = config.folder / "detections.jsonl", config.folder / "fates.jsonl"
    check_journals([path, *(oracle_path(config, stage) for stage in ORACLES)], settings, [fates])
    uncut = replace(config.detector.proposals, max_boxes=0)  # a stage of its own
    proposals = dataset_proposals(dataset, uncut, Path(config.cache), 0, digests=digests)
    regions = 0
    seconds: dict[str, float] = {}
    failed: list[str] = []
    with ExitStack() as stack:
        journal = stack.enter_context(Journal(path, dataset.classes, settings))
        oracles = {
            stage: stack.enter_context(Journal(oracle_path(config, stage), dataset.classes, settings))
            for stage in ORACLES
        }
        save_config(config, config.folder / "config.yaml")  # not before the journal had a chance to refuse the settings
        if not journal.done:
            fates.unlink(missing_ok=True)  # of journals that were deleted
        todo = [record for record in dataset.records if record.image_id not in journal.done]
        if len(todo) < len(dataset):
            print(f"resuming {path}: {len(dataset) - len(todo)} of {len(dataset)} images are done", file=sys.stderr)
        for record in tqdm(todo, desc=dataset.name, unit="image", dynamic_ncols=True):
            try:
                image = record.read()
                boxes = proposals.get(record.image_id, record.path.read_bytes()).boxes
            except (ImageError, StoreError, OSError) as error:
                failed.append(str(error))
                continue
            kept = config.detector.proposals.max_boxes or len(boxes)
            scored = detector.score(image, boxes[:kept])
            found = scored.detections()
            _diagnose(config, detector, record, image, boxes, scored, oracles, labels)
            journal.append(record.image_id, _relabelled(found, labels))  # last: what it has, the others have
            regions += len(scored.boxes)
            for stage, spent in scored.seconds.items():
                seconds[stage] = seconds.get(stage, 0.0) + spent
    if unread is not None:
        unread += failed
    count = len(todo) - len(failed)
    if count:
        stages = ", ".join(f"{stage} {spent / count:.2f}" for stage, spent in seconds.items())
        print(f"{regions / count:.0f} regions per image; seconds per image: {stages}", file=sys.stderr)
    return path


def _decisive(
    config: DetectorConfig, device: torch.device, dataset: Dataset, digests: Sequence[str]
) -> dict[str, object]:
    """What decides a run's detections: contents in place of the names of files, nothing of how it is computed."""
    from detector.checkpoint import find_checkpoint
    from detector.data.content import boxes_digest
    from detector.device import choose_precision
    from detector.experiments.extraction import settings_of

    detector = config_to_dict(config)
    for name in ("models", "batch", "backend", "proposals"):
        del detector[name]
    # "auto" is another one on another machine.
    detector["precision"] = str(choose_precision(config.precision, device)).removeprefix("torch.")
    proposals = settings_of(config.proposals)  # with the contents of MultiBox's weights and of stores
    proposals["own"] = sorted(proposals["own"])
    proposals["multibox"] = {key: value for key, value in proposals["multibox"].items() if key != "weights"}
    return {
        "data": {
            "images": {record.image_id: sha[:16] for record, sha in zip(dataset.records, digests, strict=True)},
            "boxes": boxes_digest(dataset),
        },
        "detector": detector | {"proposals": proposals},
        "weights": [hashlib.sha256(find_checkpoint(name).read_bytes()).hexdigest() for name in config.models],
    }


def save_detections(config: EvaluationConfig, truth: Truth, table: DetectionTable) -> Path:
    """Write the run's detections for other programs: ILSVRC's submission, else COCO results; returns the file."""
    if config.protocol is Protocol.ilsvrc:
        path = config.folder / "detections.txt"
        write_ilsvrc(path, truth, table)
    else:
        path = config.folder / "detections.json"
        write_coco(path, truth, table)
    return path


def _labels_of(detector: Detector, dataset: Dataset) -> NDArray[np.int64]:
    """The data set's label of each of the detector's classes; -1 where it has no such class.

    Which classes only one of the two has is said on stderr.

    Raises:
        DataError: they have no class in common.
    """
    labels = detector.classes.labels_in(dataset.classes)
    if (labels < 0).all():
        raise DataError(
            f"the detector tells {len(detector.classes)} classes apart ({_some(detector.classes.names)}), "
            f"{dataset.name} has {len(dataset.classes)} ({_some(dataset.classes.names)}): "
            "evaluate on the classes it was trained for"
        )
    foreign = tuple(name for name, label in zip(detector.classes.names, labels.tolist(), strict=True) if label < 0)
    absent = tuple(name for label, name in enumerate(dataset.classes.names) if label not in set(labels.tolist()))
    left_out = f"; what it finds of the others ({_some(foreign)}) is left out" if foreign else ""
    missed = f"; {dataset.name} has classes that it does not know ({_some(absent)})" if absent else ""
    if foreign or absent:
        print(
            f"eval_map: {(labels >= 0).sum()} of the detector's {len(labels)} classes are among the "
            f"{len(dataset.classes)} of {dataset.name}{left_out}{missed}",
            file=sys.stderr,
        )
    return labels


def _relabelled(found: Detections, labels: NDArray[np.int64]) -> Detections:
    kept = found[labels[found.labels] >= 0]
    return Detections(kept.boxes, kept.scores, labels[kept.labels])


def _diagnose(
    config: EvaluationConfig,
    detector: Detector,
    record: Record,
    image: Image,
    boxes: Boxes,
    scored: ScoredImage,
    oracles: Mapping[str, Journal],
    labels: NDArray[np.int64],
) -> None:
    """Write down what became of the image's objects, and its detections with each stage perfect."""
    from detector.experiments import stages
    from detector.experiments.oracles import perfect_classifier, perfect_proposals, perfect_suppression

    counts = ~(record.difficult | record.crowd)
    label_of = {
        label: own for own, label in enumerate(labels.tolist()) if label >= 0
    }  # the data set's -> the detector's
    known = np.array([label in label_of for label in record.labels.tolist()], np.bool_)
    objects = record.boxes[counts & known]
    own_labels = np.array([label_of[label] for label in record.labels[counts & known].tolist()], np.int64)
    trace = stages.Trace(
        boxes, scored.scores.probabilities, scored.class_boxes, config.detector.suppression, config.score
    )

    def proposed() -> Detections:
        ideal = detector.score(image, objects)
        return perfect_proposals(trace, ideal.class_boxes, ideal.scores.probabilities)

    perfect: dict[str, Callable[[], Detections]] = {
        "proposals": proposed,
        "classifier": lambda: perfect_classifier(trace, objects, own_labels, config.min_iou),
        "suppression": lambda: perfect_suppression(trace, objects, own_labels, config.min_iou),
    }
    for stage, journal in oracles.items():
        if record.image_id not in journal.done:
            journal.append(record.image_id, _relabelled(perfect[stage](), labels))
    fates = stages.fates(trace, objects, own_labels, config.min_iou)
    fates = [replace(fate, label=int(labels[fate.label])) for fate in fates]
    for box, label in zip(record.boxes[counts & ~known].tolist(), record.labels[counts & ~known].tolist(), strict=True):
        fates.append(stages.Fate(label, box, stages.UNKNOWN, 0.0))
    stages.append_fates(config.folder / "fates.jsonl", record, fates, config.score, config.min_iou)


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
