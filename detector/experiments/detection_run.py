"""Run a detector over a data set and record it image by image, so that an interrupted run resumes.

In: an EvaluationConfig.  Out: its journal of detections; beside it the stage that lost each object, the detections with
each stage replaced by an oracle, and the detector's operating points.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.checkpoint import find_checkpoint
from detector.config import config_to_dict, save_config
from detector.data.content import boxes_digest, digests_of
from detector.data.dataset import open_dataset
from detector.data.ground_truth import ClassTable, DataError, Dataset, Record, listed
from detector.data.image import Image
from detector.detections import Detections
from detector.device import keep_freed_memory
from detector.evaluation.matching import match
from detector.evaluation.operating_points import OperatingPoints, shortfalls, wanted_points
from detector.evaluation.protocols import RULES
from detector.evaluation.results import DetectionTable, class_keys
from detector.evaluation.truth import Truth
from detector.experiments.evaluation_run import LOW_SCORE, EvaluationConfig
from detector.experiments.journal import Journal, check_journals
from detector.experiments.oracles import ORACLES, perfect_classifier, perfect_proposals, perfect_suppression
from detector.experiments.stages import UNKNOWN, Fate, Trace, append_fates, fates
from detector.extraction import dataset_proposals, settings_of
from detector.operating_points import Identity, identity_of, write_points
from detector.pipeline import Detector, ScoredImage
from detector.progress import progress
from detector.rejection import fingerprint
from proposals.boxes import Boxes
from proposals.errors import UserError

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class DetectionRun:
    """A finished run.

    Attributes:
        journal: File of its detections.
        classes: The K classes of its detector.
        detector: Identity of its detector (detector.operating_points).
    """

    journal: Path
    classes: ClassTable
    detector: Identity


def run_detector(config: EvaluationConfig, device: str, unread: list[str] | None = None) -> DetectionRun:
    """Detect on every image that the run's journal does not contain yet.

    An image that cannot be read gets no line in the journal, so that the same command tries it again. Operating points
    play no part: all detections above suppression.min_score are kept, above 0.001 where that is null.

    Args:
        config: The evaluation, with data.
        device: Device, as detector.device names it.
        unread: List that receives a line for each image that cannot be read.

    Raises:
        CheckpointError, ConfigError, DataError, ResultsError, UserError: one line each, for the user.
        ImageError: no image can be read.
    """
    if config.data is None:
        raise UserError("no data to detect on; set data.kind=... data.root=...")
    dataset = open_dataset(config.data)
    suppression = replace(config.detector.suppression, min_score=config.detector.suppression.lowest)
    config = replace(config, detector=replace(config.detector, suppression=suppression, operating_points=""))
    keep_freed_memory()
    detector = Detector.load(config.detector, device=device)
    labels = labels_in(dataset, detector)
    digests = digests_of([record.path for record in dataset.records])
    settings = _decisive(detector, dataset, digests)
    check_journals([config.journal, *map(config.oracle, ORACLES)], settings, [config.fates])
    uncut = replace(config.detector.proposals, max_boxes=0)  # the limit is a stage of its own
    proposals = dataset_proposals(dataset, uncut, Path(config.cache), 0, digests=digests)
    seconds: Counter[str] = Counter()
    regions, failed = 0, []
    with ExitStack() as stack:
        journal = stack.enter_context(Journal(config.journal, dataset.classes, settings))
        oracles = {
            stage: stack.enter_context(Journal(config.oracle(stage), dataset.classes, settings)) for stage in ORACLES
        }
        save_config(config, config.folder / "config.yaml")  # after the journals had a chance to reject the settings
        if not journal.done:
            config.fates.unlink(missing_ok=True)  # belonged to journals that were deleted
        todo = [record for record in dataset.records if record.image_id not in journal.done]
        if len(todo) < len(dataset):
            done = len(dataset) - len(todo)
            _LOG.info("resuming %s: %d of %d images are done", config.journal, done, len(dataset))
        uncut_boxes: dict[str, Boxes] = {}

        def prepare(record: Record) -> tuple[Image, Boxes]:
            image = record.read()  # first: its error names the file
            boxes = uncut_boxes[record.image_id] = proposals.get(record.image_id, record.path.read_bytes()).boxes
            return image, boxes[: config.detector.proposals.max_boxes or len(boxes)]

        for record, scored in progress(detector.score_many(todo, prepare), dataset.name, total=len(todo)):
            boxes = uncut_boxes.pop(record.image_id, None)
            if boxes is None or isinstance(scored, Exception):
                failed.append(str(scored))
                continue
            cut = boxes[config.detector.proposals.max_boxes or len(boxes) :]
            found = scored.detections()
            _record_stages(config, detector, record, np.concatenate([scored.boxes, cut]), scored, labels, oracles)
            journal.append(record.image_id, relabelled(found, labels))  # last: its images are in the other files too
            regions += len(scored.boxes)
            seconds.update(scored.seconds)
    if unread is not None:
        unread += failed
    if count := len(todo) - len(failed):
        stages = ", ".join(f"{stage} {spent / count:.2f}" for stage, spent in seconds.items())
        _LOG.info("%.0f regions per image; seconds per image: %s", regions / count, stages)
    identity = identity_of(detector.config, detector.members, detector.rejection)
    return DetectionRun(config.journal, detector.classes, identity)


def save_points(config: EvaluationConfig, truth: Truth, table: DetectionTable, run: DetectionRun) -> Path | None:
    """Write the operating points of a run to its folder, from which `detect` shows its classes.

    Where they miss the config's threshold_precision or threshold_recall, that is logged.

    Returns:
        the file; None where no object was found or all classes together miss that goal, or where the run dropped scores
        above 0.05, so that a threshold below is unknown. There is none of an earlier goal then.
    """
    path, goal = config.folder / "operating_points.json", config.threshold_goal
    path.unlink(missing_ok=True)
    if config.detector.suppression.lowest > LOW_SCORE:
        if goal:
            _LOG.warning("a score for %s cannot be chosen, as lower scores are dropped: no operating points", goal)
        return None
    matches = match(truth, table, RULES[config.protocol][0], config.min_iou)
    labels = run.classes.labels_in(truth.classes)  # [K], -1 where the data has no such class
    known = np.isin(np.arange(len(truth.classes)), labels)
    matches = replace(matches, positives=np.where(known, matches.positives, 0))
    wanted = {"precision": config.threshold_precision, "recall": config.threshold_recall}
    points, objects = wanted_points(matches, table, **wanted), matches.positives.tolist()
    own = [(points.by_class[label], objects[label]) if label >= 0 else (None, 0) for label in labels.tolist()]
    by_class, counts = zip(*own, strict=True)
    points = OperatingPoints(by_class, points.pooled)
    for line in shortfalls(points, counts, class_keys(run.classes), goal) if goal else ():
        _LOG.warning("%s", line)
    about = {
        "data": f"{truth.name}, {len(truth)} images" + (f", for {goal}" if goal else ""),
        "protocol": config.protocol.value,
        "min_iou": config.min_iou,
    }
    return path if write_points(path, run.detector, run.classes, points, counts, about) else None


def _decisive(detector: Detector, dataset: Dataset, digests: Sequence[str]) -> dict[str, object]:
    """Collect what determines a run's detections: contents instead of file names, nothing of how it is computed."""
    config, rejection = detector.config, detector.rejection
    settings = config_to_dict(config)
    for name in ("models", "batch", "backend", "proposals", "operating_points"):
        del settings[name]
    settings["precision"] = detector.precision  # "auto" differs between machines
    settings["rejection"] = [fingerprint(rejection.layer), rejection.threshold] if rejection else None
    proposals = settings_of(config.proposals)  # includes the contents of MultiBox's weights and of stores
    proposals["own"] = sorted(proposals["own"])
    proposals["multibox"] = {key: value for key, value in proposals["multibox"].items() if key != "weights"}
    return {
        "data": {
            "images": {record.image_id: sha[:16] for record, sha in zip(dataset.records, digests, strict=True)},
            "boxes": boxes_digest(dataset),
        },
        "detector": settings | {"proposals": proposals},
        "weights": [hashlib.sha256(find_checkpoint(name).read_bytes()).hexdigest() for name in config.models],
    }


def labels_in(dataset: Dataset, detector: Detector) -> NDArray[np.int64]:
    """Map the detector's classes to the data set's labels, [K], -1 where it has no such class; report differences.

    Raises:
        DataError: they have no class in common.
    """
    names, labels = detector.classes.names, detector.classes.labels_in(dataset.classes)
    if (labels < 0).all():
        raise DataError(
            f"the detector knows {len(names)} classes ({listed(names, 3)}), {dataset.name} has {len(dataset.classes)} "
            f"({listed(dataset.classes.names, 3)}): evaluate on the classes it was trained for"
        )
    foreign = [name for name, label in zip(names, labels.tolist(), strict=True) if label < 0]
    absent = [name for label, name in enumerate(dataset.classes.names) if label not in labels]
    if foreign or absent:
        left_out = f"; detections of the others ({listed(foreign, 3)}) are left out" if foreign else ""
        missed = f"; {dataset.name} has classes that it does not know ({listed(absent, 3)})" if absent else ""
        counts = f"{(labels >= 0).sum()} of the detector's {len(labels)} classes are among the {len(dataset.classes)}"
        _LOG.info("%s of %s%s%s", counts, dataset.name, left_out, missed)
    return labels


def relabelled(found: Detections, labels: NDArray[np.int64]) -> Detections:
    """Return the detections of the classes that the data set has, with its labels (see labels_in)."""
    known = found[labels[found.labels] >= 0]
    return Detections(known.boxes, known.scores, labels[known.labels])


def _record_stages(
    config: EvaluationConfig,
    detector: Detector,
    record: Record,
    boxes: Boxes,
    scored: ScoredImage,
    labels: NDArray[np.int64],
    oracles: Mapping[str, Journal],
) -> None:
    """Record which stage lost each object of an image, and its detections with each stage replaced by an oracle."""
    own_label = np.full(max(labels.max(), record.labels.max(initial=0)) + 1, -1)  # data set's label -> detector's
    own_label[labels[labels >= 0]] = np.flatnonzero(labels >= 0)
    own_labels, counts = own_label[record.labels], ~(record.difficult | record.crowd)
    known, unknown = counts & (own_labels >= 0), counts & (own_labels < 0)
    objects, own_labels = record.boxes[known], own_labels[known]
    probabilities, suppression = scored.scores.probabilities, config.detector.suppression
    trace = Trace(boxes, probabilities, scored.class_boxes, suppression, config.score)
    scored_objects = detector.score(scored.image, objects)
    perfect = {
        "proposals": perfect_proposals(trace, scored_objects.class_boxes, scored_objects.scores.probabilities),
        "classifier": perfect_classifier(trace, objects, own_labels, config.min_iou),
        "suppression": perfect_suppression(trace, objects, own_labels, config.min_iou),
    }
    for stage, journal in oracles.items():
        if record.image_id not in journal.done:
            journal.append(record.image_id, relabelled(perfect[stage], labels))
    found = fates(trace, objects, own_labels, config.min_iou)
    found = [replace(fate, label=int(labels[fate.label])) for fate in found]
    others = zip(record.labels[unknown].tolist(), record.boxes[unknown].tolist(), strict=True)
    found += [Fate(label, box, UNKNOWN, 0.0) for label, box in others]
    append_fates(config.fates, record, found, config.score, config.min_iou)
