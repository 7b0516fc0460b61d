"""Detections + ground truth -> average precision, by the rules of ILSVRC, PASCAL VOC or COCO. Starts without torch."""

from detector.evaluation.average import average_precision
from detector.evaluation.coco import evaluate_coco
from detector.evaluation.ilsvrc import evaluate_ilsvrc
from detector.evaluation.reading import read_results
from detector.evaluation.results import DetectionTable, Evaluation, ResultsError
from detector.evaluation.truth import Truth, read_coco_truth, read_ilsvrc_truth, read_voc_truth
from detector.evaluation.voc import evaluate_voc
from detector.evaluation.writing import write_coco, write_ilsvrc, write_voc
from detector.experiments.journal import Journal
from detector.report.text import format_report, write_report

__all__ = [
    "DetectionTable",
    "Evaluation",
    "Journal",
    "ResultsError",
    "Truth",
    "average_precision",
    "evaluate_coco",
    "evaluate_ilsvrc",
    "evaluate_voc",
    "format_report",
    "read_coco_truth",
    "read_ilsvrc_truth",
    "read_results",
    "read_voc_truth",
    "write_coco",
    "write_ilsvrc",
    "write_report",
    "write_voc",
]
