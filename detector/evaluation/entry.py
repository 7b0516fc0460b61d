"""Score detections in one call: ground truth and detections, as files or in memory -> an Evaluation. Without torch."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, overload

from detector.detections import Detections
from detector.evaluation.all_protocols import AllProtocols, evaluate_all
from detector.evaluation.checking import hint_at, unknown_image
from detector.evaluation.evaluator import Evaluator
from detector.evaluation.given import (
    GivenClasses,
    GivenDetections,
    GivenTruth,
    class_table_of,
    image_id_of,
    rows_of_detections,
)
from detector.evaluation.names import UNKNOWN, Names
from detector.evaluation.outcome import Evaluation
from detector.evaluation.protocols import Protocol, ScoringConfig, evaluate_table, protocol_named
from detector.evaluation.reading import read_results
from detector.evaluation.results import DetectionTable, ResultsError, class_keys
from detector.evaluation.truth import Truth
from detector.evaluation.truth_paths import open_truth
from proposals.errors import UserError

_LOG = logging.getLogger(__name__)


OneProtocol: TypeAlias = Literal["voc", "voc07", "ilsvrc", "coco"]
TruthSource: TypeAlias = Truth | str | Path | Mapping[Any, GivenTruth] | Sequence[GivenTruth]
DetectionSource: TypeAlias = (
    DetectionTable | str | Path | Mapping[Any, GivenDetections] | Mapping[str, Detections] | Sequence[GivenDetections]
)


@overload
def evaluate(
    truth: TruthSource,
    detections: DetectionSource,
    protocol: OneProtocol = "voc",
    *,
    image_list: str | Path | None = None,
    classes: GivenClasses = (),
    min_iou: float = 0.5,
    blacklist: str = "",
    boxes: str = "",
    truth_boxes: str = "",
) -> Evaluation: ...


@overload
def evaluate(
    truth: TruthSource,
    detections: DetectionSource,
    protocol: Literal["all"],
    *,
    image_list: str | Path | None = None,
    classes: GivenClasses = (),
    min_iou: float = 0.5,
    blacklist: str = "",
    boxes: str = "",
    truth_boxes: str = "",
) -> AllProtocols: ...


def evaluate(
    truth: TruthSource,
    detections: DetectionSource,
    protocol: str = "voc",
    *,
    image_list: str | Path | None = None,
    classes: GivenClasses = (),
    min_iou: float = 0.5,
    blacklist: str = "",
    boxes: str = "",
    truth_boxes: str = "",
) -> Evaluation | AllProtocols:
    """Compute the average precision of detections, from this package or any other program.

    Oddities of the files are logged as warnings.

    Args:
        truth: Ground truth: a file or folder of any format (docs/evaluation.md, "Formats"), a Truth, or the objects of
            each image as arrays, as `Evaluator.update` takes them: keyed by image id, or in a list.
        detections: A file or folder of any format, a table, or the detections of each image, as Detections or as
            arrays: keyed by image id or file name, or, where the truth is a list, a list of the same images. Images
            that are not named have no detections.
        protocol: "voc" (VOC 2010 and later), "voc07" (11 points), "ilsvrc" or "coco". Their numbers do not compare.
            "all" returns the evaluations of all of them, and prints as a table with the reasons.
        image_list: List of the images to score; None for all.
        classes: The K class names, where the files name other ones or none. Required for arrays, by label: names in
            the order of labels 0..K-1, or a mapping from label to name.
        min_iou: IoU from which a detection matches an object, in (0, 1]; coco has its own ten.
        blacklist: File of the pairs of image and class that ILSVRC leaves out, or "ilsvrc2014".
        boxes: Layout of the detections' boxes in a text folder or a table, such as "xywh" or "cxcywh,relative"; empty
            to find it.
        truth_boxes: The same of the ground truth's.

    Raises:
        DataError: The ground truth cannot be read.
        ResultsError: The detections cannot be read, name unknown images or classes, or there is no ground truth.
        ValueError: An unknown protocol, or a number outside its range.

    >>> result = evaluate("truth.json", "detections.json", protocol="coco")  # doctest: +SKIP
    >>> result.mean_ap, result.ap["cat"], result.summary["AP75"]  # doctest: +SKIP

    >>> cat = {"boxes": [[4, 8, 40, 60]], "labels": ["cat"]}
    >>> evaluate({"a.jpg": cat, "b.jpg": cat}, {"a.jpg": cat | {"scores": [0.9]}}, classes=["cat"]).mean_ap
    0.5
    """
    if protocol == "all":  # the files are read by this one
        config = ScoringConfig(Protocol.ilsvrc if blacklist else Protocol.voc, min_iou=min_iou, blacklist=blacklist)
    else:
        config = ScoringConfig(protocol=protocol_named(protocol), min_iou=min_iou, blacklist=blacklist)
    in_memory = not isinstance(truth, Truth | str | Path)
    if in_memory and (image_list or blacklist or truth_boxes):
        raise UserError(
            "image_list, blacklist and truth_boxes are for files; leave them out where the ground truth is in memory"
        )
    if not isinstance(truth, Truth | str | Path):
        truth, table = _collected(truth, detections, classes).tables()
    elif not isinstance(truth, Truth):
        names = tuple(classes.values()) if isinstance(classes, Mapping) else classes
        truth = open_truth(Path(truth), Path(image_list) if image_list else None, config, names, truth_boxes)
    warnings = truth.warnings
    if isinstance(detections, str | Path):
        table, more = read_results(Path(detections), truth, boxes)
        warnings += more
    elif isinstance(detections, DetectionTable):
        table = detections
    elif not in_memory:
        table = _table(truth, detections)
    for line in warnings:
        _LOG.warning("%s", line)
    return evaluate_all(truth, table, min_iou=min_iou) if protocol == "all" else evaluate_table(truth, table, config)


def _collected(
    truth: Mapping[Any, GivenTruth] | Sequence[GivenTruth], detections: DetectionSource, classes: GivenClasses
) -> Evaluator:
    """Collect objects in memory, and the detections where they are in memory by image too."""
    objects = _by_id(truth)
    found: dict[str, GivenDetections] = {}
    if not isinstance(detections, DetectionTable | str | Path):
        found = _by_id(detections)
        if isinstance(truth, Mapping) != isinstance(detections, Mapping):
            raise UserError("give ground truth and detections both keyed by image id, or both as lists")
        if not isinstance(truth, Mapping) and len(found) != len(objects):
            raise ResultsError(f"ground truth of {len(objects)} images, and detections of {len(found)}")
        unknown = [image for image in found if image not in objects]
        if unknown:
            hint = hint_at(unknown[0], list(objects))
            raise ResultsError(f"detections: unknown image {unknown[0]!r}, not in the ground truth.{hint}")
    result = Evaluator(classes)
    result.update(list(objects), list(objects.values()), [found.get(image) for image in objects])
    return result


def _by_id(images: Mapping[Any, Any] | Sequence[Any]) -> dict[str, Any]:
    """Key what is given for each image by the image's id; that in a list by its position."""
    if isinstance(images, Mapping):
        return {image_id_of(image): given for image, given in images.items()}
    return {str(position): given for position, given in enumerate(images)}


def _table(truth: Truth, found: DetectionSource) -> DetectionTable:
    """Join the detections of several images; where they have class names, these give the labels."""
    if not isinstance(found, Mapping):
        raise UserError("detections in a list need ground truth in a list; key them by image id or file name")
    names = Names(truth)
    by_id: dict[str, Detections] = {}
    left_out: Counter[str] = Counter()
    labels_of = lru_cache(partial(names.labels, number=False))
    positions = class_table_of(class_keys(truth.classes))
    for name, given in found.items():
        index = names.image(image_id_of(name))
        if index == UNKNOWN:
            raise ResultsError(f"detections: {unknown_image(str(name), truth)}")
        if isinstance(given, Detections):
            detections = given
        else:
            rows = rows_of_detections(given, str(name), positions)
            detections = Detections(rows["box"], rows["score"], rows["label"])
        if detections.names is not None:
            known_labels = labels_of(detections.names)
            if (known_labels == UNKNOWN).all():
                raise ResultsError(f"{truth.name} has none of the detections' classes: {', '.join(detections.names)}")
            labels = known_labels[detections.labels]
            left_out.update(one.name for one in detections[labels == UNKNOWN])
            known = detections[labels != UNKNOWN]
            detections = replace(known, labels=labels[labels != UNKNOWN], names=None)
        if index >= 0:  # else the image list leaves it out
            by_id[truth.image_ids[index]] = detections
    if left_out:
        _LOG.warning(
            "%d detections of classes that %s does not have are left out: %s",
            left_out.total(),
            truth.name,
            ", ".join(sorted(left_out)),
        )
    return DetectionTable.from_images(truth, by_id)
