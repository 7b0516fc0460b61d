"""Which thresholds of rejection and cascade are the cheapest that cost next to nothing, from stored scores.

In: the scores of val images by every model and the rejection layer.  Out: each alternative with its regions, seconds
and mean AP, and the one to take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.data.ground_truth import Record
from detector.detections import Detections
from detector.evaluation.bootstrap import compare
from detector.evaluation.matching import Matches, match
from detector.evaluation.protocols import RULES, Protocol, ScoringConfig, evaluate_table
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import Truth
from detector.experiments.detection_run import relabelled
from detector.progress import progress
from detector.scores import RegionScores
from detector.scoring import cascaded, passes
from detector.settings import LOWEST, CascadeConfig, SuppressionConfig
from detector.suppression import suppress
from detector.table import columns
from proposals.boxes import Boxes
from proposals.files import write_whole

REJECTIONS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12)
CASCADES = tuple(
    CascadeConfig(threshold, best, near)
    for threshold in (0.1, 0.2, 0.3, 0.5)
    for best in (0, 30)
    for near in (1.0, 0.85, 0.8, 0.75, 0.7)
)
WIDEST = CascadeConfig(0.1, 30)


@dataclass(frozen=True)
class Choice:
    """One alternative of the table.

    Attributes:
        rejection: Threshold of rejection; 0 rejects none.
        cascade: Condition of the cascade; None with one model.
        cut: Regions cut from maps, mean over the images.
        warped: Regions that the other models score, mean over the images.
        seconds: Median seconds per image: proposing, the trunk, and the regions cut and warped at their mean price.
        mean_ap: Mean AP over the classes.
    """

    rejection: float
    cascade: CascadeConfig | None
    cut: float
    warped: float
    seconds: float
    mean_ap: float


@dataclass(frozen=True, eq=False)
class Scored:
    """The stored scores of an image of N regions.

    Attributes:
        record: The image.
        boxes: [N, 4] px.
        size: Height and width, px.
        first: The first model's scores.
        layer: [N] float32, the rejection layer's probability of an object; 1 without a layer.
        rows: Positions of the R regions that pass in any of the alternatives, ascending.
        others: The other models' mean scores of those, R.
        seconds: Seconds of proposing and of the trunk; of the first model's N regions; of the others' R regions.
    """

    record: Record
    boxes: Boxes
    size: tuple[int, int]
    first: RegionScores
    layer: NDArray[np.float32]
    rows: NDArray[np.int64]
    others: RegionScores
    seconds: NDArray[np.float64]

    def cascade(self, threshold: float, config: CascadeConfig | None, count: int) -> tuple[RegionScores, int, int]:
        """Combine the scores as the detector would; also return the numbers of regions cut and warped."""
        first, cut = kept_scores(self.first, self.layer, threshold), int((self.layer >= threshold).sum())
        if config is None:
            return first, cut, 0
        passing = passes(first, self.boxes, config)
        others = self.others[np.searchsorted(self.rows, passing.scored)]
        return cascaded(first, passing, others, count), cut, len(passing.scored)


def kept_scores(scores: RegionScores, layer: NDArray[np.float32], threshold: float) -> RegionScores:
    """Return the first model's scores as early rejection leaves them: below the threshold a region is background."""
    kept = layer >= threshold
    background = RegionScores.background(len(kept), scores.classes, offsets=scores.offsets is not None)
    return background.updated(kept, scores[kept])


def reach(scores: RegionScores, layer: NDArray[np.float32], boxes: Boxes) -> NDArray[np.int64]:
    """Return the positions of all regions that pass in any of the alternatives, ascending."""
    thresholds = (0.0, *REJECTIONS)
    each = [passes(kept_scores(scores, layer, threshold), boxes, WIDEST).scored for threshold in thresholds]
    return np.unique(np.concatenate(each))


def choose(
    scored: Sequence[Scored],
    truth: Truth,
    labels: NDArray[np.int64],
    count: int,
    *,
    suppression: SuppressionConfig,
    protocol: Protocol,
    rejection_loss: float,
    cascade_loss: float,
) -> tuple[list[Choice], Choice]:
    """Compute every alternative's mean AP; return them and the one to take.

    Args:
        scored: The images.
        truth: Their ground truth.
        labels: [K] label in the ground truth of each of the detector's classes, -1 for none.
        count: Number of models after the first.
        suppression: Settings of the suppression; its lowest score does not matter.
        protocol: Rules of scoring.
        rejection_loss: See CascadeFitConfig.
        cascade_loss: See CascadeFitConfig.
    """
    suppression = replace(suppression, min_score=LOWEST)
    fixed, each_cut, each_warped = _prices(scored)

    def table(threshold: float, cascade: CascadeConfig | None) -> tuple[DetectionTable, float, float]:
        found: dict[str, Detections] = {}
        cut, warped = [], []
        for one in scored:
            scores, regions_cut, regions_warped = one.cascade(threshold, cascade, count)
            boxes = scores.boxes(one.boxes, one.size[1], one.size[0])
            found[one.record.image_id] = relabelled(suppress(boxes, scores.probabilities, suppression), labels)
            cut.append(regions_cut)
            warped.append(regions_warped)
        return DetectionTable.from_images(truth, found), float(np.mean(cut)), float(np.mean(warped))

    def choice(threshold: float, cascade: CascadeConfig | None) -> Choice:
        found, cut, warped = table(threshold, cascade)
        mean_ap = evaluate_table(truth, found, ScoringConfig(protocol=protocol)).mean_ap
        return Choice(threshold, cascade, cut, warped, fixed + cut * each_cut + warped * each_warped, mean_ap)

    def matched(threshold: float) -> tuple[Matches, DetectionTable]:
        found = table(threshold, None)[0]
        return match(truth, found, rule, 0.5), found

    rule, points = RULES[protocol]
    choices, chosen = [choice(0.0, None)], 0.0
    everything = matched(0.0)
    rejecting = any((one.layer < 1).any() for one in scored)
    for threshold in progress(REJECTIONS if rejecting else (), "rejection", "threshold"):
        choices.append(choice(threshold, None))
        if compare(truth, [everything, matched(threshold)], points=points).difference.low >= -rejection_loss:
            chosen = threshold
    alone = next(one for one in choices if one.rejection == chosen)
    if not count:
        return choices, alone
    more = [choice(chosen, cascade) for cascade in progress((WIDEST, *CASCADES), "cascade", "threshold")]
    within = [one for one in more if one.mean_ap >= more[0].mean_ap - cascade_loss]
    return choices + more, min(within, key=lambda one: one.warped)


def _prices(scored: Sequence[Scored]) -> tuple[float, float, float]:
    """Return the median seconds of an image without its regions, and the mean seconds of a region cut and warped."""
    seconds = np.array([one.seconds for one in scored])  # [I, 3]
    cut, warped = sum(len(one.boxes) for one in scored), sum(len(one.rows) for one in scored)
    return float(np.median(seconds[:, 0])), seconds[:, 1].sum() / max(cut, 1), seconds[:, 2].sum() / max(warped, 1)


def format_choices(choices: Sequence[Choice], chosen: Choice) -> str:
    """Format the alternatives that no cheaper one beats, and the chosen one, a line each."""
    rows: list[tuple[str, ...]] = [
        ("rejection", "cascade", "best", "near", "regions cut", "warped", "s / image", "mean AP", "")
    ]
    for one in choices:
        cheaper = [o for o in choices if o.cut <= one.cut and o.warped <= one.warped and o.mean_ap > one.mean_ap]
        if cheaper and one is not chosen:
            continue
        cascade = one.cascade
        parts = (f"{cascade.threshold:g}", f"{cascade.best}", f"{cascade.near:g}") if cascade else ("-",) * 3
        mark = "chosen" if one is chosen else ""
        row = (f"{one.rejection:g}", *parts, f"{one.cut:.0f}", f"{one.warped:.0f}")
        rows.append((*row, f"{one.seconds:.2f}", f"{one.mean_ap:.4f}", mark))
    return "\n".join(columns(rows))


def draw_choices(choices: Sequence[Choice], chosen: Choice, path: Path) -> None:
    """Plot mean AP over the seconds per image."""
    from matplotlib.figure import Figure  # slow to import; without pyplot no display is looked for

    figure = Figure(figsize=(6, 4), layout="tight")
    axis = figure.subplots()
    alone, cascades = ([one for one in choices if (one.cascade is None) == kind] for kind in (True, False))
    for group, label in ((alone, "first model alone, rejection"), (cascades, "cascade")):
        if group:
            axis.plot([one.seconds for one in group], [one.mean_ap for one in group], ".", label=label)
    axis.plot(chosen.seconds, chosen.mean_ap, "o", fillstyle="none", markersize=10, color="black", label="chosen")
    axis.set_xlabel("seconds per image")
    axis.set_ylabel("mean AP")
    axis.grid(alpha=0.3)
    axis.legend()
    with write_whole(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png")
