"""PASCAL VOC's average precision: the area under the curve (VOC2010 and later) and the 11-point mean (VOC2007).

In: a Truth and a DetectionTable. Out: an Evaluation. Source: the VOC devkit's VOCevaldet.m and VOCap.m. A COCO crowd
box is treated as a difficult one.
"""

from __future__ import annotations

from detector.evaluation.average import average_precision, average_precisions, eleven_point_average_precision
from detector.evaluation.matching import match
from detector.evaluation.results import DetectionTable, Evaluation, evaluation_of
from detector.evaluation.truth import Truth


def evaluate_voc(
    truth: Truth, detections: DetectionTable, *, min_iou: float = 0.5, eleven_point: bool = False
) -> Evaluation:
    """Average precision of every class by VOC's rules.

    Each detection looks at the ground truth of its class that it overlaps most, taken or not. Below min_iou it is a
    false positive; a difficult object makes it count as nothing; an object already found makes it a duplicate, which is
    a false positive. Detections go by score over all images, equal scores in the table's order.

    Args:
        truth: the ground truth; difficult and crowd boxes are neither to be found nor punished.
        detections: its index and labels refer to the truth.
        min_iou: overlap from which a detection counts, in (0, 1].
        eleven_point: VOC2007's mean of 11 precisions ("voc07") instead of the area under the curve ("voc").

    Raises:
        ValueError: the table is of another split, min_iou is out of range, or there is no ground truth at all.
    """
    matches = match(truth, detections, "voc", min_iou)
    measure = eleven_point_average_precision if eleven_point else average_precision
    ap = average_precisions(matches, detections, measure)
    protocol = "voc07" if eleven_point else "voc"
    return evaluation_of(protocol, min_iou, truth, detections, ap=ap, objects=matches.positives)
