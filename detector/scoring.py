"""Boxes -> RegionScores: the mean of an ensemble, on request only of regions that its first member passes.

In: images [H, W, 3] uint8 RGB, boxes [N, 4] px in each.  Out: RegionScores of each image's N boxes.
The paper's entry averages the softmax of six GoogLeNets over every region (§8). Most regions are background. In the
cascade, which is ours, the first member rejects those, and the other members score only the remaining regions.
The cascade is a heuristic. One member's score bounds the mean of six only to within 5/6, so no region can be dropped
with certainty.

N boxes, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from detector.checkpoint import CheckpointError, RegionClassifier
from detector.invocation import command
from detector.members import Member, build_members
from detector.network.fastest import scoring_precision
from detector.rejection import RejectionModel
from detector.scores import RegionScores
from detector.settings import CascadeConfig, DetectorConfig
from detector.suppression import class_nms
from detector.views import View
from proposals.boxes import Boxes, check_boxes


class RegionScorer:
    """The region classifiers of an ensemble, ready to score.

    Args:
        classifiers: At least one, all with the same classes.
        config: Batch size, backend, precision, box regression, mirrored regions and cascade.
        device: Where the networks run.
        rejection: Rejection layer of the first classifier; None lets it score all regions.

    Attributes:
        first: Members that score every region.
        others: Members that score the regions that the cascade passes; none without a cascade.
        precision: Number format of the networks: float32, bfloat16 or int8.

    Raises:
        CheckpointError: The config asks for box regression, and a classifier has none.
        DeviceError: The device lacks the backend or the precision.
        ImportError: The config asks for onnxruntime, which is not installed.
    """

    def __init__(
        self,
        classifiers: Sequence[RegionClassifier],
        config: DetectorConfig,
        device: torch.device,
        rejection: RejectionModel | None = None,
    ) -> None:
        self.classes, self.config = len(classifiers[0].classes), config
        without = [number for number, one in enumerate(classifiers, 1) if not one.network.config.regression_cells]
        if config.regression and without:
            raise CheckpointError(
                f"regression=true, and model {without[0]} of {len(classifiers)} has no regression layer; fit one: "
                f"{command('train_classifier')} --config regression_voc init=MODEL; "
                "or take regression=false"
            )
        first = 1 if config.cascade.applies else len(classifiers)
        calibrated = all(one.ranges for one in classifiers)
        self.precision = (
            "float32"
            if config.backend == "onnxruntime"
            else scoring_precision(config.precision, device, calibrated=calibrated)
        )
        config = replace(config, precision=self.precision)
        self.first = build_members(classifiers[:first], config, device, rejection)
        self.others = build_members(classifiers[first:], config, device)

    def __call__(self, views: Sequence[View]) -> list[RegionScores]:
        """Score the boxes of images, in batches that cross images; time and work are added to the views.

        Raises:
            ValueError: A box is not finite, has no area or lies outside its image.
        """
        for view in views:
            check_boxes(view.boxes, view.image.shape[1], view.image.shape[0])
        first = self._mean(self.first, views)
        if not self.others:
            return first
        passing = [passes(scores, view.boxes, self.config.cascade) for scores, view in zip(first, views, strict=True)]
        others = self._mean(self.others, [view[one.scored] for view, one in zip(views, passing, strict=True)])
        count = sum(member.networks for member in self.others)
        return [cascaded(*each, count) for each in zip(first, passing, others, strict=True)]

    def _mean(self, members: Sequence[Member], views: Sequence[View]) -> list[RegionScores]:
        """Mean over the members, and with `mirror` over each region and its mirror image."""
        shown = [view for view in views if len(view)]
        if not shown:
            return [RegionScores.empty(self.classes, offsets=self.config.regression)] * len(views)
        scores = [member.score(shown) for member in members]
        if self.config.mirror:
            mirrored = [view.mirrored() for view in shown]
            scores += [member.score(mirrored).mirrored() for member in members]
        mean = RegionScores.mean(scores, [member.networks for member in members] * (1 + self.config.mirror))
        ends = accumulate(map(len, views))
        return [mean[end - len(view) : end] for view, end in zip(views, ends, strict=True)]


class Passing(NamedTuple):
    """The regions of an image that the cascade does not leave to the first member.

    Attributes:
        scored: Positions of the regions that the other members score too, ascending.
        copies: Positions of their near-copies, which become background.
    """

    scored: NDArray[np.int64]
    copies: NDArray[np.int64]


def cascaded(first: RegionScores, passing: Passing, others: RegionScores, count: int) -> RegionScores:
    """Average an ensemble over an image's regions; regions that the first member rejects keep its scores.

    Args:
        first: The first member's scores of N regions.
        passing: The regions that pass, see `passes`.
        others: The other members' mean scores of those that are scored.
        count: Number of other members, at least 1.
    """
    if len(passing.scored) == 0:
        return first
    result = first.updated(passing.scored, RegionScores.mean([first[passing.scored], others], [1, count]))
    if len(passing.copies) == 0:
        return result
    nothing = RegionScores.background(len(passing.copies), first.classes, offsets=first.offsets is not None)
    return result.updated(passing.copies, nothing)


def passes(scores: RegionScores, boxes: Boxes, config: CascadeConfig) -> Passing:
    """Choose the regions that the other members score too.

    A near-copy may not keep the first member's scores: alone they are often higher than the mean, so that the copy
    would win over the region that all members have scored.

    Args:
        scores: The first member's scores.
        boxes: [N, 4] px, the regions.
        config: Probability of any object above which a region passes, the number that passes in any case, and the
            overlap that makes near-copies.
    """
    none = np.zeros(0, np.int64)
    if not config.applies:
        return Passing(np.arange(len(scores)), none)
    objects = 1 - scores.probabilities[:, 0]
    above = objects > config.threshold
    above[np.argsort(-objects, kind="stable")[: config.best]] = True
    above &= objects > 0  # what early rejection dropped is scored by none
    passing = np.flatnonzero(above)
    if config.near == 1 or len(passing) == 0:
        return Passing(passing, none)
    kept, _ = class_nms(boxes[passing, None], objects[passing, None], -1.0, config.near)
    scored = passing[np.sort(kept)]
    return Passing(scored, np.setdiff1d(passing, scored))
