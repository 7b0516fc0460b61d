"""AP and recall by object size, under every protocol.

In: a Truth, a DetectionTable and a protocol's rule.  Out: a SizeRow for each range of sizes.
The size of an object is the square root of its area in px: of its mask's where COCO's file states one, else of its
box's. Ranges are COCO's small, medium and large, or one's own. PASCAL VOC and ILSVRC have no ranges of their own
(ILSVRC's lower IoU thresholds for small objects hold in every row), so all protocols treat a range as COCO does:
    objects outside the range are ignored, so that a detection that matches one is neither right nor wrong
    a false positive whose own area is outside the range is ignored, a duplicate on an object of the range too
    both limits belong to the range: an object of exactly 32² px² is small and medium
The objects of the ranges therefore add up to all, but for those on a limit, and a false positive counts in one row.
With protocol coco the numbers are pycocotools' AP and AR of these ranges at the same IoU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from detector.analysis.part_scores import Limits, part_score
from detector.evaluation.average import Floats
from detector.evaluation.matching import match
from detector.evaluation.results import DetectionTable
from detector.evaluation.truth import Truth

COCO_SIZES = {"small": (0.0, 32.0), "medium": (32.0, 96.0), "large": (96.0, 1e5)}
"""COCO's ranges, px; pycocotools ends the last one at 1e5."""


@dataclass(frozen=True)
class SizeRow:
    """AP and recall of the objects in a range of sizes.

    Attributes:
        name: "small", "medium" or "large"; for own ranges their limits, such as "32 to 96 px".
        low: Least size, px, the square root of the area.
        high: Greatest size, px; infinite for a range that is open.
        objects: Number of objects in the range that count.
        mean_ap: Mean AP over the classes with objects in the range, in [0, 1]; None without any.
        ap_interval: Its 95 % bootstrap interval over images; None without resamples, or where fewer than two images
            have objects in the range.
        recall: Mean over the same classes of the share of objects found, whatever the score, in [0, 1].
        recall_interval: Its 95 % interval.
        ap_by_class: AP of each of K classes; None for a class without objects in the range.
    """

    name: str
    low: float
    high: float
    objects: int
    mean_ap: float | None
    ap_interval: Limits
    recall: float | None
    recall_interval: Limits
    ap_by_class: tuple[float | None, ...]


def by_size(
    truth: Truth,
    table: DetectionTable,
    *,
    rule: str,
    points: Floats,
    min_iou: float,
    ranges: Sequence[tuple[float, float]] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[SizeRow, ...]:
    """Compute AP and recall of the objects in each range of sizes, by the module's rule.

    Args:
        truth: The objects.
        table: The detections.
        rule: Matching rule: ilsvrc, voc or coco.
        points: Recalls that average precision uses, as in detector.evaluation.average.
        min_iou: IoU from which an object is found, in (0, 1].
        ranges: Least and greatest size of each range, px; they may overlap. None for COCO's.
        resamples: Bootstrap resamples of the images; 0 for no intervals.
        seed: Seed of the random resamples, the same in every row.

    Raises:
        ValueError: a range ends before it begins or begins below 0, min_iou is out of range, or the table was made for
            another split.
    """
    named = COCO_SIZES if ranges is None else {_name(low, high): (low, high) for low, high in ranges}
    rows = []
    for name, (low, high) in named.items():
        if not 0 <= low < high:
            raise ValueError(f"a range of sizes must begin at 0 px or more and end above that, not {low:g} to {high:g}")
        matches = match(truth, table, rule, min_iou, areas=(low**2, high**2))
        score = part_score(truth, table, matches, points=points, resamples=resamples, seed=seed)
        rows.append(
            SizeRow(
                name,
                low,
                high,
                score.objects,
                score.mean_ap,
                score.ap_interval,
                score.recall,
                score.recall_interval,
                score.ap_by_class,
            )
        )
    return tuple(rows)


def _name(low: float, high: float) -> str:
    return f"{low:g} px or more" if math.isinf(high) else f"{low:g} to {high:g} px"
