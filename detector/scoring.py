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

import numpy as np
import torch
from numpy.typing import NDArray

from detector.checkpoint import CheckpointError, RegionClassifier
from detector.invocation import command
from detector.members import Member, build_members
from detector.network.fastest import scoring_precision
from detector.scores import RegionScores
from detector.settings import CascadeConfig, DetectorConfig
from detector.views import View
from proposals.boxes import check_boxes


class RegionScorer:
    """The region classifiers of an ensemble, ready to score.

    Args:
        classifiers: At least one, all with the same classes.
        config: Batch size, backend, precision, box regression, mirrored regions and cascade.
        device: Where the networks run.

    Attributes:
        precision: Number format of the networks: float32, bfloat16 or int8.

    Raises:
        CheckpointError: The config asks for box regression, and a classifier has none.
        DeviceError: The device lacks the backend or the precision.
        ImportError: The config asks for onnxruntime, which is not installed.
    """

    def __init__(self, classifiers: Sequence[RegionClassifier], config: DetectorConfig, device: torch.device) -> None:
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
        self._first = build_members(classifiers[:first], config, device)
        self._others = build_members(classifiers[first:], config, device)

    def __call__(self, views: Sequence[View]) -> list[RegionScores]:
        """Score the boxes of images, in batches that cross images; time and work are added to the views.

        Raises:
            ValueError: A box is not finite, has no area or lies outside its image.
        """
        for view in views:
            check_boxes(view.boxes, view.image.shape[1], view.image.shape[0])
        first = self._mean(self._first, views)
        if not self._others:
            return first
        passing = [passes(scores, self.config.cascade) for scores in first]
        others = self._mean(self._others, [view[rows] for view, rows in zip(views, passing, strict=True)])
        count = sum(member.networks for member in self._others)
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


def cascaded(first: RegionScores, passing: NDArray[np.int64], others: RegionScores, count: int) -> RegionScores:
    """Average an ensemble over an image's regions; regions that the first member rejects keep its scores.

    Args:
        first: The first member's scores of N regions.
        passing: Positions of the regions that pass, see `passes`.
        others: The other members' mean scores of those.
        count: Number of other members, at least 1.
    """
    if len(passing) == 0:
        return first
    return first.updated(passing, RegionScores.mean([first[passing], others], [1, count]))


def passes(scores: RegionScores, config: CascadeConfig) -> NDArray[np.int64]:
    """Return the positions of the regions that the other members score too.

    Args:
        scores: The first member's scores.
        config: Probability of any object above which a region passes, and the number that passes in any case.
    """
    if not config.applies:
        return np.arange(len(scores))
    objects = 1 - scores.probabilities[:, 0]
    passing = objects > config.threshold
    passing[np.argsort(-objects, kind="stable")[: config.best]] = True
    return np.flatnonzero(passing)
