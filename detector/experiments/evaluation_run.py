"""An evaluation: the settings, the numbers of a file of detections, and what its run recorded. Starts without torch.

runs/<name>/ contains detections.jsonl (one line per finished image; an interrupted run resumes there), the same with
each stage replaced by an oracle, fates.jsonl, detections.json (COCO results; for ILSVRC the submission,
detections.txt), report.json, operating_points.json and config.yaml. detection_run.py writes them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TypedDict

from detector.analysis.calibration import calibration
from detector.analysis.causes import ClassCauses, class_causes
from detector.analysis.comparing import compare_many
from detector.analysis.confusion import confusion
from detector.analysis.label_errors import label_errors
from detector.analysis.sizes import by_size
from detector.analysis.slices import by_count, by_slice
from detector.analysis.thresholds import thresholds
from detector.data.dataset import Sources
from detector.evaluation.average import Floats
from detector.evaluation.bootstrap import bootstrap
from detector.evaluation.diagnosis import diagnose
from detector.evaluation.matching import Matches, match
from detector.evaluation.outcome import Evaluation
from detector.evaluation.protocols import RULES, Protocol, ScoringConfig, evaluate_table
from detector.evaluation.reading import read_results
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import Truth
from detector.evaluation.writing import write_results
from detector.experiments.oracles import ORACLES
from detector.experiments.stages import count_fates, read_fates
from detector.report.contents import Report
from detector.settings import DetectorConfig

LOW_SCORE = 0.05  # a higher threshold ends the precision-recall curve where recall still rises


@dataclass(frozen=True)
class EvaluationConfig(ScoringConfig):
    """An evaluation of a detector on a data set, or of a file of detections.

    Attributes:
        data: Images and ground truth: a data set, or a list of them. None where the command names files of ground truth
            instead.
        name: Name of the run, which is recorded in runs/<name>.
        sizes: Limits of the size ranges of the analysis by size, px of the square root of the area, rising: [0, 32, 96]
            for 0 to 32, 32 to 96 and 96 or more. Empty for COCO's small, medium and large.
        detector: The detector to evaluate.
        cache: Folder in which proposals are kept between runs.
    """

    data: Sources | None = None
    name: str = "evaluation"
    sizes: list[float] = field(default_factory=list)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    cache: str = ".cache/proposals"

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(low >= high for low, high in pairwise(self.sizes)) or min(self.sizes, default=0) < 0:
            raise ValueError(f"sizes must be rising numbers from 0, not {self.sizes}")

    @property
    def ranges(self) -> tuple[tuple[float, float], ...] | None:
        """The size ranges, px, the last one open; None for COCO's."""
        return tuple(pairwise([*self.sizes, math.inf])) if self.sizes else None

    @property
    def folder(self) -> Path:
        """Folder in which the run is recorded."""
        return Path("runs") / self.name

    @property
    def journal(self) -> Path:
        """File of the run's detections."""
        return self.folder / "detections.jsonl"

    @property
    def fates(self) -> Path:
        """File of the stages that lost the run's objects."""
        return self.folder / "fates.jsonl"

    def oracle(self, stage: str) -> Path:
        """File of the run's detections with a stage replaced by an oracle."""
        return self.folder / f"perfect_{stage}.jsonl"


def detector_warnings(config: EvaluationConfig) -> tuple[str, ...]:
    """Warn of a score threshold that lowers average precision, such as one for displayed detections."""
    min_score = config.detector.suppression.lowest
    if min_score <= LOW_SCORE:
        return ()
    return (
        f"detector.suppression.min_score={min_score:g} drops detections that average precision counts; "
        "evaluate with detector.suppression.min_score=0.001",
    )


class _Rule(TypedDict):
    rule: str
    points: Floats
    min_iou: float


def analyse(
    config: EvaluationConfig,
    truth: Truth,
    table: DetectionTable,
    *,
    details: bool = False,
    stages: bool = False,
    others: Mapping[str, DetectionTable] | None = None,
    columns: Mapping[str, list[str]] | None = None,
    warnings: tuple[str, ...] = (),
) -> Report:
    """Score detections, with a confidence interval, the causes of the worst class, and the analyses asked for.

    Args:
        config: Protocol, resamples, score, and the settings of the analyses.
        truth: The ground truth.
        table: The detections.
        details: Whether to add errors by type, thresholds, confusions, sizes, calibration and doubtful labels.
        stages: Whether to read which stage lost each object, and the detections with oracles, from the config's run.
        others: All detections to compare, these among them, by name; None without a comparison.
        columns: Values of slices by image, keyed by the slices' name; None for no slices.
        warnings: Warnings of the files, for the report.

    Raises:
        ResultsError: a group names a class that the truth does not have, or there is no ground truth at all.
        ValueError: a table was made for another split.
    """
    evaluation = evaluate_table(truth, table, config)
    rule, points = RULES[config.protocol]
    matches = match(truth, table, rule, config.min_iou)
    of_rule = _Rule(rule=rule, points=points, min_iou=config.min_iou)
    resamples = config.resamples
    interval = comparison = None
    if resamples:
        interval = bootstrap(truth, matches, table, points=points, resamples=resamples)
        if others:
            comparison = compare_many(truth, others, **of_rule, resamples=resamples, score=config.score)
    fates, perfect = _recorded_stages(config, truth) if stages else (None, None)
    if stages and fates is None:
        warnings += (
            f"stages are left out: {config.folder} does not contain all images at score {config.score:g} and IoU "
            f"{config.min_iou:g}; stages are recorded while the detector runs",
        )
    found = None
    if details or config.threshold_goal:
        wanted, least = config.threshold_precision, config.threshold_recall
        found = thresholds(truth, table, matches, precision=wanted, recall=least, resamples=resamples if details else 0)
    report = Report(
        evaluation,
        interval=interval,
        causes=_causes(config, evaluation, truth, table, matches, everything=details),
        thresholds=found,
        slices=by_slice(truth, table, columns, **of_rule, resamples=resamples) if columns else None,
        fates=fates,
        perfect=perfect,
        comparison=comparison,
        warnings=warnings,
    )
    if not details:
        return report
    return replace(
        report,
        diagnosis=diagnose(truth, table, matches, points=points, score=config.score),
        confusion=confusion(truth, table, rule=rule, score=config.score, min_iou=config.min_iou),
        sizes=by_size(truth, table, **of_rule, ranges=config.ranges, resamples=resamples),
        object_counts=by_count(truth, table, **of_rule, resamples=resamples),
        calibration=calibration(table, matches),
        suspects=label_errors(truth, table, score=config.score),
    )


def _causes(
    config: EvaluationConfig,
    evaluation: Evaluation,
    truth: Truth,
    table: DetectionTable,
    matches: Matches,
    *,
    everything: bool,
) -> tuple[ClassCauses, ...]:
    """Count the causes of the worst class, or of all classes with objects, worst first, each at its best threshold."""
    ranked = sorted((ap, label) for label, ap in enumerate(evaluation.ap.values()) if ap is not None)
    points = list(evaluation.operating_points.values())
    pooled = evaluation.pooled_point
    usual = pooled.score if pooled else config.score
    return tuple(
        class_causes(truth, table, matches, label, point.score if (point := points[label]) else usual)
        for _, label in ranked[: None if everything else 1]
    )


def _recorded_stages(
    config: EvaluationConfig, truth: Truth
) -> tuple[dict[str, int], dict[str, float]] | tuple[None, None]:
    """Count the fates of a run's objects and score its oracles; None where the run does not cover all images."""
    recorded = read_fates(config.fates, config.score, config.min_iou)
    if recorded.keys() != truth.index_of.keys():
        return None, None
    counted = (
        fate
        for image_id, found in recorded.items()
        for fate in found
        if (truth.index_of[image_id], fate.label) not in truth.blacklist
    )
    tables = {stage: read_results(config.oracle(stage), truth).table for stage in ORACLES}
    perfect = {stage: evaluate_table(truth, table, config).mean_ap for stage, table in tables.items()}
    return count_fates(counted), perfect


def save_detections(config: EvaluationConfig, truth: Truth, table: DetectionTable) -> Path:
    """Write the run's detections for other programs: ILSVRC's submission, else COCO results; returns the file."""
    path = config.folder / ("detections.txt" if config.protocol is Protocol.ilsvrc else "detections.json")
    write_results(path, truth, table)
    return path
