"""Detections + ground truth -> average precision, by the rules of ILSVRC, PASCAL VOC or COCO. Starts without torch."""

from detector.evaluation.coco import evaluate_coco
from detector.evaluation.journal import Journal
from detector.evaluation.report import format_report, write_report
from detector.evaluation.results import DetectionTable, Evaluation, ResultsError, read_results, write_results
from detector.evaluation.voc import average_precision, evaluate_voc

__all__ = [
    "DetectionTable",
    "Evaluation",
    "Journal",
    "ResultsError",
    "average_precision",
    "evaluate_coco",
    "evaluate_voc",
    "format_report",
    "read_results",
    "write_report",
    "write_results",
]
