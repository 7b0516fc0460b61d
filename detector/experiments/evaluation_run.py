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
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from detector.config import config_to_dict, save_config
from detector.data.dataset import DataConfig, DatasetKind, open_dataset, refuse_foreign
from detector.data.ground_truth import DataError, Dataset, read_lines
from detector.data.voc import VOC_CLASSES
from detector.detections import Detections
from detector.evaluation.average import (
    Measure,
    average_precision,
    coco_average_precision,
    eleven_point_average_precision,
)
from detector.evaluation.bootstrap import bootstrap, compare
from detector.evaluation.checking import unknown_image
from detector.evaluation.coco import BACKENDS, evaluate_coco
from detector.evaluation.diagnosis import diagnose
from detector.evaluation.ilsvrc import evaluate_ilsvrc
from detector.evaluation.matching import match
from detector.evaluation.names import Names, labels_of
from detector.evaluation.reading import read_results
from detector.evaluation.results import DetectionTable, Evaluation
from detector.evaluation.truth import Truth, read_coco_truth, read_ilsvrc_truth, read_truth, read_voc_truth
from detector.evaluation.voc import evaluate_voc
from detector.evaluation.writing import write_coco, write_ilsvrc
from detector.experiments.journal import Journal, check_journals
from detector.report.text import Report
from detector.settings import DetectorConfig
from proposals.errors import UserError

if TYPE_CHECKING:
    import torch

    from detector.data.ground_truth import Record
    from detector.data.image import Image
    from detector.pipeline import Detector, Run
    from proposals.boxes import Boxes


class Protocol(Enum):
    """By whose rules detections are matched and precision is averaged; the values differ, never mix them."""

    ilsvrc = "ilsvrc"
    voc = "voc"
    voc07 = "voc07"
    coco = "coco"


LOW_SCORE = 0.05  # a threshold above this cuts the curve of precision and recall where it still rises


@dataclass(frozen=True)
class EvaluationConfig:
    """An experiment.

    Attributes:
        data: images and ground truth; None where a command was given files.
        name: its folder is runs/<name>.
        protocol: ilsvrc: the contest's, small objects found sooner; voc: area under the curve, difficult objects
            ignored (VOC 2010 on); voc07: 11 points; coco: 101 points, by pycocotools.
        min_iou: overlap that makes a detection right (coco reports its own set).
        groups: classes whose mean AP is reported apart, by the name of the group.
        detector: what to evaluate.
        cache: folder of the proposals.
        blacklist: ilsvrc: file of pairs that do not count, or "ilsvrc2014" for the contest's own.
        backend: coco: pycocotools, or hotcoco where it is installed.
        resamples: of the images for the interval of mean AP; 0 for none.
        score: what a detection must reach to be shown: for the confusion of classes and the stage that lost an object.
    """

    data: DataConfig | None = None
    name: str = "evaluation"
    protocol: Protocol = Protocol.voc
    min_iou: float = 0.5  # the contest's 50 % Jaccard
    groups: dict[str, list[str]] = field(default_factory=dict)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    cache: str = ".cache/proposals"
    blacklist: str = ""
    backend: str = "pycocotools"
    resamples: int = 1000
    score: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.min_iou <= 1:
            raise ValueError(f"min_iou must be in (0, 1], not {self.min_iou}")
        if self.protocol is Protocol.coco and self.min_iou != 0.5:
            raise ValueError("protocol coco has overlaps of its own, 0.50 to 0.95; leave min_iou out")
        if self.resamples < 0:
            raise ValueError(f"resamples must not be negative, but is {self.resamples}")
        if not 0 <= self.score <= 1:
            raise ValueError(f"score must be in [0, 1], not {self.score}")
        if self.backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {self.backend!r}")
        if self.backend != BACKENDS[0] and self.protocol is not Protocol.coco:
            raise ValueError(f"backend={self.backend} is for protocol coco; leave it out with {self.protocol.value}")
        if self.blacklist and self.protocol is not Protocol.ilsvrc:
            raise ValueError(f"blacklist is for protocol ilsvrc; leave it out with {self.protocol.value}")

    @property
    def folder(self) -> Path:
        """Where the run is recorded."""
        return Path("runs") / self.name


RULES: dict[Protocol, tuple[str, Measure, str]] = {
    Protocol.ilsvrc: ("ilsvrc", average_precision, "area"),
    Protocol.voc: ("voc", average_precision, "area"),
    Protocol.voc07: ("voc", eleven_point_average_precision, "11 points"),
    Protocol.coco: ("coco", coco_average_precision, "101 points"),
}
"""Of each protocol: how detections are matched, how a curve becomes a number, and that measure's name in bootstrap."""


def evaluate(config: EvaluationConfig, truth: Truth, table: DetectionTable) -> Evaluation:
    """Score detections by the config's protocol and add the mean of each group of classes to the summary.

    Raises:
        ResultsError: a group names a class that the truth does not have, or there is no ground truth at all.
        BackendError: the backend is not installed.
    """
    groups = {name: labels_of(classes, truth, f"groups.{name}") for name, classes in config.groups.items()}
    match config.protocol:
        case Protocol.ilsvrc:
            evaluation = evaluate_ilsvrc(truth, table, min_iou=config.min_iou)
        case Protocol.coco:
            evaluation = evaluate_coco(truth, table, backend=config.backend)
        case _:
            eleven = config.protocol is Protocol.voc07
            evaluation = evaluate_voc(truth, table, min_iou=config.min_iou, eleven_point=eleven)
    ap = list(evaluation.ap.values())
    means: dict[str, float | None] = {}
    for group, labels in groups.items():
        values = [value for label in labels if (value := ap[label]) is not None]
        means[f"mean of {group}"] = float(np.mean(values)) if values else None
    return replace(evaluation, summary={**evaluation.summary, **means})


def open_truth(
    config: EvaluationConfig, annotations: Path, image_list: Path | None, classes: Sequence[str] = ()
) -> Truth:
    """Ground truth that a command names by its files: an XML folder and a list of images, or a COCO file.

    Args:
        config: its protocol says how XML is read, ILSVRC's or VOC's; a COCO file is one under any.
        annotations: a folder, or a COCO file.
        image_list: the images that count, for a COCO file all of them where absent.
        classes: names for XML of other classes than VOC's 20.

    Raises:
        DataError: see detector.evaluation.truth; an option that the files or the protocol do not have; a list that
            names an image which the COCO file does not have, or one twice.
    """
    if not annotations.exists():
        raise DataError(f"{annotations}: no such folder of XML, nor COCO file")
    of_xml = annotations.is_dir()
    if classes and (not of_xml or config.protocol is Protocol.ilsvrc):
        owner = "ILSVRC DET has its own 200" if of_xml else f"{annotations} names its own"
        raise DataError(f"--classes are for XML of VOC's form, and {owner}; leave them out")
    if config.blacklist and not of_xml:
        raise DataError(f"--blacklist is for ILSVRC's XML, and {annotations} is a COCO file; leave it out")
    if not of_xml:
        truth = read_coco_truth(annotations)
        return truth if image_list is None else listed_part(truth, image_list)
    if image_list is None:
        raise DataError(f"{annotations} is a folder of XML: give --image-list, the images that count")
    if config.protocol is Protocol.ilsvrc:
        return read_ilsvrc_truth(annotations, image_list, config.blacklist or None)
    return read_voc_truth(annotations, image_list, tuple(classes) or VOC_CLASSES)


def listed_part(truth: Truth, image_list: Path) -> Truth:
    """The images of a list, in the truth's order.

    Args:
        truth: a whole file.
        image_list: a text with an id or a file name a line; a number behind it, as other lists have, is left out.

    Raises:
        DataError: the list cannot be read or is empty, or names an image that is not there, or one twice.
    """
    names = Names(truth)
    line_of: dict[int, int] = {}
    for number, line in enumerate(read_lines(image_list), 1):
        if not line.strip():
            continue
        texts = (line.strip(), line.rsplit(maxsplit=1)[0].strip())
        index = next((place for text in texts if (place := names.image(text)) >= 0), None)
        if index is None:
            raise DataError(f"{image_list}, line {number}: {unknown_image(line.strip(), truth)}")
        if index in line_of:
            raise DataError(f"{image_list}, line {number}: {line.strip()} is on line {line_of[index]} too")
        line_of[index] = number
    if not line_of:
        raise DataError(f"{image_list}: no images in this list")
    kept = np.array(sorted(line_of), np.int64)
    of_kept = np.isin(truth.image_index, kept)
    columns = ("labels", "boxes", "difficult", "crowd", "areas")
    return replace(
        truth,
        name=f"{truth.name} {image_list.stem}",
        image_ids=tuple(truth.image_ids[index] for index in kept.tolist()),
        paths=tuple(truth.paths[index] for index in kept.tolist()),
        sizes=truth.sizes[kept],
        numbers=None if truth.numbers is None else truth.numbers[kept],
        image_index=np.searchsorted(kept, truth.image_index[of_kept]).astype(np.int64),
        **{column: getattr(truth, column)[of_kept] for column in columns},
        whole=truth,
    )


def configured_truth(config: EvaluationConfig) -> Truth:
    """The ground truth of the config's data, as written."""
    if config.data is None:
        raise DataError("no data to evaluate on; set data.kind=... data.root=...")
    refuse_foreign(config.data)
    if config.blacklist and config.data.kind is not DatasetKind.ilsvrc:
        raise DataError(f"blacklist is for data.kind=ilsvrc; leave it out with {config.data.kind.value}")
    return read_truth(config.data, config.blacklist)


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
    evaluation = evaluate(config, truth, table)
    rule, measure, name = RULES[config.protocol]
    matches = match(truth, table, rule, config.min_iou)
    interval = comparison = found = None
    if config.resamples:
        interval = bootstrap(truth, matches, table, measure=name, resamples=config.resamples)
        if other is not None:
            tables = [(matches, table), (match(truth, other, rule, config.min_iou), other)]
            comparison = compare(truth, tables, measure=name, resamples=config.resamples)
    if diagnosis:
        found = diagnose(truth, table, matches, measure=measure, score=config.score)
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
                perfect[stage] = evaluate(config, truth, ideal).mean_ap
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
            run = detector.run(image, boxes[:kept])
            _diagnose(config, detector, record, image, boxes, run, oracles, labels)
            journal.append(record.image_id, _relabelled(run.detections, labels))  # last: what it has, the others have
            regions += len(run.boxes)
            for stage, spent in run.seconds.items():
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
    run: Run,
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
    trace = stages.Trace(boxes, run.scores.probabilities, run.class_boxes, config.detector.suppression, config.score)

    def proposed() -> Detections:
        scores = detector.score(image, objects)
        class_boxes = scores.boxes(objects, image.shape[1], image.shape[0])
        return perfect_proposals(trace, class_boxes, scores.probabilities)

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
