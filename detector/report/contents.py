"""What a report holds: an evaluation and the analyses that were asked for.

As text: text.py, as JSON: plain.py, as CSV: tables.py, as a page: page.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from detector.analysis.calibration import Calibration
from detector.analysis.causes import ClassCauses
from detector.analysis.comparing import ManyComparison
from detector.analysis.confusion import Confusion
from detector.analysis.label_errors import Suspect
from detector.analysis.sizes import SizeRow
from detector.analysis.slices import SliceRow
from detector.analysis.thresholds import Thresholds
from detector.evaluation.bootstrap import Interval
from detector.evaluation.diagnosis import Diagnosis
from detector.evaluation.outcome import Evaluation

TITLES = {
    "ilsvrc": "ILSVRC DET, lower IoU thresholds for small objects",
    "voc": "PASCAL VOC2010+, area under the curve",
    "voc07": "PASCAL VOC2007, 11 points",
    "coco": "COCO, 101 points",
}


@dataclass(frozen=True)
class Report:
    """An evaluation and the analyses that were asked for; None for one that was not.

    Attributes:
        evaluation: The numbers of the protocol.
        interval: 95 % confidence interval of mean AP.
        causes: What became of the objects of each class at its threshold, worst AP first: of all classes with objects,
            or of the worst alone.
        diagnosis: Errors by type.
        thresholds: Score thresholds, of each class and of all together.
        confusion: Classes of objects against classes of detections.
        sizes: AP and recall by size of the objects.
        slices: The same by slices of the images.
        object_counts: The same by number of objects in the image.
        calibration: Precision of the detections by their score.
        suspects: Labels that may be wrong, most suspicious first.
        fates: Number of objects found, and lost at each stage of the detector.
        perfect: Mean AP with one stage replaced by an oracle, keyed by stage.
        comparison: Comparison with other files of detections.
        warnings: Warnings about the files, one line each.
    """

    evaluation: Evaluation
    interval: Interval | None = None
    causes: tuple[ClassCauses, ...] = ()
    diagnosis: Diagnosis | None = None
    thresholds: Thresholds | None = None
    confusion: Confusion | None = None
    sizes: tuple[SizeRow, ...] | None = None
    slices: tuple[SliceRow, ...] | None = None
    object_counts: tuple[SliceRow, ...] | None = None
    calibration: Calibration | None = None
    suspects: tuple[Suspect, ...] | None = None
    fates: dict[str, int] | None = None
    perfect: dict[str, float] | None = None
    comparison: ManyComparison | None = None
    warnings: tuple[str, ...] = ()
