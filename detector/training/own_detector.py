"""The detector of a finished region training: its settings, what it is worth on val, and from which score it shows.

In: best.safetensors of a run, images of val and their stored proposals.  Out: detector.yaml and evaluation.yaml for
--config of detect and eval_map, and best.points.json, which holds for that very detector (detector.operating_points).

The detector is the preset `default` with the run's classifier alone, and with the proposals and the box regression of
the training. A score means what all of this makes of it together, so the points hold with detector.yaml.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from detector.checkpoint import load_checkpoint
from detector.config import load_config, save_config
from detector.evaluation.matching import match
from detector.evaluation.operating_points import SHOWN, OperatingPoints, points_at, shown_scores
from detector.evaluation.protocols import RULES, ScoringConfig, evaluate_table
from detector.evaluation.results import class_keys
from detector.evaluation.shown import number
from detector.evaluation.truth import Truth
from detector.experiments.evaluation_run import EvaluationConfig
from detector.operating_points import identity_of, write_points
from detector.pipeline import Detector
from detector.report.pictures import missed_and_false
from detector.report.training_page import Outcome
from detector.settings import LOWEST, CascadeConfig, DetectorConfig
from detector.table import columns
from detector.training.detection_ap import DetectionAP
from detector.training.regions import FineTuneConfig

BEST, POINTS = "best.safetensors", "best.points.json"
LISTED = 20
"""Most classes in the table for the terminal; of more classes it shows the worst."""
NAME = 20  # letters of a class's name in the table


def own_detector(config: FineTuneConfig, folder: Path) -> DetectorConfig:
    """Return the settings of the detector of a run's best classifier."""
    return replace(
        load_config(DetectorConfig, "default"),
        models=[str(folder / BEST)],
        proposals=config.proposals,
        regression=bool(config.regression_windows),
        cascade=CascadeConfig(),
    )


def save_settings(config: FineTuneConfig, folder: Path, measure: DetectionAP) -> None:
    """Write detector.yaml, and evaluation.yaml for an evaluation of that detector on val."""
    detector = own_detector(config, folder)
    save_config(detector, folder / "detector.yaml")
    evaluation = EvaluationConfig(
        protocol=measure.protocol, data=config.val, name=f"{config.name}_val", detector=detector, cache=config.cache
    )
    save_config(evaluation, folder / "evaluation.yaml")


def measure_outcome(config: FineTuneConfig, folder: Path, measure: DetectionAP) -> Outcome | None:
    """Detect on val with the finished detector and write its operating points; all processes must call this together.

    Args:
        config: Settings of the training.
        folder: Folder of the run, with best.safetensors.
        measure: The images of val, which have objects.

    Returns:
        What the detector does, in the process that writes. Where nothing is found at any score there are no points, and
        the detector shows from 0.5.

    Raises:
        ImageError, DataError: an image can no longer be read.
    """
    settings = own_detector(config, folder)
    plain = replace(settings, suppression=replace(settings.suppression, min_score=LOWEST), operating_points="")
    detector = Detector([load_checkpoint(folder / BEST)], plain, measure.ranks.device)
    truth = Truth.of(measure.dataset)
    table = measure.detect(detector, truth)
    if not measure.ranks.leads:
        return None
    scoring = ScoringConfig(protocol=measure.protocol)
    evaluation = evaluate_table(truth, table, scoring)
    rule = RULES[scoring.protocol][0]
    matches = match(truth, table, rule, scoring.min_iou)
    points = OperatingPoints(tuple(evaluation.operating_points.values()), evaluation.pooled_point)
    objects = matches.positives.tolist()
    about = {
        "data": f"{truth.name}, {len(truth)} images",
        "protocol": scoring.protocol.value,
        "min_iou": scoring.min_iou,
        "mean_ap": evaluation.mean_ap,
        "ap": dict(zip(class_keys(truth.classes), evaluation.ap.values(), strict=True)),
    }
    identity = identity_of(detector.config, detector.members, detector.rejection)
    write_points(folder / POINTS, identity, detector.classes, points, objects, about)
    scores = shown_scores(points, objects) or [SHOWN] * len(truth.classes)
    shown = table[table.scores >= np.array(scores)[table.labels]]
    missed, false = missed_and_false(truth, shown, match(truth, shown, rule, scoring.min_iou))
    return Outcome(evaluation, tuple(scores), points_at(matches, table, scores), missed, false)


def describe_outcome(outcome: Outcome) -> list[str]:
    """Format a table of AP and of what is shown, one line for each class with objects, the mean below."""
    evaluation = outcome.evaluation
    names = [evaluation.names[key] for key in evaluation.ap]
    known = [(label, ap) for label, ap in enumerate(evaluation.ap.values()) if ap is not None]
    if len(known) > LISTED:
        known = sorted(known, key=lambda pair: pair[1])[:LISTED]
    rows: list[Sequence[str]] = [("class", "AP", "from score", "precision", "recall")]
    for label, ap in known:
        point, name = outcome.points[label], names[label]
        name = name if len(name) <= NAME else name[: NAME - 1] + "…"
        worth = (f"{point.precision:.3f}", f"{point.recall:.3f}") if point else ("-", "-")
        rows.append((name, number(ap), f"{outcome.scores[label]:.3f}", *worth))
    rows.append(("mean", number(evaluation.mean_ap), "", "", ""))
    return [line.rstrip() for line in columns(rows)]
