"""Score detections by one protocol: ILSVRC, PASCAL VOC (area or 11 points) or COCO.

In: a Truth, a DetectionTable and a ScoringConfig.  Out: an Evaluation.
Average precision differs between protocols by several points on the same detections; never compare across them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np

from detector.evaluation.average import AREA, COCO_POINTS, ELEVEN_POINTS, Floats, average_precisions, mean_of_known
from detector.evaluation.coco import BACKENDS, evaluate_coco
from detector.evaluation.matching import match
from detector.evaluation.names import labels_of_groups
from detector.evaluation.operating_points import best_f1_points
from detector.evaluation.outcome import Evaluation, evaluation_of
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import Truth
from proposals.errors import UserError


class Protocol(Enum):
    """The benchmark whose rules match detections to objects and turn a curve into average precision."""

    ilsvrc = "ilsvrc"
    voc = "voc"
    voc07 = "voc07"
    coco = "coco"


def protocol_named(name: str) -> Protocol:
    """Find a protocol by its name.

    Raises:
        UserError: there is none of this name.
    """
    if name not in Protocol.__members__:
        raise UserError(f"protocol must be one of {', '.join(Protocol.__members__)}, not {name!r}")
    return Protocol[name]


@dataclass(frozen=True)
class ScoringConfig:
    """Settings of the score of detections, from any program.

    Attributes:
        protocol: Rules of the score. ilsvrc: ILSVRC DET, lower IoU thresholds for small objects. voc: PASCAL VOC 2010
            and later, area under the curve, difficult objects ignored. voc07: PASCAL VOC 2007, precision at 11 recalls.
            coco: precision at 101 recalls, computed by pycocotools.
        min_iou: IoU from which a detection matches an object, in (0, 1]. coco uses its own ten thresholds.
        groups: Lists of classes, keyed by a name for the list; the mean AP of each list is reported too.
        blacklist: File of (image, class) pairs that ILSVRC excludes from scoring, or "ilsvrc2014" for the contest's
            own. Protocol ilsvrc only.
        backend: Program that computes COCO's numbers: pycocotools, or hotcoco (faster, installed separately). Protocol
            coco only.
        resamples: Bootstrap resamples of the images for the confidence interval of mean AP. 0 disables the interval.
        score: Minimum score, in [0, 1], of the detections that are shown on images, counted as confusions between
            classes, and required for an object to count as found by the detector's stages. AP uses all scores.
        threshold_precision: Precision, in (0, 1], that the operating points of a run shall have: the lowest score from
            which it is reached. null leaves them at the best F1.
        threshold_recall: Recall, in (0, 1], that they shall have instead: the highest score from which it is reached.
    """

    protocol: Protocol = Protocol.voc
    min_iou: float = 0.5  # the contest's 50 % Jaccard
    groups: dict[str, list[str]] = field(default_factory=dict)
    blacklist: str = ""
    backend: str = "pycocotools"
    resamples: int = 1000
    score: float = 0.5
    threshold_precision: float | None = None
    threshold_recall: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.min_iou <= 1:
            raise ValueError(f"min_iou must be in (0, 1], not {self.min_iou}")
        if self.protocol is Protocol.coco and self.min_iou != 0.5:
            raise ValueError("protocol coco has its own IoU thresholds, 0.50 to 0.95; leave min_iou out")
        if self.resamples < 0:
            raise ValueError(f"resamples must not be negative, but is {self.resamples}")
        if not 0 <= self.score <= 1:
            raise ValueError(f"score must be in [0, 1], not {self.score}")
        for name in ("threshold_precision", "threshold_recall"):
            wanted = getattr(self, name)
            if wanted is not None and not 0 < wanted <= 1:
                raise ValueError(f"{name} must be in (0, 1], not {wanted}")
        if self.threshold_precision is not None and self.threshold_recall is not None:
            raise ValueError("threshold_precision and threshold_recall choose the same scores; give one of them")
        if self.backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {self.backend!r}")
        if self.backend != BACKENDS[0] and self.protocol is not Protocol.coco:
            raise ValueError(f"backend={self.backend} is for protocol coco; leave it out with {self.protocol.value}")
        if self.blacklist and self.protocol is not Protocol.ilsvrc:
            raise ValueError(f"blacklist is for protocol ilsvrc; leave it out with {self.protocol.value}")

    @property
    def threshold_goal(self) -> str:
        """What operating points are chosen for, such as "precision 0.9"; "" for the best F1."""
        goals = {"precision": self.threshold_precision, "recall": self.threshold_recall}
        return next((f"{name} {value:g}" for name, value in goals.items() if value is not None), "")


RULES: dict[Protocol, tuple[str, Floats]] = {
    Protocol.ilsvrc: ("ilsvrc", AREA),
    Protocol.voc: ("voc", AREA),
    Protocol.voc07: ("voc", ELEVEN_POINTS),
    Protocol.coco: ("coco", COCO_POINTS),
}
"""Matching rule of each protocol, and the recalls that its average precision uses."""


def evaluate_table(truth: Truth, table: DetectionTable, config: ScoringConfig) -> Evaluation:
    """Score detections by the config's protocol and add the mean AP of each group of classes to the summary.

    Raises:
        ResultsError: a group names a class that the truth does not have, or there is no ground truth at all.
        MissingPackageError: the backend is not installed.
        ValueError: the table was made for another split.
    """
    groups = labels_of_groups(config.groups, truth)
    match config.protocol:
        case Protocol.ilsvrc:
            evaluation = evaluate_ilsvrc(truth, table, min_iou=config.min_iou)
        case Protocol.coco:
            evaluation = evaluate_coco(truth, table, backend=config.backend)
        case _:
            eleven = config.protocol is Protocol.voc07
            evaluation = evaluate_voc(truth, table, min_iou=config.min_iou, eleven_point=eleven)
    ap = list(evaluation.ap.values())
    means = {f"mean of {group}": mean_of_known([ap[label] for label in labels]) for group, labels in groups.items()}
    return replace(evaluation, summary={**evaluation.summary, **means})


def evaluate_voc(
    truth: Truth, detections: DetectionTable, *, min_iou: float = 0.5, eleven_point: bool = False
) -> Evaluation:
    """Compute the average precision of every class by PASCAL VOC's rules (VOCevaldet.m, VOCap.m).

    Each detection is compared with the object of its class that it overlaps most, found or not. Below min_iou it is a
    false positive; on a difficult object it is ignored; on an object already found it is a duplicate, which is a false
    positive. Detections are sorted by score over all images, equal scores in the table's order.

    Args:
        truth: The ground truth; COCO's crowd boxes are ignored as difficult objects are.
        detections: The detections; image indices and labels are the truth's.
        min_iou: IoU from which a detection matches an object, in (0, 1].
        eleven_point: VOC 2007's mean precision at 11 recalls ("voc07") instead of the area under the curve ("voc").

    Raises:
        ResultsError: there is no ground truth at all.
        ValueError: the table was made for another split, or min_iou is out of range.
    """
    matches = match(truth, detections, "voc", min_iou)
    ap = average_precisions(matches, detections, ELEVEN_POINTS if eleven_point else AREA)
    protocol = "voc07" if eleven_point else "voc"
    points = best_f1_points(matches, detections)
    return evaluation_of(protocol, min_iou, truth, detections, ap=ap, points=points, matches=matches)


def evaluate_ilsvrc(truth: Truth, detections: DetectionTable, *, min_iou: float = 0.5) -> Evaluation:
    """Compute the average precision of every class by ILSVRC DET's rules (eval_detection.m of the 2014 devkit).

    Unlike in VOC, small objects have lower IoU thresholds, a detection is compared with objects only that are not found
    yet, no object is difficult, and a class may be blacklisted in an image. The Evaluation's plain_ap has the same
    threshold for objects of all sizes.

    Args:
        truth: The ground truth and its blacklist.
        detections: The detections; image indices and labels are the truth's.
        min_iou: IoU from which a detection matches an object, in (0, 1]; lower for objects under about 25 px.

    Raises:
        ResultsError: there is no ground truth at all.
        ValueError: the table was made for another split, or min_iou is out of range.
    """
    relaxed = match(truth, detections, "ilsvrc", min_iou)
    ap = average_precisions(relaxed, detections)
    plain = average_precisions(match(truth, detections, "ilsvrc", min_iou, relaxed=False), detections)
    known = [value for value in plain if value is not None]
    summary = {
        f"mean at IoU {min_iou:g} for all sizes": mean_of_known(plain),
        f"median at IoU {min_iou:g} for all sizes": float(np.median(known)) if known else None,
    }
    return evaluation_of(
        "ilsvrc",
        min_iou,
        truth,
        detections,
        ap=ap,
        points=best_f1_points(relaxed, detections),
        matches=relaxed,
        summary=summary,
        plain_ap=plain,
    )
