"""Score detections in one call: ground truth and detections, as files or in memory -> an Evaluation. Without torch."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

from detector.detections import Detections
from detector.evaluation.checking import unknown_image
from detector.evaluation.names import UNKNOWN, Names
from detector.evaluation.protocols import Protocol, ScoringConfig, evaluate_table
from detector.evaluation.reading import read_results
from detector.evaluation.results import DetectionTable, Evaluation, ResultsError
from detector.evaluation.truth import Truth
from detector.evaluation.truth_paths import open_truth

_LOG = logging.getLogger(__name__)


def evaluate(
    truth: Truth | str | Path,
    detections: DetectionTable | Mapping[str, Detections] | str | Path,
    protocol: str = "voc",
    *,
    image_list: str | Path | None = None,
    classes: Sequence[str] = (),
    min_iou: float = 0.5,
    blacklist: str = "",
    boxes: str = "",
    truth_boxes: str = "",
) -> Evaluation:
    """Compute the average precision of detections, from this package or any other program.

    Oddities of the files are logged as warnings.

    Args:
        truth: Ground truth: a file or folder of any format (docs/evaluation.md, "Formats"), or a Truth.
        detections: A file or folder of any format, the Detections of each image by its id or file name, or a table.
            Images that are not named have no detections.
        protocol: "voc" (VOC 2010 and later), "voc07" (11 points), "ilsvrc" or "coco". Their numbers do not compare.
        image_list: List of the images to score; None for all.
        classes: The K class names, where the files name other ones or none.
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
    """
    if protocol not in Protocol.__members__:
        raise ValueError(f"protocol must be one of {', '.join(Protocol.__members__)}, not {protocol!r}")
    config = ScoringConfig(protocol=Protocol[protocol], min_iou=min_iou, blacklist=blacklist)
    if not isinstance(truth, Truth):
        truth = open_truth(Path(truth), Path(image_list) if image_list else None, config, classes, truth_boxes)
    warnings = truth.warnings
    if isinstance(detections, str | Path):
        table, more = read_results(Path(detections), truth, boxes)
        warnings += more
    elif isinstance(detections, Mapping):
        table = _table(truth, detections)
    else:
        table = detections
    for line in warnings:
        _LOG.warning("%s", line)
    return evaluate_table(truth, table, config)


def _table(truth: Truth, found: Mapping[str, Detections]) -> DetectionTable:
    """Join the Detections of several images; where they have class names, these give the labels."""
    names = Names(truth)
    by_id: dict[str, Detections] = {}
    left_out: Counter[str] = Counter()
    labels_of = lru_cache(partial(names.labels, number=False))
    for name, detections in found.items():
        index = names.image(str(name))
        if index == UNKNOWN:
            raise ResultsError(f"detections: {unknown_image(str(name), truth)}")
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
