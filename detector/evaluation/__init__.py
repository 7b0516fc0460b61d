"""Detections + ground truth -> average precision, by the rules of ILSVRC, PASCAL VOC or COCO. Starts without torch."""

from detector.evaluation.all_protocols import AllProtocols, ProtocolRow, evaluate_all, format_protocols
from detector.evaluation.average import average_precision
from detector.evaluation.coco import evaluate_coco
from detector.evaluation.entry import evaluate
from detector.evaluation.evaluator import Evaluator
from detector.evaluation.operating_points import OperatingPoint, OperatingPoints, best_f1_points
from detector.evaluation.outcome import Evaluation, Scored
from detector.evaluation.protocols import Protocol, ScoringConfig, evaluate_ilsvrc, evaluate_table, evaluate_voc
from detector.evaluation.reading import read_results
from detector.evaluation.results import DetectionTable, MissingPackageError, ResultsError
from detector.evaluation.truth import Truth
from detector.evaluation.truth_files import read_coco_truth, read_ilsvrc_truth, read_voc_truth
from detector.evaluation.writing import write_coco, write_ilsvrc, write_voc

__all__ = [
    "AllProtocols",
    "DetectionTable",
    "Evaluation",
    "Evaluator",
    "MissingPackageError",
    "OperatingPoint",
    "OperatingPoints",
    "Protocol",
    "ProtocolRow",
    "ResultsError",
    "Scored",
    "ScoringConfig",
    "Truth",
    "average_precision",
    "best_f1_points",
    "evaluate",
    "evaluate_all",
    "evaluate_coco",
    "evaluate_ilsvrc",
    "evaluate_table",
    "evaluate_voc",
    "format_protocols",
    "read_coco_truth",
    "read_ilsvrc_truth",
    "read_results",
    "read_voc_truth",
    "write_coco",
    "write_ilsvrc",
    "write_voc",
]
