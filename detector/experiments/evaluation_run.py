"""An evaluation: the settings, the numbers of a file of detections, and what its run recorded. Starts without torch.

runs/<name>/ contains detections.jsonl (one line per finished image; an interrupted run resumes there), the same with
each stage replaced by an oracle, fates.jsonl, detections.json (COCO results; for ILSVRC the submission,
detections.txt), report.json, operating_points.json and config.yaml. detection_run.py writes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from detector.data.dataset import Sources
from detector.evaluation.bootstrap import bootstrap, compare
from detector.evaluation.diagnosis import diagnose
from detector.evaluation.matching import match
from detector.evaluation.protocols import RULES, Protocol, ScoringConfig, evaluate_table
from detector.evaluation.reading import read_results
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import Truth
from detector.evaluation.writing import write_results
from detector.experiments.oracles import ORACLES
from detector.experiments.stages import count_fates, read_fates
from detector.report.text import Report
from detector.settings import DetectorConfig

LOW_SCORE = 0.05  # a higher threshold ends the precision-recall curve where recall still rises


@dataclass(frozen=True)
class EvaluationConfig(ScoringConfig):
    """An evaluation of a detector on a data set, or of a file of detections.

    Attributes:
        data: Images and ground truth: a data set, or a list of them. None where the command names files of ground truth
            instead.
        name: Name of the run, which is recorded in runs/<name>.
        detector: The detector to evaluate.
        cache: Folder in which proposals are kept between runs.
    """

    data: Sources | None = None
    name: str = "evaluation"
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    cache: str = ".cache/proposals"

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


def analyse(
    config: EvaluationConfig,
    truth: Truth,
    table: DetectionTable,
    *,
    diagnosis: bool = False,
    stages: bool = False,
    other: DetectionTable | None = None,
    other_name: str = "",
    warnings: tuple[str, ...] = (),
) -> Report:
    """Score detections, with a confidence interval, the errors by type, the detector's stages and a comparison.

    Args:
        config: Protocol, resamples and score.
        truth: The ground truth.
        table: The detections.
        diagnosis: Whether to classify the errors.
        stages: Whether to read which stage lost each object, and the detections with oracles, from the config's run.
        other: Detections to compare with.
        other_name: Name of the detections to compare with, for the report.
        warnings: Warnings of the files, for the report.
    """
    evaluation = evaluate_table(truth, table, config)
    rule, points = RULES[config.protocol]
    matches = match(truth, table, rule, config.min_iou)
    interval = comparison = None
    if config.resamples:
        interval = bootstrap(truth, matches, table, points=points, resamples=config.resamples)
        if other is not None:
            tables = [(matches, table), (match(truth, other, rule, config.min_iou), other)]
            comparison = compare(truth, tables, points=points, resamples=config.resamples)
    fates, perfect = _recorded_stages(config, truth) if stages else (None, None)
    if stages and fates is None:
        warnings += (
            f"stages are left out: {config.folder} does not contain all images at score {config.score:g} and IoU "
            f"{config.min_iou:g}; stages are recorded while the detector runs",
        )
    return Report(
        evaluation,
        interval=interval,
        diagnosis=diagnose(truth, table, matches, points=points, score=config.score) if diagnosis else None,
        fates=fates,
        perfect=perfect,
        comparison=comparison,
        other=other_name if comparison else "",
        warnings=warnings,
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
